"""The connection to a model's server: httpx over asyncio's streams, against a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from capibara_agents.loopback import transport

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n"


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """The address of a server that handles each connection so."""
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def client(timeout_s: float | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport(), trust_env=False, timeout=timeout_s)


async def test_each_question_has_a_connection_of_its_own() -> None:
    """None is kept open to be used again."""
    peers = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"hola")
        await reader.read()
        writer.close()

    async with server(serve) as url, client() as http:
        assert [(await http.get(url)).text for _ in range(3)] == ["hola"] * 3
    assert len(peers) == 3


async def test_a_stream_that_is_left_closes_its_connection() -> None:
    """The server learns at once that nobody reads any more."""
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"h")
        await reader.read()
        left.set()
        writer.close()

    async with server(serve) as url, client() as http:
        async with http.stream("GET", url) as response:
            assert response.status_code == 200
        async with asyncio.timeout(10):
            await left.wait()


async def test_errors_are_httpxs_own() -> None:
    """Nobody there, broken off in the middle, cut by a reset, too slow."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with client() as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(nowhere)

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"h")
        writer.close()

    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with server(breaks) as url, client() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url)
    async with server(resets) as url, client() as http:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await http.get(url)
    async with server(waits) as url, client(0.05) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get(url)
