"""OpenAI's Responses: POST /v1/responses, and those that are kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from capibara_agents.conversations import Conversations, Kept
from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http import openai_wire
from capibara_agents.http import responses_wire as wire
from capibara_agents.http.exchange import Exchange, Trace, data, done, wants
from capibara_agents.http.house import House
from capibara_agents.http.responses_draft import Draft
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event


def router(house: House) -> APIRouter:
    """/v1/responses and /v1/responses/{id}."""
    routes = APIRouter(prefix="/v1/responses", tags=["openai"])

    @routes.post("")
    async def create(body: wire.ResponseBody, http: HttpRequest, trace: Trace = None) -> Response:
        before = await run_in_threadpool(_before, house.conversations, body.previous_response_id)
        chat = wire.chat_body(body, before)
        messages, request = openai_wire.read_chat(chat)
        # What a response was told stays its own: instructions are not handed down to the next one.
        said = [message for message in chat.messages if message.get("role") not in ("system", "developer")]
        exchange = Exchange(
            house, messages, request, ResponseShape(body, said, house.conversations, trace=wants(trace))
        )
        return await (exchange.stream() if body.stream else exchange.whole(http))

    @routes.post("/compact")
    async def compact() -> None:
        raise BadQuestion("This service compacts no conversations.", code="not_found")

    @routes.get("/{response_id}")
    async def get(response_id: str) -> dict[str, Any]:
        return (await run_in_threadpool(_kept, house.conversations, response_id)).response

    @routes.delete("/{response_id}")
    async def delete(response_id: str) -> dict[str, Any]:
        if not await run_in_threadpool(house.conversations.remove, response_id):
            raise _unknown(response_id, None)
        return {"id": response_id, "object": "response.deleted", "deleted": True}

    return routes


def _before(conversations: Conversations, previous_id: str | None) -> list[dict[str, Any]]:
    """The conversation that a response continues."""
    return [] if previous_id is None else _kept(conversations, previous_id, "previous_response_id").messages


def _kept(conversations: Conversations, response_id: str, param: str | None = None) -> Kept:
    kept = conversations.get(response_id)
    if kept is None:
        raise _unknown(response_id, param)
    return kept


def _unknown(response_id: str, param: str | None) -> BadQuestion:
    message = f"No response {response_id[:100]!r} is kept here. Responses outlive a restart only with store: true."
    return BadQuestion(message, param=param, code="not_found")


class ResponseShape:
    """A response object, or its events."""

    def __init__(
        self, body: wire.ResponseBody, said: list[dict[str, Any]], conversations: Conversations, *, trace: bool
    ) -> None:
        self._id = f"resp_{uuid.uuid4().hex}"
        self._body, self._said, self._conversations = body, said, conversations
        self._draft = Draft(body, id=self._id, created_s=int(time.time()), trace=trace)

    def whole(self, answer: Answer) -> dict[str, Any]:
        response = self._draft.finished(answer, at_s=int(time.time()))
        self._keep(response)
        return response

    def opening(self) -> Iterator[ServerSentEvent]:
        yield from map(_sent, self._draft.opened())

    def delta(self, event: Event) -> Iterator[ServerSentEvent]:
        yield from map(_sent, self._draft.piece(event))

    def closing(self, answer: Answer, *, said: bool) -> Iterator[ServerSentEvent]:
        for event in self._draft.closed(answer, at_s=int(time.time())):
            if "response" in event:
                self._keep(event["response"])
            yield _sent(event)
        yield done()

    def broken(self, error: CapibaraError) -> Iterator[ServerSentEvent]:
        yield _sent(self._draft.broken(error))

    def _keep(self, response: dict[str, Any]) -> None:
        """So that another response can follow; not where the caller wants nothing kept."""
        if self._body.store is not False:
            messages = [*self._said, *wire.messages_of(response["output"])]
            self._conversations.keep(self._id, messages, response, on_disk=self._body.store is True)


def _sent(event: Event) -> ServerSentEvent:
    return data(event, event=event["type"])
