"""Recorded votes out of what finished runs and feedback left behind. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from capibara_agents.types import Ballot
from capibara_agents.vote.tally import Round, tally_of

GOOD, BAD = 0.6, 0.4


def round_of(
    ballot: Ballot, good: Mapping[str, float], *, domain: str, question: str = "", choices: tuple[str, ...] = ()
) -> Round | None:
    """The round of a ballot whose answers were judged, `good` in [0, 1] by model; None when that does not say enough.

    A judgement of one voter holds for all that gave its answer. Nobody's word about itself is evidence: `good` comes
    from people, tests and tools.
    """
    verdicts: dict[int, float] = {}
    for vote in ballot.votes:
        if vote.model in good:
            verdicts.setdefault(vote.cluster, good[vote.model])
    numbers = sorted({vote.cluster for vote in ballot.votes})
    right = {number: score >= GOOD for number, score in verdicts.items() if not BAD < score < GOOD}
    if True in right.values():
        right = {number: right.get(number, False) for number in numbers}
    if not numbers or set(right) != set(numbers):
        return None
    answers = {vote.model: vote.answer for vote in ballot.votes}
    places = {vote.model: vote.cluster for vote in ballot.votes}
    whole = tally_of({**answers, **dict.fromkeys(ballot.absent)}, domain=domain, question=question, choices=choices)
    if len(whole.clusters) != len(numbers):
        return None
    return Round(tally=whole, right=tuple(right[places[cluster.voters[0]]] for cluster in whole.clusters))
