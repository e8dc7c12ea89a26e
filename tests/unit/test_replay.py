"""Replaying recorded outcomes: the figures are what RouteLLM calls them, and learning is from other rows only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from capibara_agents.embedder import DIMENSIONS
from capibara_agents.errors import ConfigError
from capibara_agents.evaluation.replay import (
    figures,
    pgr_curve,
    prompt_of,
    ranked,
    replay,
    score_of,
    signatures_of,
    split,
)

STRONG, WEAK = "large", "small"


def embed_many(texts: Sequence[str]) -> np.ndarray:
    """The topic of a text decides its vector, with a little of the text itself."""
    rows = []
    for text in texts:
        topic = np.random.default_rng(len(text.split()[0])).normal(size=DIMENSIONS)
        own = np.random.default_rng(sum(map(ord, text))).normal(size=DIMENSIONS)
        rows.append(topic + 0.2 * own)
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(count: int = 120, *, easy_gap: float = 0.0, hard_gap: float = 0.8) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    found = []
    for number in range(count):
        hard = number % 2 == 0
        weak = rng.random() < (0.1 if hard else 0.9)
        strong = weak or rng.random() < (hard_gap if hard else easy_gap)
        prompt = f"{'integrals' if hard else 'sums'} number {number}"
        found.append({"id": str(number), "prompt": prompt, STRONG: bool(strong), WEAK: bool(weak)})
    return found


def run(data: Sequence[dict[str, Any]], **rest: Any) -> Any:
    return replay(data, strong=STRONG, weak=WEAK, embed_many=embed_many, **rest)


def test_the_area_and_the_thresholds_by_hand() -> None:
    gain = np.array([1.0, 0.0, 1.0, 0.0])
    best, worst = np.array([0.1, 0.6, 0.2, 0.7]), np.array([0.6, 0.1, 0.7, 0.2])
    assert pgr_curve(best, gain).tolist() == [0, 0.5, 1, 1, 1]
    assert figures(best, gain) == (pytest.approx(0.75), 0.25, 0.5)
    assert figures(worst, gain) == (pytest.approx(0.25), 0.75, 1.0)


def test_a_harmful_strong_call_costs() -> None:
    gain = np.array([-1.0, 1.0, 1.0])
    assert pgr_curve(np.array([0.9, 0.1, 0.2]), gain).tolist() == [0, 1, 2, 1]
    assert figures(np.array([0.9, 0.1, 0.2]), gain)[0] == pytest.approx(3.5 / 3)


def test_what_can_be_learned_is_learned() -> None:
    result = run(rows())
    assert result.apgr.value > 0.7
    assert result.apgr.low <= result.apgr.value <= result.apgr.high
    assert result.cpt50.value < 0.4
    assert result.curve[0].accuracy == pytest.approx(result.weak_accuracy)
    assert result.curve[-1].accuracy == pytest.approx(result.strong_accuracy)


def test_where_there_is_nothing_to_learn_it_is_chance() -> None:
    data = rows(400)
    rng = np.random.default_rng(9)
    for row in data:
        row[WEAK] = bool(rng.random() < 0.4)
        row[STRONG] = bool(rng.random() < 0.8)
    assert run(data).apgr.value == pytest.approx(0.5, abs=0.08)


def test_the_same_seed_gives_the_same_figures() -> None:
    assert run(rows(), seed=3) == run(rows(), seed=3)
    assert run(rows(), seed=3).apgr != run(rows(), seed=4).apgr


def test_labels_come_from_other_rows_and_no_more_than_asked_for() -> None:
    tested = []
    for train, test in split(53, folds=5, labels=20, seed=1):
        assert len(train) == 20
        assert not set(train) & set(test)
        tested.extend(test)
    assert sorted(tested) == list(range(53))
    assert run(rows(), labels=10).labels == 10


def test_an_outcome_of_a_tested_row_does_not_move_it() -> None:
    data = rows(60)
    signatures = signatures_of(data, embed_many)
    scores = np.array([[score_of(row, WEAK), score_of(row, STRONG)] for row in data])
    places = ranked(signatures, scores, folds=5, labels=None, seed=0)
    _, test = next(split(60, folds=5, labels=None, seed=0))
    scores[test] = 1 - scores[test]
    changed = ranked(signatures, scores, folds=5, labels=None, seed=0)
    assert changed[test].tolist() == places[test].tolist()
    assert changed.tolist() != places.tolist()


def test_the_other_format_is_read_too() -> None:
    data = rows()
    other = [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "answers": [{"model": name, "correct": row[name]} for name in (STRONG, WEAK)],
        }
        for row in data
    ]
    assert run(other) == run(data)


def test_rows_without_one_of_the_models_are_left_out() -> None:
    data = rows()
    del data[0][WEAK]
    assert run(data).n == len(data) - 1
    assert np.isnan(score_of(data[0], WEAK))


def test_options_that_are_kept_apart_are_part_of_the_question() -> None:
    assert prompt_of({"prompt": "Which?", "options": ["this", "that"]}) == "Which?\nA. this\nB. that"
    assert prompt_of({"prompt": "Which?"}) == "Which?"


@pytest.mark.parametrize(
    ("data", "folds"),
    [([], 5), (rows(8), 5), (rows(), 1), (rows(40, easy_gap=0.0, hard_gap=0.0), 5)],
    ids=["empty", "too few", "one fold", "no gap"],
)
def test_what_cannot_be_replayed_is_said(data: list[dict[str, Any]], folds: int) -> None:
    with pytest.raises(ConfigError):
        run(data, folds=folds)
