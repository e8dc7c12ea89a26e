"""The state machine: classify -> route -> generate -> vote -> verify, and back to route while that can help.

    START -> classify -> route -> generate (one per model, side by side) -> vote -> verify -> END
                           ^                                                          |
                           +--------------- rejected or failed, and more to ask ------+

A node is named like the module that does its work, and writes the key named after its product. Services reach
the nodes by closure; the context of a run is a `Request`, plain knobs only. verify also appends the answer that
it lets through to `messages`, where chat clients look for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, cast

from langchain_core.messages import AnyMessage, BaseMessage
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send, StreamWriter
from typing_extensions import TypedDict

from capibara_agents import route as routing
from capibara_agents import vote as voting
from capibara_agents.classify import Classifier
from capibara_agents.embedder import Embedder
from capibara_agents.models import Delta, Inquiry, Models
from capibara_agents.outcome import settle
from capibara_agents.settings import Settings
from capibara_agents.templates import apply as apply_template
from capibara_agents.types import (
    Ballot,
    Candidate,
    Classification,
    Expectation,
    Fleet,
    Language,
    Plan,
    Request,
    Verdict,
)
from capibara_agents.verify import judge

# route, generate, vote, verify.
STEPS_PER_ATTEMPT = 4
_MAKING = threading.Lock()


def gather(before: list[Candidate], new: list[Candidate] | None) -> list[Candidate]:
    """Candidates add up within a run; None, from the first node of the next run on a thread, clears them."""
    return [] if new is None else [*before, *new]


def note(before: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    """Timings add up within a run; the first node's start a new page."""
    return new if "classify" in new else before | new


class InputState(TypedDict):
    """What a caller gives: a conversation."""

    messages: Annotated[list[AnyMessage], add_messages]


class State(InputState):
    """What a run knows; every key has one writer."""

    classification: Classification
    plan: Plan
    candidates: Annotated[list[Candidate], gather]
    ballot: Ballot
    verdict: Verdict
    timings_ms: Annotated[dict[str, float], note]
    started_s: float


class Task(TypedDict):
    """What one branch of generate gets: the conversation and the model to ask."""

    messages: list[AnyMessage]
    plan: Plan
    model: str
    reply_language: Language | None
    deadline_s: float | None


@dataclass(frozen=True)
class Services:
    """All that the nodes use."""

    settings: Settings
    fleet: Fleet
    classifier: Classifier
    embedder: Embedder
    models: Models
    expect: Callable[[Classification], Mapping[str, Expectation]] = lambda _: {}
    """What recorded outcomes let one expect of each model on a question."""
    ended: Callable[[Classification, Sequence[Candidate], Ballot, Verdict], None] = lambda *_: None
    """Told of every run that is over; never waits, never raises."""


Graph = CompiledStateGraph[State, Request, InputState, State]


def build(services: Services, *, checkpointer: Any = None) -> Graph:
    """The compiled graph over these services."""
    nodes = Nodes(services)
    graph = StateGraph(State, context_schema=Request, input_schema=InputState)
    graph.add_node("classify", nodes.classify)
    graph.add_node("route", nodes.route)
    graph.add_node("generate", nodes.generate, input_schema=Task)
    graph.add_node("vote", nodes.vote, defer=True)
    graph.add_node("verify", nodes.verify)
    graph.add_edge(START, "classify")
    graph.add_edge("classify", "route")
    graph.add_conditional_edges("route", nodes.ask_all, ["generate"])
    graph.add_edge("generate", "vote")
    graph.add_edge("vote", "verify")
    graph.add_conditional_edges("verify", nodes.ask_again, {"route": "route", END: END})
    # Every attempt takes a model from the chain, which names each at most once, and one may be asked twice.
    attempts = 2 + (len(services.settings.models) if services else 0)
    compiled = graph.compile(checkpointer=checkpointer, name="capibara")
    return compiled.with_config(recursion_limit=2 + STEPS_PER_ATTEMPT * attempts)


class Nodes:
    """The five nodes and the two decisions between them. All are async: LangGraph sends others through a thread."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def classify(self, state: InputState, runtime: Runtime[Request]) -> dict[str, Any]:
        """What is asked: language, domain, complexity, modality."""
        started = time.monotonic()
        request = _request(runtime)
        classification = self._services.classifier.classify(state["messages"], request.sampling)
        return {
            "classification": classification,
            "candidates": None,
            "started_s": started,
            "timings_ms": {"classify": _ms_since(started)},
        }

    async def route(self, state: State, runtime: Runtime[Request]) -> dict[str, Any]:
        """Whom to ask now."""
        started = time.monotonic()
        previous = _previous_plan(state)
        if previous is None:
            situation = routing.Situation(
                classification=state["classification"],
                request=_request(runtime),
                settings=self._services.settings,
                fleet=self._services.fleet.snapshot(),
                expectations=self._services.expect(state["classification"]),
            )
            plan = routing.first_plan(situation)
        else:
            plan = routing.next_plan(previous, _own(state))
        runtime.stream_writer({"event": "plan", "plan": plan.model_dump(mode="json")})
        return {"plan": plan, "timings_ms": {"route": _ms_since(started)}}

    async def ask_all(self, state: State, runtime: Runtime[Request]) -> list[Send]:
        """One branch of generate for each model of the plan."""
        limit = _request(runtime).deadline_s
        left = None if limit is None else max(limit - (time.monotonic() - state["started_s"]), 0.001)
        return [
            Send(
                "generate",
                Task(
                    messages=state["messages"],
                    plan=state["plan"],
                    model=model,
                    reply_language=state["classification"].reply_language,
                    deadline_s=left,
                ),
            )
            for model in state["plan"].models
        ]

    async def generate(self, state: Task, runtime: Runtime[Request]) -> dict[str, Any]:
        """Ask one model; its candidate is an answer or says why there is none."""
        request, plan = _request(runtime), state["plan"]
        sampling = request.sampling
        if _needs_confidence(plan, request):
            sampling = sampling.model_copy(update={"logprobs": True})
        inquiry = Inquiry(
            spec=self._services.settings.spec(state["model"]),
            attempt=plan.attempt,
            messages=apply_template(request.template, state["messages"], state["reply_language"]),
            sampling=sampling,
            deadline_s=state["deadline_s"],
        )
        # A cascade or a vote may yet choose another answer than this one.
        live = request.stream == "eager" and plan.mode == "single"
        emit = _emitter(runtime.stream_writer) if live else None
        candidate = await self._services.models.ask(inquiry, on_delta=emit, config=get_config())
        if not request.sampling.logprobs:
            candidate = candidate.model_copy(update={"logprobs": ()})
        runtime.stream_writer({"event": "candidate", "candidate": _progress(candidate)})
        return {"candidates": [candidate], "timings_ms": {f"generate:{candidate.key}": candidate.timings.total_ms}}

    async def vote(self, state: State, runtime: Runtime[Request]) -> dict[str, Any]:
        """Weigh the candidates of the latest attempt; a single one passes through."""
        started = time.monotonic()
        plan, request = state["plan"], _request(runtime)
        candidates = _of_attempt(_own(state), plan)
        if plan.mode != "consensus" or len(plan.models) == 1:
            ballot = voting.pass_through(candidates)
        else:
            ballot = voting.count(
                candidates,
                matter=_matter(state),
                method=request.voting,
                weights=plan.weights,
                similarity=self._similarity(candidates),
            )
        runtime.stream_writer({"event": "ballot", "ballot": ballot.model_dump(mode="json")})
        return {"ballot": ballot, "timings_ms": {"vote": _ms_since(started)}}

    async def verify(self, state: State, runtime: Runtime[Request]) -> dict[str, Any]:
        """Check the winner; the answer that is let through joins the conversation."""
        started = time.monotonic()
        candidates = _own(state)
        verdict = judge(
            candidates,
            plan=state["plan"],
            ballot=state["ballot"],
            classification=state["classification"],
            request=_request(runtime),
            max_attempts=self._services.settings.routing.max_attempts,
        )
        runtime.stream_writer({"event": "verdict", "verdict": verdict.model_dump(mode="json")})
        if verdict.final:
            self._services.ended(state["classification"], candidates, state["ballot"], verdict)
        update: dict[str, Any] = {"verdict": verdict, "timings_ms": {"verify": _ms_since(started)}}
        if verdict.final and verdict.candidate is not None:
            answer = settle({**state, "candidates": candidates, "verdict": verdict})
            update["messages"] = [answer.message()]
        return update

    async def ask_again(self, state: State) -> str:
        """Back to route, or done."""
        return END if state["verdict"].final else "route"

    def _similarity(self, candidates: Sequence[Candidate]) -> list[list[float]] | None:
        contents = [c.content for c in candidates if c.has_answer]
        if len(contents) < 2:
            return None
        vectors = self._services.embedder.embed_many(contents)
        similarity: list[list[float]] = (vectors @ vectors.T).tolist()
        return similarity


def _needs_confidence(plan: Plan, request: Request) -> bool:
    """Whether how sure the models are of their words decides something; with tools they do not say."""
    if plan.mode == "consensus":
        return request.voting == "confidence"
    return plan.mode == "cascade" and not request.sampling.tools


def _request(runtime: Runtime[Request]) -> Request:
    """The run's context; Studio and the LangGraph API may give none."""
    return runtime.context or Request()


def _previous_plan(state: State) -> Plan | None:
    """The plan this run made before; the first time round there is none.

    On a thread the plan of an earlier run is still there, and of a run that was broken off an unfinished verdict
    too: only candidates are surely this run's own.
    """
    return state["plan"] if state["candidates"] else None


def _of_attempt(candidates: Sequence[Candidate], plan: Plan) -> list[Candidate]:
    """The candidates of the plan's attempt, in the order in which they were chosen."""
    latest = [c for c in candidates if c.attempt == plan.attempt]
    return sorted(latest, key=lambda c: plan.models.index(c.model))


def _own(state: State) -> list[Candidate]:
    return state["candidates"]


def _matter(state: State) -> voting.Matter:
    classification = state["classification"]
    return voting.Matter(
        question=last_user_text(state["messages"]),
        domain=classification.domain,
        wants_json=classification.wants_json,
    )


def last_user_text(messages: Sequence[BaseMessage]) -> str:
    """The text of the last question of a conversation; empty when there is none."""
    return next((str(m.text) for m in reversed(messages) if m.type == "human"), "")


def _emitter(write: StreamWriter) -> Any:
    def emit(delta: Delta) -> None:
        write({"event": "delta", **asdict(delta)})

    return emit


def _progress(candidate: Candidate) -> dict[str, Any]:
    """A candidate for those who watch: all but its words, which a verdict has yet to let through."""
    return candidate.model_dump(mode="json", exclude={"content", "reasoning", "tool_calls", "logprobs"})


def _ms_since(started_s: float) -> float:
    return round(1000 * (time.monotonic() - started_s), 3)


def drawing(*, as_ascii: bool = False) -> str:
    """The state machine as mermaid (or ASCII) text; no service is made for it."""
    shape = build(cast(Services, None)).get_graph()
    return shape.draw_ascii() if as_ascii else shape.draw_mermaid()


async def studio() -> Graph:
    """The graph for LangGraph Studio and `langgraph dev`, over the configuration found where they were started.

    Made in a thread: the first time takes seconds of imports and file reading, which `langgraph dev` refuses to
    have on its loop.
    """
    return await asyncio.to_thread(_studio_graph)


def _studio_graph() -> Graph:
    # Requests come side by side, and a second fleet could not have the first one's data folder.
    with _MAKING:
        return _made_once()


@cache
def _made_once() -> Graph:
    """One for the process: the factory is called for each request, and a fleet is not."""
    # The one way back up to assembly, named in the import contract: LangGraph's tools load a graph by this file.
    from capibara_agents.assembly import build_graph  # noqa: PLC0415

    return build_graph(warm=True)
