"""Exemplars over HTTP: list, add, remove. The store blocks for milliseconds to seconds, so it is asked in a thread."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from langchain_core.messages import HumanMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capibara_agents.curation import AT_ONCE, Draft, Wish, added, listed, removed
from capibara_agents.errors import BadQuestion
from capibara_agents.http.house import House
from capibara_agents.types import Classification
from capibara_agents.validation import explain_first

Ids = Annotated[list[str], Field(min_length=1, max_length=AT_ONCE)]


class Several(BaseModel):
    """POST: several exemplars, all of which are added or none."""

    model_config = ConfigDict(extra="ignore")

    exemplars: list[Draft] = Field(min_length=1, max_length=AT_ONCE)


class Removal(BaseModel):
    """DELETE: which exemplars."""

    model_config = ConfigDict(extra="ignore")

    ids: Ids


def router(house: House) -> APIRouter:
    """GET, POST and DELETE /v1/exemplars."""
    routes = APIRouter(prefix="/v1", tags=["exemplars"])

    def look(text: str) -> Classification:
        return house.classifier.classify([HumanMessage(text)])

    @routes.get("/exemplars")
    async def get(wish: Annotated[Wish, Query()]) -> dict[str, Any]:
        return await asyncio.to_thread(lambda: listed(house.exemplars, wish))

    @routes.post("/exemplars", status_code=201)
    async def post(body: Annotated[Any, Body()]) -> dict[str, Any]:
        drafts = _drafts(body)
        return await asyncio.to_thread(lambda: added(house.exemplars, look, drafts))

    @routes.delete("/exemplars")
    async def delete(body: Removal | None = None, ids: Annotated[list[str], Query()] = []) -> dict[str, Any]:  # noqa: B006
        wanted = [*(body.ids if body else ()), *(part for given in ids for part in given.split(",") if part)]
        if not wanted:
            raise BadQuestion("Give the ids of the exemplars to remove.", param="ids")
        return await asyncio.to_thread(lambda: removed(house.exemplars, wanted))

    @routes.delete("/exemplars/{identifier}")
    async def delete_one(identifier: str) -> dict[str, Any]:
        return await asyncio.to_thread(lambda: removed(house.exemplars, [identifier]))

    return routes


def _drafts(body: Any) -> list[Draft]:
    """One exemplar, a list of them, or a list under `exemplars`; BadQuestion names the first wrong field."""
    if isinstance(body, list):
        body = {"exemplars": body}
    try:
        if isinstance(body, dict) and "exemplars" not in body:
            return [Draft.model_validate(body)]
        return Several.model_validate(body).exemplars
    except ValidationError as error:
        path, sentence = explain_first(error.errors(include_url=False))
        raise BadQuestion(sentence, param=path or None) from None
