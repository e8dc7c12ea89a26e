"""Whether those who have not spoken can still change who wins, where log-probabilities move the ballot. Pure.

The stopping rule (stopping.py) is learned on chances that nothing moved, so it does not hold there. Instead asking goes
on until the leader cannot lose: whoever is left may join another answer, or give one of their own, as sure of it as
can be (REACH standard deviations), or join the leader as unsure as can be. An answer that nobody has given yet is taken
to look as likely by itself as the leader's (traits.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from capibara_agents.vote.sureness import REACH, Sureness
from capibara_agents.vote.tally import Cluster, Tally
from capibara_agents.vote.weights import VoteWeights, cluster_features

MARGIN = 1e-9


def furthest(sureness: Sureness, voter: str, domain: str) -> float:
    """The most by which its own log-probabilities can move a voter's log-odds, up or down."""
    if voter not in sureness.usual:
        return 0.0
    slope = sureness.slopes.get(f"sure.{voter}", 0.0) + sureness.slopes.get(f"sure_domain.{voter}@{domain}", 0.0)
    return REACH * abs(slope)


def can_overtake(so_far: Tally, remaining: Sequence[str], weights: VoteWeights) -> bool:
    """Whether anything that `remaining` may say puts another answer first; only for voters that are known."""
    tables = [_table(weights, so_far.asked)]
    if weights.order and weights.order[0] in remaining:
        # With the first voter's word the others count as they do beside it.
        tables.append(weights.coefficients)
    return any(_can_overtake(so_far, remaining, weights.sureness, table) for table in tables)


def _table(weights: VoteWeights, asked: frozenset[str]) -> Mapping[str, float]:
    """As `VoteWeights.chances` chooses it."""
    return weights.gaps if weights.gaps and weights.order[0] not in asked else weights.coefficients


def _can_overtake(
    so_far: Tally, remaining: Sequence[str], sureness: Sureness | None, table: Mapping[str, float]
) -> bool:
    if not so_far.clusters:
        return bool(remaining)
    scores = [_score(so_far, cluster, sureness, table) for cluster in so_far.clusters]
    leader = max(range(len(scores)), key=lambda k: (scores[k], -k))
    heard = so_far.clusters[leader]
    swings = _swings(so_far.domain, remaining, sureness, table)
    rivals = [(scores[k], len(so_far.clusters[k].voters)) for k in range(len(scores)) if k != leader]
    rivals.append((_of(table, heard.traits), 0))
    return any(
        gained + score + _agreed(table, size, joined) + MARGIN
        >= scores[leader] + _agreed(table, len(heard.voters), with_leader)
        for score, size in rivals
        for (joined, with_leader), gained in swings.items()
        # An answer of their own has somebody who gives it.
        if size or joined
    )


def _swings(
    domain: str, remaining: Sequence[str], sureness: Sureness | None, table: Mapping[str, float]
) -> dict[tuple[int, int], float]:
    """(joined a rival, joined the leader) -> the most that the rival gains on the leader by so many of them."""
    best = {(0, 0): 0.0}
    for voter in remaining:
        word = _score(Tally(domain=domain, clusters=()), Cluster(voters=(voter,)), None, table)
        reach = furthest(sureness, voter, domain) if sureness else 0.0
        following = dict(best)
        for (rival, leader), gained in best.items():
            for key, more in (((rival + 1, leader), word + reach), ((rival, leader + 1), reach - word)):
                following[key] = max(following.get(key, -math.inf), gained + more)
        best = following
    return best


def _score(tally: Tally, cluster: Cluster, sureness: Sureness | None, table: Mapping[str, float]) -> float:
    """Log-odds of a cluster, but for what all clusters have in common."""
    score = sum(table.get(name, 0.0) * value for name, value in cluster_features(tally, cluster))
    if sureness is None:
        return score
    return score + sum(sureness.shift(v, tally.domain, cluster.logprobs.get(v, {})) for v in cluster.voters)


def _of(table: Mapping[str, float], values: Mapping[str, float]) -> float:
    return sum(table.get(name, 0.0) * value for name, value in values.items())


def _agreed(table: Mapping[str, float], size: int, joining: int) -> float:
    """What agreement adds when a cluster of `size` voters grows by `joining`."""
    return sum(table.get(f"agree.{k}", 0.0) for k in range(max(size + 1, 2), size + joining + 1))
