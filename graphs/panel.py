"""Voters who are asked side by side: as soon as the rest cannot change the outcome, the rest is called off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from capibara_agents.types import SPARED, Candidate, Plan, Timings

IsDecided = Callable[[Sequence[Candidate]], bool]


class Panel:
    """The voters of one attempt. Belongs to one event loop."""

    def __init__(self, plan: Plan, is_decided: IsDecided) -> None:
        self._plan = plan
        self._is_decided = is_decided
        self._asked: dict[str, asyncio.Task[Candidate]] = {}
        self._streaming: set[str] = set()
        self._decided = False
        self.answers: list[Candidate] = []

    async def ask(self, model: str, answer: Coroutine[Any, Any, Candidate], *, streams: bool) -> Candidate:
        """The voter's candidate; one that says it was spared when the others decided before it had answered.

        A voter whose words the caller is already reading (`streams`) is never called off.
        """
        if self._decided:
            answer.close()
            return self._spared(model)
        task = asyncio.ensure_future(answer)
        self._asked[model] = task
        if streams:
            self._streaming.add(model)
        try:
            candidate = await asyncio.shield(task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if task.cancelled() and self._decided and not (me and me.cancelling()):
                return self._spared(model)
            task.cancel()
            raise
        self.answers.append(candidate)
        self._decided = self._decided or self._is_decided(self.answers)
        if self._decided:
            for other, pending in self._asked.items():
                if other not in self._streaming:
                    pending.cancel()
        return candidate

    def _spared(self, model: str) -> Candidate:
        return Candidate(
            model=model, attempt=self._plan.attempt, timings=Timings(wait_ms=0.0, total_ms=0.0), error=SPARED
        )
