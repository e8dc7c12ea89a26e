"""What becomes of an attempt: accepted, asked again, or returned as the best there is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from capibara_agents.types import Ballot, Candidate, Check, Classification, Plan, Request, Verdict
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
    found: Mapping[str, Sequence[Check]] = field(default_factory=dict)

    def checks(self, candidate: Candidate) -> tuple[Check, ...]:
        own = examine(candidate, self.classification, self.request, self.background)
        return (*own, *self.found.get(candidate.key, ()))


def judge(
    candidates: Sequence[Candidate],
    *,
    plan: Plan,
    ballot: Ballot,
    classification: Classification,
    request: Request,
    max_attempts: int,
    background: Background = NOTHING_KNOWN,
    found: Mapping[str, Sequence[Check]] | None = None,
) -> Verdict:
    """The verdict on the latest attempt, given all candidates so far.

    `found` holds checks that needed an effect, a run of the code say, by the candidate's key.
    """
    case = _Case(classification, request, background, found or {})
    degraded = any(c.error for c in candidates) or _too_few_voted(plan, ballot, request)
    winner = next((c for c in candidates if c.key == ballot.winner), None)

    def best_there_is() -> Verdict:
        judged = [(c, case.checks(c)) for c in _with_text(candidates)]
        return _best_there_is(judged, plan, ballot, degraded=degraded)

    if winner is not None:
        checks = case.checks(winner)
        if _is_draft(plan):
            checks = (*checks, sure_draft(winner))
        if all(check.passed for check in checks):
            return Verdict(accepted=True, checks=checks, candidate=winner.key, final=True, degraded=degraded)
        if not _may_ask_again(candidates, plan, max_attempts):
            return best_there_is()
        return Verdict(accepted=False, checks=checks, candidate=winner.key, final=False, degraded=degraded)
    if _may_ask_again(candidates, plan, max_attempts):
        return Verdict(accepted=False, candidate=None, final=False, degraded=degraded)
    return best_there_is()


def _is_draft(plan: Plan) -> bool:
    """The first answer of a cascade, with someone to take over."""
    return plan.mode == "cascade" and plan.attempt == 1 and bool(plan.chain)


def _too_few_voted(plan: Plan, ballot: Ballot, request: Request) -> bool:
    """Fewer answers than the request wants in a vote; later attempts of a vote ask one model and count as such."""
    answers = len(ballot.votes) or int(ballot.winner is not None)
    return plan.mode == "consensus" and answers < request.min_voters


def _may_ask_again(candidates: Sequence[Candidate], plan: Plan, max_attempts: int) -> bool:
    if not plan.chain or any(c.emitted for c in candidates):
        return False
    latest = [c for c in candidates if c.attempt == plan.attempt]
    if any(c.error in HOPELESS for c in latest):
        return False
    only_itself = set(plan.chain) <= set(plan.models)
    if all(c.error for c in latest):
        return not only_itself or all(c.error in WORTH_REPEATING for c in latest)
    # The same model asked the same question says the same again.
    answered_attempts = {c.attempt for c in candidates if c.error is None}
    return not only_itself and len(answered_attempts) < max_attempts


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
