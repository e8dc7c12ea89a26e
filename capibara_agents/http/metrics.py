"""GET /metrics, and the plain ASGI layer that measures every request to its last byte."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from capibara_agents.http.house import House
from capibara_agents.metering import Metering

# Methods that are not among these share a label: a caller must not be able to make up new ones.
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
HUNG_UP = 499


def router(house: House) -> APIRouter:
    """GET /metrics, Prometheus' text format."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """OpenTelemetry's GenAI metrics, the fleet's gauges, HTTP requests; see docs/http.md."""
        return Response(house.metering.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


class Metered:
    """Tells the metering how long each request took and what became of it."""

    def __init__(self, app: ASGIApp, *, metering: Callable[[], Metering]) -> None:
        self._app = app
        self._metering = metering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), HUNG_UP

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "_OTHER"
            self._metering().served(method, route_of(scope), status, time.perf_counter() - started)


def route_of(scope: Scope) -> str:
    """The template of the path that was found (`/v1/models/{name}`); empty where there was none."""
    path = getattr(scope.get("route"), "path", "")
    return path if isinstance(path, str) else ""
