"""Joins route and vote, which do not know each other: who answers, and if several, how they are asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from capibara_agents import route, vote
from capibara_agents.settings import Settings
from capibara_agents.types import Classification, Expectation, FleetSnapshot, Plan, Reason, Request
from capibara_agents.vote import VoteWeights


def situation_of(
    classification: Classification,
    request: Request,
    settings: Settings,
    fleet: FleetSnapshot,
    *,
    expectations: Mapping[str, Expectation],
    learned: VoteWeights,
    read_tokens: Mapping[str, int] | None = None,
    prefill_per_s: Mapping[str, float] | None = None,
) -> route.Situation:
    """All that a plan depends on, with the voters whose vote is expected to beat the best of them.

    Nobody is admitted to a vote that was not asked for before votes of just these voters have been recorded with their
    truth: that each passes its checks as often as the others does not say that they are right as often.
    """
    admitted = vote.admit(expectations, max_voters=request.max_voters)
    return route.Situation(
        classification=classification,
        request=request,
        settings=settings,
        fleet=fleet,
        expectations=expectations,
        admitted=admitted if learned.knows(admitted) else (),
        read_tokens=read_tokens or {},
        prefill_per_s=prefill_per_s or {},
    )


def first_plan(situation: route.Situation, learned: VoteWeights, cores: int) -> Plan:
    """The plan of attempt 1. Voters stand in the order of their value, with what each one's word is worth before it.

    Raises UnknownModel, BadQuestion, ContextTooLong.
    """
    plan = route.first_plan(situation)
    if plan.mode != "consensus" or (len(plan.models) < 2 and situation.request.samples < 2):
        return plan
    prior = vote.prior_weights(plan.models, situation.expectations)
    if learned.knows(plan.models):
        models = sorted(plan.models, key=learned.order.index)
    else:
        models = sorted(plan.models, key=lambda model: -prior[model])
    voters, count = tuple(models), situation.request.samples
    if count == 1 and situation.request.choices == 1:
        # Nobody asked for samples: only where recorded votes have shown that they pay, and where none becomes a choice.
        count = learned.samples.get(models[0], 1)
    if count > 1:
        voters = vote.with_samples(models, count)
    sizes = {model: route.weights_bytes(situation.settings.spec(model)) for model in models}
    return plan.model_copy(
        update={
            "models": voters,
            "weights": prior,
            "schedule": vote.schedule(sizes, situation.fleet, cores, samples=count),
            "first_choice": models[0],
            "reason": plan.reason if count == 1 else _counted(plan.reason, voters),
        }
    )


def _counted(reason: Reason, voters: tuple[str, ...]) -> Reason:
    """The reason of a vote in which samples take part: they are voters too."""
    return reason.model_copy(update={"values": {**reason.values, "count": len(voters), "models": ", ".join(voters)}})
