"""The original project's paths: their shapes, live figures, errors that say what happened."""

from __future__ import annotations

from typing import Any

import pytest

from capibara_agents.errors import ModelUnavailable
from capibara_agents.http.app import build_app
from capibara_agents.types import ServerState
from tests.asgi import get, post
from tests.fakes import ENGLISH, GPT, MISTRAL, PHI, QWEN, SPANISH, FakeHouse, classification, fail, say

QUESTION = "¿Cuál es la capital de España?"


async def test_chat_answers_in_the_original_shape(house: FakeHouse) -> None:
    """The words, the model that said them, why it was asked, the tokens its server counted."""
    house.upstream.otherwise = SPANISH
    got = await post(build_app(house), "/api/chat", {"message": QUESTION}).done()
    body = got.json()
    assert got.status == 200
    assert {"response", "model", "routing_info", "tokens", "latency_ms"} <= body.keys()
    assert body["response"] == "".join(SPANISH.pieces)
    assert (body["model"], body["tokens"]) == (PHI, 3)
    info = body["routing_info"]
    assert info.keys() >= {"model_id", "route_name", "confidence", "reasoning", "fallback"}
    assert (info["model_id"], info["route_name"], info["fallback"]) == (PHI, "factual_qa", False)
    assert info["reasoning"]
    assert got.headers["x-capibara-models"] == PHI


async def test_a_fallback_is_told(house: FakeHouse) -> None:
    """The model that was chosen first is named beside the one that answered."""
    house.upstream.otherwise = SPANISH
    house.upstream.script(PHI, fail(500))
    body = (await post(build_app(house), "/api/chat", {"message": QUESTION}).done()).json()
    assert body["model"] != PHI
    assert (body["routing_info"]["model_id"], body["routing_info"]["fallback"]) == (PHI, True)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"message": QUESTION, "model": "qwen_coder"}, QWEN),
        ({"prompt": QUESTION, "use_semantic_router": False}, PHI),
    ],
    ids=["named by an alias", "without the router"],
)
async def test_who_is_asked(house: FakeHouse, body: dict[str, Any], model: str) -> None:
    """A named model answers; without router and name it is the first of the order. Sampling goes through."""
    house.upstream.otherwise = SPANISH
    sent = {**body, "temperature": 0.3, "max_tokens": 9}
    assert (await post(build_app(house), "/api/generate", sent).done()).json()["model"] == model
    assert {(r["temperature"], r["max_tokens"]) for r in house.upstream.requests} == {(0.3, 9)}


async def test_a_stream_gives_pieces_and_then_the_rest(house: FakeHouse) -> None:
    """The pieces add up; the last event is done and carries the figures."""
    house.upstream.otherwise = SPANISH
    got = await post(build_app(house), "/api/generate", {"prompt": QUESTION, "stream": True}).done()
    events = got.chunks()
    assert "".join(event["response"] for event in events) == "".join(SPANISH.pieces)
    assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["tokens"] == 3


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/api/chat", {"message": ""}, 400, "message"),
        ("/api/chat", {}, 400, "message"),
        ("/api/chat", {"message": "x", "model": "gpt-4"}, 404, "model"),
        ("/api/chat", {"message": "x", "temperature": 9}, 400, "temperature"),
        ("/api/classify", {}, 400, "query"),
        ("/api/router/test", {}, 400, "query"),
        ("/api/consensus/query", {"prompt": ""}, 400, "prompt"),
        ("/api/consensus/query", {"prompt": "x", "template": "haiku"}, 400, "template"),
        ("/api/consensus/query", {"prompt": "x", "voting": "dice"}, 400, "voting"),
        ("/api/consensus/query", {"prompt": "x", "models": ["gpt-4"]}, 404, "model"),
        ("/api/consensus/query", {"prompt": "x", "models": []}, 400, "models"),
    ],
)
async def test_wrong_input_is_named(house: FakeHouse, path: str, body: Any, status: int, param: str) -> None:
    """A status that says whose mistake it is, and the field; nobody is asked."""
    got = await post(build_app(house), path, body).done()
    assert (got.status, got.json()["error"]["param"]) == (status, param)
    assert not house.upstream.requests


async def test_no_model_is_no_answer(house: FakeHouse) -> None:
    """503 when none can be had: there is no other text to give instead."""
    for spec in house.settings.models:
        house.fleet.refusals[spec.id] = ModelUnavailable("No weights.", model_id=spec.id)
    for path, body in (("/api/chat", {"message": "x"}), ("/api/consensus/query", {"prompt": "x"})):
        got = await post(build_app(house), path, body).done()
        assert (got.status, got.json()["error"]["code"]) == (503, "model_unavailable")
        assert got.headers["retry-after"]


async def test_consensus_tells_the_ballot(house: FakeHouse) -> None:
    """The winner of a real count, who voted how, who failed."""
    for model, reply in ((PHI, say("La respuesta es 42.")), (QWEN, say("Es 41.")), (GPT, say("Son 42."))):
        house.upstream.script(model, reply)
    house.upstream.script(MISTRAL, fail(500))
    house.classifier.says = classification(domain="math")
    body = {"prompt": "¿Cuánto es 6*7?", "models": [PHI, QWEN, MISTRAL, GPT], "voting": "simple", "template": "general"}
    got = (await post(build_app(house), "/api/consensus/query", body).done()).json()
    assert got["model_used"] in (PHI, GPT)
    assert "42" in got["response"]
    assert (got["consensus"], got["consensus_method"]) == (True, "simple")
    # Two who say the same decide as soon as only one other can still answer: that one may be cut off.
    assert got["models_queried"] == 4
    assert got["successful_models"] in (2, 3)
    assert (got["selected_weight"], got["total_weight"]) == (2, got["successful_models"])
    failed = next(voter for voter in got["responses"] if voter["model_id"] == MISTRAL)
    assert (failed["success"], "response" in failed) == (False, False)
    assert all(request["messages"][0]["role"] == "system" for request in house.upstream.requests)


async def test_a_vote_that_is_rejected_shows_its_voters_too(house: FakeHouse) -> None:
    """Whoever is asked alone afterwards stands beside them, and not in their place."""
    for model in (PHI, QWEN):
        house.upstream.script(model, say("ja ja ja " * 60))
    house.upstream.otherwise = SPANISH
    got = (
        await post(build_app(house), "/api/consensus/query", {"prompt": QUESTION, "models": [PHI, QWEN]}).done()
    ).json()
    asked = [voter["model_id"] for voter in got["responses"]]
    assert sorted(asked[:2]) == sorted([PHI, QWEN])
    assert asked[2:] == [got["model_used"]]
    assert (got["models_queried"], got["consensus"], got["response"]) == (3, False, "".join(SPANISH.pieces))


async def test_what_the_consensus_is_made_of(house: FakeHouse) -> None:
    """Models with their state, templates with their text, the defaults of a vote."""
    app = build_app(house)
    house.fleet.states[GPT] = ServerState.failed
    models = (await get(app, "/api/consensus/models").done()).json()
    assert (models["total_models"], models["active_models"]) == (5, 4)
    assert models["models"][GPT]["state"] == "failed"
    templates = (await get(app, "/api/consensus/templates").done()).json()
    assert set(templates) == {"general", "coding", "analysis", "creative", "technical"}
    assert all(t["system_prompt"] and t["name"] and t["description"] for t in templates.values())
    config = (await get(app, "/api/consensus/config").done()).json()
    assert (config["voting_method"], config["fallback_model"]) == ("weighted", PHI)


async def test_health_says_what_is(house: FakeHouse) -> None:
    """Healthy, degraded when one has failed, 503 when all have."""
    app = build_app(house)
    assert (await get(app, "/health").done()).json()["status"] == "healthy"
    house.fleet.states[GPT] = ServerState.failed
    some = await get(app, "/health").done()
    assert (some.status, some.json()["status"], some.json()["services"][GPT]) == (200, "degraded", "unhealthy")
    assert (await get(app, "/api/consensus/health").done()).status == 200
    house.fleet.states = {spec.id: ServerState.failed for spec in house.settings.models}
    none = await get(app, "/health").done()
    assert (none.status, none.json()["status"]) == (503, "unhealthy")
    assert none.headers["retry-after"]
    assert (await get(app, "/api/consensus/health").done()).status == 503
    assert not house.upstream.requests


async def test_stats_count_what_was_answered(house: FakeHouse) -> None:
    """Zero and no mean before the first answer; then the model's own figures."""
    app = build_app(house)
    before = (await get(app, "/stats").done()).json()
    assert (before["total_requests"], before["models"][PHI]["average_latency_ms"]) == (0, None)
    house.upstream.otherwise = ENGLISH
    house.upstream.script(PHI, fail(500))
    await post(app, "/api/chat", {"message": QUESTION, "use_semantic_router": True}).done()
    after = (await get(app, "/stats").done()).json()
    assert (after["total_requests"], after["degraded_requests"]) == (1, 1)
    assert (after["models"][PHI]["requests"], after["models"][PHI]["errors"]) == (1, 1)
    assert after["total_tokens"] > 0


async def test_the_router_is_shown_and_tried(house: FakeHouse) -> None:
    """Each route with the models it leads to; a decision without an answer, by GET and by POST."""
    app = build_app(house)
    info = (await get(app, "/api/router/info").done()).json()
    assert info["model_mapping"]["coding"]["simple"] == QWEN
    assert info["exemplars"] == house.exemplars.count() > 0
    tried = (await post(app, "/api/router/test", {"query": QUESTION}).done()).json()
    assert (tried["query"], tried["decision"]["model_id"]) == (QUESTION, PHI)
    classified = (await post(app, "/api/classify", {"prompt": QUESTION}).done()).json()
    assert (classified["domain"], classified["model_tier"], classified["model"]) == ("factual_qa", "fast_response", PHI)
    assert not house.upstream.requests
