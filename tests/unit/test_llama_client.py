"""openai's client as LiteLLM calls it for a llama-server, before a server that is written down."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from capibara_agents.llama_client import LlamaClient, Pieces

MESSAGES = [{"role": "user", "content": "¿Cuánto es 12*7?", "x-unknown": {"kept": True}}]


def piece(delta: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **others}


class Server:
    """Answers every request with one response and remembers what was asked."""

    def __init__(self, *events: Any, status: int = 200) -> None:
        self.asked: list[httpx.Request] = []
        self.closed = False
        self._status = status
        self._events = events

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self._status != 200:
            return httpx.Response(self._status, json={"error": {"message": "no"}})
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Events(self, self._events))

    def client(self) -> LlamaClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return LlamaClient(base_url="http://model/v1", api_key="secret", http_client=http, max_retries=0)


class _Events(httpx.AsyncByteStream):
    def __init__(self, server: Server, events: Any) -> None:
        self._server, self._events = server, events

    async def __aiter__(self) -> Any:
        for event in self._events:
            yield f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()

    async def aclose(self) -> None:
        self._server.closed = True


async def asked(server: Server, **arguments: Any) -> Pieces:
    """As LiteLLM asks."""
    client = server.client()
    create = client.chat.completions.with_raw_response.create
    raw = await create(model="phi-4-mini", messages=MESSAGES, stream=True, timeout=600.0, **arguments)
    assert dict(raw.headers) == {}
    return Pieces(raw.parse())


async def read(pieces: Pieces) -> list[dict[str, Any]]:
    async with pieces as chunks:
        return [chunk async for chunk in chunks]


async def test_a_question_goes_out_as_it_is() -> None:
    """What is in the extra body stands beside the rest; nothing is taken out or renamed."""
    server = Server("[DONE]")
    await read(await asked(server, temperature=0.5, extra_body={"response_format": {"type": "json_object"}}))
    [request] = server.asked
    assert (request.method, request.url) == ("POST", "http://model/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer secret"
    assert json.loads(request.content) == {
        "model": "phi-4-mini",
        "messages": MESSAGES,
        "stream": True,
        "temperature": 0.5,
        "response_format": {"type": "json_object"},
    }


async def test_pieces_come_as_they_were_sent_but_for_the_greeting() -> None:
    """The first one, which only says whose turn it is, is left out; reasoning, tool calls, an end and usage are not."""
    said = [
        piece({"reasoning_content": "84?"}),
        piece({"content": "84", "strange": 1}, timings={"n": 1}),
        piece({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ]
    server = Server(piece({"role": "assistant", "content": None}), *said, "[DONE]", piece({"content": "never"}))
    assert await read(await asked(server)) == said


async def test_a_greeting_with_a_usage_or_an_end_is_one_no_more() -> None:
    """An answer of no text still ends and still says what it cost."""
    end = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": "length"}]}
    counted = piece({"role": "assistant"}, usage={"prompt_tokens": 1})
    assert await read(await asked(Server(end, counted, "[DONE]"))) == [end, counted]


async def test_leaving_early_ends_the_connection() -> None:
    """Whoever stops listening does not leave a model talking."""
    server = Server(*[piece({"content": "a"})] * 3, "[DONE]")
    async with await asked(server) as chunks:
        await anext(chunks)
        assert not server.closed
    assert server.closed


async def test_an_error_in_the_stream_is_one() -> None:
    """llama-server says so when it fails in the middle of an answer."""
    server = Server(piece({"content": "a"}), {"error": {"message": "out of memory", "code": 500}})
    with pytest.raises(openai.APIError, match="out of memory"):
        await read(await asked(server))


@pytest.mark.parametrize(("status", "error"), [(400, openai.BadRequestError), (503, openai.InternalServerError)])
async def test_a_refusal_is_openais_error(status: int, error: type[openai.APIStatusError]) -> None:
    """By its status, asked once."""
    server = Server(status=status)
    with pytest.raises(error):
        await asked(server)
    assert len(server.asked) == 1
