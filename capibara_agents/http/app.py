"""All faces on one application."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from capibara_agents.http import (
    completions,
    data,
    embeddings,
    errors,
    exemplars,
    feedback,
    fleet,
    langgraph_api,
    langgraph_threads,
    langserve,
    legacy,
    metrics,
    openai,
    openapi,
    operation,
    pages,
    responses,
    route,
)
from capibara_agents.http.gate import Gate
from capibara_agents.http.head import Head
from capibara_agents.http.house import House
from capibara_agents.http.traffic import Traffic
from capibara_agents.version import __version__

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

DECISION_HEADERS = [f"x-capibara-{name}" for name in ("route", "mode", "models", "agreement", "verified", "degraded")]


# FastAPI's own pages load from elsewhere, and it makes its description anew at every request; `pages.py` does neither.
NO_PAGES: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}


def build_app(house: House, *, lifespan: Lifespan | None = None) -> FastAPI:
    """The service over a house. Nothing of the house is made before the first request or the lifespan."""
    settings = house.settings.server
    options: dict[str, Any] = {"lifespan": lifespan} if lifespan else {}
    app = FastAPI(
        title="Capibara", version=__version__, description="Five local models, one answer.", **options, **NO_PAGES
    )
    app.include_router(openai.router(house))
    app.include_router(completions.router(house))
    app.include_router(embeddings.router(house))
    app.include_router(responses.router(house))
    app.include_router(route.router(house))
    app.include_router(exemplars.router(house))
    app.include_router(feedback.router(house))
    app.include_router(data.router(house))
    app.include_router(operation.router(house))
    app.include_router(fleet.router(house))
    app.include_router(metrics.router(house))
    app.include_router(pages.router())
    app.include_router(legacy.router(house))
    app.include_router(legacy.consensus_router(house))
    app.include_router(langgraph_api.router(house))
    app.include_router(langgraph_threads.router(house))
    app.include_router(langserve.router(house.capibara, prefix="/capibara", ping_s=settings.ping_s))
    errors.install(app)
    openapi.describe(app)
    # What serves the application reads it, to close in good order.
    app.state.traffic = traffic = Traffic(settings)
    app.add_middleware(Head)
    app.add_middleware(Gate, limits=settings, traffic=traffic)
    # Outside the gate: what it refuses is counted too.
    app.add_middleware(metrics.Metered, metering=lambda: house.metering)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", *DECISION_HEADERS],
        )
    return app
