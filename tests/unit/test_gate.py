"""The front door: keys, sizes, request ids, methods, other origins, and the last resort."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI

from capibara_agents.http.app import build_app
from capibara_agents.http.errors import TABLE
from capibara_agents.http.gate import Gate
from tests.asgi import Exchange, get, post
from tests.fakes import PHI, SPANISH, FakeHouse

CHAT = "/v1/chat/completions"
BODY = {"model": "capibara", "messages": [{"role": "user", "content": "hola"}]}


def guarded(house: FakeHouse, **server: Any) -> FastAPI:
    changed = house.settings.server.model_copy(update=server)
    house.settings = house.settings.model_copy(update={"server": changed})
    return build_app(house)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic one"}, 401),
        ({"authorization": "one"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer one"}, 200),
        ({"authorization": "bearer  two"}, 200),
        ({"x_api_key": "two"}, 200),
        ({"authorization": "Bearer ñ"}, 401),
    ],
)
async def test_api_keys(house: FakeHouse, headers: dict[str, str], status: int) -> None:
    """With keys configured every path asks for one; 401 in OpenAI's shape, with a request id."""
    got = await get(guarded(house, api_keys=("one", "two")), "/v1/models", **headers).done()
    assert got.status == status
    assert got.headers["x-request-id"]
    if status == 401:
        error = got.json()["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


async def test_liveness_and_the_playground_need_no_key(house: FakeHouse) -> None:
    """A probe has none; every other path does, those that do not exist too."""
    app = guarded(house, api_keys=("one",))
    assert (await get(app, "/health/live").done()).status == 200
    assert (await get(app, "/capibara/playground/").done()).status == 200
    for path in ("/fleet", "/graph", "/health/ready", "/nothing", "/capibara/input_schema", "/openapi.json"):
        assert (await get(app, path).done()).status == 401


async def test_a_large_body_is_refused_by_its_length(house: FakeHouse) -> None:
    """Before it is read."""
    app = guarded(house, max_body_bytes=100)
    got = await post(app, CHAT, {**BODY, "x": "y" * 200}, content_length="300").done()
    assert (got.status, got.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("path", [CHAT, "/v1/route", "/capibara/invoke"])
async def test_a_large_body_without_a_length_is_refused_while_it_comes(house: FakeHouse, path: str) -> None:
    """Chunked, or with a length that lies."""
    app = guarded(house, max_body_bytes=100)
    parts = [b'{"x": "', *[b"y" * 40] * 5, b'"}']
    got = await Exchange(app, "POST", path, parts, [("content-type", "application/json")]).done()
    assert (got.status, got.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_body_at_the_limit_is_read(house: FakeHouse) -> None:
    """The limit itself is allowed."""
    house.upstream.script(PHI, SPANISH)
    app = guarded(house, max_body_bytes=len(json.dumps(BODY).encode()))
    assert (await post(app, CHAT, BODY).done()).status == 200


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 200, False), ("<script>", False)]
)
async def test_request_ids(house: FakeHouse, given: str, kept: bool) -> None:
    """A harmless one is given back, any other replaced."""
    got = await get(guarded(house), "/health/live", x_request_id=given).done()
    assert (got.headers["x-request-id"] == given) is kept
    assert got.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("PUT", "/health/live", "GET"),
        ("GET", "/v1/route", "POST"),
    ],
)
async def test_a_wrong_method_is_405_with_allow(house: FakeHouse, method: str, path: str, allow: str) -> None:
    """In OpenAI's shape."""
    got = await Exchange(guarded(house), method, path).done()
    assert (got.status, got.json()["error"]["code"]) == (405, "method_not_allowed")
    assert allow in got.headers["allow"]


async def test_an_unknown_path_is_404(house: FakeHouse) -> None:
    """In OpenAI's shape."""
    got = await get(guarded(house), "/v1/nothing").done()
    assert (got.status, got.json()["error"]["code"]) == (404, "not_found")


async def test_other_origins_only_where_configured(house: FakeHouse) -> None:
    """A browser's preflight needs no key; the decision headers can be read; refusals carry the header, too."""
    origin = "https://example.org"
    app = guarded(house, api_keys=("one",), cors_origins=(origin,))
    ask = [("origin", origin), ("access-control-request-method", "POST")]
    preflight = await Exchange(app, "OPTIONS", CHAT, (), ask).done()
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, origin)
    refused = await get(app, "/v1/models", origin=origin).done()
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, origin)
    assert "x-capibara-verified" in refused.headers["access-control-expose-headers"]
    plain = await get(guarded(house, api_keys=(), cors_origins=()), "/health/live", origin=origin).done()
    assert "access-control-allow-origin" not in plain.headers


async def test_an_error_after_the_head_ends_the_response_and_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The server sees an unfinished response and breaks the connection; no error text goes anywhere."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("swordfish")

    got = await get(Gate(broken, api_keys=(), max_body_bytes=10), "/x").done()
    assert (got.status, got.finished) == (200, False)
    assert "RuntimeError" in caplog.text
    assert "swordfish" not in caplog.text


async def test_the_openapi_document_can_be_made(house: FakeHouse) -> None:
    """All faces describe themselves."""
    got = await get(guarded(house), "/openapi.json").done()
    assert {CHAT, "/v1/route", "/capibara/invoke", "/health/ready"} <= got.json()["paths"].keys()


def test_every_refusal_has_a_client_status() -> None:
    """The table knows no 2xx and no 3xx."""
    assert all(400 <= status < 600 for status, _ in TABLE.values())
