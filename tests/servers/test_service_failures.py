"""Model servers that die or freeze under a real service: answered all the same, or an honest end; never silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial

import httpx
import psutil
import pytest
from service_process import ANSWER_LIMIT_S, MODELS, Service, chat_body, until

pytestmark = pytest.mark.servers

CHAT = "/v1/chat/completions"
QUESTION = "What is the capital of France?"
# Long enough to have a middle to be killed in: the end-of-answer token of the stand-in is forbidden, where a model is
# named, or else a story is asked for.
ENDLESS = {"logit_bias": {"2": -100}}
STORY = "Write a very long story about a sailor who counts the stars, with many details of every single night."


@pytest.fixture
def up(service: Service) -> Iterator[Service]:
    """The service with phi-4-mini ready; afterwards every model must have recovered."""
    assert service.chat(QUESTION, model="phi-4-mini", max_tokens=1).status_code == 200
    yield service
    for name in MODELS:
        # One that has crashed twice without an answer between is started again after a pause.
        back = until(partial(_answers, service, name), ANSWER_LIMIT_S, 1)
        assert back, f"{name} did not come back: {service.fleet()[name]}"


def _answers(service: Service, name: str) -> bool:
    return service.chat(QUESTION, model=name, max_tokens=1).status_code == 200


def kill_when_busy(service: Service, killed: dict[int, str], after_s: float = 0.3) -> threading.Thread:
    """In the background: SIGKILL for the first server that has worked on a request for a moment.

    Its pid and whose server it was are noted.
    """

    def busy() -> list[tuple[int, str]]:
        return [(model["pid"], name) for name, model in service.fleet().items() if model["active"] and model["pid"]]

    def act() -> None:
        if found := until(busy, 60, 0.05):
            pid, name = found[0]
            time.sleep(after_s)
            os.kill(pid, signal.SIGKILL)
            killed[pid] = name

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_an_answer_survives_the_death_of_its_server(up: Service) -> None:
    """SIGKILL in the middle of a question without a named model: the next one answers, and the header says degraded."""
    assert up.chat(STORY, max_tokens=1).status_code == 200
    killed: dict[int, str] = {}
    killer = kill_when_busy(up, killed)
    body = chat_body(STORY, max_tokens=200)
    response = up.client.post(CHAT, json=body, headers={"X-Capibara-Trace": "1"})
    killer.join()
    assert response.status_code == 200, response.text
    assert response.headers["x-capibara-degraded"] == "true"
    assert response.json()["choices"][0]["message"]["content"].strip()
    candidates = response.json()["capibara"]["candidates"]
    ((pid, name),) = killed.items()
    assert candidates[0]["model"] == name
    assert candidates[0]["error"] == "model_crashed"
    assert candidates[-1]["error"] is None
    assert not psutil.pid_exists(pid)


def test_a_named_model_is_asked_again_after_its_restart(up: Service) -> None:
    """SIGKILL while a model asked for by its own name works: its restarted server answers, nobody else does."""
    killed: dict[int, str] = {}
    killer = kill_when_busy(up, killed)
    response = up.chat(QUESTION, model="phi-4-mini", max_tokens=200, **ENDLESS)
    killer.join()
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "phi-4-mini"
    assert response.headers["x-capibara-degraded"] == "true"
    assert killed
    assert up.pid_of("phi-4-mini") not in killed


@pytest.mark.parametrize("model", ["phi-4-mini", "capibara"])
def test_a_stream_that_breaks_says_so(up: Service, model: str) -> None:
    """SIGKILL after the first pieces: an error event ends the stream, without [DONE] and without a finish_reason."""
    longer = ENDLESS if model == "phi-4-mini" else {}
    body = chat_body(STORY, model=model, stream=True, max_tokens=1500, **longer)
    events, killed = [], False
    with up.client.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200
        event = "message"
        for line in response.iter_lines():
            if line.startswith("event:"):
                event = line.partition(":")[2].strip()
            if line.startswith("data:"):
                events.append((event, line.partition(":")[2].strip()))
            if not line:
                event = "message"
            if len(events) == 5 and not killed:
                killed = True
                os.kill(up.pid_of(json.loads(events[-1][1])["model"]), signal.SIGKILL)
    *pieces, (kind, data) = events
    assert kind == "error", events[-3:]
    assert json.loads(data)["error"]["code"] == "model_crashed"
    assert json.loads(data)["error"]["message"]
    assert all(json.loads(piece)["choices"][0]["finish_reason"] is None for _, piece in pieces)


def test_a_stream_that_has_not_begun_falls_back(up: Service) -> None:
    """A server that dies before its first token is replaced by the next model, and the stream ends well."""
    pid = up.pid_of("phi-4-mini")
    # Frozen, it takes the request and gives nothing; then it dies.
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(1.5, os.kill, (pid, signal.SIGKILL)).start()
    body = chat_body(QUESTION, model="phi-4-mini", capibara={"fallback": True}, stream=True)
    with up.client.stream("POST", CHAT, json=body) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data:")]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data:"))["capibara"]["degraded"] is True


async def test_no_request_fails_while_a_server_is_killed_under_load(up: Service) -> None:
    """Eight clients, forty questions, the busiest server killed twice: every one of them gets a real answer."""
    questions = iter([f"{QUESTION} ({number})" for number in range(40)])
    done: list[httpx.Response] = []
    victims: list[int] = []

    async def ask_on(client: httpx.AsyncClient) -> None:
        for question in questions:
            done.append(await client.post(CHAT, json=chat_body(question, max_tokens=16)))
            if len(done) in (8, 22):
                victims.append(await strike(client))

    async def strike(client: httpx.AsyncClient) -> int:
        """Kills the busiest server, as soon as one works; its pid."""
        while True:
            models = (await client.get("/fleet")).json()["models"]
            busy = max(models, key=lambda model: model["active"] if model["pid"] not in {None, *victims} else 0)
            if busy["active"] and busy["pid"]:
                os.kill(busy["pid"], signal.SIGKILL)
                return int(busy["pid"])
            await asyncio.sleep(0.02)

    limits = httpx.Timeout(ANSWER_LIMIT_S)
    async with httpx.AsyncClient(base_url=up.url, timeout=limits, trust_env=False) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(8)))
    assert len(set(victims)) == 2
    assert len(done) == 40
    assert [response.text for response in done if response.status_code != 200] == []
    assert all(response.json()["choices"][0]["message"]["content"].strip() for response in done)
    degraded = [response for response in done if response.headers["x-capibara-degraded"] == "true"]
    assert degraded


def test_a_frozen_model_is_not_called_ready(up: Service) -> None:
    """A server that is up and gives no token makes /health/ready a 503 that names it; /health/live stays 200."""
    pid = up.pid_of("phi-4-mini")
    os.kill(pid, signal.SIGSTOP)
    try:
        response = up.client.get("/health/ready")
        assert response.status_code == 503
        assert response.json()["status"] == "not_ready"
        assert int(response.headers["retry-after"]) > 0
        models = {model["id"]: model for model in response.json()["models"]}
        assert models["phi-4-mini"]["ok"] is False
        # Whichever comes first: the question's own clock, or the machine room, which replaces what stands still.
        assert models["phi-4-mini"]["error"] in {"model_timeout", "model_crashed"}
        assert up.client.get("/health/live").status_code == 200
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert until(lambda: up.client.get("/health/ready").status_code == 200, 60, 1)
