"""Whom to ask, whom next, and when to stop asking. Pure.

Nobody is admitted to a vote for the sake of voting: three near-equals that err each in their own way do better than
the best of them, a strong model among weak ones does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

from capibara_agents.types import Expectation, FleetSnapshot
from capibara_agents.vote.overtaking import can_overtake
from capibara_agents.vote.tally import Tally
from capibara_agents.vote.weights import VoteWeights

GAP = 0.10
"""Who is expected to be right so much less often than the best does not vote."""
SUPPORT = 10.0
"""Outcomes that must stand behind an expectation before its model is let into a vote that nobody asked for."""
TOGETHER = 0.5
"""Share of wrong answers that near-equal models are taken to have in common: there no vote helps."""
PRIOR_OUTCOMES = 20.0
PRICE_PER_VOTER = 0.004

Schedule = Literal["together", "turns"]


def prior_weights(voters: Sequence[str], expectations: Mapping[str, Expectation]) -> dict[str, float]:
    """Log-odds of each voter, shrunk towards the voters' mean while few outcomes stand behind it; equal without any."""
    known = {v: e for v in voters if (e := expectations.get(v)) is not None and e.support > 0}
    if not known:
        return dict.fromkeys(voters, 1.0)
    total = sum(e.support for e in known.values())
    mean = sum(e.support * e.good for e in known.values()) / total
    weights = {}
    for voter in voters:
        support = known[voter].support if voter in known else 0.0
        good = known[voter].good if voter in known else mean
        shrunk = (support * good + PRIOR_OUTCOMES * mean) / (support + PRIOR_OUTCOMES)
        weights[voter] = _log_odds(shrunk)
    return weights


def admit(expectations: Mapping[str, Expectation], *, max_voters: int, gap: float = GAP) -> tuple[str, ...]:
    """The voters whose vote is expected to beat the best of them alone, the best first; () when none is.

    Several samples of one model take part under names of their own, with expectations of their own.
    """
    known = {model: e.good for model, e in expectations.items() if e.support >= SUPPORT}
    ranked = sorted(known, key=lambda model: -known[model])
    near = [model for model in ranked if known[ranked[0]] - known[model] <= gap][:max_voters]
    worth = {
        size: expected_gain([known[model] for model in near[:size]]) - PRICE_PER_VOTER * (size - 1)
        for size in range(2, len(near) + 1)
    }
    best = max(worth, key=lambda size: (worth[size], -size), default=0)
    return tuple(near[:best]) if worth.get(best, 0.0) > 0 else ()


def expected_gain(good: Sequence[float]) -> float:
    """By how much a weighted vote beats its best voter, each right with probability `good`, in [0, 1].

    Binary answers and independent voters (Nitzan and Paroush, Optimal decision rules, 1982), less the share of errors
    that are TOGETHER.
    """
    weights = [_log_odds(p) for p in good]
    wins = 0.0
    for rights in product((True, False), repeat=len(good)):
        chance = math.prod(p if right else 1 - p for p, right in zip(good, rights, strict=True))
        balance = sum(w if right else -w for w, right in zip(weights, rights, strict=True))
        wins += chance if balance > 1e-12 else chance / 2 if abs(balance) <= 1e-12 else 0.0
    return (1 - TOGETHER) * (wins - max(good))


def next_voter(
    so_far: Tally, remaining: Sequence[str], weights: VoteWeights, *, prior: Mapping[str, float], min_voters: int = 1
) -> str | None:
    """The voter to ask now, or None: the rest cannot change the outcome, or is not expected to be worth its calls.

    `remaining` in the order of preference, used where nothing is learned; `prior` are log-odds for that case. Only
    answers count towards `min_voters`, and while there is none somebody is asked. Where `weights` have slopes over
    log-probabilities, the ballot is taken to be moved by them (`ballot.deciding` leaves them out where it is not).
    """
    if not remaining:
        return None
    answered = sum(len(cluster.voters) for cluster in so_far.clusters)
    if not weights.knows([*so_far.asked, *remaining]):
        return None if answered >= max(min_voters, 1) and _settled(so_far, remaining, prior) else remaining[0]
    chosen = min(remaining, key=weights.order.index)
    if answered < max(min_voters, 1):
        return chosen
    if weights.sureness is not None:
        return chosen if can_overtake(so_far, remaining, weights) else None
    chances = sorted(weights.chances(so_far), reverse=True)
    first, second = [*chances, 0.0, 0.0][:2]
    return chosen if weights.stop.pays(len(so_far.asked), first, second) else None


def schedule(voters: Mapping[str, int], fleet: FleetSnapshot, cores: int, *, samples: int = 1) -> Schedule:
    """Side by side, or by turns with one model at a time. `voters`: model -> bytes it needs while loaded.

    `samples`: so many answers of one of them are asked for.

    By turns when they do not fit into memory together, or when there are fewer cores than voters: then each answer
    waits for the others anyway, and what early stop leaves out is saved.
    """
    if cores < len(voters) + samples - 1:
        return "turns"
    if fleet.budget_bytes is None:
        return "together"
    return "together" if sum(voters.values()) <= fleet.budget_bytes else "turns"


def _settled(so_far: Tally, remaining: Sequence[str], prior: Mapping[str, float]) -> bool:
    """Whether nothing that `remaining` may say can overtake the leading answer."""
    totals = sorted((sum(_prior(v, prior) for v in cluster.voters) for cluster in so_far.clusters), reverse=True)
    first, second = [*totals, 0.0, 0.0][:2]
    return first > second + sum(_prior(voter, prior) for voter in remaining)


def _prior(voter: str, prior: Mapping[str, float]) -> float:
    return max(prior.get(voter, 1.0), 0.01)


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 0.01), 0.99)
    return math.log(clipped / (1 - clipped))
