"""OpenAI's face: chat completions and models."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from sse_starlette import ServerSentEvent
from starlette.responses import Response

from capibara_agents.errors import CapibaraError
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.exchange import Exchange, Trace, data, done, failure, wants
from capibara_agents.http.house import House
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event
from capibara_agents.settings import ModelSpec
from capibara_agents.types import VIRTUAL_MODELS


def router(house: House) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["openai"])
    # The models' state only; the list itself is fixed by the configuration.
    started_s = int(time.time())

    @routes.post("/chat/completions")
    async def chat(body: wire.ChatBody, http: HttpRequest, trace: Trace = None) -> Response:
        messages, request = wire.read_chat(body)
        shape = ChatShape(trace=wants(trace), include_usage=_include_usage(body), choices=request.choices)
        exchange = Exchange(house, messages, request, shape)
        return await (exchange.stream() if body.stream else exchange.whole(http))

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        known = [_virtual(name, started_s) for name in VIRTUAL_MODELS]
        known += [_model(spec, started_s) for spec in house.settings.models]
        return {"object": "list", "data": known}

    @routes.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name in VIRTUAL_MODELS:
            return _virtual(name, started_s)
        return _model(house.settings.spec(name), started_s)

    return routes


def _include_usage(body: wire.ChatBody) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


def _virtual(name: str, created_s: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": "capibara", "virtual": True}


def _model(spec: ModelSpec, created_s: int) -> dict[str, Any]:
    return {
        "id": spec.id,
        "object": "model",
        "created": created_s,
        "owned_by": "capibara",
        "tier": spec.tier,
        "aliases": list(spec.aliases),
        "context_tokens": spec.context_tokens,
        "max_tokens": spec.max_tokens,
        "sees_images": spec.sees_images,
        "calls_tools": spec.calls_tools,
        "stand_in": spec.stand_in,
        "weights": spec.weights_name,
    }


class ChatShape:
    """A chat.completion, or chat.completion.chunk objects."""

    def __init__(self, *, trace: bool, include_usage: bool, choices: int = 1) -> None:
        self._choices = choices
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created_s = int(time.time())
        self._trace = trace
        self._include_usage = include_usage
        self._chunks = wire.Chunks(id=self._id, created_s=self._created_s)

    def whole(self, answer: Answer) -> dict[str, Any]:
        return wire.completion(answer, id=self._id, created_s=self._created_s, trace=self._trace, choices=self._choices)

    def opening(self) -> Iterator[ServerSentEvent]:
        yield from ()

    def delta(self, event: Event) -> Iterator[ServerSentEvent]:
        yield data(self._chunks.delta(event))

    def closing(self, answer: Answer, *, said: bool) -> Iterator[ServerSentEvent]:
        chosen = answer.ranked()[: self._choices]
        for index, candidate in enumerate(chosen):
            if not said or index:
                yield data(self._chunks.whole(candidate, index))
        for index, candidate in enumerate(chosen[1:], start=1):
            yield data(self._chunks.finish(candidate, index))
        yield data(self._chunks.last(answer, trace=self._trace))
        if self._include_usage:
            yield data(self._chunks.used(*chosen))
        yield done()

    def broken(self, error: CapibaraError) -> Iterator[ServerSentEvent]:
        yield failure(error)
