"""How long a model may show nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from capibara_agents.errors import ModelTimeout
from capibara_agents.patience import BATCH_TOKENS, Patience, burning_s, reading_s
from tests.fakes import PHI, FakeHouse


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


async def forever() -> AsyncIterator[str]:
    await asyncio.sleep(60)
    yield "never"


async def test_what_is_told_too_early_or_too_late_changes_nothing(house: FakeHouse) -> None:
    told: list[tuple[int, int]] = []
    spec = house.settings.spec(PHI).model_copy(update={"timeout_s": 0.01, "slots": 1})
    patience = Patience(spec, None, lambda *tokens: told.append(tokens))
    patience.reads(5, 10)
    with pytest.raises(ModelTimeout, match=r"no progress within 0\.01 s"):
        await anext(patience.over(forever()))
    patience.reads(6, 10)
    assert told == []


@pytest.mark.parametrize(("slots", "per_s", "waits_s"), [(1, None, 0.1), (2, 80_000.0, 0.1512), (2, None, 60.0)])
async def test_where_others_are_answered_too_a_batch_of_theirs_may_lie_between(
    house: FakeHouse, monkeypatch: pytest.MonkeyPatch, slots: int, per_s: float | None, waits_s: float
) -> None:
    """Twice as long as measured; as long as is known of any model where nothing was."""
    spec = house.settings.spec(PHI).model_copy(update={"timeout_s": 0.1, "slots": slots})
    seen: list[float | None] = []
    real = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda delay_s: (seen.append(delay_s), real(delay_s))[1])

    async def pieces() -> AsyncIterator[str]:
        yield "a"

    assert [piece async for piece in Patience(spec, per_s).over(pieces())] == ["a"]
    assert seen[0] == pytest.approx(waits_s)


async def test_who_watches_is_told_of_the_batches_between_the_first_and_the_last(house: FakeHouse) -> None:
    """A prompt of one batch says nothing."""
    told: list[tuple[int, int]] = []
    patience = Patience(house.settings.spec(PHI), None, lambda *tokens: told.append(tokens))

    async def pieces() -> AsyncIterator[str]:
        for read in (0, 512, 1024, 1100):
            patience.reads(read, 1100)
        yield "a"

    assert [piece async for piece in patience.over(pieces())] == ["a"]
    assert told == [(512, 1100), (1024, 1100)]
