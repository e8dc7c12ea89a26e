"""What becomes of an attempt: accepted, asked again, or returned as the best there is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capibara_agents.types import Ballot, Candidate, Check, Classification, Plan, Request, Verdict
from capibara_agents.verify.again import can_be_told
from capibara_agents.verify.checks import NOTHING_KNOWN, Background, examine, sure_draft

# Errors that another model, or another try, cannot mend: the request itself is wrong, or its time is over.
HOPELESS = frozenset({"invalid_request", "deadline"})
# Errors after which the same model, started anew, is worth another try when no other may answer.
WORTH_REPEATING = frozenset({"model_crashed"})


@dataclass(frozen=True)
class _Case:
    """What every candidate of a run is examined with."""

    classification: Classification
    request: Request
    background: Background

    def checks(self, candidate: Candidate) -> tuple[Check, ...]:
        own = examine(candidate, self.classification, self.request, self.background)
        return own if candidate.behaviour is None else (*own, candidate.behaviour)


def judge(
    candidates: Sequence[Candidate],
    *,
    plan: Plan,
    ballot: Ballot,
    classification: Classification,
    request: Request,
    max_attempts: int,
    background: Background = NOTHING_KNOWN,
) -> Verdict:
    """The verdict on the latest attempt, given all candidates so far."""
    case = _Case(classification, request, background)
    missing = any(c.error for c in candidates if c.part == "answer" and not c.was_spared)
    degraded = missing or _too_few_voted(plan, ballot, request)

    spoken = next((c for c in candidates if c.emitted and plan.mode == "consensus"), None)
    if spoken is not None:
        return _of_what_was_said(spoken, case.checks(spoken), ballot, degraded=degraded)
    checked = [(c, case.checks(c)) for c in _to_be_judged(candidates, plan, ballot)]
    if checked and _is_draft(plan):
        checked = [(c, (*checks, sure_draft(c))) for c, checks in checked]
    for candidate, checks in checked:
        if all(check.passed for check in checks):
            return Verdict(accepted=True, checks=checks, candidate=candidate.key, final=True, degraded=degraded)
    told = any(can_be_told(checks) for _, checks in checked)
    if _may_ask_again(candidates, plan, max_attempts, told=told):
        rejected, checks = next(((c, k) for c, k in checked if c.key == ballot.winner), (None, ()))
        key = rejected.key if rejected else None
        return Verdict(accepted=False, checks=checks, candidate=key, final=False, degraded=degraded)
    judged = [(c, (*case.checks(c), *_outvoted(c, ballot))) for c in _with_text(candidates)]
    return _best_there_is(judged, plan, ballot, degraded=degraded)


def _to_be_judged(candidates: Sequence[Candidate], plan: Plan, ballot: Ballot) -> list[Candidate]:
    """What the attempt comes to: a synthesis, where one was written, the winner, and those who said the same."""
    synthesis = (c for c in candidates if c.part == "synthesis" and c.attempt == plan.attempt and c.has_answer)
    same = _winners(ballot)
    others = (c for c in candidates if c.key in same and c.key != ballot.winner)
    return [*synthesis, *(c for c in candidates if c.key == ballot.winner), *others]


def _outvoted(candidate: Candidate, ballot: Ballot) -> tuple[Check, ...]:
    """A failed check for a voter whose answer is not the one that won."""
    voted = {f"{(ballot.winner or '').partition(':')[0]}:{vote.model}" for vote in ballot.votes}
    if len(ballot.votes) < 2 or candidate.key not in voted or candidate.key in _winners(ballot):
        return ()
    return (Check(name="vote", passed=False, reason="verify.outvoted"),)


def _winners(ballot: Ballot) -> frozenset[str]:
    """Keys of all candidates that gave the winning answer."""
    attempt, _, model = (ballot.winner or "").partition(":")
    clusters = {vote.model: vote.cluster for vote in ballot.votes}
    return frozenset(f"{attempt}:{other}" for other in clusters if clusters[other] == clusters.get(model))


def _of_what_was_said(spoken: Candidate, checks: tuple[Check, ...], ballot: Ballot, *, degraded: bool) -> Verdict:
    """On a leader whose words the caller has already seen: they are the answer, held by the vote or not."""
    if spoken.error:
        return Verdict(accepted=False, candidate=None, final=True, degraded=True)
    clusters = {vote.model: vote.cluster for vote in ballot.votes}
    winner = next((model for model in clusters if ballot.winner == f"{spoken.attempt}:{model}"), spoken.voter)
    agrees = spoken.voter in clusters and clusters.get(winner) == clusters[spoken.voter]
    held = ballot.winner == spoken.key or agrees
    accepted = held and all(check.passed for check in checks)
    return Verdict(accepted=accepted, checks=checks, candidate=spoken.key, final=True, degraded=degraded, held=held)


def _is_draft(plan: Plan) -> bool:
    """The first answer of a cascade, with someone to take over."""
    return plan.mode == "cascade" and plan.attempt == 1 and bool(plan.chain)


def _too_few_voted(plan: Plan, ballot: Ballot, request: Request) -> bool:
    """Fewer answers than the request wants in a vote; later attempts of a vote ask one model and count as such."""
    answers = len(ballot.votes) or int(ballot.winner is not None)
    return plan.mode == "consensus" and answers < request.min_voters


def _may_ask_again(candidates: Sequence[Candidate], plan: Plan, max_attempts: int, *, told: bool) -> bool:
    """`told`: whether something would be said to the model that it was not told before."""
    if not plan.chain or any(c.emitted for c in candidates):
        return False
    latest = [c for c in candidates if c.attempt == plan.attempt]
    if any(c.error in HOPELESS for c in latest):
        return False
    only_itself = set(plan.chain) <= set(plan.models)
    if all(c.error for c in latest):
        return not only_itself or all(c.error in WORTH_REPEATING for c in latest)
    # The same model asked the same question says the same again, unless it is told what was wrong.
    answered_attempts = {c.attempt for c in candidates if c.error is None}
    return (told or not only_itself) and len(answered_attempts) < max_attempts


def _with_text(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those with an answer; a model that spent all of its tokens on reasoning gave text, though no answer."""
    return [c for c in candidates if c.has_answer] or [c for c in candidates if not c.error and c.reasoning]


def _best_there_is(
    judged: Sequence[tuple[Candidate, tuple[Check, ...]]], plan: Plan, ballot: Ballot, *, degraded: bool
) -> Verdict:
    """Attempts are spent: the candidate with the fewest failed checks.

    On a tie whom a vote chose, or the earlier; in a cascade the later, which is the stronger model's.
    """
    if not judged:
        return Verdict(accepted=False, candidate=None, final=True, degraded=degraded)
    voted = ballot.winner if ballot.votes else None
    ordered = judged[::-1] if plan.mode == "cascade" else judged
    best, checks = min(ordered, key=lambda pair: (sum(not check.passed for check in pair[1]), pair[0].key != voted))
    accepted = all(check.passed for check in checks)
    return Verdict(accepted=accepted, checks=checks, candidate=best.key, final=True, degraded=degraded)
