"""What is kept of people's questions, and forgetting it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from capibara_agents import kept
from capibara_agents.http.house import House


def router(house: House) -> APIRouter:
    """GET /v1/data, DELETE /v1/data/{kind}."""
    routes = APIRouter(prefix="/v1", tags=["data"])

    @routes.get("/data")
    async def get() -> dict[str, Any]:
        return await kept.listed(house)

    @routes.delete("/data/{kind}")
    async def delete(kind: str) -> dict[str, Any]:
        return await kept.deleted(house, kind)

    return routes
