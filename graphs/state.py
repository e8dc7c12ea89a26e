"""What a run of the graph knows, and what its nodes read out of that; nothing here but the clock is an effect."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from langchain_core.messages import AnyMessage, BaseMessage
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from capibara_agents import verify as checking
from capibara_agents import vote as voting
from capibara_agents.types import Ballot, Candidate, Classification, Plan, Request, Verdict

NO_TIME_S = 0.001


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
    settled: str | None
    verdict: Verdict
    timings_ms: Annotated[dict[str, float], note]
    started_s: float
    run: str


class Task(TypedDict):
    """What one branch of generate gets: the conversation and the model to ask."""

    messages: list[AnyMessage]
    plan: Plan
    model: str
    part: Literal["answer", "synthesis"]
    run: str
    question: str
    classification: Classification
    settled: str
    answered: int
    deadline_s: float | None


def needs_confidence(plan: Plan, request: Request) -> bool:
    """Whether how sure the models are of their words decides something; with tools they do not say."""
    if plan.mode == "consensus":
        return request.voting == "confidence"
    return plan.mode == "cascade" and not request.sampling.tools


def is_live(plan: Plan, model: str, request: Request) -> bool:
    """Whether tokens go to the caller as they come: of a model that answers alone, or, asked for, of the leader."""
    if plan.mode == "single":
        return request.stream in ("auto", "eager")
    leads = plan.mode == "consensus" and plan.attempt == 1 and model == plan.models[0]
    return leads and request.stream == "eager"


def left_s(state: State, request: Request) -> float | None:
    """Seconds until the request's deadline; None without one, NO_TIME_S when it is over."""
    ends_s = until_s(state, request)
    return None if ends_s is None else max(ends_s - time.monotonic(), NO_TIME_S)


def until_s(state: State, request: Request) -> float | None:
    """The request's deadline on the monotonic clock; None without one."""
    return None if request.deadline_s is None else state["started_s"] + request.deadline_s


def task_for(state: State, model: str, messages: list[Any], left_s: float | None, *, answered: int = 0) -> Task:
    """`answered`: how many voters have answered before this one is asked."""
    return Task(
        messages=messages,
        plan=state["plan"],
        model=model,
        part="answer",
        run=state["run"],
        question=last_user_text(state["messages"]),
        classification=state["classification"],
        settled=state["settled"] or "",
        answered=answered,
        deadline_s=left_s,
    )


def runs_of(candidates: Sequence[Candidate], question: str, settled: str) -> voting.Runs:
    """What running code showed of each: their own, or the question's."""
    proven: set[str] = set()
    refuted: set[str] = set()
    for candidate in candidates:
        if not candidate.has_answer:
            continue
        behaviour = candidate.behaviour
        if settled:
            right = checking.gives(candidate.content, question, settled)
            if right is not None:
                (proven if right else refuted).add(candidate.key)
        elif behaviour is not None and (not behaviour.passed or behaviour.details.get("outcome") == "passed"):
            (proven if behaviour.passed else refuted).add(candidate.key)
    return voting.Runs(frozenset(proven), frozenset(refuted))


def background(state: State) -> checking.Background:
    system = "\n".join(str(m.text) for m in state["messages"] if m.type == "system")
    return checking.Background(
        question=last_user_text(state["messages"]), system=system, settled=state["settled"] or None
    )


def previous_plan(state: State) -> Plan | None:
    """The plan this run made before; the first time round there is none.

    On a thread the plan of an earlier run is still there, and of a run that was broken off an unfinished verdict
    too: only candidates are surely this run's own.
    """
    return state["plan"] if state["candidates"] else None


def of_attempt(candidates: Sequence[Candidate], plan: Plan) -> list[Candidate]:
    """The candidates of the plan's attempt, in the order in which they were chosen."""
    latest = [c for c in candidates if c.attempt == plan.attempt]
    return sorted(latest, key=lambda c: plan.models.index(c.voter))


def matter(state: State) -> voting.Matter:
    return matter_of(last_user_text(state["messages"]), state["classification"])


def matter_of(question: str, classification: Classification) -> voting.Matter:
    return voting.Matter(question=question, domain=classification.domain, wants_json=classification.wants_json)


def last_user_text(messages: Sequence[BaseMessage]) -> str:
    """The text of the last question of a conversation; empty when there is none."""
    return next((str(m.text) for m in reversed(messages) if m.type == "human"), "")
