"""Runs of the LangGraph API: what a body asks for, the run, and its parts under the names of its stream modes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args
from uuid import UUID, uuid4

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message
from langgraph.errors import GraphRecursionError
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http.errors import internal, respond
from capibara_agents.http.langgraph_states import checkpoint_of
from capibara_agents.http.langserve_encoding import encode
from capibara_agents.http.langserve_events import EventStream, frame
from capibara_agents.outcome import settle
from capibara_agents.runnable import read_messages, read_request
from capibara_agents.types import Request

StreamMode = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "events", "debug", "tasks", "checkpoints"
]
# What means something and cannot be done here: refused, never dropped in silence.
REFUSED = {
    "command": "commands; this graph never stops to ask",
    "interrupt_before": "interrupts",
    "interrupt_after": "interrupts",
    "webhook": "webhooks",
    "feedback_keys": "feedback links; see POST /v1/feedback",
    "after_seconds": "runs in the background",
    "stream_resumable": "streams that can be taken up again",
    "langsmith_tracer": "tracing to LangSmith",
}
MAX_STEPS = 100


class RunBody(BaseModel):
    """POST /runs/wait, /runs/stream and the same under a thread."""

    model_config = ConfigDict(extra="allow", strict=True)

    assistant_id: str
    input: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    stream_mode: StreamMode | list[StreamMode] = "values"
    checkpoint_id: str | None = None
    checkpoint: dict[str, Any] | None = None
    if_not_exists: Literal["create", "reject"] = "reject"
    multitask_strategy: Literal["reject", "enqueue"] = "enqueue"
    durability: Literal["exit", "async", "sync"] = "exit"
    on_disconnect: Literal["cancel"] | None = None
    on_completion: Literal["delete"] | None = None

    def modes(self) -> list[StreamMode]:
        """The stream modes, each once."""
        given = self.stream_mode if isinstance(self.stream_mode, list) else [self.stream_mode]
        return list(dict.fromkeys(given))


@dataclass(frozen=True)
class Run:
    """One run, ready for the graph. Without a thread nothing of it is kept."""

    input: dict[str, Any]
    context: Request
    config: dict[str, Any]
    modes: list[StreamMode]
    thread_id: str | None = None
    durability: str = "exit"
    id: UUID = field(default_factory=uuid4)

    @property
    def location(self) -> dict[str, str]:
        """The header by which a client learns the ids."""
        under = f"/threads/{self.thread_id}" if self.thread_id else ""
        return {"content-location": f"{under}/runs/{self.id}"}


def read_run(body: RunBody, *, thread_id: str | None, standing: Mapping[str, Any]) -> Run:
    """The run a body asks for; `standing` joins its metadata. BadQuestion names what cannot be done."""
    for name, what in REFUSED.items():
        if (body.model_extra or {}).get(name):
            raise BadQuestion(f"This service has no {what}.", param=name, code="unsupported_parameter")
    if body.input is None or set(body.input) != {"messages"}:
        raise BadQuestion("input must be an object with messages and nothing else.", param="input")
    messages = read_messages(body.input["messages"])
    if not messages:
        raise BadQuestion("messages is empty; give at least one message.", param="input.messages")
    config = body.config or {}
    configurable = config.get("configurable") or {}
    if not isinstance(configurable, dict):
        raise BadQuestion("config.configurable must be an object.", param="config.configurable")
    context = read_context({**configurable_options(configurable), **(body.context or {})})
    checkpoint_id = body.checkpoint_id or (body.checkpoint or configurable).get("checkpoint_id")
    run = Run({"messages": messages}, context, {}, body.modes(), thread_id, body.durability)
    run.config.update(run_id=run.id, metadata={**standing, **(body.metadata or {}), "run_id": str(run.id)})
    run.config.update(_checked(config))
    if thread_id is not None:
        run.config["configurable"] = {"thread_id": thread_id, "checkpoint_ns": ""}
        if checkpoint_id is not None:
            run.config["configurable"]["checkpoint_id"] = str(checkpoint_id)
    return run


def configurable_options(configurable: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Request in a configuration; older clients have no context."""
    return {key: value for key, value in configurable.items() if key in Request.model_fields}


def read_context(values: dict[str, Any]) -> Request:
    """The graph's context; BadQuestion with the path as it stands in the body."""
    try:
        return read_request(values)
    except BadQuestion as error:
        param = f"context.{error.param}" if error.param else "context"
        raise BadQuestion(error.message, param=param, code=error.reason) from None


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    tags, limit = config.get("tags"), config.get("recursion_limit")
    if tags is not None:
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise BadQuestion("config.tags must be a list of strings.", param="config.tags")
        found["tags"] = tags
    if limit is not None:
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_STEPS:
            raise BadQuestion(f"config.recursion_limit must be 1 to {MAX_STEPS}.", param="config.recursion_limit")
        found["recursion_limit"] = limit
    return found


# ---------------------------------------------------------------- the run


async def wait(source: AsyncGenerator[tuple[str, Any]]) -> dict[str, Any]:
    """The state at the end of a run's parts."""
    state: dict[str, Any] = {}
    async with aclosing(source) as stream:
        async for mode, part in stream:
            if mode == "values":
                state = part
    return state


async def parts(graph: Any, run: Run) -> AsyncGenerator[tuple[str, Any]]:
    """(event name, data) of every part that the run's modes ask for. Raises when the run ends without an answer."""
    wanted = set(run.modes)
    # The values are needed to tell whether there is an answer, whoever asked for them.
    modes = {"values"} | {"messages" if mode == "messages-tuple" else mode for mode in wanted - {"events"}}
    messages = Messages(whole="messages" in wanted, pieces="messages-tuple" in wanted)
    state: dict[str, Any] = {}
    try:
        async with aclosing(_raw(graph, run, sorted(modes), events="events" in wanted)) as stream:
            async for mode, part in stream:
                if mode == "values":
                    state = part
                if mode == "messages":
                    for named in messages.events(part):
                        yield named
                elif mode in wanted:
                    yield mode, _debugged(part) if mode in ("debug", "checkpoints") else part
    except GraphRecursionError:
        raise BadQuestion("config.recursion_limit is too low for an answer.", param="config.recursion_limit") from None
    settle(state)


async def _raw(graph: Any, run: Run, modes: list[str], *, events: bool) -> AsyncGenerator[tuple[str, Any]]:
    """The graph's parts as (mode, part); with `events` also LangChain's events, as ("events", event)."""
    options: dict[str, Any] = {"context": run.context, "stream_mode": modes}
    if run.thread_id is not None:
        options["durability"] = run.durability
    if not events:
        async with aclosing(cast(AsyncGenerator[Any], graph.astream(run.input, run.config, **options))) as stream:
            async for mode, part in stream:
                yield mode, part
        return
    source: AsyncIterator[Any] = graph.astream_events(run.input, run.config, version="v2", **options)
    async with aclosing(cast(AsyncGenerator[Any], source)) as stream:
        async for event in stream:
            if event["event"] == "on_chain_stream" and event["run_id"] == str(run.id):
                mode, part = event["data"]["chunk"]
                yield mode, part
            else:
                yield "events", event


class Messages:
    """Model output as the API's two ways show it: pieces with their metadata, or messages that grow."""

    def __init__(self, *, whole: bool, pieces: bool) -> None:
        self._whole = whole
        self._pieces = pieces
        self._grown: dict[str | None, BaseMessage] = {}

    def events(self, part: tuple[BaseMessage, dict[str, Any]]) -> list[tuple[str, Any]]:
        """What one piece becomes."""
        message, metadata = part
        found: list[tuple[str, Any]] = []
        if self._pieces:
            found.append(("messages", [message, metadata]))
        if self._whole:
            before = self._grown.get(message.id)
            if before is None:
                found.append(("messages/metadata", {str(message.id): {"metadata": metadata}}))
            is_piece = isinstance(message, BaseMessageChunk)
            grown = before + message if isinstance(before, BaseMessageChunk) and is_piece else message
            self._grown[message.id] = grown
            shown = message_chunk_to_message(grown) if isinstance(grown, BaseMessageChunk) else grown
            found.append(("messages/partial" if is_piece else "messages/complete", [shown]))
        return found


def _debugged(part: Any) -> Any:
    """A part of the graph's debugging with checkpoints named as the API names them, and no inner configuration."""
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("payload"), dict):
        return {**part, "payload": _debugged(part["payload"])}
    if "config" not in part:
        return part
    rest = {key: value for key, value in part.items() if key not in ("config", "parent_config")}
    named = {"checkpoint": checkpoint_of(part["config"]), "parent_checkpoint": checkpoint_of(part.get("parent_config"))}
    return {**rest, **named}


class RunStream(EventStream):
    """A run as events named after their modes, `metadata` first, `error` or `end` last."""

    def __init__(self, values: AsyncIterator[tuple[str, Any]], run: Run, *, ping_s: float) -> None:
        metadata = encode({"run_id": run.id, "attempt": 1})
        super().__init__(values, encode, _failure, metadata=metadata, ping_s=ping_s)
        self.headers.update(run.location)

    def framed(self, value: Any) -> bytes:
        """An event with the name of its mode."""
        name, data = value
        return frame(name, encode(data))


def _failure(error: Exception) -> tuple[Response, bytes]:
    ours = error if isinstance(error, CapibaraError) else internal(error)
    code = ours.reason if isinstance(ours, BadQuestion) else ours.code
    return respond(ours), encode({"error": code, "message": ours.message})


def schema_of_modes() -> list[str]:
    """The stream modes there are."""
    return list(get_args(StreamMode))


class StateBody(BaseModel):
    """POST /threads/{id}/state: messages that join the conversation."""

    model_config = ConfigDict(extra="ignore", strict=True)

    values: dict[str, Any] | None = None
    as_node: str | None = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None


class HistoryBody(BaseModel):
    """POST /threads/{id}/history."""

    model_config = ConfigDict(extra="ignore", strict=True)

    limit: int = Field(10, ge=1, le=1000)
    before: str | dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
