"""Pages for browsers that load nothing from elsewhere: /docs with its description, the scripts and styles of pages."""

from __future__ import annotations

import gzip
import json
from importlib import resources

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from capibara_agents.http.fixed import Body, Fixed

SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
ASSETS = {
    "mermaid.min.js": ("vendor/mermaid.min.js.gz", SCRIPT),
    "swagger-ui-bundle.js": ("vendor/swagger-ui-bundle.js.gz", SCRIPT),
    "swagger-ui.css": ("vendor/swagger-ui.css.gz", STYLE),
    "graph_page.js": ("graph_page.js", SCRIPT),
    "docs_page.js": ("docs_page.js", SCRIPT),
}
# Both libraries put style elements and attributes into the page; scripts come from here alone.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Capibara API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="assets/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<noscript>This page needs JavaScript; the description itself is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="assets/swagger-ui-bundle.js"></script><script src="assets/docs_page.js"></script></body></html>
"""


def router() -> APIRouter:
    """GET /docs, /openapi.json and /assets/{name}."""
    routes = APIRouter(include_in_schema=False)
    assets = {name: _asset(file, media_type) for name, (file, media_type) in ASSETS.items()}
    described: list[Fixed] = []

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        """The API, described and ready to be tried."""
        return HTMLResponse(DOCS, headers=HEADERS)

    @routes.api_route("/openapi.json", methods=["GET", "HEAD"])
    async def description(http: Request) -> Response:
        """What /docs shows."""
        if not described:
            described.append(Fixed(lambda: _document(http.app), "application/json", "no-cache"))
        return await described[0].answer(http.headers)

    @routes.api_route("/assets/{name}", methods=["GET", "HEAD"])
    async def asset(name: str, http: Request) -> Response:
        """A script or a style of the pages."""
        if name not in assets:
            raise HTTPException(404)
        return await assets[name].answer(http.headers)

    return routes


def _document(app: FastAPI) -> Body:
    return Body.of(json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode())


def _asset(file: str, media_type: str) -> Fixed:
    def read() -> Body:
        kept = resources.files("capibara_agents.http").joinpath(file).read_bytes()
        return Body.of(gzip.decompress(kept), kept) if file.endswith(".gz") else Body.of(kept)

    return Fixed(read, media_type, "public, max-age=86400")
