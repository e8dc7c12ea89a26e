"""The state machine: classify -> route -> generate -> vote -> verify, and back to route while that can help.

    START -> classify -> route -> generate (one branch a model) -> vote -> verify -> END
                           ^         ^                              |        |
                           |         +-- voters by turns: the next -+        |
                           +------- rejected or failed, more to ask ---------+

A node is named like the module that does its work, and writes the key named after its product. Services reach
the nodes by closure; the context of a run is a `Request`, plain knobs only. verify also appends the answer that
it lets through to `messages`, where chat clients look for it.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import Any, cast

from langchain_core.messages import HumanMessage
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, StreamWriter

from capibara_agents import route as routing
from capibara_agents import verify as checking
from capibara_agents import vote as voting
from capibara_agents.affinity import takes_long
from capibara_agents.graphs.aside import BRIEF_CHARS, SHORT, aside, in_thread
from capibara_agents.graphs.counting import Counting, Vote
from capibara_agents.graphs.judges import Judges
from capibara_agents.graphs.panel import Panel
from capibara_agents.graphs.state import (
    NO_TIME_S,
    InputState,
    State,
    Task,
    background,
    is_live,
    last_user_text,
    left_s,
    matter,
    matter_of,
    needs_confidence,
    of_attempt,
    previous_plan,
    task_for,
    until_s,
)
from capibara_agents.graphs.trials import Trials
from capibara_agents.models import Delta, Inquiry
from capibara_agents.outcome import settle
from capibara_agents.services import Services
from capibara_agents.templates import apply as apply_template
from capibara_agents.types import (
    Ballot,
    Candidate,
    Plan,
    Request,
    model_of,
    sample_of,
)

# route, generate, vote, verify.
STEPS_PER_ATTEMPT = 4
# generate and vote once more, for each voter of an attempt and for a synthesis.
STEPS_BY_TURNS = 2 * 10
_MAKING = threading.Lock()


Graph = CompiledStateGraph[State, Request, InputState, State]


def build(services: Services, *, checkpointer: Any = None) -> Graph:
    """The compiled graph over these services."""
    nodes = Nodes(services)
    graph = StateGraph(State, context_schema=Request, input_schema=InputState)
    graph.add_node("classify", nodes.classify)
    graph.add_node("route", nodes.route, destinations=("generate",))
    graph.add_node("generate", nodes.generate, input_schema=Task)
    graph.add_node("vote", nodes.vote, defer=True, destinations=("generate", "verify"))
    graph.add_node("verify", nodes.verify, destinations=("route", END))
    graph.add_edge(START, "classify")
    graph.add_edge("classify", "route")
    graph.add_edge("generate", "vote")
    # Every attempt takes a model from the chain, which names each at most once, and one may be asked twice.
    attempts = 2 + (len(services.settings.models) if services else 0)
    compiled = graph.compile(checkpointer=checkpointer, name="capibara")
    return compiled.with_config(recursion_limit=2 + STEPS_BY_TURNS + STEPS_PER_ATTEMPT * attempts)


class Nodes:
    """The five nodes; three of them say where to go on. All are async: LangGraph sends others through a thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Nobody but the branches of generate holds a panel: it goes with them, however they end.
        self._panels: weakref.WeakValueDictionary[str, Panel] = weakref.WeakValueDictionary()
        # Nodes are made without services too, to draw the graph.
        if services:
            self._counting = Counting(services.embedder, services.weights)
            self._trials = Trials(services.runner)
            self._judges = Judges(services.settings, services.models)
        self._has_weights = False

    async def classify(self, state: InputState, runtime: Runtime[Request]) -> dict[str, Any]:
        """What is asked: language, domain, complexity, modality."""
        started = time.monotonic()
        request = _request(runtime)
        is_long = sum(len(str(m.content)) for m in state["messages"]) > BRIEF_CHARS
        classify = self._services.classifier.classify
        classification = await aside(is_long, classify, state["messages"], request.sampling)
        return {
            "classification": classification,
            "candidates": None,
            "settled": None,
            "started_s": started,
            "run": secrets.token_hex(8),
            "timings_ms": {"classify": _ms_since(started)},
        }

    async def route(self, state: State, runtime: Runtime[Request]) -> Command[str]:
        """Whom to ask now, and one branch of generate for each of them."""
        started = time.monotonic()
        previous = previous_plan(state)
        if previous is None:
            services, messages = self._services, state["messages"]
            # What recorded votes taught is learned at the first call.
            takes_time = takes_long(messages) or not self._has_weights
            request, classification = _request(runtime), state["classification"]
            situation = await aside(takes_time, services.situation, classification, messages, request)
            self._has_weights = True
            plan = services.first_plan(situation)
        else:
            plan = routing.next_plan(previous, state["candidates"])
        runtime.stream_writer({"event": "plan", "plan": plan.model_dump(mode="json")})
        update: dict[str, Any] = {"plan": plan}
        if plan.mode == "consensus" and state["settled"] is None:
            # Before anybody votes: who is right decides when enough have answered.
            update["settled"] = await self._settled(state, _request(runtime))
        asking = self._asking(cast(State, {**state, **update}), _request(runtime))
        return Command(update={**update, "timings_ms": {"route": _ms_since(started)}}, goto=asking)

    def _asking(self, state: State, request: Request) -> list[Send]:
        """One branch of generate for each model of the plan; by turns, for the first of them."""
        plan = state["plan"]
        messages: list[Any] = state["messages"]
        if plan.attempt > 1 and not state["verdict"].accepted:
            classification = state["classification"]
            language = classification.reply_language or classification.language
            messages = checking.asked_anew(messages, checking.correction(state["verdict"].checks, language))
        models = plan.models if plan.schedule == "together" else plan.models[:1]
        remaining_s = left_s(state, request)
        return [Send("generate", task_for(state, model, messages, remaining_s)) for model in models]

    async def generate(self, state: Task, runtime: Runtime[Request]) -> dict[str, Any]:
        """Ask one model; its candidate is an answer or says why there is none."""
        request, plan = _request(runtime), state["plan"]
        # A cascade or a vote may yet choose another answer than this one.
        live = state["part"] == "answer" and is_live(plan, state["model"], request)
        answer = self._answer(state, request, runtime.stream_writer, live=live)
        progress: dict[str, Any] = {}
        is_vote = plan.mode == "consensus" and len(plan.models) > 1 and state["part"] == "answer"
        if is_vote and plan.schedule == "together":
            panel = self._panels.get(state["run"])
            if panel is None:
                panel = Panel(plan, partial(self._counting.standing, _vote_of(state, request)))
                self._panels[state["run"]] = panel
            candidate, standing = await panel.ask(state["model"], answer, streams=live)
            progress = {"answered": standing.answered, "asked": len(plan.models), "agreement": standing.agreement}
        else:
            candidate = await answer
            if is_vote:
                progress = {"answered": state["answered"] + candidate.has_answer, "asked": len(plan.models)}
        runtime.stream_writer({"event": "candidate", "candidate": _progress(candidate), **progress})
        return {"candidates": [candidate], "timings_ms": {f"generate:{candidate.key}": candidate.timings.total_ms}}

    async def vote(self, state: State, runtime: Runtime[Request]) -> Command[str]:
        """Weigh the candidates of the latest attempt; a single one passes through."""
        started = time.monotonic()
        plan, request = state["plan"], _request(runtime)
        candidates = [c for c in of_attempt(state["candidates"], plan) if c.part == "answer"]
        settled = state["settled"]
        if settled is None:
            settled = await self._settled(state, request)
        if plan.mode != "consensus" or len(plan.models) == 1:
            ballot = voting.pass_through(candidates)
        else:
            vote = Vote(plan, request, matter(state), settled or "")
            ballot = await in_thread(SHORT, self._counting.ballot, vote, candidates)
            ballot = _with_unasked(ballot, plan, candidates, is_late=left_s(state, request) == NO_TIME_S)
        runtime.stream_writer({"event": "ballot", "ballot": ballot.model_dump(mode="json")})
        update = {"ballot": ballot, "settled": settled}
        following = await self._asking_on(cast(State, {**state, **update}), request)
        return Command(update={**update, "timings_ms": {"vote": _ms_since(started)}}, goto=following)

    async def _asking_on(self, state: State, request: Request) -> list[Send] | str:
        """By turns the next voter, while asking on pays; a synthesis, where one is wanted; or on to verify."""
        plan = state["plan"]
        remaining_s = left_s(state, request)
        if plan.mode != "consensus" or len(plan.models) == 1 or remaining_s == NO_TIME_S:
            return "verify"
        candidates = of_attempt(state["candidates"], plan)
        if plan.schedule == "turns":
            heard = [c for c in candidates if c.part == "answer"]
            vote = Vote(plan, request, matter(state), state["settled"] or "")
            following = await in_thread(SHORT, self._counting.next_voter, vote, heard)
            if following is not None:
                answered = sum(c.has_answer for c in heard)
                task = task_for(state, following, state["messages"], remaining_s, answered=answered)
                return [Send("generate", task)]
        is_written = any(c.part == "synthesis" for c in candidates)
        is_read = any(c.emitted for c in candidates)
        if request.synthesis and not is_written and not is_read and voting.can_be_written(state["ballot"]):
            return [Send("generate", self._writing(state, candidates, remaining_s))]
        return "verify"

    async def verify(self, state: State, runtime: Runtime[Request]) -> Command[str]:
        """Check the winner; the answer that is let through joins the conversation; another is asked for by route."""
        started = time.monotonic()
        candidates, request = state["candidates"], _request(runtime)
        judge = partial(
            checking.judge,
            candidates,
            plan=state["plan"],
            ballot=state["ballot"],
            classification=state["classification"],
            request=request,
            max_attempts=self._services.settings.routing.max_attempts,
            background=background(state),
        )
        verdict = await aside(not checking.is_brief(candidates, state["classification"], request), judge)
        if request.judge and verdict.final and verdict.candidate is not None:
            verdict = await self._judges.with_opinion(state, request, verdict)
        runtime.stream_writer({"event": "verdict", "verdict": verdict.model_dump(mode="json")})
        if verdict.final:
            self._services.ended(state["classification"], candidates, state["ballot"], verdict)
        update: dict[str, Any] = {"verdict": verdict, "timings_ms": {"verify": _ms_since(started)}}
        if verdict.final and verdict.candidate is not None:
            answer = settle({**state, "candidates": candidates, "verdict": verdict})
            update["messages"] = [answer.message()]
        return Command(update=update, goto=END if verdict.final else "route")

    # ---------------------------------------------------------------- effects

    async def _answer(self, task: Task, request: Request, write: StreamWriter, *, live: bool) -> Candidate:
        """One model's candidate, with what running its code showed; `live`: its words go out as they come."""
        started, plan = time.monotonic(), task["plan"]
        sampling = request.sampling
        if needs_confidence(plan, request):
            sampling = sampling.model_copy(update={"logprobs": True})
        messages: list[Any] = task["messages"]
        if task["part"] == "answer":
            messages = apply_template(request.template, messages, task["classification"].reply_language)
        sample = sample_of(task["model"])
        if sample > 1:
            sampling = voting.sampled(sampling, sample)
        inquiry = Inquiry(
            spec=self._services.settings.spec(model_of(task["model"])),
            attempt=plan.attempt,
            messages=messages,
            sampling=sampling,
            deadline_s=task["deadline_s"],
        )
        candidate = await self._services.models.ask(
            inquiry,
            on_delta=_emitter(write) if live else None,
            on_reading=_reading(write, task["model"]),
            config=get_config(),
        )
        changes: dict[str, Any] = {"part": task["part"], "sample": sample}
        if not request.sampling.logprobs:
            changes["logprobs"] = ()
        if candidate.has_answer:
            ends_s = None if task["deadline_s"] is None else started + task["deadline_s"]
            changes["behaviour"] = await self._trials.tried(candidate.content, task["question"], request.tests, ends_s)
        return candidate.model_copy(update=changes)

    async def _settled(self, state: State, request: Request) -> str:
        """What running the code of the question gives, where it asks for that; else empty."""
        return await self._trials.settled(last_user_text(state["messages"]), until_s(state, request))

    # ---------------------------------------------------------------- decisions over services

    def _writing(self, state: State, candidates: Sequence[Candidate], remaining_s: float | None) -> Task:
        """The task of whoever writes one answer out of all: the strongest voter who answered."""
        answered = [c for c in candidates if c.content.strip() and not c.error]
        prompt = voting.question_to_writer(
            last_user_text(state["messages"]),
            answered,
            secret=secrets.token_hex(8),
            language=state["classification"].reply_language,
        )
        last = next(i for i in range(len(state["messages"]) - 1, -1, -1) if state["messages"][i].type == "human")
        # In the place of the question: what was said before it still holds.
        messages = [*state["messages"][:last], HumanMessage(prompt)]
        task = task_for(state, answered[0].model, messages, remaining_s)
        return {**task, "part": "synthesis"}


def _vote_of(task: Task, request: Request) -> Vote:
    return Vote(task["plan"], request, matter_of(task["question"], task["classification"]), task["settled"])


def _request(runtime: Runtime[Request]) -> Request:
    """The run's context; Studio and the LangGraph API may give none."""
    return runtime.context or Request()


def _emitter(write: StreamWriter) -> Any:
    def emit(delta: Delta) -> None:
        write({"event": "delta", **asdict(delta)})

    return emit


def _reading(write: StreamWriter, model: str) -> Any:
    def emit(read_tokens: int, prompt_tokens: int) -> None:
        write({"event": "reading", "model": model, "read_tokens": read_tokens, "prompt_tokens": prompt_tokens})

    return emit


def _progress(candidate: Candidate) -> dict[str, Any]:
    """A candidate for those who watch: all but its words, which a verdict has yet to let through."""
    return candidate.model_dump(mode="json", exclude={"content", "reasoning", "tool_calls", "logprobs"})


def _ms_since(started_s: float) -> float:
    return round(1000 * (time.monotonic() - started_s), 3)


def _with_unasked(ballot: Ballot, plan: Plan, candidates: Sequence[Candidate], *, is_late: bool) -> Ballot:
    """The ballot with the voters that nobody asked: for want of time, or because it was decided without them."""
    unasked = [voter for voter in plan.models if voter not in {c.voter for c in candidates}]
    if is_late:
        absent = {**ballot.absent, **dict.fromkeys(unasked, "deadline")}
        return ballot.model_copy(update={"absent": absent, "degraded": bool(absent)})
    return ballot.model_copy(update={"spared": (*ballot.spared, *unasked)})


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
