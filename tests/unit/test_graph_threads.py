"""Who waits for whom in threads: votes and checks for nobody, a run of code until its request's deadline."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from capibara_agents.graphs import trials
from capibara_agents.graphs.aside import RUNS, SHORT
from capibara_agents.settings import Settings
from capibara_agents.types import Request
from capibara_agents.verify import sandbox
from tests.fakes import GPT, PHI, QWEN, FakeHouse, Upstream, classification, say

WAIT_S = 60.0
CODE = "```python\ndef add(a, b):\n    return a + b\n```"


@contextmanager
def busy(pool: ThreadPoolExecutor, threads: int) -> Iterator[threading.Event]:
    """All threads of a pool are taken until the event is set."""
    free = threading.Event()
    held: list[Future[Any]] = [pool.submit(free.wait, 2 * WAIT_S) for _ in range(threads)]
    try:
        yield free
    finally:
        free.set()
        for taken in held:
            taken.result(WAIT_S)


class Loops(ThreadPoolExecutor):
    """asyncio's own threads, and whose work they are asked to do."""

    def __init__(self) -> None:
        super().__init__(2)
        self.asked: list[str] = []

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        inner = work
        while isinstance(inner, partial):
            inner = inner.args[0] if inner.func.__name__ == "run" else inner.func
        self.asked.append(inner.__module__)
        return super().submit(work, *args, **kwargs)


@pytest.mark.parametrize("cores", [1, 8])
async def test_a_vote_waits_for_no_thread_that_others_hold(
    settings: Settings, upstream: Upstream, imported: None, cores: int
) -> None:
    """With the threads of running code all taken it is counted and checked; asyncio's own it does not need."""
    house = FakeHouse(settings, upstream, cores=cores)
    house.classifier.says = classification(domain="math", reply_language=None)
    upstream.otherwise = say("12 * 7 = 84. La respuesta es 84.")
    loops = Loops()
    asyncio.get_running_loop().set_default_executor(loops)
    with busy(RUNS, sandbox.MOST_AT_ONCE):
        request = Request(voters=(PHI, QWEN, GPT))
        long = HumanMessage("¿Cuánto es 12 * 7? Explícalo con calma. " * 20)
        answer = await asyncio.wait_for(house.capibara.answer([long], request), WAIT_S)
    assert (answer.verdict.accepted, answer.ballot.method) == (True, "weighted")
    assert not [module for module in loops.asked if module.startswith(("capibara_agents", "tests"))]


async def test_a_run_of_code_never_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had time when it was asked for, and none when a thread was free."""
    begun: list[str] = []

    class Watched:
        def run(self, program: Any, limits: Any = None) -> Any:
            begun.append("run")

        def evaluate(self, source: str, expression: str = "", limits: Any = None) -> Any:
            begun.append("evaluate")

    one = ThreadPoolExecutor(1)
    monkeypatch.setattr(trials, "RUNS", one)
    house = trials.Trials(Watched())
    question = "What does this code print?\n```python\nprint(1 + 1)\n```"
    until_s = time.monotonic() + 1.0
    with busy(one, 1) as free:
        tried = asyncio.create_task(house.tried(CODE, "Escribe add(a, b).", "assert add(1, 2) == 3", until_s))
        settled = asyncio.create_task(house.settled(question, until_s))
        await asyncio.sleep(1.1)
        free.set()
        assert (await tried, await settled) == (None, "")
    assert not begun


def test_the_threads_say_whose_they_are() -> None:
    """In a dump of a service that hangs."""
    names = [pool.submit(lambda: threading.current_thread().name).result(WAIT_S) for pool in (SHORT, RUNS)]
    assert [name.rpartition("_")[0] for name in names] == ["capibara-short", "capibara-run"]
