"""A stream of server-sent events over one run, and what happens when its reader goes away.

Lines end in CRLF and every event is one send. While nothing comes, comments show that the stream is alive; the
first of them, or the first event, sends the response's head. What fails before that is answered with an HTTP error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PING = b": ping\r\n\r\n"

# How long a run may take to end its own tasks before it is told again.
PATIENCE_S = 1.0

Failure = Callable[[Exception], tuple[Response, bytes]]
T = TypeVar("T")


class ClientGone(Exception):
    """Nobody is left to answer to."""


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of the work, which ends when the client goes away: ClientGone then. The body must have been read."""
    task, gone = asyncio.ensure_future(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        await _called_off(task)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _called_off(task: asyncio.Future[Any]) -> None:
    """Cancel a run until it has ended.

    Once, and again only after a while. A run ends its own tasks while it is being cancelled; cancelled anew at each
    step of that, as a cancel scope does it, it leaves them at work. One that waits for its own tasks instead
    (stream_log does) would go on to its end after the first time.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE_S)
    if not task.cancelled():
        # Looked at, or asyncio would log what it raised at last.
        task.exception()


class EventStream(Response):
    """`values` as events `data`, each encoded, between an optional event `metadata` and an event `end`.

    `failure` translates what the run raised: to the response if nothing has been sent, to the data of an event
    `error` otherwise. A client that goes away cancels the run at once, however silent it is.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        values: AsyncIterator[Any],
        encode: Callable[[Any], bytes],
        failure: Failure,
        *,
        metadata: bytes | None = None,
        ping_s: float,
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._values = values
        self._encode = encode
        self._failure = failure
        self._prelude = frame("metadata", metadata) if metadata is not None else b""
        self._ping_s = ping_s
        self._lock = asyncio.Lock()
        self._started = False
        self._ended = False
        self._sent_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run, and send what comes of it."""
        pinging = asyncio.create_task(self._ping(send))
        try:
            with suppress(ClientGone):
                await while_connected(receive, self._send_all(scope, receive, send))
        finally:
            pinging.cancel()

    def framed(self, value: Any) -> bytes:
        """One value as an event."""
        return frame("data", self._encode(value))

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._values) as values:  # type: ignore[type-var]
                async for value in values:
                    await self._put(send, self.framed(value))
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001  (whatever the run raised is the client's to know, translated)
            response, data = self._failure(error)
            async with self._lock:
                if not self._started:
                    self._started = self._ended = True
                    await response(scope, receive, send)
                    return
            await self._put(send, frame("error", data), last=True)
        else:
            await self._put(send, frame("end"), last=True)

    async def _ping(self, send: Send) -> None:
        while not self._ended:
            silence_s = time.monotonic() - self._sent_at
            if silence_s < self._ping_s:
                await asyncio.sleep(self._ping_s - silence_s)
                continue
            try:
                await self._put(send, PING)
            except ClientGone:
                return  # the disconnect itself ends the run

    async def _put(self, send: Send, body: bytes, *, last: bool = False) -> None:
        """Send one event, the head before the first. Raises ClientGone."""
        async with self._lock:
            if self._ended:
                return  # a ping that waited for its turn while the last event was on its way
            self._ended = last
            try:
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    body = self._prelude + body
                await send({"type": "http.response.body", "body": body, "more_body": not last})
            except OSError:
                raise ClientGone from None
            self._sent_at = time.monotonic()


def frame(name: str, data: bytes | None = None) -> bytes:
    """One event; the data must be one line."""
    line = b"" if data is None else b"data: " + data + b"\r\n"
    return b"event: " + name.encode("ascii") + b"\r\n" + line + b"\r\n"
