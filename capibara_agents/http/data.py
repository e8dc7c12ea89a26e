"""What is kept of people's questions, and forgetting it. The stores block, so they are asked in a thread."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from capibara_agents import kept
from capibara_agents.http.house import House


def router(house: House) -> APIRouter:
    """GET /v1/data, DELETE /v1/data/{kind}."""
    routes = APIRouter(prefix="/v1", tags=["data"])

    @routes.get("/data")
    async def get() -> dict[str, Any]:
        return await asyncio.to_thread(kept.listed, house)

    @routes.delete("/data/{kind}")
    async def delete(kind: str) -> dict[str, Any]:
        return await asyncio.to_thread(kept.deleted, house, kind)

    return routes
