"""SIGHUP to a service that is still starting: it neither ends it nor is forgotten."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import uvicorn

from capibara_agents.config import load
from capibara_agents.http.traffic import Traffic
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.serve import _Server


async def nothing(*_: Any) -> None: ...


@pytest.mark.parametrize(("hangups", "reloads"), [(0, 0), (1, 1), (3, 1)])
async def test_a_hangup_before_the_beginning_counts_from_there_on(hangups: int, reloads: int) -> None:
    """Once, however many there were; a start by itself reads the configuration no second time."""
    settings, read_again = load(flags={"fleet": "tiny"}).settings, [0]
    server = _Server(uvicorn.Config(nothing), settings, Terminal("en"), "http://127.0.0.1:1", Traffic(settings.server))

    def reload() -> None:
        read_again[0] += 1

    server.on_hangup = reload
    for _ in range(hangups):
        server.hung_up_early(signal.SIGHUP, None)
    assert read_again == [0]
    before, loop = signal.getsignal(signal.SIGHUP), asyncio.get_running_loop()
    try:
        server.begin(None)
        await loop.shutdown_default_executor()
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)
    assert read_again == [reloads]
