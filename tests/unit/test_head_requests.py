"""HEAD wherever there is GET: the same status and headers, and no body."""

from __future__ import annotations

import pytest

from capibara_agents.http.app import build_app
from tests.asgi import Exchange, get
from tests.fakes import FakeHouse, say


@pytest.mark.parametrize(
    "path", ["/health/live", "/v1/models", "/docs", "/openapi.json", "/metrics", "/fleet", "/nothing"]
)
async def test_it_says_what_get_would(house: FakeHouse, path: str) -> None:
    """Of a path that there is not, too."""
    app = build_app(house)
    with_body, without = await get(app, path).done(), await Exchange(app, "HEAD", path).done()
    assert without.status == with_body.status
    assert without.body == b""
    assert without.finished
    for name in ("content-type", "x-content-type-options"):
        assert without.headers[name] == with_body.headers[name]
    if path != "/metrics":
        assert without.headers["content-length"] == with_body.headers["content-length"]


async def test_readiness_is_found_out_and_not_shown(house: FakeHouse) -> None:
    """A token is asked for, as GET does."""
    house.upstream.otherwise = say("a")
    head = await Exchange(build_app(house), "HEAD", "/health/ready").done()
    assert (head.status, head.body) == (200, b"")
    assert house.upstream.requests


async def test_a_stream_without_an_end_ends(house: FakeHouse) -> None:
    """At its head."""
    head = await Exchange(build_app(house), "HEAD", "/fleet/events").done()
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")


async def test_where_there_is_no_get_there_is_no_head(house: FakeHouse) -> None:
    """405, and Allow names it only where it is allowed."""
    app = build_app(house)
    refused = await Exchange(app, "HEAD", "/v1/chat/completions").done()
    assert (refused.status, refused.headers["allow"]) == (405, "POST")
    other = await Exchange(app, "DELETE", "/health/live").done()
    assert (other.status, other.headers["allow"]) == (405, "GET, HEAD")


async def test_it_needs_the_key_that_get_needs(house: FakeHouse) -> None:
    """And none where GET needs none."""
    server = house.settings.server.model_copy(update={"api_keys": ("llave",)})
    house.settings = house.settings.model_copy(update={"server": server})
    app = build_app(house)
    assert (await Exchange(app, "HEAD", "/health/live").done()).status == 200
    assert (await Exchange(app, "HEAD", "/v1/models").done()).status == 401
