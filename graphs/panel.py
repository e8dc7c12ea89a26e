"""Voters who are asked side by side: as soon as the rest cannot change the outcome, the rest is called off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from capibara_agents.graphs.aside import SHORT, in_thread
from capibara_agents.types import SPARED, Candidate, Plan, Timings, model_of, sample_of


@dataclass(frozen=True)
class Standing:
    """How a vote stands: how many have answered, how far they agree (None: nobody has), whether that is the outcome."""

    answered: int = 0
    agreement: float | None = None
    is_decided: bool = False


Judge = Callable[[Sequence[Candidate]], Standing]


class Panel:
    """The voters of one attempt. Belongs to one event loop."""

    def __init__(self, plan: Plan, standing: Judge) -> None:
        """`standing` reads the answers that are there; it is called in a thread, once for each that comes."""
        self._plan = plan
        self._judge = standing
        self._counted = asyncio.Lock()
        self._asked: dict[str, asyncio.Task[Candidate]] = {}
        self._streaming: set[str] = set()
        self._decided = False
        self._answers: list[Candidate] = []
        self._standing = Standing()

    async def ask(
        self, voter: str, answer: Coroutine[Any, Any, Candidate], *, streams: bool
    ) -> tuple[Candidate, Standing]:
        """The voter's candidate, and how the vote then stands; spared when the others decided before it had answered.

        A voter whose words the caller is already reading (`streams`) is never called off.
        """
        if self._decided:
            answer.close()
            return self._spared(voter), self._standing
        task = asyncio.ensure_future(answer)
        self._asked[voter] = task
        if streams:
            self._streaming.add(voter)
        try:
            candidate = await asyncio.shield(task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if task.cancelled() and self._decided and not (me and me.cancelling()):
                return self._spared(voter), self._standing
            task.cancel()
            raise
        return candidate, await self._counted_in(candidate)

    async def _counted_in(self, candidate: Candidate) -> Standing:
        """How the vote stands with this one too; calls the others off when that is the outcome."""
        # One after the other, so that each is told how it stood when it came.
        async with self._counted:
            self._answers.append(candidate)
            if not self._decided:
                self._standing = await in_thread(SHORT, self._judge, tuple(self._answers))
            else:
                self._standing = replace(self._standing, answered=self._standing.answered + candidate.has_answer)
            self._decided = self._decided or self._standing.is_decided
            standing = self._standing
        if self._decided:
            for other, pending in self._asked.items():
                if other not in self._streaming:
                    pending.cancel()
        return standing

    def _spared(self, voter: str) -> Candidate:
        return Candidate(
            model=model_of(voter),
            sample=sample_of(voter),
            attempt=self._plan.attempt,
            timings=Timings(wait_ms=0.0, total_ms=0.0),
            error=SPARED,
        )
