"""Recorded votes out of what finished runs and feedback left behind. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from capibara_agents.types import Ballot
from capibara_agents.vote.tally import Round, Tally, tally_of

GOOD, BAD = 0.6, 0.4


def tally_of_ballot(ballot: Ballot, *, domain: str, question: str = "", choices: tuple[str, ...] = ()) -> Tally:
    """Who agreed with whom: a ballot without the answers themselves."""
    answers = {vote.model: vote.answer for vote in ballot.votes}
    places = {vote.model: vote.cluster for vote in ballot.votes}
    alike = {id(vote.answer): places[vote.model] for vote in ballot.votes}
    return tally_of(
        {**answers, **dict.fromkeys(ballot.absent)},
        domain=domain,
        question=question,
        choices=choices,
        equal=lambda a, b: alike[id(a)] == alike[id(b)],
    )


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
