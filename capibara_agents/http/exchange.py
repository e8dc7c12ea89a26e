"""One question over HTTP, whatever the shape of its answer: whole, or as server-sent events while it is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Header
from fastapi import Request as HttpRequest
from langchain_core.messages import BaseMessage
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from capibara_agents.errors import CapibaraError
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.errors import body_of, internal
from capibara_agents.http.house import House
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event
from capibara_agents.types import Plan, Request, voter_of


class Shape(Protocol):
    """How an answer looks on the wire. One instance serves one answer; its methods are called in this order."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The body of an answer that does not stream."""
        ...

    def opening(self) -> Iterable[ServerSentEvent]:
        """What a stream begins with, before any text."""
        ...

    def delta(self, event: Event) -> Iterable[ServerSentEvent]:
        """A piece of the answer."""
        ...

    def closing(self, answer: Answer, *, said: bool) -> Iterable[ServerSentEvent]:
        """What a stream ends with; the whole text where none of it was `said` before."""
        ...

    def broken(self, error: CapibaraError) -> Iterable[ServerSentEvent]:
        """What a stream ends with when it cannot be finished."""
        ...


@dataclass
class Exchange:
    """A question on its way through the house."""

    house: House
    messages: list[BaseMessage]
    request: Request
    shape: Shape

    async def whole(self, http: HttpRequest) -> Response:
        """The whole answer at once; a caller who hangs up frees the models."""
        answer = await answered(self.house, self.messages, self.request, http)
        if answer is None:
            return Response(status_code=499)
        return JSONResponse(self.shape.whole(answer), headers=wire.decision_headers(answer))

    async def stream(self) -> Response:
        """Events as they come.

        The response starts with the first piece of text, or after the ping time: until then a failure is
        still an HTTP error, and the headers say who answers.
        """
        events = _Ahead(self.house.capibara.watch(self.messages, self.request))
        plan: Plan | None = None
        first: Event | Answer | None = None
        limit_s, send_s = self.house.settings.server.ping_s, self.house.settings.server.read_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                while first is None:
                    event = await events.next()
                    if isinstance(event, Answer) or event["event"] == "delta":
                        first = event
                    elif event["event"] == "plan":
                        plan = Plan.model_validate(event["plan"])
                    elif _has_answered(event):
                        first = event
        except TimeoutError:
            pass
        except BaseException:  # also when this task is cancelled: the run must not go on without a reader
            await events.close()
            raise
        headers = wire.plan_headers(plan) if plan else {}
        return _Stream(self._sent(first, events), events, ping=limit_s, sep="\n", headers=headers, send_timeout=send_s)

    async def _sent(self, first: Event | Answer | None, events: _Ahead) -> AsyncIterator[ServerSentEvent]:
        said = False
        try:
            for sent in self.shape.opening():
                yield sent
            event = first if first is not None else await events.next()
            while not isinstance(event, Answer):
                if event["event"] == "delta":
                    said = True
                    for sent in self.shape.delta(event):
                        yield sent
                elif (told := _told(event)) is not None:
                    yield told
                event = await events.next()
            for sent in self.shape.closing(event, said=said):
                yield sent
        except CapibaraError as error:
            # The status is long sent: the stream says what happened and ends without its last event.
            for sent in self.shape.broken(error):
                yield sent
        except Exception as error:  # noqa: BLE001  (a stream must end with an event, whatever broke)
            for sent in self.shape.broken(internal(error)):
                yield sent


def _has_answered(event: Event) -> bool:
    """Whether somebody in a vote has answered: from then on there will be an answer, and no HTTP error."""
    told = event["event"] == "candidate" and "asked" in event and event["candidate"]["error"] is None
    return told or (event["event"] == "ballot" and bool(event["ballot"]["votes"]))


def _told(event: Event) -> ServerSentEvent | None:
    """What goes on, as a comment, which clients pass over: how far a long prompt is read, and how a vote stands.

    Of a vote who has answered, and how far the answers agree so far.
    """
    if event["event"] == "reading":
        read, whole = event["read_tokens"], event["prompt_tokens"]
        return ServerSentEvent(comment=f"reading: {event['model']} {read} of {whole} tokens", sep="\n")
    if event["event"] == "candidate" and "asked" in event:
        how = "answered" if event["candidate"]["error"] is None else event["candidate"]["error"]
        agreement = event.get("agreement")
        voter = voter_of(event["candidate"]["model"], event["candidate"]["sample"])
        stands = f"{event['answered']} of {event['asked']}"
        if agreement is not None:
            stands = f"{stands}, agreement {agreement:.2f}"
        return ServerSentEvent(comment=f"vote: {voter} {how}, {stands}", sep="\n")
    if event["event"] == "ballot" and event["ballot"]["votes"]:
        ballot = event["ballot"]
        return ServerSentEvent(
            comment=f"vote: {len(ballot['votes'])} answers, agreement {ballot['agreement']:.2f}", sep="\n"
        )
    return None


async def answered(house: House, messages: list[BaseMessage], request: Request, http: HttpRequest) -> Answer | None:
    """The answer, or None when the caller has hung up; then nothing goes on."""
    work = asyncio.create_task(house.capibara.answer(messages, request))
    watch = asyncio.create_task(_hung_up(http))
    try:
        await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        # Only what still runs: to wait again for a failed task would raise its error anew, without its traceback.
        for task in (work, watch):
            if task.cancel():
                await asyncio.wait((task,))


Trace = Annotated[str | None, Header(alias="X-Capibara-Trace")]


def wants(header: str | None) -> bool:
    """Whether a header that switches something on does so."""
    return header is not None and header.strip().lower() in ("1", "true", "yes")


def data(value: dict[str, Any], *, event: str | None = None) -> ServerSentEvent:
    """One JSON event."""
    return ServerSentEvent(json.dumps(value, ensure_ascii=False, separators=(",", ":")), event=event, sep="\n")


def failure(error: CapibaraError) -> ServerSentEvent:
    """The event of a stream that broke, in the shape of OpenAI's errors."""
    return ServerSentEvent(json.dumps(body_of(error), ensure_ascii=False), event="error", sep="\n")


def done() -> ServerSentEvent:
    """The last event of a complete stream of chunks."""
    return ServerSentEvent("[DONE]", sep="\n")


class _Stream(EventSourceResponse):
    """Cancels the run when the response is over, also when the client left before the first event was made."""

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


async def _hung_up(http: HttpRequest) -> None:
    """Returns when the client has closed the connection."""
    while True:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            return
