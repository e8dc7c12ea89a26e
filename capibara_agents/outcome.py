"""What a finished run comes to: an answer with its whole decision, or the error that says why there is none. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from langchain_core.messages import AIMessage

from capibara_agents.errors import (
    BadQuestion,
    ModelCrashed,
    ModelError,
    ModelLoading,
    ModelTimeout,
    ModelUnavailable,
    NoAnswer,
)
from capibara_agents.texts import phrase, sentence
from capibara_agents.types import Ballot, Candidate, Classification, Language, Plan, Value, Verdict


class Answer(Value):
    """The candidate that is returned, and everything that was decided on the way to it."""

    candidate: Candidate
    classification: Classification
    plan: Plan
    candidates: tuple[Candidate, ...]
    ballot: Ballot
    verdict: Verdict
    timings_ms: dict[str, float]

    def ranked(self) -> tuple[Candidate, ...]:
        """The answers there are, the returned one first, then by the weight behind what they say, then their own."""
        behind: dict[int, float] = {}
        for vote in self.ballot.votes:
            behind[vote.cluster] = behind.get(vote.cluster, 0.0) + vote.weight
        votes = {f"{self.plan.attempt}:{vote.model}": vote for vote in self.ballot.votes}

        def place(candidate: Candidate) -> tuple[bool, float, float]:
            vote = votes.get(candidate.key)
            weights = (behind[vote.cluster], vote.weight) if vote else (float("-inf"), 0.0)
            return candidate.key != self.candidate.key, -weights[0], -weights[1]

        answers = [c for c in self.candidates if (c.has_answer and c.part == "answer") or c.key == self.candidate.key]
        return tuple(sorted(answers, key=place))

    def trace(self) -> dict[str, Any]:
        """The decision as JSON: classification, plan, candidates, ballot, verdict, timings_ms."""
        return self.model_dump(mode="json", exclude={"candidate"})

    def message(self) -> AIMessage:
        """The answer as LangChain's message; the decision rides in response_metadata["capibara"]."""
        candidate = self.candidate
        extra: dict[str, Any] = {"reasoning_content": candidate.reasoning} if candidate.reasoning else {}
        if candidate.tool_calls:
            extra["tool_calls"] = [dict(call) for call in candidate.tool_calls]
        return AIMessage(
            content=candidate.content,
            additional_kwargs=extra,
            response_metadata={
                "model_name": candidate.model,
                "finish_reason": candidate.finish_reason,
                "capibara": self.trace(),
            },
            usage_metadata={
                "input_tokens": candidate.usage.prompt_tokens,
                "output_tokens": candidate.usage.completion_tokens,
                "total_tokens": candidate.usage.total_tokens,
            },
        )


def explain(classification: Classification, plan: Plan, language: Language) -> dict[str, Any]:
    """A decision before any model was asked, as JSON with its reason in words."""
    return {
        "language": classification.language,
        "domain": classification.domain,
        "complexity": round(classification.complexity, 4),
        "complexity_level": classification.complexity_level,
        "modality": classification.modality,
        "model": plan.models[0],
        "tier": plan.tier,
        "mode": plan.mode,
        "models": list(plan.models),
        "chain": list(plan.chain),
        "confidence": round(classification.confidence, 4),
        "neighbours": [{"id": n.id, "score": round(n.score, 4), "domain": n.domain} for n in classification.neighbours],
        "reason": sentence(plan.reason.code, language, **plan.reason.values),
        "reason_code": plan.reason.code,
        "read_tokens": dict(plan.read_tokens),
    }


def settle(state: Mapping[str, Any]) -> Answer:
    """The answer of a finished run of the graph. Raises the error that explains why there is none."""
    candidates: tuple[Candidate, ...] = tuple(state.get("candidates", ()))
    verdict: Verdict = state["verdict"]
    chosen = next((c for c in candidates if c.key == verdict.candidate), None)
    if chosen is None:
        _explain(candidates)
    return Answer(
        candidate=chosen,
        classification=state["classification"],
        plan=state["plan"],
        candidates=candidates,
        ballot=state["ballot"],
        verdict=verdict,
        timings_ms=dict(state.get("timings_ms", {})),
    )


def _explain(candidates: Sequence[Candidate]) -> NoReturn:
    """The error of a run without any text: the caller's own mistake first, then what waiting may mend."""
    errors = [c for c in candidates if c.error]
    for wrong in errors:
        if wrong.error in ("invalid_request", "context_length_exceeded"):
            param = "messages" if wrong.error == "context_length_exceeded" else None
            raise BadQuestion(wrong.error_message, param=param, code=wrong.error)
    asked = ", ".join(dict.fromkeys(c.model for c in candidates)) or phrase("asked.nobody")
    told = " ".join(dict.fromkeys(c.error_message for c in errors if c.error_message))
    codes = {c.error for c in errors}
    wait_s = max((c.retry_after_s for c in errors if c.retry_after_s), default=None)
    interrupted = next((c for c in errors if c.emitted), None)
    if interrupted is not None:
        raise ModelCrashed(interrupted.error_message, model_id=interrupted.model, retry_after_s=wait_s or 1)
    if codes and codes <= {"model_loading", "model_unavailable", "model_crashed"}:
        kind: type[ModelError] = ModelLoading if "model_loading" in codes else ModelUnavailable
        raise kind(told, retry_after_s=wait_s or 5)
    if codes and codes <= {"model_timeout", "deadline"}:
        raise ModelTimeout(told)
    if told:
        raise NoAnswer(phrase("asked.none_why", models=asked, reason=told))
    raise NoAnswer(phrase("asked.none", models=asked))
