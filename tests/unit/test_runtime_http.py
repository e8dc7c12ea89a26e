"""The machine room over HTTP: a real fleet of doubles behind the real routes, asked through a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from runtime_room import WAIT_S, Room, until
from sse_starlette.sse import AppStatus

from capibara_agents.http import errors
from capibara_agents.http.fleet import changes, router
from capibara_agents.metering import Metering
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.terminal.fleet import taken
from capibara_agents.types import FleetSnapshot, ModelStatus, ServerState


@asynccontextmanager
async def served(fleet: LlamaFleet, room: Room, *specs: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the fleet's routes."""
    app = FastAPI()
    house = SimpleNamespace(settings=room.settings(*specs), fleet=fleet, metering=Metering(fleet.snapshot))
    app.include_router(router(house))  # type: ignore[arg-type]
    errors.install(app)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=WAIT_S) as client:
            yield client
    finally:
        server.should_exit = True
        await running
        listener.close()


async def test_load_unload_and_state(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """202 while it is under way, 200 when it is done; the state says what the contract promises."""
    spec = room.spec("m", "--double-load-s", "0.5", aliases=["short"])
    fleet = run(spec)
    async with served(fleet, room, spec) as client:
        assert (await client.post("/fleet/models/m/load")).status_code == 202
        done = await client.post("/fleet/models/short/load", params={"wait_s": WAIT_S})
        assert (done.status_code, done.json()["state"]) == (200, "ready")
        state = (await client.get("/fleet")).json()
        assert state["budget_bytes"] >= state["used_bytes"] > 0
        assert {"id", "state", "pid", "rss_bytes", "queue"} <= state["models"][0].keys()
        gone = await client.post("/fleet/models/m/unload", params={"wait_s": WAIT_S})
        assert (gone.status_code, gone.json()["state"]) == (200, "stopped")
        assert room.starts() == ["m"]


async def test_what_is_wrong_is_said_in_openais_shape(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """404 for a stranger on every route, 400 for a bad number, 503 with the reason for a load that fails."""
    spec = room.spec("m", "--double-exit", "1", "--double-say", "error: invalid argument: --x")
    fleet = run(spec)
    async with served(fleet, room, spec) as client:
        for method, path in (("POST", "load"), ("POST", "unload"), ("GET", "logs")):
            answer = await client.request(method, f"/fleet/models/nobody/{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert (await client.get("/fleet/models/m/logs?lines=0")).status_code == 400
        failed = await client.post("/fleet/models/m/load", params={"wait_s": WAIT_S})
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "model_unavailable")
        assert failed.headers["retry-after"]
        assert "refuses its arguments" in failed.json()["error"]["message"]
        lines = (await client.get("/fleet/models/m/logs?lines=1")).json()["lines"]
        assert lines == ["error: invalid argument: --x"]


async def test_events_begin_with_a_snapshot_and_tell_each_change(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A listener sees the model come up; when it hangs up, nobody is listening any more."""
    spec = room.spec("m")
    fleet = run(spec)
    async with served(fleet, room, spec) as client:
        state: dict[str, Any] = {}
        name = ""
        async with asyncio.timeout(WAIT_S), client.stream("GET", "/fleet/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for line in response.aiter_lines():
                if line.startswith("event:"):
                    name = line.removeprefix("event:").strip()
                    assert state or name == "snapshot"
                elif line.startswith("data:"):
                    if not state:
                        fleet.load("m")
                    state = taken(state, name, json.loads(line.removeprefix("data:")))
                    if state["models"][0]["state"] == "ready" and state["used_bytes"]:
                        break
        await until(lambda: not fleet._scheduler.listeners)


async def test_events_end_when_the_service_does(
    room: Room, run: Callable[..., LlamaFleet], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that is open when the service stops comes to its proper end, which uvicorn has nothing to say about."""
    monkeypatch.setattr(AppStatus, "should_exit", False)
    spec = room.spec("m")
    fleet = run(spec)
    lines = []
    async with (
        served(fleet, room, spec) as client,
        asyncio.timeout(WAIT_S),
        client.stream("GET", "/fleet/events") as response,
    ):
        async for line in response.aiter_lines():
            lines.append(line)
            monkeypatch.setattr(AppStatus, "should_exit", True)
    assert lines[0] == "event: snapshot"
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert not fleet._scheduler.listeners


def test_changes_between_two_snapshots() -> None:
    """Only what differs is told: changed models, those that are gone, and the use of the budget."""
    a, b = (ModelStatus(id=name, state=ServerState.stopped) for name in "ab")
    ready = a.model_copy(update={"state": ServerState.ready})
    before = FleetSnapshot(models=(a, b), budget_bytes=9, used_bytes=0)
    after = FleetSnapshot(models=(ready,), budget_bytes=9, used_bytes=4)
    told = changes(before, after)
    assert [name for name, _ in told] == ["model", "removed", "memory"]
    state = before.model_dump(mode="json")
    for name, data in told:
        state = taken(state, name, data)
    assert state == after.model_dump(mode="json")
    assert changes(after, after) == []
