"""Pages for browsers that load nothing from elsewhere: /docs, and the scripts and styles of /docs and /graph."""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

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
    """GET /docs and /assets/{name}."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        """The API, described and ready to be tried."""
        return HTMLResponse(DOCS, headers=HEADERS)

    @routes.get("/assets/{name}")
    async def asset(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
        """A script or a style of the pages."""
        if name not in ASSETS:
            raise HTTPException(404)
        return _asset(name, packed="gzip" in accept_encoding)

    return routes


def _asset(name: str, *, packed: bool) -> Response:
    file, media_type = ASSETS[name]
    body, headers = _read(file), {"cache-control": "public, max-age=86400", "x-content-type-options": "nosniff"}
    if file.endswith(".gz"):
        headers["vary"] = "accept-encoding"
        if packed:
            headers["content-encoding"] = "gzip"
        else:
            body = _unpacked(file)
    return Response(body, media_type=media_type, headers=headers)


@cache
def _unpacked(file: str) -> bytes:
    return gzip.decompress(_read(file))


@cache
def _read(file: str) -> bytes:
    return resources.files("capibara_agents.http").joinpath(file).read_bytes()
