"""Operation: health that means something, the graph."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from langchain_core.messages import HumanMessage
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from capibara_agents.http import graph_page, pages
from capibara_agents.http.house import House
from capibara_agents.models import Inquiry
from capibara_agents.settings import ModelSpec
from capibara_agents.types import FleetSnapshot, ModelStatus, Sampling, ServerState, Tier

# States of a model that has been used and should answer; a stopped one is loaded when it is needed.
SHOULD_ANSWER = frozenset({ServerState.ready, ServerState.starting, ServerState.failed})


def router(house: House) -> APIRouter:
    """/health/live, /health/ready, /graph."""
    routes = APIRouter(tags=["operation"])
    drawing = _Drawing()

    @routes.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/health/ready")
    async def ready() -> JSONResponse:
        snapshot = house.fleet.snapshot()
        specs = [house.settings.spec(status.id) for status in to_ask(snapshot, house)]
        asked = dict(zip((s.id for s in specs), await asyncio.gather(*(_token(house, s) for s in specs)), strict=True))
        fresh = house.fleet.snapshot()
        models = [{"id": m.id, "state": m.state, **asked.get(m.id, {"asked": False})} for m in fresh.models]
        ok = all(result["ok"] for result in asked.values())
        body = {"status": "ready" if ok else "not_ready", "models": models}
        return JSONResponse(body, 200 if ok else 503, None if ok else {"retry-after": "5"})

    @routes.get("/graph", response_class=PlainTextResponse, responses={200: {"content": {"text/html": {}}}})
    async def graph(http: HttpRequest) -> Response:
        mermaid, page = drawing.of(house.graph)
        if "text/html" in http.headers.get("accept", ""):
            return HTMLResponse(page, headers={**pages.HEADERS, "vary": "accept"})
        return PlainTextResponse(mermaid, headers={"vary": "accept"})

    return routes


class _Drawing:
    """The graph as mermaid text and as a page; drawn again when a new configuration has made another one."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._drawn = ("", "")

    def of(self, graph: Any) -> tuple[str, str]:
        if graph is not self._graph:
            found = graph.get_graph()
            mermaid = found.draw_mermaid()
            self._drawn = (mermaid, graph_page.page(found, mermaid))
            self._graph = graph
        return self._drawn


def to_ask(snapshot: FleetSnapshot, house: House) -> list[ModelStatus]:
    """The models a readiness check asks: those in use and those pinned; with none, the first of the fallback order.

    So that "ready" always rests on a token that was really generated.
    """
    chosen = [m for m in snapshot.models if m.state in SHOULD_ANSWER or house.settings.spec(m.id).pinned]
    if chosen:
        return chosen
    order = [*house.settings.routing.fallback_order, *get_args(Tier)]
    return [min(snapshot.models, key=lambda m: order.index(house.settings.spec(m.id).tier))]


async def _token(house: House, spec: ModelSpec) -> dict[str, Any]:
    """One token from one model."""
    question = Inquiry(
        spec=spec,
        attempt=1,
        messages=[HumanMessage("ping")],
        sampling=Sampling(max_tokens=1, temperature=0),
        deadline_s=spec.timeout_s + house.settings.runtime.load_wait_s,
    )
    candidate = await house.models.ask(question)
    # A single token may be white space or belong to the reasoning: it counts, an error does not.
    ok = candidate.error is None and candidate.usage.completion_tokens > 0
    result: dict[str, Any] = {"asked": True, "ok": ok, "ttft_ms": candidate.timings.ttft_ms}
    return result if ok else {**result, "error": candidate.error or "empty", "message": candidate.error_message}
