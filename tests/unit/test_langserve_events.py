"""A stream of events, its pings and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from capibara_agents.http.langserve_encoding import encode
from capibara_agents.http.langserve_events import EventStream


async def nothing() -> AsyncIterator[str]:
    for never in ():
        yield never


async def test_no_ping_after_the_last_event() -> None:
    """A ping that waits behind the last event, while that is on its way, is not sent: the response is over then."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("more_body") is False:
            await asyncio.sleep(0.1)  # the reader is slow, and a ping becomes due

    stream = EventStream(nothing(), encode, lambda _: (Response(), b""), ping_s=0.01)
    async with asyncio.timeout(20):
        await stream({"type": "http"}, receive, send)
    assert [message.get("more_body") for message in sent] == [None, False]
