"""Models, routes, health, the fleet and the graph of a real service."""

from __future__ import annotations

import re
from typing import Any

import psutil
import pytest
from service_process import MODELS, Service, chat_body, until

from capibara_agents.language import detect

pytestmark = pytest.mark.servers
MOVING = ("starting", "stopping")


def test_models_say_that_they_are_stand_ins(service: Service) -> None:
    """All five, with the weights they really run on; the virtual ones are marked as such."""
    listed = {model["id"]: model for model in service.client.get("/v1/models").json()["data"]}
    assert [name for name in listed if name in MODELS] == list(MODELS)
    for name in MODELS:
        assert listed[name]["stand_in"] is True
        assert "SmolLM2" in listed[name]["weights"]
        assert listed[name]["object"] == "model"
    assert listed["capibara"]["virtual"] is True
    assert len({listed[name]["tier"] for name in MODELS}) == 5


@pytest.mark.parametrize(
    ("question", "language", "domain"),
    [
        ("¿Cuál es la capital de Francia?", "es", "factual_qa"),
        ("What is the capital of France?", "en", "factual_qa"),
        ("Escribe una función en Python que invierta una lista.", "es", "coding"),
    ],
)
def test_a_route_explains_itself_in_the_questions_language(
    service: Service, question: str, language: str, domain: str
) -> None:
    """Language, domain, tier and model of a question, with neighbours and a reason in words."""
    decided = service.client.post("/v1/route", json={"input": question}).json()
    assert decided["language"] == language
    assert decided["domain"] == domain
    assert decided["model"] in MODELS
    assert decided["models"] == [decided["model"]]
    assert decided["complexity_level"] in ("simple", "medium", "complex")
    assert 0 <= decided["complexity"] <= 1
    assert 0 < decided["confidence"] <= 1
    assert {"id", "score", "domain"} == set(decided["neighbours"][0])
    # Which sentence it is depends on what the service has learned by now.
    assert detect(decided["reason"])[0] == language
    assert decided["timings_ms"]["total"] > 0


def test_a_batch_of_routes_keeps_its_order_and_asks_nobody(service: Service) -> None:
    """The results stand where their questions stood, agree with single routes, and no model's state changes."""
    questions = [
        "Hola, ¿qué tal?",
        "SELECT name FROM users WHERE age > 30: explain it",
        "Traduce al inglés: buenos días",
    ]

    def single() -> list[Any]:
        told = [service.client.post("/v1/route", json={"input": question}).json() for question in questions]
        return [{**one, "timings_ms": None} for one in told]

    assert until(lambda: not any(m["active"] or m["state"] in MOVING for m in service.fleet().values()), 60)
    before = {name: (model["pid"], model["state"]) for name, model in service.fleet().items()}
    earlier = single()
    results = service.client.post("/v1/route/batch", json={"inputs": questions}).json()["results"]
    # What the service has learned of earlier answers may come in between.
    for one, other, of_batch in zip(earlier, single(), results, strict=True):
        assert {**of_batch, "timings_ms": None} in (one, other)
    assert [result["language"] for result in results] == ["es", "en", "es"]
    assert {name: (model["pid"], model["state"]) for name, model in service.fleet().items()} == before


def test_live_says_alive(service: Service) -> None:
    """The process answers; nothing is asked of any model."""
    response = service.client.get("/health/live")
    assert response.status_code == 200
    assert response.json() == {"status": "alive"}


def test_ready_rests_on_a_token_that_was_really_generated(service: Service) -> None:
    """The model's own counter of predicted tokens has grown by the check."""
    assert service.chat("Say hello", model="phi-4-mini", max_tokens=1).status_code == 200
    before = predicted_tokens(service, "phi-4-mini")
    response = service.client.get("/health/ready")
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "ready"
    models = {model["id"]: model for model in response.json()["models"]}
    assert set(models) == set(MODELS)
    assert models["phi-4-mini"]["asked"] is True
    assert models["phi-4-mini"]["ok"] is True
    assert predicted_tokens(service, "phi-4-mini") > before


def predicted_tokens(service: Service, model: str) -> float:
    """What llama-server itself has counted. Its key is read where the service has put it: in its environment."""
    status = service.fleet()[model]
    key = psutil.Process(status["pid"]).environ()["LLAMA_API_KEY"]
    metrics = service.client.get(f"{status['url']}/metrics", headers={"Authorization": f"Bearer {key}"})
    assert metrics.status_code == 200, metrics.text
    name = "llamacpp:tokens_predicted_total "
    return float(next(line for line in metrics.text.splitlines() if line.startswith(name)).removeprefix(name))


def test_the_models_servers_are_locked_to_others(service: Service) -> None:
    """Without the key that only the service knows, a model's server answers no question."""
    service.chat("Say hello", model="phi-4-mini", max_tokens=1)
    url = service.fleet()["phi-4-mini"]["url"]
    response = service.client.post(f"{url}/v1/chat/completions", json=chat_body("a"))
    assert response.status_code == 401


def test_the_five_models_are_five_processes(service: Service) -> None:
    """Each model, once asked, has a llama-server of its own, a child of the service that listens on its own port."""
    for name in MODELS:
        assert service.chat("Hi", model=name, max_tokens=1).status_code == 200
    fleet = service.fleet()
    assert list(fleet) == list(MODELS)
    assert {model["state"] for model in fleet.values()} == {"ready"}
    assert len({model["pid"] for model in fleet.values()}) == 5
    assert len({model["url"] for model in fleet.values()}) == 5
    for name, model in fleet.items():
        process = psutil.Process(model["pid"])
        assert process.name() == "llama-server"
        assert process.ppid() == service.process.pid
        assert name in process.cmdline()
        assert model["rss_bytes"] is None or model["rss_bytes"] > 50e6
        assert model["stand_in"] is True


def test_the_graph_is_mermaid_for_programs(service: Service) -> None:
    """All five nodes and the way back from verify to route."""
    response = service.client.get("/graph", headers={"accept": "*/*"})
    assert response.headers["content-type"].startswith("text/plain")
    assert all(f"{node}(" in response.text for node in ("classify", "route", "generate", "vote", "verify"))
    assert "verify -" in response.text
    assert any(line.strip().startswith("verify") and "route" in line for line in response.text.splitlines())


def test_the_graph_is_a_page_for_people(service: Service) -> None:
    """A browser gets a drawing that needs nothing from anywhere else."""
    response = service.client.get("/graph", headers={"accept": "text/html,application/xhtml+xml"})
    assert response.headers["content-type"].startswith("text/html")
    assert "<svg" in response.text
    assert all(f">{node}<" in response.text for node in ("classify", "route", "generate", "vote", "verify"))
    sources = re.findall(r'src="([^"]*)"', response.text)
    assert not [source for source in sources if source.startswith(("http", "//", "data:"))]
    for source in sources:
        assert service.client.get(f"/{source.lstrip('/')}").status_code == 200, source
    assert "https://" not in response.text
