"""Recorded votes out of what finished runs and feedback left behind. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from capibara_agents.types import Ballot
from capibara_agents.vote.tally import Cluster, Round, Tally

GOOD, BAD = 0.6, 0.4


def tally_of_ballot(ballot: Ballot, domain: str) -> Tally:
    """Who agreed with whom, as it was weighed: a ballot without the answers themselves."""
    clusters: dict[int, Cluster] = {}
    for vote in ballot.votes:
        before = clusters.get(vote.cluster)
        voters = (*(before.voters if before else ()), vote.model)
        logprobs = {**(before.logprobs if before else {}), **({vote.model: vote.logprobs} if vote.logprobs else {})}
        clusters[vote.cluster] = Cluster(
            voters=voters, traits=before.traits if before else vote.traits, logprobs=logprobs
        )
    # A server that was away says nothing of the question; an answer without words does.
    silent = tuple(voter for voter, why in ballot.absent.items() if why == "empty")
    return Tally(domain=domain, clusters=tuple(clusters.values()), silent=silent)


def judged_round(tally: Tally, good: Mapping[str, float]) -> Round | None:
    """The round of a tally whose answers were judged, `good` in [0, 1] by voter; None when that does not say enough.

    A judgement of one voter holds for all that gave its answer. Nobody's word about itself is evidence: `good` comes
    from people, tests and tools.
    """
    scores = [next((good[voter] for voter in cluster.voters if voter in good), None) for cluster in tally.clusters]
    right = [None if score is None or BAD < score < GOOD else score >= GOOD for score in scores]
    if True in right:
        # Of answers that differ, one is right.
        return Round(tally=tally, right=tuple(bool(verdict) for verdict in right))
    if not right or None in right:
        return None
    return Round(tally=tally, right=(False,) * len(right))
