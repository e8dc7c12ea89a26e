"""How good an answer was, by its request id; what was learned from it, and how to take that back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from capibara_agents.http.house import House

P = ParamSpec("P")
T = TypeVar("T")

LEARNING = ThreadPoolExecutor(2, thread_name_prefix="capibara-learning")
"""Learning anew takes seconds: it keeps itself waiting and no one else. (asyncio's threads begin LiteLLM's calls.)"""


class FeedbackBody(BaseModel):
    """`request_id` is the x-request-id of the answer; the score says how good it was, -1 to 1."""

    model_config = ConfigDict(extra="ignore", strict=True)

    request_id: str = Field(min_length=1, max_length=128)
    score: float = Field(ge=-1, le=1, allow_inf_nan=False)
    comment: str = Field("", max_length=2000)


def router(house: House) -> APIRouter:
    """POST /v1/feedback, GET /v1/learning, POST /v1/learning/{id}/undo."""
    routes = APIRouter(prefix="/v1", tags=["learning"])

    @routes.post("/feedback")
    async def feedback(body: FeedbackBody) -> dict[str, Any]:
        return await _learning(house.learning.feedback, body.request_id, body.score, body.comment)

    @routes.get("/learning")
    async def learning() -> dict[str, Any]:
        updates = await _learning(house.learning.updates)
        return {"object": "list", "data": [update.model_dump(mode="json") for update in updates]}

    @routes.post("/learning/{update_id}/undo")
    async def undo(update_id: int) -> dict[str, Any]:
        report = await _learning(house.learning.undo, update_id)
        return report.model_dump(mode="json")

    return routes


async def _learning(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(LEARNING, partial(work, *args, **kwargs))
