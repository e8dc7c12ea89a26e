"""A small model drafts, and a larger one takes over when the draft is not good enough."""

from __future__ import annotations

from collections.abc import Sequence

from capibara_agents.route.able import status_of
from capibara_agents.route.situation import Situation
from capibara_agents.route.table import is_doubtful, ladder
from capibara_agents.route.worth import PRICE_PER_S, STEP_UP, reading, reread_s
from capibara_agents.settings import ModelSpec
from capibara_agents.types import Domain, ServerState, Tier


def climb(able: Sequence[ModelSpec], wanted: Tier, domain: Domain) -> list[ModelSpec]:
    """Who answers in a cascade, in order: the draft, the tier that should answer, the stronger ones, the rest.

    The draft comes from the tier that should answer where that is programming's own small one, otherwise from the
    smallest general one. Attempts are few, so the ladder is not climbed rung by rung.
    """
    rungs = ladder(domain)
    by_strength = sorted(able, key=lambda spec: rungs.index(spec.tier))
    draft_tier: Tier = "balanced" if wanted == "balanced" else "fast_response"
    draft = next((spec for spec in by_strength if spec.tier == draft_tier), by_strength[0])
    rest = [spec for spec in by_strength if spec is not draft]
    target = rungs.index(wanted)
    stronger = [spec for spec in rest if rungs.index(spec.tier) >= target]
    weaker = [spec for spec in reversed(rest) if rungs.index(spec.tier) < target]
    return [draft, *stronger, *weaker]


def cascade_pays(situation: Situation, order: Sequence[ModelSpec], chosen: ModelSpec) -> bool:
    """Whether a draft is worth its time though nobody asked for one. Conservative: each condition must hold.

    The domain is in doubt, the difficulty medium and the quality balanced: then a small model may well do, and may
    well not. The draft's model is ready, the chosen one another. Nobody waits for tokens as they come or for a
    deadline, which a second answer would miss. And the draft's model has no long conversation to read that another has
    read.
    """
    request, draft = situation.request, order[0]
    anew_s, price = reread_s(situation, order), PRICE_PER_S[request.quality]
    status = status_of(draft.id, situation.fleet)
    return (
        is_doubtful(situation.classification)
        and situation.classification.complexity_level == "medium"
        and request.quality == "balanced"
        and request.stream not in ("auto", "eager")
        and request.deadline_s is None
        and not situation.classification.wants_tools
        and draft.id != chosen.id
        and reading(anew_s.get(draft.id, 0.0), price) <= STEP_UP
        and status is not None
        and status.state is ServerState.ready
    )
