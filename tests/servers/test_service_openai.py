"""/v1/chat/completions of a real service over real llama.cpp servers, seen on the wire.

The weights are a small stand-in, so nothing here asks for wisdom: protocol, routing and honesty.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from service_process import MODELS, Service, chat_body, until

pytestmark = pytest.mark.servers

QUESTIONS = {"es": "¿Cuál es la capital de Francia?", "en": "What is the capital of France?"}
TIERS = {"fast_response", "balanced", "general", "multimodal", "complex"}
TRACE = {"classification", "plan", "candidates", "ballot", "verdict", "timings_ms"}
TRACED = {"X-Capibara-Trace": "1"}


def events_of(service: Service, body: dict[str, Any], headers: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """The server-sent events of a stream as (event, data); comments are left out."""
    sent = {**body, "stream": True}
    with service.client.stream("POST", "/v1/chat/completions", json=sent, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line.partition(":") for line in block.splitlines() if line and not line.startswith(":")]
        fields = {name: value.removeprefix(" ") for name, _, value in lines}
        if fields:
            events.append((fields.get("event", "message"), fields["data"]))
    return events


def chunks_of(events: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    assert events[-1] == ("message", "[DONE]")
    assert all(event == "message" for event, _ in events)
    return [json.loads(data) for _, data in events[:-1]]


def spoken(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("language", ["es", "en"])
def test_an_answer_has_openais_shape_and_says_how_it_was_decided(service: Service, language: str) -> None:
    """A whole completion: text, a model of the fleet, a usage that adds up, the decision in the headers."""
    response = service.chat(QUESTIONS[language])
    assert response.status_code == 200, response.text
    body = response.json()
    choice = body["choices"][0]
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].strip()
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert 0 < usage["completion_tokens"] <= 12
    assert usage["prompt_tokens"] > 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    headers = response.headers
    assert body["model"] in headers["x-capibara-models"].split(",")
    assert headers["x-capibara-route"] in TIERS
    assert headers["x-capibara-mode"] == "single"
    assert 0 <= float(headers["x-capibara-agreement"]) <= 1
    assert headers["x-capibara-verified"] in ("true", "false")
    assert headers["x-capibara-degraded"] == "false"
    assert headers["x-request-id"]
    assert "capibara" not in body


@pytest.mark.parametrize("language", ["es", "en"])
def test_the_trace_carries_every_part_of_the_decision(service: Service, language: str) -> None:
    """With X-Capibara-Trace the body explains itself, and agrees with the headers and the answer."""
    response = service.client.post("/v1/chat/completions", json=chat_body(QUESTIONS[language]), headers=TRACED)
    body, trace = response.json(), response.json()["capibara"]
    assert set(trace) == TRACE
    assert trace["classification"]["language"] == language
    assert trace["classification"]["neighbours"]
    assert trace["plan"]["tier"] == response.headers["x-capibara-route"]
    assert trace["plan"]["reason"]["code"].startswith("route.")
    chosen = {f"{c['attempt']}:{c['model']}": c for c in trace["candidates"]}[trace["verdict"]["candidate"]]
    assert chosen["content"] == body["choices"][0]["message"]["content"]
    assert chosen["model"] == body["model"]
    assert chosen["usage"]["completion_tokens"] == body["usage"]["completion_tokens"]
    assert chosen["timings"]["total_ms"] > 0
    assert trace["verdict"]["checks"][0] == {"name": "not_empty", "passed": True, "reason": "", "details": {}}
    assert str(trace["verdict"]["accepted"]).lower() == response.headers["x-capibara-verified"]
    assert {"classify", "route", "vote", "verify"} <= set(trace["timings_ms"])


@pytest.mark.parametrize("language", ["es", "en"])
def test_a_stream_keeps_openais_order(service: Service, language: str) -> None:
    """Pieces with finish_reason null, one terminal chunk, the usage chunk that was asked for, then [DONE]."""
    body = chat_body(QUESTIONS[language], stream_options={"include_usage": True})
    chunks = chunks_of(events_of(service, body, TRACED))
    *pieces, last, used = chunks
    assert len(pieces) > 1
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in pieces)
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    assert last["choices"][0]["delta"] == {}
    assert spoken(chunks).strip()
    assert used["choices"] == []
    assert used["usage"]["total_tokens"] == used["usage"]["prompt_tokens"] + used["usage"]["completion_tokens"]
    assert {chunk["id"] for chunk in chunks} == {last["id"]}
    assert all("usage" not in chunk or chunk["usage"] is None for chunk in chunks[:-1])
    assert TRACE | {"verified", "degraded"} == set(last["capibara"])
    assert "capibara" not in used
    assert spoken(chunks) in [candidate["content"] for candidate in last["capibara"]["candidates"]]


def test_a_stream_without_stream_options_has_no_usage_chunk(service: Service) -> None:
    """The usage comes only when asked for; the verdict rides on the terminal chunk all the same."""
    chunks = chunks_of(events_of(service, chat_body("Say hello", model="phi-4-mini")))
    assert all(chunk["choices"] for chunk in chunks)
    assert set(chunks[-1]["capibara"]) == {"verified", "degraded"}


def test_the_headers_of_a_stream_say_only_what_is_known_then(service: Service) -> None:
    """Route, mode and models are decided at the start; a verdict is not."""
    body = chat_body("Say hello", stream=True)
    with service.client.stream("POST", "/v1/chat/completions", json=body) as response:
        headers = response.headers
        assert headers["x-capibara-route"] in TIERS
        assert headers["x-capibara-mode"] == "single"
        assert headers["x-capibara-models"] in MODELS
        assert not {"x-capibara-verified", "x-capibara-agreement", "x-capibara-degraded"} & set(headers)


def test_a_verified_stream_gives_the_text_in_one_piece(service: Service) -> None:
    """Nothing unchecked is sent, so the whole answer comes as one chunk before the terminal one."""
    body = chat_body("Say hello", model="phi-4-mini", capibara={"stream": "verified"})
    chunks = chunks_of(events_of(service, body))
    assert len(chunks) == 2
    assert chunks[0]["choices"][0]["delta"]["content"].strip()


def test_stop_ends_the_text_before_the_stop_string(service: Service) -> None:
    """No vowel of the list appears, and the reason is stop."""
    stop = ["a", "e", "i", "o"]
    response = service.chat(QUESTIONS["en"], model="phi-4-mini", max_tokens=32, stop=stop)
    choice = response.json()["choices"][0]
    assert not set(stop) & set(choice["message"]["content"])
    assert choice["finish_reason"] == "stop"


def test_a_seed_repeats_an_answer_and_others_vary_it(service: Service) -> None:
    """The same seed gives the same text at temperature 1.5; of several seeds not all agree."""

    def said(seed: int) -> str:
        body = {"model": "phi-4-mini", "temperature": 1.5, "seed": seed, "max_tokens": 10}
        content: str = service.chat("Tell me something.", **body).json()["choices"][0]["message"]["content"]
        return content

    # The first time the prompt is read, afterwards it is known: that may differ in the last bits.
    said(7)
    assert said(7) == said(7)
    assert len({said(seed) for seed in range(4)}) > 1


def test_logprobs_come_with_every_token(service: Service) -> None:
    """Each token has its log-probability and the alternatives asked for, and the tokens make up the text."""
    response = service.chat("Say hello", model="phi-4-mini", logprobs=True, top_logprobs=3)
    choice = response.json()["choices"][0]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 3 for entry in entries)
    assert service.chat("Say hello", model="phi-4-mini").json()["choices"][0]["logprobs"] is None


def test_logprobs_come_in_a_stream_too(service: Service) -> None:
    """The chunks carry the log-probabilities of their own pieces."""
    chunks = chunks_of(events_of(service, chat_body("Say hello", model="phi-4-mini", logprobs=True)))
    entries = [e for c in chunks for choice in c["choices"] for e in (choice["logprobs"] or {}).get("content") or []]
    assert "".join(entry["token"] for entry in entries) == spoken(chunks)


def test_a_json_schema_is_kept_and_verified(service: Service) -> None:
    """The text is JSON of the schema, and the verdict says that this was checked."""
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Lima", "Madrid"]}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    body = chat_body("Name a city as JSON.", response_format=wanted, max_tokens=64)
    response = service.client.post("/v1/chat/completions", json=body, headers=TRACED)
    jsonschema.validate(json.loads(response.json()["choices"][0]["message"]["content"]), schema)
    checks = {check["name"]: check for check in response.json()["capibara"]["verdict"]["checks"]}
    assert checks["json"] == {"name": "json", "passed": True, "reason": "", "details": {}}
    assert response.headers["x-capibara-verified"] == "true"


def test_an_answer_cut_off_inside_its_json_is_not_called_verified(service: Service) -> None:
    """Too few tokens for the schema: the text comes back with 200 and the header says false."""
    schema = {"type": "object", "properties": {"a": {"const": "x" * 40}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "long", "schema": schema}}
    response = service.chat("Go", model="phi-4-mini", response_format=wanted, max_tokens=16)
    assert response.status_code == 200
    assert response.headers["x-capibara-verified"] == "false"
    assert response.json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("name", "model"), [("phi4:mini", "phi-4-mini"), ("qwen_coder", "qwen2.5-coder-1.5b")])
def test_an_alias_asks_the_model_behind_it(service: Service, name: str, model: str) -> None:
    """An alias works where a model is named, and the answer says who really gave it."""
    response = service.chat("Say hello", model=name, max_tokens=4)
    assert response.json()["model"] == model
    assert response.headers["x-capibara-models"] == model


def test_consensus_asks_several_models_and_counts(service: Service) -> None:
    """Two processes answer side by side, each has its vote, and the agreement is that of the ballot."""
    voters = ["phi-4-mini", "qwen2.5-coder-1.5b"]
    body = chat_body("¿Cuánto es 12*7?", model="capibara-consensus", max_tokens=8, capibara={"voters": voters})
    response = service.client.post("/v1/chat/completions", json=body, headers=TRACED)
    trace = response.json()["capibara"]
    assert response.headers["x-capibara-mode"] == "consensus"
    first = [candidate["model"] for candidate in trace["candidates"] if candidate["attempt"] == 1]
    assert sorted(first) == sorted(voters)
    assert float(response.headers["x-capibara-agreement"]) == pytest.approx(trace["ballot"]["agreement"], abs=1e-3)
    assert {f"{c['attempt']}:{c['model']}" for c in trace["candidates"]} >= {trace["verdict"]["candidate"]}


def test_a_given_request_id_is_kept(service: Service) -> None:
    """What a caller sends as x-request-id comes back; what is no id does not."""
    url, body = "/v1/chat/completions", chat_body("Say hello", model="phi-4-mini", max_tokens=1)
    kept = service.client.post(url, json=body, headers={"x-request-id": "abc-123"})
    assert kept.headers["x-request-id"] == "abc-123"
    other = service.client.post(url, json=body, headers={"x-request-id": "no id at all"})
    assert other.headers["x-request-id"] != "no id at all"


def test_a_client_that_goes_away_frees_the_model(service: Service) -> None:
    """After the connection is closed in the middle of a long stream, nobody holds the model any more."""
    # The end-of-answer token is forbidden, so that there is a middle to leave in.
    body = chat_body("Count.", model="phi-4-mini", max_tokens=3000, stream=True, logit_bias={"2": -100})
    with service.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        first = next(lines)
        held = service.fleet()["phi-4-mini"]["active"]
        assert held == 1, [first, *lines][-6:]
    assert until(lambda: service.fleet()["phi-4-mini"]["active"] == 0, 60)
