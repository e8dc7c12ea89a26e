"""Who votes, and whether a vote that nobody asked for may be held now."""

from __future__ import annotations

from collections.abc import Sequence

from capibara_agents.errors import BadQuestion, UnknownModel
from capibara_agents.route.able import able
from capibara_agents.route.situation import Situation
from capibara_agents.route.worth import PRICE_PER_S, STEP_UP, reading, reread_s
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.texts import phrase
from capibara_agents.types import Request, ServerState


def voters_that_pay(situation: Situation) -> tuple[str, ...]:
    """The admitted voters if a vote that nobody asked for may be held now; () when not.

    Not where somebody waits for tokens as they come, for speed or for a deadline, nor for a call of tools; and only
    among models that are ready: loading one for its vote does not pay. Nor does having a long conversation read anew:
    whose reading would cost more than a rung upwards gives, does not vote.
    """
    request = situation.request
    hurried = request.stream in ("auto", "eager") or request.quality == "fast" or request.deadline_s is not None
    if hurried or situation.classification.wants_tools:
        return ()
    everyone = able(situation, situation.settings.models)
    ready = {status.id for status in situation.fleet.models if status.state is ServerState.ready}
    anew_s, price = reread_s(situation, everyone), PRICE_PER_S[request.quality]
    quick = {spec.id for spec in everyone if reading(anew_s.get(spec.id, 0.0), price) <= STEP_UP}
    voters = tuple(model for model in situation.admitted if model in ready & quick)
    return voters if len(voters) > 1 else ()


def named_voters(request: Request, settings: Settings) -> list[str]:
    """The ids of the voters that a request names; BadQuestion for a stranger or for one that is named twice."""
    try:
        named = list(dict.fromkeys(settings.spec(name).id for name in request.voters))
    except UnknownModel:
        known = ", ".join(spec.id for spec in settings.models)
        told = phrase("plan.strange_voter", known=known)
        raise BadQuestion(told, param="capibara.voters", code="model_not_found") from None
    if len(named) != len(request.voters):
        raise BadQuestion(phrase("plan.voter_twice"), param="capibara.voters")
    return named


def chosen_voters(
    request: Request, settings: Settings, takers: Sequence[ModelSpec], by_preference: Sequence[ModelSpec]
) -> list[ModelSpec]:
    """Those who vote: the named ones that can take the request, else the best suited, `max_voters` of them."""
    if not request.voters:
        return list(by_preference[: request.max_voters])
    named = named_voters(request, settings)
    voters = [spec for spec in takers if spec.id in named]
    if not voters:
        raise BadQuestion(phrase("plan.no_voter"), param="capibara.voters")
    return voters
