"""Counts the ballots: equal answers form a cluster, the heaviest cluster wins. Pure.

Methods: `simple` gives every voter one vote; `weighted` counts each with its weight (log-odds of being right,
from the plan); `confidence` also multiplies by how likely the voter found its own words (exp of the mean
log-probability of its tokens). Free texts are rarely equal: there each candidate is supported by the others as
far as they say the same (cosine similarity of embeddings, when they are given).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capibara_agents.answers import canonical
from capibara_agents.types import AnswerKind, Ballot, Candidate, Canonical, Domain, Vote, Voting


@dataclass(frozen=True)
class Matter:
    """What is voted on."""

    question: str
    domain: Domain
    wants_json: bool = False


def pass_through(candidates: Sequence[Candidate]) -> Ballot:
    """The ballot of an attempt in which one model was asked: nothing to weigh."""
    answered = [c for c in candidates if c.has_answer]
    return Ballot(
        winner=answered[0].key if answered else None,
        method="pass",
        agreement=1.0 if answered else 0.0,
        confidence=1.0 if answered else 0.0,
        absent={c.model: c.error or "empty" for c in candidates if not c.has_answer},
    )


def count(
    candidates: Sequence[Candidate],
    *,
    matter: Matter,
    method: Voting,
    weights: Mapping[str, float],
    similarity: Sequence[Sequence[float]] | None = None,
) -> Ballot:
    """The ballot over `candidates`, in their order; ties go to the earlier one.

    `similarity[i][j]` in [-1, 1] is between answered candidates i and j, used for free text only.
    """
    answered = [c for c in candidates if c.has_answer]
    absent = {c.model: c.error or "empty" for c in candidates if not c.has_answer}
    if not answered:
        return Ballot(winner=None, method=method, agreement=0.0, confidence=0.0, absent=absent)
    answers = [
        canonical(_said(c), question=matter.question, domain=matter.domain, wants_json=matter.wants_json)
        for c in answered
    ]
    cast = [_weight(c, method, weights) for c in answered]
    cluster = _clusters(answers)
    free_text = all(answer.kind is AnswerKind.text for answer in answers) and len(set(cluster)) == len(cluster)
    if free_text and similarity is not None and len(answered) > 1:
        winner, agreement = _most_supported(cast, similarity)
    else:
        winner, agreement = _heaviest(cast, cluster, answers)
    return Ballot(
        winner=answered[winner].key,
        method=method,
        agreement=round(agreement, 4),
        confidence=round(agreement * answers[winner].confidence, 4),
        votes=tuple(
            Vote(model=c.model, answer=_shortened(a), weight=round(w, 4), cluster=k)
            for c, a, w, k in zip(answered, answers, cast, cluster, strict=True)
        ),
        absent=absent,
    )


def _said(candidate: Candidate) -> str:
    """The text of a candidate; of one that only calls tools, the calls without their ids."""
    if candidate.content.strip() or not candidate.tool_calls:
        return candidate.content
    return json.dumps([call.get("function") for call in candidate.tool_calls], sort_keys=True)


def _weight(candidate: Candidate, method: Voting, weights: Mapping[str, float]) -> float:
    if method == "simple":
        return 1.0
    # A voter below even chance is heard with almost no weight, but heard.
    weight = max(weights.get(candidate.model, 1.0), 0.01)
    if method == "confidence" and candidate.mean_logprob is not None:
        weight *= math.exp(candidate.mean_logprob)
    return weight


def _clusters(answers: Sequence[Canonical]) -> list[int]:
    numbers: dict[tuple[AnswerKind, str], int] = {}
    return [numbers.setdefault((answer.kind, answer.value), len(numbers)) for answer in answers]


def _heaviest(cast: Sequence[float], cluster: Sequence[int], answers: Sequence[Canonical]) -> tuple[int, float]:
    totals: dict[int, float] = {}
    for weight, number in zip(cast, cluster, strict=True):
        totals[number] = totals.get(number, 0.0) + weight
    best = max(totals, key=lambda number: (totals[number], -number))
    members = [i for i, number in enumerate(cluster) if number == best]
    # Whoever marked the shared answer most clearly speaks for the cluster.
    speaker = max(members, key=lambda i: (answers[i].confidence, cast[i], -i))
    return speaker, totals[best] / sum(cast)


def _most_supported(cast: Sequence[float], similarity: Sequence[Sequence[float]]) -> tuple[int, float]:
    support = [
        weight + sum(cast[j] * max(similarity[i][j], 0.0) for j in range(len(cast)) if j != i)
        for i, weight in enumerate(cast)
    ]
    winner = max(range(len(cast)), key=lambda i: (support[i], -i))
    return winner, support[winner] / sum(cast)


def _shortened(answer: Canonical, limit: int = 200) -> Canonical:
    return answer if len(answer.value) <= limit else answer.model_copy(update={"value": answer.value[:limit] + "…"})
