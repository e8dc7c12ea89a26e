"""Operation: liveness, readiness that rests on a real token, the fleet, the graph."""

from __future__ import annotations

import pytest

from capibara_agents.errors import ModelUnavailable
from capibara_agents.http.app import build_app
from capibara_agents.http.graph_page import page
from capibara_agents.types import ServerState
from tests.asgi import get
from tests.fakes import GPT, PHI, FakeHouse, fail, say


def only_ready(house: FakeHouse, *models: str) -> None:
    house.fleet.states = {spec.id: ServerState.stopped for spec in house.settings.models}
    house.fleet.states |= dict.fromkeys(models, ServerState.ready)


async def test_alive_without_any_model(house: FakeHouse) -> None:
    """Liveness asks nobody."""
    got = await get(build_app(house), "/health/live").done()
    assert (got.status, got.json(), house.fleet.claims) == (200, {"status": "alive"}, [])


async def test_ready_means_that_each_model_in_use_gave_a_token(house: FakeHouse) -> None:
    """Those that are stopped on purpose are not asked; one token each."""
    only_ready(house, PHI, GPT)
    house.upstream.otherwise = say("a")
    got = await get(build_app(house), "/health/ready").done()
    assert (got.status, got.json()["status"]) == (200, "ready")
    asked = {m["id"]: m for m in got.json()["models"] if m["asked"]}
    assert set(asked) == {PHI, GPT}
    assert all(m["ok"] and m["ttft_ms"] > 0 for m in asked.values())
    assert {r["max_tokens"] for r in house.upstream.requests} == {1}


@pytest.mark.parametrize("how", ["status", "empty", "refused"])
async def test_not_ready_when_one_gives_no_token(house: FakeHouse, how: str) -> None:
    """503 with Retry-After, and which model it was."""
    only_ready(house, PHI, GPT)
    house.upstream.otherwise = say("a")
    if how == "refused":
        house.fleet.refusals[GPT] = ModelUnavailable("No weights.", model_id=GPT)
    else:
        house.upstream.script(GPT, fail(500) if how == "status" else say())
    got = await get(build_app(house), "/health/ready").done()
    assert (got.status, got.json()["status"]) == (503, "not_ready")
    assert got.headers["retry-after"]
    assert {m["id"]: m["ok"] for m in got.json()["models"] if m["asked"]} == {PHI: True, GPT: False}


async def test_with_no_model_in_use_the_first_of_the_order_is_asked(house: FakeHouse) -> None:
    """Ready always rests on a token; an order that leaves tiers out is no mistake."""
    only_ready(house)
    house.upstream.otherwise = say("a")
    await get(build_app(house), "/health/ready").done()
    assert house.upstream.asked() == [PHI]
    routing = house.settings.routing.model_copy(update={"fallback_order": ("complex",)})
    house.settings = house.settings.model_copy(update={"routing": routing})
    assert (await get(build_app(house), "/health/ready").done()).status == 200
    assert house.upstream.asked() == [PHI, GPT]


async def test_the_fleet_is_shown_without_secrets(house: FakeHouse) -> None:
    """Every model with its state; no key."""
    got = await get(build_app(house), "/fleet").done()
    assert {"budget_bytes", "used_bytes", "models"} <= got.json().keys()
    assert {"id", "state", "pid", "rss_bytes", "queue"} <= got.json()["models"][0].keys()
    assert b"key-of" not in got.body


async def test_the_graph_as_text_and_as_a_page(house: FakeHouse) -> None:
    """Mermaid for programs; for a browser a page that loads nothing."""
    app = build_app(house)
    text = await get(app, "/graph").done()
    assert text.headers["content-type"].startswith("text/plain")
    assert b"verify" in text.body
    drawn = await get(app, "/graph", accept="text/html,*/*").done()
    markup = drawn.body.decode()
    assert drawn.headers["content-type"].startswith("text/html")
    assert markup.count("<rect") == 7
    assert not any(word in markup for word in ("<script>", "http://", "https://", "@import"))


def test_the_page_escapes_what_it_draws(house: FakeHouse) -> None:
    """Names and source are text."""
    markup = page(house.graph.get_graph(), "<b>&")
    assert "&lt;b&gt;&amp;" in markup
