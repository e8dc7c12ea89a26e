"""How long a model may show nothing."""

from __future__ import annotations

import asyncio

import pytest

from capibara_agents.patience import BATCH_TOKENS, Patience, burning_s, reading_s


@pytest.mark.parametrize("limit_s", [1.0, 8.0, 60.0, 240.0])
def test_more_of_a_prompt_to_read_is_more_time_and_never_less_than_the_limit(limit_s: float) -> None:
    waits = [reading_s(limit_s, left) for left in (0, 1, 100, BATCH_TOKENS, 100 * BATCH_TOKENS)]
    assert waits[0] == limit_s
    assert waits == sorted(waits)
    assert waits[1] > limit_s


@pytest.mark.parametrize("limit_s", [1.0, 8.0, 60.0, 240.0])
def test_reading_is_given_up_no_later_than_a_server_that_computes_and_shows_nothing(limit_s: float) -> None:
    """The machine room replaces such a server: who waited longer would learn of that only by its end."""
    assert reading_s(limit_s, 10**6) <= burning_s(limit_s)


async def test_what_is_told_too_early_or_too_late_changes_nothing() -> None:
    patience = Patience(0.01)
    patience.reads(5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(patience.limit_s) as patience.timer:
            await asyncio.sleep(10)
    patience.reads(5)
    assert patience.waited_s == 0.01
