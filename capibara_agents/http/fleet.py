"""The machine room over HTTP: its state, loading and unloading, logs, and what changes as it happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any, Protocol, cast

import anyio
from fastapi import APIRouter, Query
from sse_starlette import EventSourceResponse
from starlette.responses import JSONResponse, Response

from capibara_agents.http.house import House
from capibara_agents.types import Fleet, FleetSnapshot, ModelStatus, ServerState

# How long a stream of events may take to end by itself when the service stops.
LEAVE_S = 2.0
UNDER_WAY: dict[int | str, dict[str, Any]] = {
    202: {"description": "It is under way.", "content": {"application/json": {}}}
}
Snapshots = Callable[[FleetSnapshot], None]


class MachineRoom(Fleet, Protocol):
    """A fleet that can be operated, not only used."""

    def load(self, model_id: str) -> Future[ModelStatus]: ...
    def unload(self, model_id: str) -> Future[ModelStatus]: ...
    def logs(self, model_id: str, lines: int = 100) -> list[str]: ...
    def listen(self, listener: Snapshots) -> Callable[[], None]: ...


def router(house: House) -> APIRouter:
    """GET /fleet, /fleet/events, /fleet/models/{id}/logs; POST /fleet/models/{id}/load and /unload."""
    routes = APIRouter(tags=["fleet"])

    def room() -> MachineRoom:
        return cast(MachineRoom, house.fleet)

    def status(model_id: str) -> ModelStatus:
        return house.fleet.snapshot().get(model_id)

    @routes.get("/fleet")
    async def fleet() -> dict[str, Any]:
        shown = house.fleet.snapshot().model_dump(mode="json")
        for model in shown["models"]:
            # A look a second does not see an answer of less: what it has shown itself is told instead.
            if model["tokens_per_second"] is None:
                tally = house.metering.tallies.get(model["id"])
                model["tokens_per_second"] = None if tally is None or tally.speed is None else round(tally.speed, 2)
        return shown

    @routes.get("/fleet/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
    async def events() -> EventSourceResponse:
        ping_s = max(1, round(house.settings.server.ping_s))
        leaving = anyio.Event()
        return EventSourceResponse(
            _events(room(), leaving),
            ping=ping_s,
            headers={"cache-control": "no-store"},
            shutdown_event=leaving,
            shutdown_grace_period=LEAVE_S,
        )

    @routes.post("/fleet/models/{name}/load", responses=UNDER_WAY)
    async def load(name: str, wait_s: float = Query(0.0, ge=0, le=3600)) -> JSONResponse:
        model_id = house.settings.spec(name).id
        await _within(room().load(model_id), wait_s)
        return _told(status(model_id), ServerState.ready)

    @routes.post("/fleet/models/{name}/unload", responses=UNDER_WAY)
    async def unload(name: str, wait_s: float = Query(0.0, ge=0, le=3600)) -> JSONResponse:
        model_id = house.settings.spec(name).id
        await _within(room().unload(model_id), wait_s)
        return _told(status(model_id), ServerState.stopped)

    @routes.get("/fleet/models/{name}/logs")
    async def logs(name: str, lines: int = Query(100, ge=1, le=10_000)) -> dict[str, Any]:
        model_id = house.settings.spec(name).id
        return {"id": model_id, "lines": await asyncio.to_thread(room().logs, model_id, lines)}

    return routes


async def _within(wish: Future[ModelStatus], wait_s: float) -> None:
    """Gives the wish so much time; it goes on afterwards. Raises what it raised by then."""
    # Without a wait, too, what the fleet can do or refuse at once is told at once.
    await asyncio.wait([asyncio.wrap_future(_done(wish))], timeout=max(wait_s, 0.05))
    if wish.done() and (error := wish.exception()) is not None:
        raise error


def _done(wish: Future[ModelStatus]) -> Future[None]:
    """A future that is done when `wish` is, and whose cancellation does not cancel it."""
    done: Future[None] = Future()
    wish.add_done_callback(lambda _: done.set_result(None) if done.set_running_or_notify_cancel() else None)
    return done


def _told(status: ModelStatus, wanted: ServerState) -> JSONResponse:
    """200 when the model is as it was wished, 202 while that is under way."""
    return JSONResponse(status.model_dump(mode="json"), 200 if status.state is wanted else 202)


async def _events(room: MachineRoom, leaving: anyio.Event) -> AsyncIterator[dict[str, str]]:
    """`snapshot` first, then a `model` for each changed model and a `memory` when the use of the budget changes.

    Ends when the service is `leaving`.
    Only the newest state is kept for a listener that reads slowly: it misses steps in between, never the last one.
    """
    loop, fresh = asyncio.get_running_loop(), asyncio.Event()
    newest = told = room.snapshot()

    def hear(snapshot: FleetSnapshot) -> None:
        def take() -> None:
            nonlocal newest
            newest = snapshot
            fresh.set()

        if not loop.is_closed():
            loop.call_soon_threadsafe(take)

    end, left = room.listen(hear), asyncio.ensure_future(leaving.wait())
    left.add_done_callback(lambda _: fresh.set())
    try:
        yield _event("snapshot", told.model_dump(mode="json"))
        while not left.done():
            await fresh.wait()
            fresh.clear()
            before, told = told, newest
            for name, data in changes(before, told):
                yield _event(name, data)
    finally:
        end()
        left.cancel()


def changes(before: FleetSnapshot, after: FleetSnapshot) -> list[tuple[str, dict[str, Any]]]:
    """What the second snapshot says that the first did not, as named events."""
    old = {model.id: model for model in before.models}
    found = [("model", m.model_dump(mode="json")) for m in after.models if old.get(m.id) != m]
    gone = old.keys() - {model.id for model in after.models}
    found += [("removed", {"id": model_id}) for model_id in sorted(gone)]
    if (before.budget_bytes, before.used_bytes) != (after.budget_bytes, after.used_bytes):
        found.append(("memory", {"budget_bytes": after.budget_bytes, "used_bytes": after.used_bytes}))
    return found


def _event(name: str, data: dict[str, Any]) -> dict[str, str]:
    return {"event": name, "data": json.dumps(data, ensure_ascii=False)}
