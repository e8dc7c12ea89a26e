"""OpenAI's face: chat completions, models, and the route of a question."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi import Request as HttpRequest
from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.errors import body_of, internal
from capibara_agents.http.house import House
from capibara_agents.outcome import Answer, explain
from capibara_agents.runnable import Event, read_messages
from capibara_agents.settings import ModelSpec
from capibara_agents.types import VIRTUAL_MODELS, Plan, Request

Trace = Annotated[str | None, Header(alias="X-Capibara-Trace")]
BATCH_LIMIT = 256


class RouteBody(BaseModel):
    """POST /v1/route: a conversation, or one text as `input`."""

    model_config = ConfigDict(extra="ignore")

    messages: list[dict[str, Any]] | None = Field(None, min_length=1)
    input: str | None = None
    model: str = "capibara"
    capibara: wire.Options | None = None


class RouteBatchBody(BaseModel):
    """POST /v1/route/batch: several texts."""

    model_config = ConfigDict(extra="ignore")

    inputs: list[str] = Field(min_length=1, max_length=BATCH_LIMIT)


def router(house: House) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["openai"])
    # The models' state only; the list itself is fixed by the configuration.
    started_s = int(time.time())

    @routes.post("/chat/completions")
    async def chat(body: wire.ChatBody, http: HttpRequest, trace: Trace = None) -> Response:
        messages, request = wire.read_chat(body)
        call = _Call(house, messages, request, trace=_wants(trace), include_usage=_include_usage(body))
        return await (call.stream() if body.stream else call.answer(http))

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

    @routes.post("/route")
    async def route(body: RouteBody) -> dict[str, Any]:
        options = body.capibara.model_dump(exclude_none=True, exclude={"stream"}) if body.capibara else {}
        request = wire.request_of({**options, "model": body.model})
        return decision(house, _conversation(body), request)

    @routes.post("/route/batch")
    async def route_batch(body: RouteBatchBody) -> dict[str, Any]:
        results = []
        for text in body.inputs:
            results.append(decision(house, read_messages(text), Request()))
            # A batch takes a while; the streams of others must not stand still meanwhile.
            await asyncio.sleep(0)
        return {"results": results}

    return routes


def decision(house: House, messages: list[BaseMessage], request: Request) -> dict[str, Any]:
    """What would become of a question, nothing generated; the reason in the question's language."""
    started = time.perf_counter()
    classification, plan = house.decide(messages, request)
    took_ms = 1000 * (time.perf_counter() - started)
    shown = explain(classification, plan, classification.language)
    return {**shown, "timings_ms": {"total": round(took_ms, 3)}}


def _conversation(body: RouteBody) -> list[BaseMessage]:
    if (body.messages is None) == (body.input is None):
        raise BadQuestion("Give either messages or input.", param="messages")
    return read_messages(body.messages if body.messages is not None else body.input)


def _include_usage(body: wire.ChatBody) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


def _wants(header: str | None) -> bool:
    return header is not None and header.strip().lower() in ("1", "true", "yes")


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


@dataclass
class _Call:
    """One chat completion on its way."""

    house: House
    messages: list[BaseMessage]
    request: Request
    trace: bool
    include_usage: bool

    def __post_init__(self) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created_s = int(time.time())

    async def answer(self, http: HttpRequest) -> Response:
        """The whole answer at once; a caller who hangs up frees the models."""
        work = asyncio.create_task(self.house.capibara.answer(self.messages, self.request))
        watch = asyncio.create_task(_hung_up(http))
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=499)
            answer = work.result()
        finally:
            # Only what still runs: to wait again for a failed task would raise its error anew, without its traceback.
            for task in (work, watch):
                if task.cancel():
                    await asyncio.wait((task,))
        body = wire.completion(answer, id=self.id, created_s=self.created_s, trace=self.trace)
        return JSONResponse(body, headers=wire.decision_headers(answer))

    async def stream(self) -> Response:
        """Chunks as they come.

        The response starts with the first piece of text, or after the ping time: until then a failure is
        still an HTTP error, and the headers say who answers.
        """
        events = _Ahead(self.house.capibara.watch(self.messages, self.request))
        plan: Plan | None = None
        first: Event | Answer | None = None
        limit_s = self.house.settings.server.ping_s
        try:
            async with asyncio.timeout(limit_s):
                while first is None:
                    event = await events.next()
                    if isinstance(event, Answer) or event["event"] == "delta":
                        first = event
                    elif event["event"] == "plan":
                        plan = Plan.model_validate(event["plan"])
        except TimeoutError:
            pass
        except BaseException:  # also when this task is cancelled: the run must not go on without a reader
            await events.close()
            raise
        headers = wire.plan_headers(plan) if plan else {}
        return _Stream(self._sent(first, events), events, ping=limit_s, sep="\n", headers=headers)

    async def _sent(self, first: Event | Answer | None, events: _Ahead) -> AsyncIterator[ServerSentEvent]:
        chunks = wire.Chunks(id=self.id, created_s=self.created_s)
        said = False
        try:
            event = first if first is not None else await events.next()
            while not isinstance(event, Answer):
                if event["event"] == "delta":
                    said = True
                    yield _data(chunks.delta(event))
                event = await events.next()
            if not said:
                yield _data(chunks.whole(event.candidate))
            yield _data(chunks.last(event, trace=self.trace))
            if self.include_usage:
                yield _data(chunks.used(event))
            yield ServerSentEvent("[DONE]", sep="\n")
        except CapibaraError as error:
            # The status is long sent: the stream says what happened and ends without a [DONE].
            yield ServerSentEvent(json.dumps(body_of(error), ensure_ascii=False), event="error", sep="\n")
        except Exception as error:  # noqa: BLE001  (a stream must end with an event, whatever broke)
            yield ServerSentEvent(json.dumps(body_of(internal(error))), event="error", sep="\n")


class _Stream(EventSourceResponse):
    """Cancels the run when the response is over, also when the client left before the first chunk was made."""

    def __init__(self, chunks: AsyncIterator[ServerSentEvent], events: _Ahead, **options: Any) -> None:
        super().__init__(chunks, **options)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.close()


class _Ahead:
    """An event source that can be waited for with a limit: giving up waiting does not cancel what is awaited."""

    def __init__(self, events: AsyncIterator[Event | Answer]) -> None:
        self._queue: asyncio.Queue[Event | Answer | BaseException] = asyncio.Queue()
        self._task = asyncio.create_task(self._pump(events))

    async def _pump(self, events: AsyncIterator[Event | Answer]) -> None:
        try:
            async with aclosing(events) as source:  # type: ignore[type-var]
                async for event in source:
                    self._queue.put_nowait(event)
        except Exception as error:  # noqa: BLE001  (carried over to whoever reads the events)
            self._queue.put_nowait(error)

    async def next(self) -> Event | Answer:
        """The next event; raises what the run raised."""
        event = await self._queue.get()
        if isinstance(event, BaseException):
            raise event
        return event

    async def close(self) -> None:
        """Cancel the run, if it is still going."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


def _data(chunk: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(chunk, ensure_ascii=False, separators=(",", ":")), sep="\n")


async def _hung_up(http: HttpRequest) -> None:
    """Returns when the client has closed the connection."""
    while True:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            return
