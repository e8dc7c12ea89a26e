"""Counts the ballots: equal answers form a cluster, the likeliest cluster wins. Pure.

`simple` gives every voter one vote. `weighted` counts each with its weight, a log-odds of being right: learned from
recorded votes where there are any (weights.py), else the plan's. `confidence` also moves a weight by how likely the
voter found its own words, where recorded runs have shown that this says something (sureness.py); elsewhere it is
`weighted`. Several samples of one model err together: unless recorded votes tell what each is worth, they share the
weight of one voter between them.
What was found out by running code counts in every method: answers whose code passed are one answer, and outweigh.
Free texts are rarely equal: there each candidate is supported by the others as far as they say the same (cosine
similarity of embeddings, when they are given), and the one in their middle wins. What a text says about itself or
about the vote is never read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from capibara_agents.answers import canonical, options, same
from capibara_agents.types import AnswerKind, Ballot, Candidate, Canonical, Domain, Vote, Voting, model_of
from capibara_agents.vote.overtaking import furthest
from capibara_agents.vote.tally import Equal, Tally, cluster_numbers, tally_of
from capibara_agents.vote.weights import VoteWeights

Similarity = Sequence[Sequence[float]]
EQUAL = VoteWeights()
MAX_CONTENT_CHARS = 100_000
"""Of a longer text, its first and its last half of so many are read."""
LEAST_WEIGHT = 0.01
"""A voter below even chance is heard with almost no weight, but heard."""
RUN_LOG_ODDS = 4.0
"""What a run that an answer passed adds to its weight: about fifty to one that it is right."""
SHOWN_CHARS = 200


@dataclass(frozen=True)
class Matter:
    """What is voted on."""

    question: str
    domain: Domain
    wants_json: bool = False


@dataclass(frozen=True)
class Runs:
    """What running code showed, by candidate key: answers it proved right, and answers it refuted."""

    proven: frozenset[str] = frozenset()
    refuted: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.proven or self.refuted)


NOTHING_RUN = Runs()


def pass_through(candidates: Sequence[Candidate]) -> Ballot:
    """The ballot of an attempt in which one model was asked: nothing to weigh."""
    answered = [c for c in candidates if c.has_answer]
    return Ballot(
        winner=answered[0].key if answered else None,
        method="pass",
        agreement=1.0 if answered else 0.0,
        confidence=1.0 if answered else 0.0,
        absent=_absent(candidates),
    )


def _question_says(candidate: Candidate) -> bool:
    """Whether a candidate tells something about its question: an answer or none, but not a server that was away."""
    return not candidate.was_spared and candidate.error is None


def count(
    candidates: Sequence[Candidate],
    *,
    matter: Matter,
    method: Voting,
    weights: Mapping[str, float],
    similarity: Similarity | Callable[[], Similarity | None] | None = None,
    learned: VoteWeights = EQUAL,
    runs: Runs = NOTHING_RUN,
    equal: Equal = same,
) -> Ballot:
    """The ballot over `candidates`, in their order; ties go to the earlier one. Voters that were spared do not count.

    `weights` are prior log-odds by model, used where `learned` knows nothing of these voters. `similarity[i][j]` in
    [-1, 1] is between answered candidates i and j, used for free text only, and there a function that finds it is
    called. `equal` says when two answers are the same. ValueError when a model has two candidates: it has one vote.
    """
    if len({c.voter for c in candidates}) < len(candidates):
        raise ValueError("a voter has one vote, and one of these has two candidates")
    spared = tuple(c.voter for c in candidates if c.was_spared)
    candidates = [c for c in candidates if not c.was_spared]
    answered = [c for c in candidates if c.has_answer]
    absent = _absent(candidates)
    if not answered:
        nobody = Ballot(winner=None, method=method, agreement=0.0, confidence=0.0, absent=absent, spared=spared)
        return nobody.model_copy(update={"degraded": bool(absent)})
    answers = _answers(answered, matter, runs)
    worth = _worth([c.voter for c in answered], method, weights, learned, matter.domain)
    cast = [_after_run(c, _weight(c, method, worth[c.voter], learned, matter.domain), runs) for c in answered]
    cluster = cluster_numbers(answers, equal)
    tally = _tally(candidates, dict(zip((c.voter for c in answered), answers, strict=True)), matter, equal)
    calibrated = False
    compared = _compared(answers, similarity)
    if compared is not None:
        winner, agreement = _most_supported(cast, compared)
        confidence = agreement * answers[winner].confidence
    else:
        decide = counts_chances(method, runs)
        chances = _chances(tally, method, learned) if decide else None
        calibrated = chances is not None
        winner, agreement = _heaviest(cast, cluster, answers, chances)
        confidence = chances[cluster[winner]] if chances else agreement * answers[winner].confidence
    return Ballot(
        winner=answered[winner].key,
        method=method,
        agreement=round(agreement, 4),
        confidence=round(confidence, 4),
        calibrated=calibrated,
        votes=tuple(
            Vote(
                model=c.voter,
                answer=_shortened(a),
                weight=round(w, 4),
                cluster=k,
                traits=tally.clusters[k].traits,
                logprobs=stated_logprobs(c),
                evidence=learned.rounds if method != "simple" and c.voter in learned.order else 0,
            )
            for c, a, w, k in zip(answered, answers, cast, cluster, strict=True)
        ),
        absent=absent,
        spared=spared,
        degraded=bool(absent),
    )


def words(
    voters: Sequence[str],
    heard: Sequence[Candidate],
    *,
    method: Voting,
    weights: Mapping[str, float],
    learned: VoteWeights,
    runs: Runs,
    domain: Domain,
) -> dict[str, float]:
    """What each voter's word is worth in `count`, for whoever decides whether to go on asking.

    Of those who are yet to speak, the most that it may be worth: they may be as sure of their words as can be.
    """
    found = _worth(voters, method, weights, learned, domain)
    sureness = learned.sureness if method == "confidence" else None
    most = {v: word + (furthest(sureness, v, domain) if sureness else 0.0) for v, word in found.items()}
    spoken = {
        c.voter: _after_run(c, _weight(c, method, found[c.voter], learned, domain), runs)
        for c in heard
        if c.voter in found
    }
    return most | spoken


def counts_chances(method: Voting, runs: Runs) -> bool:
    """Whether learned chances decide: not where runs say more, nor by heads."""
    return not runs and method != "simple"


def deciding(method: Voting, runs: Runs, learned: VoteWeights) -> VoteWeights:
    """What of the learned weights decides in `count`: all of them, all but the slopes over log-probabilities, none."""
    if not counts_chances(method, runs):
        return EQUAL
    return learned if method == "confidence" else learned.model_copy(update={"sureness": None})


def said(candidates: Sequence[Candidate], matter: Matter, *, runs: Runs = NOTHING_RUN, equal: Equal = same) -> Tally:
    """Who has said what so far, for whoever decides whether to go on asking."""
    asked = [c for c in candidates if not c.was_spared]
    answered = [c for c in asked if c.has_answer]
    answers = _answers(answered, matter, runs)
    return _tally(asked, dict(zip((c.voter for c in answered), answers, strict=True)), matter, equal)


def stated_logprobs(candidate: Candidate) -> dict[str, float]:
    """How likely a candidate found its words: mean, min, tail, in nats, as far as its server said."""
    found = {"mean": candidate.mean_logprob, "min": candidate.min_logprob, "tail": candidate.tail_logprob}
    return {name: value for name, value in found.items() if value is not None}


def _worth(
    voters: Sequence[str], method: Voting, weights: Mapping[str, float], learned: VoteWeights, domain: Domain
) -> dict[str, float]:
    """What each voter's word is worth. Samples of one model share its weight, unless it is known what each adds."""
    models = Counter(model_of(voter) for voter in voters)
    apart = method != "simple" and learned.knows(voters)
    return {
        voter: _word(voter, method, weights, learned, domain) / (1 if apart else models[model_of(voter)])
        for voter in voters
    }


def _compared(
    answers: Sequence[Canonical], similarity: Similarity | Callable[[], Similarity | None] | None
) -> Similarity | None:
    """How alike the answers are, where all of them are free text."""
    if len(answers) < 2 or any(answer.kind is not AnswerKind.text for answer in answers):
        return None
    return similarity() if callable(similarity) else similarity


def _absent(candidates: Sequence[Candidate]) -> dict[str, str]:
    return {c.voter: c.error or "empty" for c in candidates if not c.has_answer and not c.was_spared}


def _answers(answered: Sequence[Candidate], matter: Matter, runs: Runs) -> list[Canonical]:
    """The canonical answers; programs that a run proved right do the same, however they are written."""
    answers = [_answer(c, matter) for c in answered]
    proven = [c.key in runs.proven and a.kind is AnswerKind.code for c, a in zip(answered, answers, strict=True)]
    first = next((a for a, right in zip(answers, proven, strict=True) if right), None)
    return [first if right and first else a for a, right in zip(answers, proven, strict=True)]


def _after_run(candidate: Candidate, weight: float, runs: Runs) -> float:
    if candidate.key in runs.proven:
        return weight + RUN_LOG_ODDS
    return LEAST_WEIGHT if candidate.key in runs.refuted else weight


def _answer(candidate: Candidate, matter: Matter) -> Canonical:
    return canonical(_text_of(candidate), question=matter.question, domain=matter.domain, wants_json=matter.wants_json)


def _text_of(candidate: Candidate) -> str:
    """The text of a candidate; of one that only calls tools, the calls without their ids."""
    content = candidate.content
    if len(content) > MAX_CONTENT_CHARS:
        content = f"{content[: MAX_CONTENT_CHARS // 2]}\n{content[-(MAX_CONTENT_CHARS // 2) :]}"
    if content.strip() or not candidate.tool_calls:
        return content
    return json.dumps([call.get("function") for call in candidate.tool_calls], sort_keys=True)


def _weight(candidate: Candidate, method: Voting, word: float, learned: VoteWeights, domain: Domain) -> float:
    """The worth of a voter's word here: its own probabilities may say more, or less."""
    if method == "confidence" and learned.sureness is not None:
        word += learned.sureness.shift(candidate.voter, domain, stated_logprobs(candidate))
    return max(word, LEAST_WEIGHT)


def _word(voter: str, method: Voting, weights: Mapping[str, float], learned: VoteWeights, domain: Domain) -> float:
    if method == "simple":
        return 1.0
    if learned.learned:
        return max(learned.weight(voter, domain), LEAST_WEIGHT)
    return max(weights.get(voter, weights.get(model_of(voter), 1.0)), LEAST_WEIGHT)


def _chances(tally: Tally, method: Voting, learned: VoteWeights) -> tuple[float, ...] | None:
    """The learned chance of each cluster; None where these voters have not been learned about."""
    if not learned.knows(sorted(tally.asked)):
        return None
    chances = learned.chances(tally)
    if method == "confidence" and learned.sureness is not None:
        chances = learned.sureness.moved(tally, chances)
    return chances


def _tally(candidates: Sequence[Candidate], answers: Mapping[str, Canonical], matter: Matter, equal: Equal) -> Tally:
    """Who said what. Whose server was away, or whose time ran out, was not asked: that says nothing of the question."""
    telling = [c for c in candidates if _question_says(c)]
    given: dict[str, Canonical | None] = {c.voter: answers.get(c.voter) for c in telling}
    choices = tuple(options(matter.question).values())
    logprobs = {c.voter: found for c in telling if (found := stated_logprobs(c))}
    return tally_of(
        given, domain=matter.domain, question=matter.question, choices=choices, equal=equal, logprobs=logprobs
    )


def _heaviest(
    cast: Sequence[float], cluster: Sequence[int], answers: Sequence[Canonical], chances: Sequence[float] | None
) -> tuple[int, float]:
    totals: dict[int, float] = {}
    for weight, number in zip(cast, cluster, strict=True):
        totals[number] = totals.get(number, 0.0) + weight
    best = max(totals, key=lambda number: (chances[number] if chances else totals[number], -number))
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
    return winner, min(support[winner] / sum(cast), 1.0)


def _shortened(answer: Canonical) -> Canonical:
    if len(answer.value) <= SHOWN_CHARS:
        return answer
    return answer.model_copy(update={"value": answer.value[:SHOWN_CHARS] + "…"})
