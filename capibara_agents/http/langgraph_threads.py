"""Threads of the LangGraph API: conversations that are kept, each with the history of its states."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from langgraph.errors import InvalidUpdateError
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from capibara_agents.errors import BadQuestion
from capibara_agents.http.house import House
from capibara_agents.http.langgraph_api import CLIENT_GONE, STANDING, known
from capibara_agents.http.langgraph_runs import HistoryBody, Run, RunBody, RunStream, StateBody, parts, read_run, wait
from capibara_agents.http.langgraph_states import checkpoint_of, state_of, thread_of
from capibara_agents.http.langserve_encoding import encode, plain
from capibara_agents.http.langserve_events import ClientGone, while_connected
from capibara_agents.runnable import read_messages
from capibara_agents.threads import Thread

# A thread whose state is written before the first run has it as if it had been the input.
BEFORE_ALL = "__start__"


class ThreadBody(BaseModel):
    """POST /threads."""

    model_config = ConfigDict(extra="allow")

    thread_id: UUID | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    if_exists: Literal["raise", "do_nothing"] = "raise"


class MetadataBody(BaseModel):
    """PATCH /threads/{id}."""

    model_config = ConfigDict(extra="ignore", strict=True)

    metadata: dict[str, Any]


class ThreadSearch(BaseModel):
    """POST /threads/search and /threads/count."""

    model_config = ConfigDict(extra="ignore")

    ids: list[UUID] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    status: Literal["idle", "busy", "interrupted", "error"] | None = None
    limit: int = Field(10, ge=1, le=1000, strict=True)
    offset: int = Field(0, ge=0, strict=True)
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[str] | None = None


class CheckpointBody(BaseModel):
    """POST /threads/{id}/state/checkpoint."""

    model_config = ConfigDict(extra="ignore", strict=True)

    checkpoint: dict[str, Any]


class Busy:
    """One run at a time on a thread; the others wait in the order in which they came, or are refused."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, thread_id: str, *, wait: bool) -> AsyncIterator[None]:
        """BadQuestion (conflict) when the thread is busy and the run will not wait."""
        if not wait and self._users.get(thread_id):
            raise BadQuestion("The thread is busy.", param="thread_id", code="conflict")
        lock = self._locks.setdefault(thread_id, asyncio.Lock())
        self._users[thread_id] = self._users.get(thread_id, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[thread_id] -= 1
            if not self._users[thread_id]:
                del self._users[thread_id], self._locks[thread_id]


class Desk:
    """What the routes do."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._busy = Busy()

    async def graph(self) -> Any:
        """The graph over the checkpoints of the threads."""
        return self._house.graph.copy(update={"checkpointer": await self._house.threads.saver()})

    async def show(self, thread: Thread) -> dict[str, Any]:
        """A thread with its latest values."""
        return thread_of(thread, (await self._snapshot(thread.id)).values)

    async def search(self, body: ThreadSearch) -> list[Thread]:
        """The threads that fit, in the order that is asked for."""
        wanted = {str(id) for id in body.ids} if body.ids is not None else None
        found = [
            thread
            for thread in await self._house.threads.all()
            if (wanted is None or thread.id in wanted)
            and body.status in (None, thread.status)
            and body.metadata.items() <= thread.metadata.items()
        ]
        field = {"thread_id": "id", "created_at": "created_s", "updated_at": "updated_s", "state_updated_at": "ran_s"}
        name = field.get(body.sort_by, body.sort_by)
        return sorted(found, key=lambda thread: getattr(thread, name), reverse=body.sort_order == "desc")

    async def state(self, thread_id: str, checkpoint_id: str | None = None) -> dict[str, Any]:
        """The latest state, or that of one checkpoint. BadQuestion (not_found) for a checkpoint that is not there."""
        await self._house.threads.get(thread_id)
        snapshot = await self._snapshot(thread_id, checkpoint_id)
        if checkpoint_id is not None and snapshot.created_at is None:
            raise BadQuestion("There is no such checkpoint.", param="checkpoint_id", code="not_found")
        return state_of(snapshot)

    async def history(self, thread_id: str, body: HistoryBody) -> list[dict[str, Any]]:
        """The states, the newest first."""
        await self._house.threads.get(thread_id)
        before = body.before.get("checkpoint_id") if isinstance(body.before, dict) else body.before
        start = (body.checkpoint or {}).get("checkpoint_id")
        states = (await self.graph()).aget_state_history(
            _at(thread_id, start),
            filter=body.metadata,
            before=_at(thread_id, before) if before else None,
            limit=body.limit,
        )
        return [state_of(snapshot) async for snapshot in states]

    async def write(self, thread_id: str, body: StateBody) -> dict[str, Any]:
        """Messages join the conversation. BadQuestion for anything else in the values."""
        await self._house.threads.get(thread_id)
        values = body.values or {}
        if set(values) != {"messages"}:
            raise BadQuestion("values must be an object with messages and nothing else.", param="values")
        messages = read_messages(values["messages"])
        at = body.checkpoint_id or (body.checkpoint or {}).get("checkpoint_id")
        graph = await self.graph()
        node = body.as_node
        if node is not None and node not in graph.nodes:
            raise BadQuestion(f"as_node must be one of {', '.join(graph.nodes)}.", param="as_node")
        if node is None and (await self._snapshot(thread_id)).created_at is None:
            node = BEFORE_ALL
        try:
            async with self._busy.hold(thread_id, wait=True):
                config = await graph.aupdate_state(_at(thread_id, at), {"messages": messages}, as_node=node)
        except (InvalidUpdateError, KeyError):
            # The edges behind a node read what only a run has written.
            raise BadQuestion("The state cannot be written as that node here.", param="as_node") from None
        await self._house.threads.mark(thread_id, "idle")
        return {"checkpoint": checkpoint_of(config)}

    async def begin(self, thread_id: str, body: RunBody) -> Run:
        """A run on a thread, which is made where the body allows it."""
        known(body.assistant_id)
        run = read_run(body, thread_id=thread_id, standing=STANDING)
        if body.if_not_exists == "create":
            await self._house.threads.create(thread_id, STANDING, or_get=True)
        await self._house.threads.get(thread_id)
        return run

    async def running(self, run: Run, *, wait_for_others: bool) -> AsyncGenerator[tuple[str, Any]]:
        """The parts of the run; the thread is busy meanwhile."""
        thread_id, threads = str(run.thread_id), self._house.threads
        async with self._busy.hold(thread_id, wait=wait_for_others):
            await threads.mark(thread_id, "busy")
            status = "error"
            try:
                async with aclosing(parts(await self.graph(), run)) as stream:
                    async for part in stream:
                        yield part
                status = "idle"
            except (asyncio.CancelledError, GeneratorExit):
                status = "idle"
                raise
            finally:
                # Also when the reader is gone: a thread must not stay busy for good.
                await asyncio.shield(asyncio.ensure_future(threads.mark(thread_id, status)))

    async def _snapshot(self, thread_id: str, checkpoint_id: str | None = None) -> Any:
        return await (await self.graph()).aget_state(_at(thread_id, checkpoint_id))


def router(house: House) -> APIRouter:
    """/threads and what is under a thread."""
    routes = APIRouter(prefix="/threads", tags=["langgraph"])
    desk = Desk(house)

    @routes.post("")
    async def create(body: ThreadBody | None = None) -> Response:
        """A new thread."""
        body = body or ThreadBody()
        if (body.model_extra or {}).get("supersteps"):
            message = "This service does not make threads from steps."
            raise BadQuestion(message, param="supersteps", code="unsupported_parameter")
        thread_id = str(body.thread_id or uuid4())
        made = await house.threads.create(thread_id, body.metadata, or_get=body.if_exists == "do_nothing")
        return _json(thread_of(made))

    @routes.post("/search")
    async def search(body: ThreadSearch | None = None) -> Response:
        """The threads that fit."""
        body = body or ThreadSearch()
        found = (await desk.search(body))[body.offset : body.offset + body.limit]
        return _json([_selected(await desk.show(thread), body.select) for thread in found])

    @routes.post("/count")
    async def count(body: ThreadSearch | None = None) -> int:
        """How many threads fit."""
        return len(await desk.search(body or ThreadSearch()))

    @routes.get("/{thread_id:uuid}")
    async def get(thread_id: UUID) -> Response:
        """A thread with its latest values."""
        return _json(await desk.show(await house.threads.get(str(thread_id))))

    @routes.patch("/{thread_id:uuid}")
    async def patch(thread_id: UUID, body: MetadataBody) -> Response:
        """Add to its metadata."""
        return _json(await desk.show(await house.threads.describe(str(thread_id), body.metadata)))

    @routes.delete("/{thread_id:uuid}", status_code=204)
    async def delete(thread_id: UUID) -> Response:
        """Forget it, with all its states."""
        await house.threads.remove(str(thread_id))
        return Response(status_code=204)

    @routes.get("/{thread_id:uuid}/state")
    async def state(thread_id: UUID, select: Annotated[list[str] | None, Query()] = None) -> Response:
        """The latest state."""
        return _json(_selected(await desk.state(str(thread_id)), select))

    @routes.post("/{thread_id:uuid}/state/checkpoint")
    async def state_at(thread_id: UUID, body: CheckpointBody) -> Response:
        """The state of one checkpoint."""
        return _json(await desk.state(str(thread_id), body.checkpoint.get("checkpoint_id")))

    @routes.get("/{thread_id:uuid}/state/{checkpoint_id:uuid}")
    async def state_of_checkpoint(thread_id: UUID, checkpoint_id: UUID) -> Response:
        """The state of one checkpoint."""
        return _json(await desk.state(str(thread_id), str(checkpoint_id)))

    @routes.post("/{thread_id:uuid}/state")
    async def write(thread_id: UUID, body: StateBody) -> Response:
        """Messages join the conversation without a run."""
        return _json(await desk.write(str(thread_id), body))

    @routes.post("/{thread_id:uuid}/history")
    async def history(thread_id: UUID, body: HistoryBody | None = None) -> Response:
        """The states, the newest first."""
        return _json(await desk.history(str(thread_id), body or HistoryBody()))

    @routes.post("/{thread_id:uuid}/runs/wait")
    async def run_wait(thread_id: UUID, body: RunBody, http: HttpRequest) -> Response:
        """Run on a thread to the end; the whole state."""
        run = await desk.begin(str(thread_id), body)
        source = desk.running(run, wait_for_others=body.multitask_strategy == "enqueue")
        try:
            state = await while_connected(http.receive, wait(source))
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        return _json(plain(state), run.location)

    @routes.post("/{thread_id:uuid}/runs/stream")
    async def run_stream(thread_id: UUID, body: RunBody) -> Response:
        """Run on a thread, and stream what the modes ask for."""
        run = await desk.begin(str(thread_id), body)
        source = desk.running(run, wait_for_others=body.multitask_strategy == "enqueue")
        return RunStream(source, run, ping_s=house.settings.server.ping_s)

    return routes


def _at(thread_id: str, checkpoint_id: str | None = None) -> dict[str, Any]:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": configurable | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


def _selected(shown: Mapping[str, Any], select: list[str] | None) -> dict[str, Any]:
    """The fields that are asked for; `values.messages` is one key of the values."""
    if select is None:
        return dict(shown)
    kept = {key: value for key, value in shown.items() if key in select}
    inner = {name.removeprefix("values.") for name in select if name.startswith("values.")}
    if inner and "values" not in kept:
        kept["values"] = {key: value for key, value in (shown["values"] or {}).items() if key in inner}
    return kept


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(value), media_type="application/json", headers=headers)
