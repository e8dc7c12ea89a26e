"""Bodies that never change: made once and beside the loop, packed, tagged, sent in pieces."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import Any

import pytest
from starlette.datastructures import Headers

from capibara_agents.http.app import build_app
from capibara_agents.http.fixed import PIECE_BYTES, Body, Fixed, takes_gzip
from tests.asgi import Exchange, get
from tests.fakes import FakeHouse

LARGE = ("/openapi.json", "/assets/mermaid.min.js", "/assets/swagger-ui-bundle.js", "/assets/swagger-ui.css")


@pytest.mark.parametrize("path", [*LARGE, "/assets/docs_page.js"])
async def test_who_has_a_body_is_not_sent_it_again(house: FakeHouse, path: str) -> None:
    """By its tag, packed or not, in a list or weakened; another tag is answered with the body."""
    app = build_app(house)
    plain = await get(app, path).done()
    packed = await get(app, path, accept_encoding="gzip").done()
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["etag"] != packed.headers["etag"]
    for known in (plain.headers["etag"], f'"x", W/{packed.headers["etag"]}', "*"):
        again = await get(app, path, if_none_match=known).done()
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == plain.headers["etag"]
        assert "accept-encoding" in again.headers["vary"]
    assert (await get(app, path, if_none_match='"other"').done()).status == 200


async def test_the_description_is_made_once(house: FakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, and at the same time."""
    app, calls = build_app(house), []
    made = app.openapi
    monkeypatch.setattr(app, "openapi", lambda: (calls.append(1), made())[1])
    got = await asyncio.gather(*(get(app, "/openapi.json").done() for _ in range(5)))
    assert {one.status for one in got} == {200}
    assert len({one.body for one in got}) == 1
    assert got[0].json()["info"]["title"] == "Capibara"
    assert len(calls) == 1


async def test_making_a_body_holds_up_nobody() -> None:
    """It is made in a thread, which here waits for the loop."""
    beaten = threading.Event()

    def make() -> Body:
        assert beaten.wait(30)
        return Body.of(b"x")

    answer = asyncio.ensure_future(Fixed(make, "text/plain", "no-cache").answer(Headers({})))
    await asyncio.sleep(0)
    beaten.set()
    assert (await answer).body == b"x"


class Counting(Exchange):
    """Notes the size of every piece, and how often others ran in between."""

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.pieces = [*getattr(self, "pieces", []), len(message.get("body", b""))]
        await super()._send(message)


async def test_a_large_body_comes_in_pieces_and_others_run_between_them(house: FakeHouse) -> None:
    """A reader that stops holds one piece of it in memory, not all."""
    app = build_app(house)
    await get(app, "/assets/swagger-ui-bundle.js").done()
    exchange, turns = Counting(app, "GET", "/assets/swagger-ui-bundle.js"), 0
    while not exchange.finished:
        turns += 1
        await asyncio.sleep(0)
    await exchange.done()
    assert max(exchange.pieces) == PIECE_BYTES
    assert len(exchange.pieces) > 20
    assert turns > 20
    assert len(exchange.body) == int(exchange.headers["content-length"])


async def test_a_head_has_no_body_of_its_own(house: FakeHouse) -> None:
    """The server leaves it out; its headers are those of GET."""
    app = build_app(house)
    head = await Exchange(app, "HEAD", "/openapi.json").done()
    whole = await get(app, "/openapi.json").done()
    assert (head.status, head.headers["content-length"]) == (200, whole.headers["content-length"])


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("deflate, x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, br", False),
        ("identity", False),
        ("notgzip", False),
        ("", False),
    ],
)
def test_gzip_is_sent_to_those_who_take_it(accepted: str, takes: bool) -> None:
    """As RFC 9110 reads an Accept-Encoding."""
    assert takes_gzip(accepted) is takes


async def test_the_graph_is_drawn_once_for_each_graph(house: FakeHouse) -> None:
    """It is drawn again when a new configuration has made another one."""
    app, drawn = build_app(house), []

    class Watched:
        def __init__(self, graph: Any) -> None:
            self._graph = graph

        def get_graph(self) -> Any:
            drawn.append(self)
            return self._graph.get_graph()

    real = house.graph
    for _ in range(2):
        house.graph = Watched(real)  # type: ignore[assignment]
        for accept in ("text/html", "*/*", "text/html"):
            got = await get(app, "/graph", accept=accept).done()
            assert "classify" in got.body.decode()
            assert got.headers["vary"] == "accept"
    assert len(drawn) == len(set(drawn)) == 2
