"""Who votes, with what weight, and whether a vote pays when nobody asked for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from capibara_agents.errors import BadQuestion, UnknownModel
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.types import Expectation, Request


def voters_that_pay(expectations: Mapping[str, Expectation]) -> tuple[str, ...]:
    """The models whose vote is expected to beat the best of them alone; () when none is.

    Always () so far: among models as unequal as these a vote loses against the best one, and nothing that is recorded
    says where it would not.
    """
    return ()


def weights_of(voters: Sequence[str], expectations: Mapping[str, Expectation]) -> dict[str, float]:
    """Each voter's weight. Equal until outcomes say more: an invented weight would be worse than none."""
    return dict.fromkeys(voters, 1.0)


def named_voters(request: Request, settings: Settings) -> list[str]:
    """The ids of the voters that a request names; BadQuestion for a stranger or for one that is named twice."""
    try:
        named = list(dict.fromkeys(settings.spec(name).id for name in request.voters))
    except UnknownModel:
        known = ", ".join(spec.id for spec in settings.models)
        message = f"voters names a model that does not exist here. Known models: {known}."
        raise BadQuestion(message, param="capibara.voters", code="model_not_found") from None
    if len(named) != len(request.voters):
        raise BadQuestion("voters names one model twice; each model has one vote.", param="capibara.voters")
    return named


def chosen_voters(
    request: Request, settings: Settings, able: Sequence[ModelSpec], by_preference: Sequence[ModelSpec]
) -> list[ModelSpec]:
    """Those who vote: the named ones that can take the request, else the best suited, `max_voters` of them."""
    if not request.voters:
        return list(by_preference[: request.max_voters])
    named = named_voters(request, settings)
    voters = [spec for spec in able if spec.id in named]
    if not voters:
        raise BadQuestion("None of the voters can take this request.", param="capibara.voters")
    return voters
