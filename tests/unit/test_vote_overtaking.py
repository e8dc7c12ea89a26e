"""When asking ends where log-probabilities move the ballot: not before nobody who is left could change who wins."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest

from capibara_agents.types import Candidate, Timings
from capibara_agents.vote import (
    NOTHING_RUN,
    Cluster,
    Matter,
    Round,
    Sureness,
    Tally,
    VoteWeights,
    count,
    deciding,
    learn,
    next_voter,
    said,
    words,
)

A, B, C = VOTERS = ("a", "b", "c")
SUMS = Matter(question="12 * 7?", domain="math")
# Each voter is as sure as -1 on average, give or take 1.
SLOPES = Sureness(
    statistic="mean", usual=dict.fromkeys(VOTERS, (-1.0, 1.0)), slopes={f"sure.{v}": 0.8 for v in VOTERS}, rounds=100
)


def rounds(number: int, seed: int) -> list[Round]:
    """Votes of three who are right about two times in three, and surer when they are."""
    draw = random.Random(seed)
    made = []
    for _ in range(number):
        right = {v: draw.random() < p for v, p in zip(VOTERS, (0.72, 0.68, 0.66), strict=True)}
        sure = {v: {"mean": (-0.3 if right[v] else -1.0) + 0.4 * draw.gauss(0, 1)} for v in VOTERS}
        answers: dict[str, list[str]] = {}
        for v in VOTERS:
            answers.setdefault("right" if right[v] else draw.choice("xyz"), []).append(v)
        clusters = tuple(Cluster(voters=tuple(vs), logprobs={v: sure[v] for v in vs}) for vs in answers.values())
        truth = tuple(answer == "right" for answer in answers)
        made.append(Round(tally=Tally(domain="math", clusters=clusters), right=truth))
    return made


@cache
def learned() -> VoteWeights:
    return learn(rounds(500, 0), VOTERS).model_copy(update={"sureness": SLOPES})


def candidate(model: str, answer: str, logprob: float) -> Candidate:
    timings = Timings(wait_ms=0, total_ms=1)
    return Candidate(model=model, content=f"The answer is {answer}", timings=timings, mean_logprob=logprob)


def after(heard: Sequence[Candidate], weights: VoteWeights) -> str | None:
    asked = {c.model for c in heard}
    left = [v for v in weights.order if v not in asked]
    return next_voter(said(heard, SUMS), left, weights, prior=dict.fromkeys(VOTERS, 1.0))


def leading(tally: Tally, weights: VoteWeights) -> int:
    chances = SLOPES.moved(tally, weights.chances(tally))
    return max(range(len(chances)), key=lambda k: (chances[k], -k))


@pytest.mark.parametrize("asked", [1, 2])
def test_who_wins_when_asking_ends_wins_when_all_have_spoken(asked: int) -> None:
    """On votes that nothing was learned from; and asking does end before all have spoken."""
    weights = learned()
    heard, left = frozenset(weights.order[:asked]), list(weights.order[asked:])
    stopped = 0
    for played in rounds(1000, 1):
        so_far = played.tally.among(heard)
        if next_voter(so_far, left, weights, prior={}) is not None:
            continue
        stopped += 1
        winner = so_far.clusters[leading(so_far, weights)]
        assert set(winner.voters) <= set(played.tally.clusters[leading(played.tally, weights)].voters)
    assert stopped > 0 or asked == 1


def test_whoever_is_unsure_does_not_end_the_vote() -> None:
    """Two agree, as unsure as can be: the third, if sure of another answer, would win, and does."""
    weights = learned()
    first, second, third = weights.order
    heard = [candidate(first, "84", -4.0), candidate(second, "84", -4.0)]
    assert after(heard, weights) == third
    ballot = count([*heard, candidate(third, "85", 2.0)], matter=SUMS, method="confidence", weights={}, learned=weights)
    assert ballot.winner == f"1:{third}"
    sure = [candidate(first, "84", 2.0), candidate(second, "84", 2.0)]
    assert after(sure, weights) is None


def test_where_log_probabilities_do_not_count_they_keep_nobody_asking() -> None:
    """A weighted vote ends as it did, and a simple one knows nothing learned."""
    weights = learned()
    plain = weights.model_copy(update={"sureness": None})
    assert deciding("weighted", NOTHING_RUN, weights) == plain
    assert deciding("confidence", NOTHING_RUN, weights) == weights
    assert deciding("simple", NOTHING_RUN, weights) == VoteWeights()


def test_words_of_those_to_come_may_be_as_sure_as_can_be() -> None:
    """Where learned chances do not decide, weights do: moved for who has spoken, at their most for who has not."""
    weights = learned()
    heard = [candidate(A, "84", -2.0)]
    plain, moved = (
        words(VOTERS, heard, method=method, weights={}, learned=weights, runs=NOTHING_RUN, domain="math")
        for method in ("weighted", "confidence")
    )
    assert moved[A] == pytest.approx(max(plain[A] - 0.8, 0.01))
    assert moved[B] == pytest.approx(plain[B] + 3 * 0.8)
    ballot = count(heard, matter=SUMS, method="confidence", weights={}, learned=weights)
    assert ballot.votes[0].weight == pytest.approx(moved[A], abs=1e-4)
