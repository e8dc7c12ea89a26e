"""What tests of the sandbox share: its limits, a small answer, and a run of one."""

from __future__ import annotations

import psutil

from capibara_agents.verify.sandbox import Limits, Program, RunResult, Sandbox

LIMITS = Limits(wall_s=20, cpu_s=1, memory_bytes=256 << 20, output_bytes=100_000)
ADD = "def add(a, b):\n    return a + b\n"
TEST_ADD = "assert add(1, 2) == 3\nassert add(-1, 1) == 0\n"


def check(sandbox: Sandbox, source: str, tests: str = TEST_ADD, limits: Limits = LIMITS) -> RunResult:
    """The answer run against the tests."""
    return sandbox.run(Program(source=source, tests=tests), limits)


def offspring(sandbox: Sandbox) -> set[int]:
    assert sandbox._nursery is not None
    children = psutil.Process(sandbox._nursery.pid).children(recursive=True)
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}
