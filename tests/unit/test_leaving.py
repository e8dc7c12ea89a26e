"""Clients that leave in the middle of an answer, at the faces of LangServe and LangGraph: its model is free again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from capibara_agents.http.app import build_app
from tests.asgi import post
from tests.fakes import PHI, FakeHouse, say, until

QUESTION = {"messages": [{"role": "user", "content": "¿Cuál es la capital de España?"}]}
CONTEXT = {"model": PHI}
LANGSERVE: dict[str, Any] = {"input": {**QUESTION, **CONTEXT}}
LANGGRAPH: dict[str, Any] = {"assistant_id": "capibara", "input": QUESTION, "context": CONTEXT}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/capibara/invoke", LANGSERVE),
        ("/capibara/batch", {"inputs": [LANGSERVE["input"]]}),
        ("/capibara/stream", LANGSERVE),
        ("/capibara/stream_events", LANGSERVE),
        ("/capibara/stream_log", LANGSERVE),
        ("/runs/wait", LANGGRAPH),
        ("/runs/stream", {**LANGGRAPH, "stream_mode": ["updates", "messages-tuple"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_client_that_leaves_frees_the_model(house: FakeHouse, path: str, body: dict[str, Any]) -> None:
    """The connection to the model's server is closed, the claim given back, though the model would go on for ever."""
    patient = tuple(spec.model_copy(update={"timeout_s": 1000}) for spec in house.settings.models)
    object.__setattr__(house.settings, "models", patient)
    house.upstream.script(PHI, say("Es ", "Madrid ", "y", stall_after=2))
    call = post(build_app(house), path, body)
    if "stream" in path:
        await call.until(lambda c: b"Madrid " in c.body)
    else:
        await until(lambda: bool(house.upstream.requests))
    call.hang_up()
    await call.done()
    await until(lambda: house.fleet.all_given_back)
    assert await asyncio.to_thread(house.upstream.hung_up.acquire, timeout=10)
