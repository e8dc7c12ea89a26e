"""The connection to a model's server: httpx over asyncio's streams, against a real socket."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpcore
import httpx
import psutil
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


def client(read_s: float | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport(), trust_env=False, timeout=httpx.Timeout(None, read=read_s))


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


async def test_as_many_connections_as_are_asked_for() -> None:
    """Thirteen questions are inside the server at once: no limit of a pool makes one wait."""
    inside, all_there = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal inside
        await reader.readuntil(b"\r\n\r\n")
        inside += 1
        if inside == 13:
            all_there.set()
        await all_there.wait()
        writer.write(HEAD + b"hola")
        await reader.read()
        writer.close()

    async with server(serve) as url, client() as http, asyncio.timeout(20):
        answers = await asyncio.gather(*(http.get(url) for _ in range(13)))
    assert [answer.text for answer in answers] == ["hola"] * 13


async def test_what_is_still_unsent_keeps_no_connection_open() -> None:
    """A question that is called off while a server reads nothing of it."""
    reading, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reading.set()
        await called_off.wait()
        with suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass
        ended.set()
        writer.close()

    called_off = asyncio.Event()
    async with server(serve) as url, client() as http, asyncio.timeout(20):
        asking = asyncio.create_task(http.post(url, content=b"x" * 20_000_000))
        await reading.wait()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0)
        sockets = [t for t in psutil.Process().net_connections("tcp") if t.raddr and url.endswith(f":{t.raddr.port}")]
        called_off.set()
        await ended.wait()
    assert [one.status for one in sockets if one.status == psutil.CONN_ESTABLISHED] == []


async def test_no_loop_touches_the_connections_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client in two threads: what looks through connections to end or reuse them sees those of one thread."""
    seen: list[tuple[httpcore.AsyncConnectionPool, int]] = []
    look = httpcore.AsyncConnectionPool._assign_requests_to_connections

    def looks(pool: httpcore.AsyncConnectionPool) -> object:
        seen.append((pool, threading.get_ident()))
        return look(pool)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"hola")
        await reader.read()
        writer.close()

    monkeypatch.setattr(httpcore.AsyncConnectionPool, "_assign_requests_to_connections", looks)
    http = client()
    async with server(serve) as url:
        there = await asyncio.to_thread(lambda: asyncio.run(http.get(url)))
        here = await http.get(url)
    assert (there.text, here.text) == ("hola", "hola")
    assert len({thread for _, thread in seen}) == 2
    assert all(len({thread for other, thread in seen if other is pool}) == 1 for pool, _ in seen)


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
