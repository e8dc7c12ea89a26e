"""Shares, intervals, calibration and confusion against values worked out by hand or published."""

from __future__ import annotations

import pytest

from capibara_agents.calibration import calibration_error, reliability
from capibara_agents.evaluation.metrics import Share, confusion, share


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
    ],
)
def test_intervals_are_wilsons(hits: int, n: int, low: float, high: float) -> None:
    """As published, to two digits."""
    interval = Share(hits, n).interval
    assert interval is not None
    assert interval == pytest.approx((low, high), abs=0.006)


def test_a_share_of_nothing_is_no_number() -> None:
    """Neither 0 nor 100 %."""
    assert share([]).percent is None
    assert share([]).interval is None
    assert share([True, False, True, True]).percent == 75


def test_bins_of_calibration_by_hand() -> None:
    """Two answers at 0.95 of which one is right, two at 0.55 both right, one at 0.3 (a bin's upper edge) wrong."""
    bins = reliability([0.95, 0.95, 0.55, 0.55, 0.3], [True, False, True, True, False])
    assert [(held.low, held.high, held.n) for held in bins] == [(0.2, 0.3, 1), (0.5, 0.6, 2), (0.9, 1.0, 2)]
    assert [held.accuracy for held in bins] == [0, 1, 0.5]
    # (1 * 0.3 + 2 * 0.45 + 2 * 0.45) / 5
    assert calibration_error(bins) == pytest.approx(0.42)


def test_the_ends_of_the_scale_have_a_bin() -> None:
    """A confidence of 0 and one of 1."""
    bins = reliability([0.0, 0.7, 1.0], [False, True, True])
    assert [(held.low, held.high) for held in bins] == [(0.0, 0.1), (0.6, 0.7), (0.9, 1.0)]
    assert calibration_error(bins) == pytest.approx(0.1)


def test_a_bin_is_judged_by_its_own_confidence_and_not_by_its_middle() -> None:
    """Ten answers at 0.91, nine of them right: off by 0.01, not by 0.05."""
    assert calibration_error(reliability([0.91] * 10, [True] * 9 + [False])) == pytest.approx(0.01)


def test_no_answers_have_no_calibration() -> None:
    """None, not 0."""
    assert calibration_error(reliability([], [])) is None


def test_confusion_counts_truth_first() -> None:
    """Truth in the outer key."""
    pairs = [("math", "math"), ("math", "sql"), ("math", "sql"), ("sql", "sql")]
    assert confusion(pairs) == {"math": {"math": 1, "sql": 2}, "sql": {"sql": 1}}
