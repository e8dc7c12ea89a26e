"""A conversation with real servers: its second turn is not read anew, and the service knows by whom it was read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from service_process import MODELS, Service, running, until

pytestmark = pytest.mark.servers

STORY = " ".join(
    f"El día {day} el jardinero regó {day + 3} macetas y apuntó en su cuaderno que faltaba abono."
    for day in range(1, 6)
)
FIRST = f"Resume esta historia en una frase: {STORY}"
# Two of the five.
GEMMA, GPT = "gemma-3-27b-it", "gpt-oss-20b"
ON = "Resume esa misma historia otra vez, más corta."


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, real_servers: None) -> Iterator[Service]:
    """A service that nobody else asks: what it has learned and read is known."""
    folder = tmp_path_factory.mktemp("affinity")
    # None hands over to another because the machine is busy.
    patient = {"models": {model: {"timeout_s": 250} for model in MODELS}}
    file = folder / "capibara.yaml"
    file.write_text(json.dumps(patient), encoding="utf-8")
    with running(folder / "data", "--config", str(file)) as started:
        yield started


def ask(service: Service, messages: list[dict[str, Any]], model: str = "capibara") -> dict[str, Any]:
    body = {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0}
    response = service.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def route(service: Service, messages: list[dict[str, Any]]) -> dict[str, Any]:
    response = service.client.post("/v1/route", json={"messages": messages})
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_the_second_turn_is_read_from_the_servers_cache(alone: Service) -> None:
    """llama-server's own count of what it did not read; what the service believed of it is near that."""
    messages = [{"role": "user", "content": FIRST}]
    assert route(alone, messages)["read_tokens"] == {}
    first = ask(alone, messages)
    prompt = first["usage"]["prompt_tokens"]
    assert prompt > 100
    messages += [first["choices"][0]["message"], {"role": "user", "content": ON}]
    told = route(alone, messages)
    assert first["model"] in told["read_tokens"]
    second = ask(alone, messages)
    assert second["model"] == told["model"] == first["model"]
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0.9 * prompt
    assert abs(told["read_tokens"][first["model"]] - cached) < 0.1 * prompt
    metrics = alone.client.get("/metrics").text
    assert f'capibara_prompt_tokens_total{{gen_ai_request_model="{first["model"]}",source="cache"}}' in metrics


def test_a_server_that_was_unloaded_has_read_nothing(alone: Service) -> None:
    """Not while it is gone, nor when another process has taken its place; who else has read it still has."""
    messages = [{"role": "user", "content": f"{FIRST} Y di cómo acaba."}]
    answers = {model: ask(alone, messages, model) for model in (GEMMA, GPT)}
    messages += [answers[GEMMA]["choices"][0]["message"], {"role": "user", "content": ON}]
    assert answers.keys() == route(alone, messages)["read_tokens"].keys()
    alone.client.post("/fleet/models/gemma-3-27b-it/unload").raise_for_status()
    assert until(lambda: alone.fleet()[GEMMA]["state"] == "stopped")
    assert set(route(alone, messages)["read_tokens"]) == {GPT}
    alone.client.post("/fleet/models/gemma-3-27b-it/load").raise_for_status()
    assert until(lambda: alone.fleet()[GEMMA]["state"] == "ready", 60)
    assert set(route(alone, messages)["read_tokens"]) == {GPT}
