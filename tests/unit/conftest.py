"""Fixtures of the unit tests that more than one file uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from runtime_room import room, run

from capibara_agents.verify.sandbox import Sandbox, available

__all__ = ["room", "run"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One for a whole file; skips where there can be none."""
    if sys.platform != "linux":
        pytest.skip("the sandbox is for Linux")
    able, why = available()
    if not able:
        pytest.skip(f"this system does not grant the locks: {why}")
    with Sandbox() as one:
        yield one
