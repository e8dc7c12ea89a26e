"""Votes of real servers: their ballot, and what becomes of it when voters die or freeze in the middle."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from typing import Any

import httpx
import pytest
from service_process import MODELS, Service, chat_body, until

pytestmark = pytest.mark.servers

CHAT = "/v1/chat/completions"
QUESTION = "What is the capital of France?"
# The grammar leaves one answer, so the voters agree and the checks accept it, whatever the stand-in would have said.
AGREED = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
OPEN_QUESTION = "Tell me, in a few sentences of your own, how a river changes on its way from the mountains to the sea."
RUNS = int(os.environ.get("CAPIBARA_TEST_VOTE_RUNS", "6"))
DEADLINE_S = 20.0
# What a loaded machine may add to a deadline.
SLACK_S = 15.0


def vote(service: Service, question: str = QUESTION, *, agreed: bool = False, **options: Any) -> httpx.Response:
    body = chat_body(question, model="capibara-consensus", max_tokens=24, capibara=options)
    if agreed:
        body |= {"response_format": AGREED, "max_tokens": 64}
    return service.client.post(CHAT, json=body, headers={"X-Capibara-Trace": "1"})


def test_a_vote_shows_its_ballot(service: Service) -> None:
    """Everyone who was asked has a vote, is absent, or was spared; the winner is one of them."""
    response = vote(service, agreed=True, max_voters=3)
    assert response.status_code == 200, response.text
    decision = response.json()["capibara"]
    ballot = decision["ballot"]
    voters = {v["model"] for v in ballot["votes"]} | set(ballot["absent"]) | set(ballot["spared"])
    assert voters == set(decision["plan"]["models"])
    assert len(ballot["votes"]) >= 2
    assert ballot["winner"] in {f"1:{v['model']}" for v in ballot["votes"]}
    assert response.headers["x-capibara-mode"] == "consensus"
    assert (ballot["agreement"], response.headers["x-capibara-verified"]) == (1.0, "true")


def test_samples_of_one_model_vote_against_each_other(service: Service) -> None:
    """Each is an answer of its own of the same model, and all are on the ballot or said to be missing from it."""
    # What is said is the models' own: three may say the same, and checks may reject it and have another model asked.
    # How each is asked is told in test_graph_votes.py.
    response = vote(service, OPEN_QUESTION, voters=[MODELS[0]], samples=3, min_voters=3)
    assert response.status_code == 200, response.text
    decision = response.json()["capibara"]
    samples = [c for c in decision["candidates"] if c["attempt"] == 1]
    assert sorted((c["model"], c["sample"]) for c in samples) == [(MODELS[0], number) for number in (1, 2, 3)]
    plan, ballot = decision["plan"], decision["ballot"]
    if plan["attempt"] == 1:
        assert plan["models"] == [MODELS[0], f"{MODELS[0]}#2", f"{MODELS[0]}#3"]
        named = {v["model"] for v in ballot["votes"]} | set(ballot["absent"]) | set(ballot["spared"])
        assert named == set(plan["models"])


def test_a_streamed_vote_tells_who_has_answered(service: Service) -> None:
    """In comments, before the answer."""
    body = chat_body(QUESTION, model="capibara-consensus", stream=True, max_tokens=24)
    with service.client.stream("POST", CHAT, json=body) as response:
        lines = list(response.iter_lines())
    told = [i for i, line in enumerate(lines) if line.startswith(": vote")]
    first_words = next(i for i, line in enumerate(lines) if line.startswith("data: {"))
    assert told
    assert told[0] < first_words
    assert [line for line in lines if line][-1] == "data: [DONE]"


def test_voters_that_die_or_freeze_in_the_middle_are_lived_with(service: Service) -> None:
    """One to four of five, with seeds: an answer or an honest refusal, in time; with a voter missing, degraded."""
    for model in MODELS:
        assert service.chat(QUESTION, model=model, max_tokens=1).status_code == 200
    for seed in range(RUNS):
        draw = random.Random(seed)
        answered = threading.Event()
        hurt = _hurt(service, draw, draw.sample(MODELS, draw.randint(1, 4)), answered)
        began = time.monotonic()
        response = vote(service, voters=list(MODELS), min_voters=2, deadline_s=DEADLINE_S)
        took_s = time.monotonic() - began
        answered.set()
        hurt.join()
        assert took_s < DEADLINE_S + SLACK_S, (seed, took_s)
        if response.status_code == 200:
            ballot = response.json()["capibara"]["ballot"]
            assert not ballot["absent"] or response.headers["x-capibara-degraded"] == "true", seed
            assert response.json()["choices"][0]["message"]["content"].strip(), seed
        else:
            assert response.status_code in (502, 503, 504), (seed, response.text)
            assert response.json()["error"]["message"], seed


def _hurt(service: Service, draw: random.Random, models: list[str], answered: threading.Event) -> threading.Thread:
    """In the background: each of the models is killed, or frozen, within the first second.

    The frozen ones go on after three more seconds, or with the answer.
    """
    plans = [(draw.uniform(0.0, 1.0), model, draw.choice((signal.SIGKILL, signal.SIGSTOP))) for model in models]

    def act() -> None:
        began = time.monotonic()
        frozen = []
        for at_s, model, how in sorted(plans):
            time.sleep(max(0.0, at_s - (time.monotonic() - began)))
            pid = until(lambda model=model: service.fleet()[model]["pid"], 5)  # type: ignore[misc]
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
                    if how == signal.SIGSTOP:
                        frozen.append(pid)
        answered.wait(3)
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=act)
    thread.start()
    return thread
