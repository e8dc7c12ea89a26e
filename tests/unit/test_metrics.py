"""Metrics: OpenTelemetry's names, one entry for each candidate, no text of anybody in them."""

from __future__ import annotations

import re
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
from prometheus_client.parser import text_string_to_metric_families

from capibara_agents.assembly import House
from capibara_agents.http.app import build_app
from capibara_agents.metering import Tally
from capibara_agents.settings import Settings
from capibara_agents.types import Candidate, ServerState, Timings, Usage
from tests.asgi import Exchange, get, post
from tests.fakes import GPT, PHI, SPANISH, FakeHouse, fail

SECRET = "zanahoria-secreta"


async def samples(house: FakeHouse) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of /metrics."""
    got = await get(build_app(house), "/metrics").done()
    assert got.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(got.body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """The sum over the samples of that name with these labels."""
    return sum(value for (n, given), value in found.items() if n == name and labels.items() <= given)


async def test_an_answer_is_measured_by_model(house: FakeHouse) -> None:
    """Tokens, time to the first one, time for all; the one that failed with its code."""
    house.upstream.otherwise = SPANISH
    house.upstream.script(PHI, fail(500))
    await post(build_app(house), "/api/chat", {"message": SECRET}).done()
    found = await samples(house)
    answered = next(m for m in house.upstream.asked() if m != PHI)
    duration = "gen_ai_server_request_duration_seconds_count"
    assert total(found, duration, gen_ai_request_model=PHI) == 1
    assert total(found, duration, gen_ai_request_model=PHI, error_type="") == 0
    assert total(found, duration, gen_ai_request_model=answered, error_type="") == 1
    tokens = {"gen_ai_request_model": answered, "gen_ai_operation_name": "chat"}
    assert total(found, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **tokens) == 3
    assert total(found, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **tokens) == 7
    assert total(found, "gen_ai_server_time_to_first_token_seconds_count", gen_ai_request_model=answered) == 1
    assert total(found, "capibara_answers_total", domain="factual_qa", degraded="true") == 1


async def test_what_a_server_held_already_is_told_from_what_it_read(house: FakeHouse) -> None:
    """As the server reports it; one that does not say counts as neither."""
    for cached in (None, 5):
        house.upstream.script(PHI, replace(SPANISH, prompt_tokens=7, cached_tokens=cached))
        await post(build_app(house), "/api/chat", {"message": "¿Y?"}).done()
    found = await samples(house)
    for source, tokens in (("cache", 5), ("computed", 2)):
        assert total(found, "capibara_prompt_tokens_total", gen_ai_request_model=PHI, source=source) == tokens


async def test_nothing_of_a_question_is_in_them(house: FakeHouse) -> None:
    """Neither the prompt nor an unknown path or method becomes a label."""
    house.upstream.otherwise = SPANISH
    app = build_app(house)
    await post(app, "/api/chat", {"message": SECRET}).done()
    await get(app, f"/{SECRET}").done()
    await get(app, f"/v1/models/{SECRET}").done()
    await Exchange(app, SECRET.upper(), "/health").done()
    text = (await get(app, "/metrics").done()).body.decode()
    assert SECRET not in text.lower()
    assert "".join(SPANISH.pieces)[:10] not in text
    found = await samples(house)
    requests = "http_server_request_duration_seconds_count"
    assert total(found, requests, http_route="/v1/models/{name:path}", http_response_status_code="404") == 1
    assert total(found, requests, http_request_method="_OTHER") == 1
    assert total(found, requests, http_route="/api/chat", http_response_status_code="200") == 1


async def test_head_is_counted_at_its_own_path(house: FakeHouse) -> None:
    """As GET is, under its own name."""
    await Exchange(build_app(house), "HEAD", "/health/live").done()
    requests = "http_server_request_duration_seconds_count"
    assert total(await samples(house), requests, http_request_method="HEAD", http_route="/health/live") == 1


async def test_the_fleet_as_it_is_now(house: FakeHouse) -> None:
    """One state for each model; what changes is seen at the next look."""
    house.fleet.states[GPT] = ServerState.failed
    found = await samples(house)
    assert total(found, "capibara_model_state", model=GPT, state="failed") == 1
    assert total(found, "capibara_model_state", model=GPT) == 1
    house.fleet.states[GPT] = ServerState.ready
    assert total(await samples(house), "capibara_model_state", model=GPT, state="ready") == 1


async def test_refusals_at_the_door_are_counted(house: FakeHouse) -> None:
    """A wrong key is a 401 in the figures, too."""
    server = house.settings.server.model_copy(update={"api_keys": ("llave",)})
    house.settings = house.settings.model_copy(update={"server": server})
    app = build_app(house)
    assert (await get(app, "/stats").done()).status == 401
    text = (await get(app, "/metrics", authorization="Bearer llave").done()).body.decode()
    counted = re.search(r"^http_server_request_duration_seconds_count\{.*\"401\".*\} 1.0$", text, re.MULTILINE)
    assert counted


@pytest.mark.parametrize("broken", [None, "x"])
def test_a_run_that_cannot_be_counted_hurts_nobody(house: FakeHouse, broken: object) -> None:
    """Counting never raises into the run."""
    house.metering.ended(broken, broken, broken, broken)  # type: ignore[arg-type]
    assert house.metering.runs == 0


def test_the_time_since_the_start_counts_from_the_start(settings: Settings) -> None:
    """The house makes what counts when it is warmed, before anybody asks."""
    house = House(settings)
    for part in ("embedder", "exemplars", "classifier", "learning", "models", "graph"):
        house.__dict__[part] = MagicMock()
    house.warm()
    assert "metering" in house.__dict__


async def test_a_short_answer_says_how_fast_it_was(house: FakeHouse) -> None:
    """Its model's speed in GET /fleet is its own, though it is over before the fleet looks twice; others have none."""
    house.upstream.otherwise = SPANISH
    app = build_app(house)
    body = {"model": PHI, "messages": [{"role": "user", "content": "hola"}]}
    before = (await get(app, "/fleet").done()).json()["models"]
    assert {model["tokens_per_second"] for model in before} == {None}
    assert (await post(app, "/v1/chat/completions", body).done()).status == 200
    after = {model["id"]: model["tokens_per_second"] for model in (await get(app, "/fleet").done()).json()["models"]}
    assert after[PHI] > 0
    assert after[GPT] is None


def test_an_answer_of_one_token_leaves_the_speed_as_it_was() -> None:
    """Nothing can be measured of it; nor of one that failed before its first token."""
    timings = Timings(wait_ms=100, ttft_ms=50, total_ms=400)
    ten = Candidate(model=PHI, attempt=1, content="a b", usage=Usage(completion_tokens=11), timings=timings)
    tally = Tally().plus(ten)
    assert tally.speed == pytest.approx(40)
    one = ten.model_copy(update={"usage": Usage(completion_tokens=1)})
    none = ten.model_copy(update={"timings": Timings(wait_ms=100, ttft_ms=None, total_ms=400), "error": "x"})
    assert tally.plus(one).plus(none).speed == tally.speed
    assert Tally().plus(one).speed is None
