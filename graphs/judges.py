"""A judge: another model that looks at an answer. Its word is one more check, and never stands alone."""

from __future__ import annotations

import secrets

from langchain_core.messages import HumanMessage
from langgraph.config import get_config

from capibara_agents.graphs.state import NO_TIME_S, State, last_user_text, left_s
from capibara_agents.models import Inquiry, Models
from capibara_agents.settings import Settings
from capibara_agents.types import Candidate, Request, Sampling, Verdict, model_of
from capibara_agents.verify import opinion as opinions

# The chance that an answer of which nothing is known is right.
UNKNOWN = 0.5
# Of the time that is left, what one judge may take while another could still be asked.
SHARE = 0.5


class Judges:
    """The models of the house as judges of each other."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self._settings = settings
        self._models = models

    async def with_opinion(self, state: State, request: Request, verdict: Verdict) -> Verdict:
        """The verdict with another model's opinion as its last check; as it was, where nobody has one.

        A judge that fails is followed by the next one, while the request's time lasts.
        """
        winner = next(c for c in state["candidates"] if c.key == verdict.candidate)
        if not winner.content:
            return verdict
        judges = self._judges_of(winner, state)
        for place, judge in enumerate(judges):
            remaining_s = left_s(state, request)
            if remaining_s == NO_TIME_S:
                break
            is_last = place == len(judges) - 1
            limit_s = remaining_s if remaining_s is None or is_last else SHARE * remaining_s
            secret = secrets.token_hex(8)
            reply = await self._models.ask(
                self._inquiry(judge, state, winner, secret=secret, deadline_s=limit_s), config=get_config()
            )
            if reply.has_answer:
                return _joined(verdict, state, opinions.opinion(reply.content, secret=secret))
        return verdict

    def _judges_of(self, winner: Candidate, state: State) -> list[str]:
        """Everybody but the one that is judged: those who took part first, then the chain, then the rest."""
        plan = state["plan"]
        known = (*map(model_of, plan.models), *plan.chain, *(spec.id for spec in self._settings.models))
        return [model for model in dict.fromkeys(known) if model != winner.model]

    def _inquiry(
        self, judge: str, state: State, winner: Candidate, *, secret: str, deadline_s: float | None
    ) -> Inquiry:
        prompt = opinions.question_to_judge(
            last_user_text(state["messages"]),
            winner.content,
            secret=secret,
            language=state["classification"].language,
        )
        return Inquiry(
            spec=self._settings.spec(judge),
            attempt=state["plan"].attempt,
            messages=[HumanMessage(prompt)],
            sampling=Sampling(temperature=0.0),
            deadline_s=deadline_s,
        )


def _joined(verdict: Verdict, state: State, said: opinions.Opinion) -> Verdict:
    ballot = state["ballot"]
    agreement = ballot.agreement if len(ballot.votes) > 1 else None
    signs = opinions.signs_of(verdict.checks, agreement=agreement, sure_of_words=None)
    before = ballot.confidence if ballot.votes else UNKNOWN
    check = opinions.judged(before, said, signs)
    accepted = verdict.accepted and check.passed
    return verdict.model_copy(update={"checks": (*verdict.checks, check), "accepted": accepted})
