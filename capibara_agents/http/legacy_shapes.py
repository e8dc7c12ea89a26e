"""The original project's shapes of an answer. Pure."""

from __future__ import annotations

from typing import Any

from capibara_agents.outcome import Answer, explain
from capibara_agents.types import Candidate, Classification, Plan


def routing_info(classification: Classification, plan: Plan) -> dict[str, Any]:
    """Who was chosen and why; the reason in the question's language."""
    return {
        "model_id": plan.models[0],
        "route_name": classification.domain,
        "tier": plan.tier,
        "confidence": round(classification.confidence, 4),
        "reasoning": explain(classification, plan, classification.language)["reason"],
    }


def chat_answer(answer: Answer, *, latency_s: float) -> dict[str, Any]:
    """{response, model, routing_info, tokens, latency_ms}; `fallback`: another model answered than was chosen."""
    candidate = answer.candidate
    info = routing_info(answer.classification, answer.plan)
    chosen = {"model_id": answer.plan.first_choice, "fallback": answer.verdict.degraded}
    return {
        "response": candidate.content,
        "model": candidate.model,
        "routing_info": {**info, **chosen},
        "tokens": candidate.usage.completion_tokens,
        "latency_ms": round(1000 * latency_s),
        "verified": answer.verdict.accepted,
        "finish_reason": candidate.finish_reason or "stop",
    }


def consensus_answer(answer: Answer, *, method: str, duration_s: float) -> dict[str, Any]:
    """The winner of a vote with the ballot it won.

    `consensus` is true when several models answered and were weighed; `selected_weight` is that of the winning
    cluster's ballots, of `total_weight` cast. `responses` has everyone who was asked, after a rejected vote too.
    """
    candidate, ballot = answer.candidate, answer.ballot
    cluster = next((vote.cluster for vote in ballot.votes if vote.model == candidate.voter), None)
    asked = [c for c in answer.candidates if c.part == "answer" or c.key == candidate.key]
    return {
        "response": candidate.content,
        "model_used": candidate.model,
        "duration": round(duration_s, 3),
        "tokens_generated": candidate.usage.completion_tokens,
        "tokens_evaluated": candidate.usage.prompt_tokens,
        "consensus": len(ballot.votes) > 1,
        "consensus_method": method if ballot.votes else None,
        "models_queried": len(asked),
        "successful_models": sum(c.has_answer for c in asked),
        "agreement": round(ballot.agreement, 4),
        "confidence": round(ballot.confidence, 4),
        "total_weight": round(sum(vote.weight for vote in ballot.votes), 4),
        "selected_weight": round(sum(v.weight for v in ballot.votes if v.cluster == cluster), 4),
        "verified": answer.verdict.accepted,
        "degraded": answer.verdict.degraded,
        "votes": [
            {"model": v.model, "answer": v.answer.value, "weight": round(v.weight, 4), "cluster": v.cluster}
            for v in ballot.votes
        ],
        "responses": [_told(c) for c in asked],
    }


def _told(candidate: Candidate) -> dict[str, Any]:
    """One voter: its answer, or the code of what went wrong."""
    told = {
        "model_id": candidate.model,
        "success": candidate.has_answer,
        "duration": round(candidate.timings.total_ms / 1000, 3),
        "tokens_generated": candidate.usage.completion_tokens,
    }
    if candidate.has_answer:
        return {**told, "response": candidate.content}
    return {**told, "error": candidate.error or "empty", "message": candidate.error_message}
