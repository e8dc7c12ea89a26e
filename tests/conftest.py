"""Fixtures of the whole suite: settings that nothing around the tests changes, and a house over fakes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.config import load
from capibara_agents.settings import Settings

# What the suite has imported stays until its end: to go through all of it for every few hundred new objects takes a
# fifth of the unit tests' time.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_finish() -> None:
    """What is there by now is not looked through again; what langserve's clients leave is not ended by the collector.

    Their finalizer starts a thread and waits for it, wherever the collector interrupts the program: inside a thread
    pool's own lock that waits for ever, and in this process the service has its pools, too.
    """
    client = sys.modules.get("langserve.client")
    if client is not None:
        client._close_clients = lambda *_: None  # type: ignore[attr-defined]
    gc.freeze()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The fleet `tiny` with its data under the test's own folder; no file and no variable is read."""
    runtime = {"data_dir": str(tmp_path / "data"), "weights_dir": str(tmp_path / "weights")}
    flags = {"fleet": "tiny", "runtime": runtime, "server": {"port": 0}}
    return load(flags=flags, environ={}, cwd=tmp_path).settings


@pytest.fixture
def upstream() -> Iterator[Any]:
    """A scripted model server on loopback."""
    from tests.fakes import Upstream

    with Upstream() as server:
        yield server


@pytest.fixture(scope="session")
def imported() -> None:
    """What LiteLLM imports at its first call takes seconds on a busy machine, longer than a model may be silent."""
    from capibara_agents.models import Models

    Models(None, load_wait_s=1).warm()  # type: ignore[arg-type]
    gc.freeze()


@pytest.fixture
def house(settings: Settings, upstream: Any, imported: None) -> Iterator[Any]:
    """A house whose models are answered by `upstream`."""
    from tests.fakes import FakeHouse

    built = FakeHouse(settings, upstream)
    yield built
    built.close()
