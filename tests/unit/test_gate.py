"""The front door: keys, sizes, request ids, methods, other origins, and the last resort."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from fastapi import FastAPI

from capibara_agents.http.app import build_app
from capibara_agents.http.connection import guarded as guarded_connection
from capibara_agents.http.errors import TABLE
from capibara_agents.http.gate import Gate
from capibara_agents.http.traffic import Traffic
from capibara_agents.settings import ServerSettings
from tests.asgi import Exchange, get, post
from tests.fakes import PHI, SPANISH, FakeHouse, say
from tests.upstream import serving

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


async def test_a_key_may_stand_in_the_configuration_as_its_hash(house: FakeHouse) -> None:
    """The hash itself opens nothing."""
    hashed = "sha256:" + hashlib.sha256(b"one").hexdigest()
    app = guarded(house, api_keys=(hashed,))
    assert (await get(app, "/v1/models", authorization="Bearer one").done()).status == 200
    for wrong in (hashed, hashed.removeprefix("sha256:"), "ONE"):
        assert (await get(app, "/v1/models", authorization=f"Bearer {wrong}").done()).status == 401


PAGES = ("/docs", "/openapi.json", "/graph", "/capibara/playground/", "/assets/docs_page.js", "/assets/swagger-ui.css")


async def test_liveness_and_pages_without_data_need_no_key(house: FakeHouse) -> None:
    """A probe has no key, and a page must be there for a key to be typed into it."""
    app = guarded(house, api_keys=("one",))
    for path in ("/health/live", *PAGES):
        assert (await get(app, path).done()).status == 200, path
    document = (await get(app, "/openapi.json").done()).json()
    assert {"key": []} in document["security"]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


async def test_all_else_needs_a_key(house: FakeHouse) -> None:
    """Every path of the description by every method, those that do not exist, and the pages by another method."""
    app = guarded(house, api_keys=("one",))
    described = (await get(app, "/openapi.json").done()).json()["paths"]
    asked = [
        (method.upper(), path.replace("{", "").replace("}", "")) for path, item in described.items() for method in item
    ]
    asked += [("GET", path) for path in ("/nothing", "/health/ready", "/capibara/input_schema", "/fleet/events")]
    asked += [("GET", path) for path in ("/docs/", "//docs", "/DOCS", "/docs/../v1/models", "/assets", "/graph/x")]
    asked += [("POST", path) for path in ("/health/live", *PAGES)]
    for method, path in asked:
        if method == "GET" and path in ("/health/live", *PAGES):
            continue
        assert (await Exchange(app, method, path).done()).status == 401, (method, path)
    assert len(asked) > 60


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

    got = await get(Gate(broken, limits=ServerSettings(max_body_bytes=10)), "/x").done()
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


async def test_browsers_are_told_what_an_answer_is(house: FakeHouse) -> None:
    """Answers of data are no pages, and nobody keeps them; refusals say so, too."""
    app = guarded(house, api_keys=("one",))
    for headers in ({}, {"authorization": "Bearer one"}):
        got = (await get(app, "/v1/models", **headers).done()).headers
        assert got["x-content-type-options"] == "nosniff"
        assert got["x-frame-options"] == "DENY"
        assert got["content-security-policy"].startswith("default-src 'none'")
        assert got["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, 200),
        ({"host": "127.0.0.1:8000", "origin": "https://example.org"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "null"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "https://friend.example"}, 200),
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, 403),
        ({"host": "evil.example:8000", "sec_fetch_site": "same-origin"}, 403),
    ],
)
async def test_pages_of_other_sites_may_not_ask_where_no_key_is_asked_for(
    house: FakeHouse, headers: dict[str, str], status: int
) -> None:
    """Not from another origin, and not from one whose name was made to point here."""
    app = guarded(house, cors_origins=("https://friend.example",))
    got = await post(app, "/v1/route", {"input": "hola"}, **headers).done()
    assert got.status == status
    if status == 403:
        assert got.json()["error"]["code"] == "origin_not_allowed"


async def test_large_headers_are_refused(house: FakeHouse) -> None:
    """All of them together count."""
    app = guarded(house, max_header_bytes=1024)
    got = await get(app, "/health/live", x_a="y" * 600, x_b="y" * 600).done()
    assert (got.status, got.json()["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("path", [CHAT, "/v1/route", "/capibara/invoke"])
async def test_a_body_that_stops_is_refused(house: FakeHouse, path: str) -> None:
    """Part of it has come, and no more does."""
    app = guarded(house, body_timeout_s=0.1)
    got = await Stopping(app, "POST", path, [b'{"model": '], [("content-type", "application/json")]).done()
    assert got.status == 408


class Stopping(Exchange):
    """A client that sends the first part of a body and then nothing."""

    async def _receive(self) -> Any:
        if self._parts:
            return {"type": "http.request", "body": self._parts.pop(0), "more_body": True}
        return await asyncio.Event().wait()


async def test_over_the_limit_of_a_key_is_429_at_once(house: FakeHouse) -> None:
    """Each key has its own count; Retry-After says when to come again."""
    app = guarded(house, api_keys=("one", "two"), requests_per_minute=2)
    one, two = {"authorization": "Bearer one"}, {"authorization": "Bearer two"}
    for _ in range(2):
        assert (await post(app, "/v1/route", {"input": "hola"}, **one).done()).status == 200
    over = await post(app, "/v1/route", {"input": "hola"}, **one).done()
    assert (over.status, over.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(over.headers["retry-after"]) <= 30
    assert (await post(app, "/v1/route", {"input": "hola"}, **two).done()).status == 200
    assert (await get(app, "/v1/models", **one).done()).status == 200


async def test_too_much_at_once_is_refused_and_room_comes_back(house: FakeHouse) -> None:
    """One under way for a key, two in all; a client that leaves gives its room back."""
    app = guarded(house, api_keys=("one", "two", "three"), requests_at_once=1, requests_in_all=2)
    house.upstream.otherwise = say("La ", "capital", stall_after=1)
    keys = [{"authorization": f"Bearer {key}"} for key in ("one", "two", "three")]
    calls = [post(app, CHAT, {**BODY, "stream": True}, **key) for key in keys[:2]]
    for call in calls:
        await call.until(lambda c: b"La" in c.body)
    same = await post(app, CHAT, BODY, **keys[0]).done()
    assert (same.status, same.json()["error"]["code"]) == (429, "too_many_requests")
    other = await post(app, CHAT, BODY, **keys[2]).done()
    assert (other.status, other.json()["error"]["code"]) == (503, "overloaded")
    assert same.headers["retry-after"]
    assert other.headers["retry-after"]
    for call in calls:
        call.hang_up()
        await call.done()
    assert app.state.traffic.active == 0
    assert (await post(app, "/v1/route", {"input": "hola"}, **keys[0]).done()).status == 200


async def test_nothing_new_begins_while_the_service_closes(house: FakeHouse) -> None:
    """What is under way goes on; a probe still gets its answer."""
    app = guarded(house)
    gate = threading.Event()
    house.upstream.script(PHI, say("La capital de España ", "es Madrid.", wait_after=(1, gate)))
    call = post(app, CHAT, {**BODY, "stream": True})
    await call.until(lambda c: b"capital" in c.body)
    app.state.traffic.closing = True
    late = await post(app, CHAT, BODY).done()
    assert (late.status, late.json()["error"]["code"]) == (503, "closing")
    assert (await get(app, "/health/live").done()).status == 200
    gate.set()
    await call.done()
    assert call.events()[-1][1] == "[DONE]"


# ---------------------------------------------------------------- connections


LIMITED = guarded_connection(max_header_bytes=4096, header_timeout_s=0.5, body_timeout_s=0.5, read_timeout_s=0.5)


@pytest.fixture
def door(house: FakeHouse) -> Iterator[tuple[str, int]]:
    """The service on a port, with small limits on the head of a request."""
    with serving(guarded(house), http=LIMITED) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def heard(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    connection.settimeout(60)
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            got += piece
    return got


def test_a_head_without_an_end_is_cut_off(door: tuple[str, int]) -> None:
    """By its size while it grows, by its time when it stops, also when nothing at all comes."""
    with socket.create_connection(door) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 20_000)
        assert heard(connection).startswith(b"HTTP/1.1 431")
    for begun in (b"", b"GET /health/live HTTP/1.1\r\nhost: a\r\n"):
        with socket.create_connection(door) as connection:
            connection.sendall(begun)
            assert heard(connection).startswith(b"HTTP/1.1 408")


def test_a_large_body_is_no_large_head(door: tuple[str, int]) -> None:
    """Several requests on one connection, bodies longer than a head may be."""
    body = json.dumps({"input": "hola " * 4000})
    with httpx.Client(base_url=f"http://{door[0]}:{door[1]}", trust_env=False) as client:
        for _ in range(3):
            assert (
                client.post("/v1/route", content=body, headers={"content-type": "application/json"}).status_code == 200
            )


def test_a_stream_that_nobody_reads_is_cut_and_holds_nobody_up(house: FakeHouse) -> None:
    """The one who does not read loses the connection; others are answered meanwhile, and its room comes back."""
    app = guarded(house, read_timeout_s=0.5)
    house.upstream.script(PHI, say(*(f"{n} " * 4000 for n in range(20))), SPANISH)
    with serving(app, send_buffer_bytes=4096) as url, socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = url.removeprefix("http://").split(":")
        lazy.connect((host, int(port)))
        body = json.dumps({**BODY, "stream": True}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        lazy.sendall(f"{head}\r\n\r\n".encode() + body)
        assert lazy.recv(64).startswith(b"HTTP/1.1 200")
        assert httpx.post(url + CHAT, json=BODY, trust_env=False, timeout=60).status_code == 200
        end = time.monotonic() + 30
        while app.state.traffic.active and time.monotonic() < end:
            time.sleep(0.05)
        assert app.state.traffic.active == 0
        assert house.fleet.all_given_back


LONG = say(*(f"{n} " * 4000 for n in range(40)))
QUESTION = {"messages": [{"role": "user", "content": "hola"}]}
UNREAD: dict[str, dict[str, object]] = {
    "/capibara/stream": {"input": QUESTION},
    "/capibara/stream_events": {"input": QUESTION},
    "/runs/stream": {"assistant_id": "capibara", "input": QUESTION, "stream_mode": ["messages", "custom"]},
    "/v1/responses": {"model": "capibara", "input": "hola", "stream": True},
    "/v1/completions": {"model": "capibara", "prompt": "hola", "stream": True},
    "/api/chat": {"message": "hola", "stream": True},
}


@pytest.mark.parametrize("path", UNREAD)
def test_a_reader_who_stops_is_cut_off_at_every_face(house: FakeHouse, path: str) -> None:
    """His connection ends, nothing is under way any more, and the model is free."""
    app = guarded(house, read_timeout_s=3600)  # (only the connection's own limit is at work here)
    house.upstream.script(PHI, LONG)
    with serving(app, send_buffer_bytes=4096, http=LIMITED) as url, socket.socket() as lazy:
        sent(lazy, url, path, json.dumps(UNREAD[path]).encode())
        assert lazy.recv(64).startswith(b"HTTP/1.1 200")
        end = time.monotonic() + 60
        while (app.state.traffic.active or not house.fleet.all_given_back) and time.monotonic() < end:
            time.sleep(0.05)
        assert app.state.traffic.active == 0
        assert house.fleet.all_given_back


def test_a_large_page_that_nobody_reads_is_cut_off(house: FakeHouse) -> None:
    """Its reader finds the connection broken off, not the whole of it waiting for him."""
    lost = threading.Semaphore(0)

    class Watched(LIMITED):  # type: ignore[valid-type, misc]
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.release()

    with serving(guarded(house), send_buffer_bytes=4096, http=Watched) as url, socket.socket() as lazy:
        whole = int(httpx.get(url + "/assets/mermaid.min.js", trust_env=False).headers["content-length"])
        assert lost.acquire(timeout=60)
        sent(lazy, url, "/assets/mermaid.min.js")
        assert lost.acquire(timeout=60)
        assert len(heard(lazy)) < whole


def test_a_slow_reader_is_not_cut_off() -> None:
    """As long as he takes something between two looks; who takes nothing is."""
    connection = LIMITED.__new__(LIMITED)
    connection.transport = transport = MagicMock()
    connection.loop = loop = MagicMock()
    connection.flow = MagicMock()
    transport.get_write_buffer_size.return_value = 100_000
    connection.pause_writing()
    for left in (90_000, 89_999, 50_000):
        _, look, before = loop.call_later.call_args.args
        transport.get_write_buffer_size.return_value = left
        look(before)
        transport.abort.assert_not_called()
    _, look, before = loop.call_later.call_args.args
    look(before)
    transport.abort.assert_called_once()


def sent(connection: socket.socket, url: str, path: str, body: bytes = b"") -> None:
    """One request on a connection that takes little at a time."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    how = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
    typed = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(how.encode() + typed.encode() + body)


def test_rest_begins_when_the_last_request_has_ended() -> None:
    """Not before; after each time."""
    traffic, rests = Traffic(ServerSettings()), []
    traffic.at_rest = lambda: rests.append(traffic.active)
    with traffic.admitted(b"one"):
        with traffic.admitted(b"two"):
            pass
        assert rests == []
    assert rests == [0]
    with traffic.admitted(b"one"):
        pass
    assert rests == [0, 0]


async def test_while_it_starts_only_so_many_wait(house: FakeHouse) -> None:
    """Also of those who only read, which are not counted later; who waited is answered when it has begun."""
    app = guarded(house, requests_in_all=2)
    traffic: Traffic = app.state.traffic
    traffic.begun.clear()
    waiting = [asyncio.create_task(get(app, "/fleet").done()) for _ in range(2)]
    await asyncio.sleep(0)
    refused = await get(app, "/fleet").done()
    assert (refused.status, refused.json()["error"]["code"]) == (503, "starting")
    assert "retry-after" in refused.headers
    assert (await get(app, "/health/live").done()).status == 200
    traffic.begun.set()
    assert [got.status for got in await asyncio.gather(*waiting)] == [200, 200]
    assert (await get(app, "/fleet").done()).status == 200
