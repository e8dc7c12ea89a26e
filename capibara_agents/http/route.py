"""The route of a question, nothing generated: what it is, who would answer, and what spoke for it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter
from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, Field

from capibara_agents.errors import BadQuestion
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.house import House
from capibara_agents.runnable import read_messages
from capibara_agents.types import Request

BATCH_LIMIT = 256


class RouteBody(BaseModel):
    """POST /v1/route: a conversation, or one text as `input`."""

    model_config = ConfigDict(extra="ignore", strict=True)

    messages: list[dict[str, Any]] | None = Field(None, min_length=1)
    input: str | None = None
    model: str = "capibara"
    capibara: wire.Options | None = None


class RouteBatchBody(BaseModel):
    """POST /v1/route/batch: several texts."""

    model_config = ConfigDict(extra="ignore", strict=True)

    inputs: list[str] = Field(min_length=1, max_length=BATCH_LIMIT)


def router(house: House) -> APIRouter:
    """POST /v1/route and /v1/route/batch."""
    routes = APIRouter(prefix="/v1", tags=["route"])

    @routes.post("/route")
    async def route(body: RouteBody) -> dict[str, Any]:
        options = body.capibara.model_dump(exclude_none=True, exclude={"stream"}) if body.capibara else {}
        request = wire.request_of({**options, "model": body.model})
        return decision(house, _conversation(body), request)

    @routes.post("/route/batch")
    async def route_batch(body: RouteBatchBody) -> dict[str, Any]:
        # All are read before one is decided: a wrong one costs nothing.
        conversations = [_read(text, f"inputs.{number}") for number, text in enumerate(body.inputs)]
        results = []
        for messages in conversations:
            results.append(decision(house, messages, Request()))
            # A batch takes a while; the streams of others must not stand still meanwhile.
            await asyncio.sleep(0)
        return {"results": results}

    return routes


def decision(house: House, messages: list[BaseMessage], request: Request) -> dict[str, Any]:
    """What would become of a question; the reason in the question's language."""
    started = time.perf_counter()
    shown = house.explain(messages, request)
    return {**shown, "timings_ms": {"total": round(1000 * (time.perf_counter() - started), 3)}}


def _conversation(body: RouteBody) -> list[BaseMessage]:
    if (body.messages is None) == (body.input is None):
        raise BadQuestion("Give either messages or input.", param="messages")
    return read_messages(body.messages) if body.messages is not None else _read(body.input, "input")


def _read(text: str | None, param: str) -> list[BaseMessage]:
    try:
        return read_messages(text)
    except BadQuestion as error:
        raise BadQuestion(error.message.replace("messages", param, 1), param=param) from None
