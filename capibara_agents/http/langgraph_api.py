"""The part of LangGraph's API that langgraph_sdk and RemoteGraph need: one assistant, and runs that keep nothing.

Threads are next door (`langgraph_threads.py`). Runs in the background, schedules and the store are not served.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid5

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from capibara_agents.errors import BadQuestion
from capibara_agents.http.house import House
from capibara_agents.http.langgraph_runs import RunBody, RunStream, parts, read_run, schema_of_modes, wait
from capibara_agents.http.langserve_encoding import encode, plain
from capibara_agents.http.langserve_events import ClientGone, while_connected

GRAPH_ID = "capibara"
# LangGraph names the assistant of a graph so.
ASSISTANT_ID = str(uuid5(UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8"), GRAPH_ID))
CLIENT_GONE = 499
STANDING = {"graph_id": GRAPH_ID, "assistant_id": ASSISTANT_ID}


class SearchBody(BaseModel):
    """POST /assistants/search and /assistants/count."""

    model_config = ConfigDict(extra="ignore", strict=True)

    graph_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None
    limit: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0)
    select: list[str] | None = None


def router(house: House) -> APIRouter:
    """/ok, /info, /assistants/*, /runs/wait, /runs/stream."""
    routes = APIRouter(tags=["langgraph"])
    made_at = datetime.now(UTC).isoformat()

    @routes.get("/ok")
    async def ok() -> dict[str, bool]:
        """The process answers."""
        return {"ok": True}

    @routes.get("/info")
    async def info() -> dict[str, Any]:
        """What this is and what it has."""
        flags = {"assistants": True, "threads": True, "crons": False, "store": False, "langsmith": False}
        return {
            "version": version("capibara"),
            "langgraph_py_version": version("langgraph"),
            "flags": flags,
            "stream_modes": schema_of_modes(),
        }

    @routes.post("/assistants/search")
    async def search(body: SearchBody | None = None) -> list[dict[str, Any]]:
        """The one assistant, if it is what is looked for."""
        return _found(body or SearchBody(), made_at)

    @routes.post("/assistants/count")
    async def count(body: SearchBody | None = None) -> int:
        """1, or 0 when something else is looked for."""
        return len(_found(body or SearchBody(), made_at))

    @routes.get("/assistants/{assistant_id}")
    async def assistant(assistant_id: str) -> dict[str, Any]:
        """The assistant, by its id or by its graph's name."""
        known(assistant_id)
        return _assistant(made_at)

    @routes.get("/assistants/{assistant_id}/graph")
    async def graph(assistant_id: str) -> Response:
        """The state machine as nodes and edges."""
        known(assistant_id)
        return _json(house.graph.get_graph().to_json())

    @routes.get("/assistants/{assistant_id}/schemas")
    async def schemas(assistant_id: str) -> Response:
        """JSON Schemas of input, output, state and context; a form can be drawn from the context's."""
        known(assistant_id)
        context = house.graph.get_context_jsonschema()
        return _json(
            {
                "graph_id": GRAPH_ID,
                "input_schema": house.graph.get_input_jsonschema(),
                "output_schema": house.graph.get_output_jsonschema(),
                "state_schema": house.graph.get_output_jsonschema(),
                "config_schema": context,
                "context_schema": context,
            }
        )

    @routes.get("/assistants/{assistant_id}/subgraphs")
    async def subgraphs(assistant_id: str) -> dict[str, Any]:
        """There are none."""
        known(assistant_id)
        return {}

    @routes.post("/runs/wait")
    async def run_wait(body: RunBody, http: HttpRequest) -> Response:
        """Run to the end; the whole state. An error where there is no answer."""
        known(body.assistant_id)
        run = read_run(body, thread_id=None, standing=STANDING)
        try:
            state = await while_connected(http.receive, wait(parts(house.graph, run)))
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        return _json(plain(state), run.location)

    @routes.post("/runs/stream")
    async def run_stream(body: RunBody) -> Response:
        """Run, and stream what the modes ask for."""
        known(body.assistant_id)
        run = read_run(body, thread_id=None, standing=STANDING)
        return RunStream(parts(house.graph, run), run, ping_s=house.settings.server.ping_s)

    return routes


def known(assistant_id: str) -> None:
    """BadQuestion (not_found) for any other assistant than the one."""
    if assistant_id not in (GRAPH_ID, ASSISTANT_ID):
        message = f"There is no such assistant; the one here is {GRAPH_ID!r}."
        raise BadQuestion(message, param="assistant_id", code="not_found")


def _found(body: SearchBody, made_at: str) -> list[dict[str, Any]]:
    one = _assistant(made_at)
    fits = (
        body.graph_id in (None, GRAPH_ID)
        and (body.name or "").lower() in one["name"].lower()
        and (body.metadata or {}).items() <= one["metadata"].items()
    )
    if not fits or body.offset:
        return []
    return [{key: value for key, value in one.items() if body.select is None or key in body.select}]


def _assistant(made_at: str) -> dict[str, Any]:
    return {
        "assistant_id": ASSISTANT_ID,
        "graph_id": GRAPH_ID,
        "name": GRAPH_ID,
        "description": None,
        "config": {},
        "context": {},
        "metadata": {"created_by": "system"},
        "version": 1,
        "created_at": made_at,
        "updated_at": made_at,
    }


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(value), media_type="application/json", headers=headers)
