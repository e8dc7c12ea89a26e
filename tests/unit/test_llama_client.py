"""What LiteLLM calls as openai's client, before a server that is written down, on a real socket."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import psutil
import pytest

from capibara_agents.llama_client import LONGEST_PIECE_BYTES, BrokenOff, LlamaClient, Pieces, Refused
from tests.fakes import until

MESSAGES = [{"role": "user", "content": "¿Cuánto es 12*7?", "x-unknown": {"kept": True}}]
GREETING = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]}


def piece(delta: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **others}


class Server:
    """Answers every question with the same events, and remembers what was asked and by whom."""

    def __init__(self, *events: Any, status: int = 200, goes_on: bool = False, resets: bool = False) -> None:
        self.url = ""
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.peers: set[Any] = set()
        self.inside = 0
        self.left = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self._events, self._status, self._goes_on, self._resets = events, status, goes_on, resets

    def client(self) -> LlamaClient:
        return LlamaClient(f"{self.url}/v1", "secret")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.add(writer.get_extra_info("peername"))
        line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(row.lower().split(": ", 1) for row in rest if row)
        body = await reader.readexactly(int(headers["content-length"]))
        self.asked.append((line, headers, json.loads(body)))
        self.inside += 1
        if self.gate is not None:
            await self.gate.wait()
        if self._status != 200:
            refusal = b'{"error":{"message":"no"}}'
            writer.write(f"HTTP/1.1 {self._status} No\r\ncontent-length: {len(refusal)}\r\n\r\n".encode() + refusal)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            for event in self._events:
                text = event if isinstance(event, str) else f"data: {json.dumps(event)}"
                writer.write(f"{text}\n\n".encode())
        with suppress(ConnectionError):
            await writer.drain()
            if self._goes_on:
                await reader.read()
                self.left.set()
        if self._resets:
            writer.transport.abort()
        writer.close()


@asynccontextmanager
async def started(server: Server) -> AsyncIterator[Server]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening, asyncio.timeout(30):
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server


async def asked(client: LlamaClient, reads: Callable[[int, int], None] = lambda *_: None, **arguments: Any) -> Pieces:
    """As LiteLLM asks."""
    create = client.chat.completions.with_raw_response.create
    raw = await create(model="phi-4-mini", messages=MESSAGES, stream=True, timeout=600.0, **arguments)
    assert dict(raw.headers) == {}
    return Pieces(raw.parse(), reads)


async def read(pieces: Pieces) -> list[dict[str, Any]]:
    async with pieces as chunks:
        return [chunk async for chunk in chunks]


async def answer_of(*events: Any, **how: Any) -> list[dict[str, Any]]:
    async with started(Server(*events, **how)) as server:
        return await read(await asked(server.client()))


async def test_a_question_goes_out_as_it_is() -> None:
    """What is in the extra body stands beside the rest; nothing is taken out or renamed."""
    async with started(Server("data: [DONE]")) as server:
        extra = {"response_format": {"type": "json_object"}}
        await read(await asked(server.client(), temperature=0.5, extra_body=extra, extra_headers={"x-a": "b"}))
    [(line, headers, body)] = server.asked
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert (headers["authorization"], headers["x-a"]) == ("bearer secret", "b")
    assert headers["content-type"] == "application/json"
    # Of llama-server, and nobody's else: it tells how far it has read.
    assert body.pop("return_progress") is True
    assert body == {"model": "phi-4-mini", "messages": MESSAGES, "stream": True, "temperature": 0.5, **extra}


async def test_pieces_come_as_they_were_sent_but_for_the_greeting() -> None:
    """The first one, which only says whose turn it is, is left out; reasoning, tool calls, an end and usage are not."""
    said = [
        piece({"reasoning_content": "84?"}),
        piece({"content": "ochenta y cuatro ✓", "strange": 1}, timings={"n": 1}),
        piece({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ]
    assert await answer_of(GREETING, ": still there", *said, "data: [DONE]", piece({"content": "never"})) == said


async def test_a_greeting_with_a_usage_or_an_end_is_one_no_more() -> None:
    """An answer of no text still ends and still says what it cost."""
    end = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": "length"}]}
    counted = piece({"role": "assistant"}, usage={"prompt_tokens": 1})
    assert await answer_of(end, counted, "data: [DONE]") == [end, counted]


async def test_how_far_it_has_read_is_told_and_is_no_piece() -> None:
    """What the server took from its cache counts as read."""
    told: list[tuple[int, int]] = []
    progress = [GREETING | {"prompt_progress": {"total": 9, "cache": 2, "processed": read}} for read in (2, 6, 9)]
    said = piece({"content": "a"})
    async with started(Server(*progress, GREETING, said, "data: [DONE]")) as server:
        assert await read(await asked(server.client(), lambda *tokens: told.append(tokens))) == [said]
    assert told == [(2, 9), (6, 9), (9, 9)]


async def test_a_long_piece_comes_whole() -> None:
    """The arguments of a tool call may come in one."""
    long = piece({"content": "a" * (LONGEST_PIECE_BYTES - 1000)})
    assert await answer_of(long, "data: [DONE]") == [long]


async def test_each_question_has_a_connection_of_its_own() -> None:
    """None is kept open to be used again."""
    async with started(Server(piece({"content": "a"}), "data: [DONE]")) as server:
        client = server.client()
        for _ in range(3):
            await read(await asked(client))
    assert len(server.peers) == 3


async def test_leaving_early_ends_the_connection() -> None:
    """Whoever stops listening does not leave a model talking."""
    async with started(Server(*[piece({"content": "a"})] * 3, goes_on=True)) as server:
        async with await asked(server.client()) as chunks:
            await anext(chunks)
            assert not server.left.is_set()
        await server.left.wait()


async def test_as_many_questions_as_there_are_stand_inside_at_once() -> None:
    """No limit of a pool makes one wait for another: 130, more than aiohttp's connectors allow by themselves."""
    async with started(Server("data: [DONE]")) as server:
        server.gate = asyncio.Event()
        asking = [asyncio.create_task(asked(server.client())) for _ in range(130)]
        await until(lambda: server.inside == len(asking))
        server.gate.set()
        for pieces in await asyncio.gather(*asking):
            await read(pieces)


async def test_what_is_still_unsent_keeps_no_connection_open() -> None:
    """A question that is called off while a server reads nothing of it."""
    reading, called_off = asyncio.Event(), asyncio.Event()

    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reading.set()
        await called_off.wait()
        writer.transport.abort()

    listening = await asyncio.start_server(hangs, "127.0.0.1", 0)
    async with listening, asyncio.timeout(20):
        port = listening.sockets[0].getsockname()[1]
        client = LlamaClient(f"http://127.0.0.1:{port}/v1", "secret")
        asking = asyncio.create_task(asked(client, extra_body={"long": "x" * 20_000_000}))
        await reading.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0)
        open_ones = [t for t in psutil.Process().net_connections("tcp") if t.raddr and t.raddr.port == port]
        called_off.set()
    assert [one.status for one in open_ones if one.status == psutil.CONN_ESTABLISHED] == []


async def test_one_client_serves_the_loops_of_several_threads() -> None:
    """At the same time: nothing of one loop's question is seen by another's."""
    said = [piece({"content": text}) for text in "abc"]
    async with started(Server(*said, "data: [DONE]")) as server:
        client, answers = server.client(), []

        def elsewhere() -> None:
            async def several() -> None:
                for pieces in await asyncio.gather(*(asked(client) for _ in range(20))):
                    answers.append(await read(pieces))

            asyncio.run(several())

        threads = [threading.Thread(target=elsewhere) for _ in range(3)]
        for thread in threads:
            thread.start()
        here = [await read(await asked(client)) for _ in range(20)]
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert (len(answers), len(here)) == (60, 20)
    assert all(answer == said for answer in [*answers, *here])


@pytest.mark.parametrize(
    "events",
    [
        (piece({"content": "a"}), {"error": {"message": "out of memory", "code": 500}}),
        (piece({"content": "a"}), "data: [1]"),
        (piece({"content": "a"}), "data: {half"),
        (piece({"content": "a"}),),
        (),
    ],
    ids=["an error", "no piece", "no JSON", "no end", "nothing"],
)
async def test_an_answer_that_does_not_come_to_its_end_is_an_error(events: tuple[Any, ...]) -> None:
    """llama-server says so when it fails in the middle; LiteLLM would make up a finish and a usage."""
    with pytest.raises((BrokenOff, ValueError)):
        await answer_of(*events)


async def test_a_connection_that_breaks_is_an_error() -> None:
    """In the middle of an answer; and where nobody listens."""
    with pytest.raises((aiohttp.ClientError, BrokenOff, ConnectionError)):
        await answer_of(piece({"content": "a"}), resets=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(aiohttp.ClientConnectionError):
            await asked(LlamaClient(f"http://127.0.0.1:{free.getsockname()[1]}/v1", "secret"))


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_a_refusal_has_its_status_and_what_the_server_said(status: int) -> None:
    """Asked once: the chain of a question is the graph's."""
    async with started(Server(status=status)) as server:
        with pytest.raises(Refused) as refused:
            await asked(server.client())
    assert refused.value.status_code == status
    assert json.loads(str(refused.value)) == {"error": {"message": "no"}}
    assert len(server.asked) == 1


async def test_nothing_is_left_open() -> None:
    """Whole, left early, refused, called off: no socket and no session waits for the collector."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        await answer_of(piece({"content": "a"}), "data: [DONE]")
        with pytest.raises(Refused):
            await answer_of(status=503)
        async with (
            started(Server(piece({"content": "a"}), goes_on=True)) as server,
            await asked(server.client()) as chunks,
        ):
            await anext(chunks)
        gc.collect()
    assert [str(warning.message) for warning in told if "nclosed" in str(warning.message)] == []
