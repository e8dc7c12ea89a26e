"""The connection to a model's server, for httpx: asyncio's own streams in the place of anyio's.

httpx opens a new connection for each question (`models.py` says why), and through anyio, which looks up at each step
on which library's loop it runs, a call takes 0.6 ms of a core more. HTTP stays httpx's, but for the end of a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

NOWHERE = "http://warm-up.invalid"
"""An address that the client itself refuses."""


def transport() -> httpx.AsyncHTTPTransport:
    """httpx's transport over asyncio's streams, without connections kept open; safe to share between event loops."""
    made = httpx.AsyncHTTPTransport(trust_env=False)
    # httpx has no argument for it.
    made._pool = _Apart()
    return made


class _Apart(httpcore.AsyncConnectionPool):
    """A pool for each request: of one for all, the loops of several threads would take away each other's connections.

    Its lock is none between threads, and it ends or hands on whatever connection it finds, also another loop's.
    """

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        pool = httpcore.AsyncConnectionPool(max_keepalive_connections=0, network_backend=AsyncioBackend())
        return await pool.handle_async_request(request)


async def must_be_whole(response: Any) -> None:
    """Make a stream that just ends, without its [DONE], an error: LiteLLM would make up a finish and a usage."""
    if response.status_code == 200 and "text/event-stream" in response.headers.get("content-type", ""):
        response.stream = _WholeEvents(response.stream)


class _WholeEvents(httpx.AsyncByteStream):
    """The bytes of an event stream; httpx.RemoteProtocolError when the last of them are not its [DONE]."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        tail = b""
        async for piece in self._stream:
            tail = (tail + piece)[-32:]
            yield piece
        if b"[DONE]" not in tail:
            raise httpx.RemoteProtocolError("The stream ended before it was done.")

    async def aclose(self) -> None:
        await self._stream.aclose()


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Plain TCP; who asks for TLS or a Unix socket gets NotImplementedError."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore's interface)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection. Raises httpcore's ConnectError and ConnectTimeout."""
        local = None if local_address is None else (local_address, 0)
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(host, port, local_addr=local)
        for option in socket_options or ():
            writer.get_extra_info("socket").setsockopt(*option)
        return _Stream(reader, writer)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()

    async def aclose(self) -> None:
        # The exchange is over: closing would wait until what is still unsent is read, of a hung server never.
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        names = {"client_addr": "sockname", "server_addr": "peername", "socket": "socket"}
        return self._writer.get_extra_info(names[info]) if info in names else None


@contextmanager
def _translated(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """Python's errors as httpcore's."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
