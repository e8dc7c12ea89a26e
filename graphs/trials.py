"""Code that is run for a vote or a check, an answer's or the question's. Not on the loop, not after the deadline."""

from __future__ import annotations

import time

from capibara_agents import verify as checking
from capibara_agents.graphs.aside import RUNS, aside, in_thread
from capibara_agents.types import Check
from capibara_agents.verify import sandbox
from capibara_agents.verify.behaviour import Runner

# A run of an answer's code, and of the question's: wall time, and of it the processor's. Less than LEAST_RUN_S is not
# worth the start.
RUN_S, PRINT_S, MOST_CPU_S, LEAST_RUN_S = 10.0, 5.0, 3, 0.3
LONG_CHARS = 20_000


class Trials:
    """Runs code. `until_s`: the request's deadline on the monotonic clock, None without one."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def tried(self, content: str, question: str, tests: str | None, until_s: float | None) -> Check | None:
        """What running an answer's code showed; None where there is nothing to run, or no time left for it."""
        program = await aside(len(content) + len(question) > LONG_CHARS, checking.trial, content, question, tests)
        if program is None:
            return checking.without_code() if tests else None
        return await in_thread(RUNS, self._run, program, until_s)

    async def settled(self, question: str, until_s: float | None) -> str:
        """What running the code of the question gives, where it asks for that; else empty."""
        if await aside(len(question) > LONG_CHARS, checking.find_print_question, question) is None:
            return ""
        return await in_thread(RUNS, self._settle, question, until_s)

    # In a thread, which may have been waited for: what is left of the time is known there alone.

    def _run(self, program: sandbox.Program, until_s: float | None) -> Check | None:
        limits = _limits(RUN_S, until_s)
        return None if limits is None else checking.behaves(self._runner.run(program, limits))

    def _settle(self, question: str, until_s: float | None) -> str:
        limits = _limits(PRINT_S, until_s)
        if limits is None:
            return ""
        return checking.settle_print_question(question, self._runner.evaluate, limits) or ""


def _limits(wall_s: float, until_s: float | None) -> sandbox.Limits | None:
    """What a run of code that begins now may take, within the request's deadline; None when there is no time for it."""
    within_s = wall_s if until_s is None else min(wall_s, until_s - time.monotonic())
    if within_s < LEAST_RUN_S:
        return None
    return sandbox.Limits(wall_s=within_s, cpu_s=max(1, min(MOST_CPU_S, int(within_s))))
