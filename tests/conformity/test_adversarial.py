"""Hostile and odd texts through every face: no crash, no 500, nothing of them in errors or logs; traps are answered."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformity.conftest import KEY, Live

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "adversarial" / "adversarial.jsonl"
AT_ONCE = 4
# A third of each kind, and each trap at a third of the faces. CAPIBARA_TEST_WHOLE=1: all of them at all faces.
EVERY = 1 if os.environ.get("CAPIBARA_TEST_WHOLE") else 3
# Shorter texts are found in any log by chance.
TELLING_CHARS = 24


def _chat(text: str) -> dict[str, Any]:
    return {"model": "capibara", "messages": [{"role": "user", "content": text}]}


FACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/chat/completions#stream": lambda text: {**_chat(text), "stream": True},
    "/v1/completions": lambda text: {"model": "capibara", "prompt": text},
    "/v1/responses": lambda text: {"model": "capibara", "input": text, "store": False},
    "/v1/responses#stream": lambda text: {"model": "capibara", "input": text, "store": False, "stream": True},
    "/capibara/invoke": lambda text: {"input": {"messages": [{"role": "user", "content": text}]}},
    "/capibara/stream": lambda text: {"input": {"messages": [{"role": "user", "content": text}]}},
    "/api/chat": lambda text: {"message": text},
    "/api/generate": lambda text: {"prompt": text},
    "/runs/wait": lambda text: {
        "assistant_id": "capibara",
        "input": {"messages": [{"role": "user", "content": text}]},
    },
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    if not DATA.exists():
        pytest.skip(f"no adversarial.jsonl beside the project ({DATA.name})")
    # Not splitlines: it would break texts at characters that are part of them.
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    kinds: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    # The first of each kind is always among them; traps are few, and all of them are kept.
    return [row for some in kinds.values() for row in some[:: 1 if some[0]["label"] == "benign" else EVERY]]


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=live.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def asked(client: httpx.Client, face: str, text: str) -> httpx.Response:
    return client.post(face.partition("#")[0], json=FACES[face](text))


def answered(response: httpx.Response) -> bool:
    """Whether it is a whole answer: a stream may have failed after its head was sent."""
    broken = "event: error" in response.text or "response.failed" in response.text
    return response.status_code == 200 and not broken


def test_every_hostile_text_through_a_face(
    client: httpx.Client, rows: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Each goes to one face, all faces get some of every kind; 200, or a 400 that does not repeat it."""
    caplog.set_level(logging.DEBUG)
    faces = list(FACES)

    def one(numbered: tuple[int, dict[str, str]]) -> str | None:
        number, row = numbered
        face, text = faces[number % len(faces)], row["text"]
        response = asked(client, face, text)
        if answered(response):
            return None
        repeated = len(text) >= TELLING_CHARS and text in response.text
        if response.status_code in (400, 422) and not repeated:
            return None
        return f"{row['id']} at {face}: {response.status_code} {'repeats the text' if repeated else ''}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [said for said in pool.map(one, enumerate(rows)) if said]
    assert not found, "\n".join(found[:20])
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("capibara", "LiteLLM", "uvicorn")))
    logged = [row["id"] for row in rows if len(row["text"]) >= TELLING_CHARS and row["text"] in ours]
    assert not logged


def test_every_hostile_text_is_routed_and_embedded(client: httpx.Client, rows: list[dict[str, str]]) -> None:
    """In batches, as they come."""
    texts = [row["text"] for row in rows if row["text"]]
    for some in batched_by(texts, 64):
        routed = client.post("/v1/route/batch", json={"inputs": some})
        assert routed.status_code == 200, routed.text[:300]
        assert len(routed.json()["results"]) == len(some)
        vectors = client.post("/v1/embeddings", json={"model": "capibara", "input": some})
        assert vectors.status_code == 200, vectors.text[:300]


def test_benign_traps_are_answered_at_every_face(client: httpx.Client, rows: list[dict[str, str]]) -> None:
    """They look like attacks and are questions like any other."""
    traps = [row for row in rows if row["label"] == "benign"]
    # Shifted from trap to trap, so that every face is asked.
    cases = [(face, row) for number, row in enumerate(traps) for face in list(FACES)[number % EVERY :: EVERY]]

    def one(case: tuple[str, dict[str, str]]) -> str | None:
        face, row = case
        response = asked(client, face, row["text"])
        return None if answered(response) else f"{row['id']} at {face}: {response.status_code} {response.text[:200]}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [said for said in pool.map(one, cases) if said]
    assert traps
    assert {face for face, _ in cases} == set(FACES)
    assert not found, "\n".join(found[:20])


def batched_by(texts: list[str], size: int) -> Iterator[list[str]]:
    """Lists of so many."""
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
