"""The original project's paths and /metrics on a real service."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_process import MODELS, Service

pytestmark = pytest.mark.servers

QUESTION = "¿Cuál es la capital de Perú?"


def test_chat_is_answered_by_a_real_model(service: Service) -> None:
    """Words, tokens that a server counted, and the decision."""
    got = service.client.post("/api/chat", json={"message": QUESTION, "max_tokens": 8, "temperature": 0})
    body = got.json()
    assert got.status_code == 200
    assert body["response"].strip()
    assert body["model"] in MODELS
    assert 0 < body["tokens"] <= 8
    assert body["latency_ms"] > 0
    assert body["routing_info"]["route_name"]


def test_a_stream_adds_up(service: Service) -> None:
    """Pieces as they come, the figures at the end."""
    sent = {"prompt": QUESTION, "max_tokens": 8, "temperature": 0, "stream": True}
    with service.client.stream("POST", "/api/generate", json=sent) as got:
        lines = [line for line in got.iter_lines() if line.startswith("data:")]
    assert len(lines) > 2
    assert '"done":true' in lines[-1]


def test_two_real_models_vote(service: Service) -> None:
    """Both answers are shown, and that of whoever was asked after them if the checks refuse what the vote found."""
    models = ["phi-4-mini", "qwen2.5-coder-1.5b"]
    sent = {"prompt": "¿2+2?", "models": models, "voting": "simple", "max_tokens": 8}
    body = service.client.post("/api/consensus/query", json=sent).json()
    told = body["responses"]
    assert [voter["model_id"] for voter in told[:2]] in (models, models[::-1])
    assert body["models_queried"] == len(told)
    assert body["successful_models"] >= 1
    assert body["response"] in [voter["response"] for voter in told if voter["model_id"] == body["model_used"]]


def test_what_was_answered_is_counted(service: Service) -> None:
    """/stats and /metrics grow with an answer; the fleet is seen as it is."""
    before = service.client.get("/stats").json()["total_requests"]
    service.client.post("/api/chat", json={"message": QUESTION, "model": "phi-4-mini", "max_tokens": 4})
    after = service.client.get("/stats").json()
    assert after["total_requests"] == before + 1
    assert after["models"]["phi-4-mini"]["completion_tokens"] > 0
    families = {f.name: f for f in text_string_to_metric_families(service.client.get("/metrics").text)}
    assert {"gen_ai_server_time_to_first_token_seconds", "gen_ai_client_token_usage"} <= families.keys()
    ready = {
        s.labels["model"] for s in families["capibara_model_state"].samples if s.labels["state"] == "ready" and s.value
    }
    assert "phi-4-mini" in ready
    assert families["capibara_fleet_memory_used_bytes"].samples[0].value > 0
    health = service.client.get("/health").json()
    assert (health["status"], health["stand_in"]) == ("healthy", True)
    assert "phi-4-mini" in health["models_ready"]
