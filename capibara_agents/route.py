"""Which models answer a question: a pure function of what it is, what was asked for and what the fleet can do.

No clock, no log, no I/O. The first attempt is chosen by the table below; later attempts walk the chain that
the first one laid down, so a rejected answer and a failed model go the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capibara_agents.errors import BadQuestion, ContextTooLong, UnknownModel
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.types import (
    VIRTUAL_MODELS,
    Candidate,
    Classification,
    Domain,
    FleetSnapshot,
    Level,
    Mode,
    Plan,
    Reason,
    Request,
    Tier,
)

# The tier that answers a domain at each level of complexity (simple, medium, complex).
TABLE: dict[Domain, tuple[Tier, Tier, Tier]] = {
    "chitchat": ("fast_response", "fast_response", "general"),
    "factual_qa": ("fast_response", "fast_response", "general"),
    "translation": ("general", "general", "general"),
    "summarization": ("general", "general", "general"),
    "creative_writing": ("general", "general", "general"),
    "coding": ("balanced", "balanced", "balanced"),
    "sql": ("balanced", "balanced", "balanced"),
    "math": ("complex", "complex", "complex"),
    "logic_reasoning": ("complex", "complex", "complex"),
    "long_context": ("multimodal", "multimodal", "multimodal"),
    "vision": ("multimodal", "multimodal", "multimodal"),
    "other": ("fast_response", "general", "complex"),
}
LEVELS: tuple[Level, Level, Level] = ("simple", "medium", "complex")
# From the model that answers soonest to the one that answers best; cascades climb it.
LADDER: tuple[Tier, ...] = ("fast_response", "balanced", "general", "multimodal", "complex")
# Room kept for the answer when the request sets no max_tokens.
ANSWER_TOKENS = 256


@dataclass(frozen=True)
class Situation:
    """All that a plan depends on."""

    classification: Classification
    request: Request
    settings: Settings
    fleet: FleetSnapshot


def first_plan(situation: Situation) -> Plan:
    """The plan of attempt 1. Raises UnknownModel, BadQuestion, ContextTooLong."""
    request = situation.request
    if request.model in VIRTUAL_MODELS:
        mode = _mode(request)
        return _consensus(situation) if mode == "consensus" else _decided(situation, mode)
    return _named(situation)


def next_plan(previous: Plan, candidates: Sequence[Candidate]) -> Plan:
    """The plan after a failed or rejected attempt: the next model of the chain.

    Only called while `previous.chain` is not empty.
    """
    last = [c for c in candidates if c.attempt == previous.attempt]
    failed = all(c.error for c in last)
    next_model, *rest = previous.chain
    values: dict[str, str | int | float] = {"model": next_model, "before": ", ".join(previous.models)}
    return previous.model_copy(
        update={
            "models": (next_model,),
            "chain": tuple(rest),
            "attempt": previous.attempt + 1,
            "reason": Reason(code="route.after_failure" if failed else "route.after_rejection", values=values),
        }
    )


def chain_of(spec: ModelSpec, settings: Settings) -> tuple[str, ...]:
    """Who is asked after `spec`, each once: its own list, else the order of tiers."""
    if spec.fallback is not None:
        return tuple(model for model in dict.fromkeys(spec.fallback) if model != spec.id)
    by_tier = {other.tier: other.id for other in reversed(settings.models)}
    ordered = [by_tier[tier] for tier in settings.routing.fallback_order if tier in by_tier]
    rest = [other.id for other in settings.models if other.id not in ordered]
    return tuple(model for model in (*ordered, *rest) if model != spec.id)


def _mode(request: Request) -> Mode:
    virtual = VIRTUAL_MODELS[request.model]
    votes = request.mode == "consensus" or bool(request.voters)
    if virtual == "single" and votes:
        param = "capibara.mode" if request.mode == "consensus" else "capibara.voters"
        raise BadQuestion("capibara-fast asks one model at a time; use the model capibara-consensus.", param=param)
    if request.voters and request.mode in ("single", "cascade"):
        raise BadQuestion(f"voters vote, and mode {request.mode} has no vote.", param="capibara.voters")
    if request.mode != "auto":
        return request.mode
    if virtual == "consensus" or votes:
        return "consensus"
    # By itself Capibara does not vote: among unequal models a vote loses against the best one.
    return "single"


def _decided(situation: Situation, mode: Mode) -> Plan:
    classification, settings = situation.classification, situation.settings
    able = _able(situation, settings.models)
    tier = _tier(situation)
    ordered = _by_preference(tier, able, settings)
    if mode == "cascade":
        ordered = _climb(able)
    chosen = ordered[0]
    wanted = tier if chosen.tier == tier or mode == "cascade" else None
    code = "route.cascade" if mode == "cascade" else "route.table" if wanted else "route.only_able"
    return Plan(
        mode=mode,
        models=(chosen.id,),
        chain=_chain_after(chosen, ordered, able, settings, mode),
        tier=chosen.tier,
        first_choice=chosen.id,
        reason=Reason(
            code=code,
            values={
                "model": chosen.id,
                "domain": classification.domain,
                "level": classification.complexity_level,
                "language": classification.language,
                "confidence": round(100 * classification.confidence),
            },
        ),
    )


def _chain_after(
    chosen: ModelSpec, ordered: list[ModelSpec], able: list[ModelSpec], settings: Settings, mode: Mode
) -> tuple[str, ...]:
    if mode == "cascade":
        return tuple(spec.id for spec in ordered[1:])
    able_ids = {spec.id for spec in able}
    return tuple(model for model in chain_of(chosen, settings) if model in able_ids)


def _consensus(situation: Situation) -> Plan:
    request, settings = situation.request, situation.settings
    able = _able(situation, settings.models)
    tier = _tier(situation)
    if request.voters:
        named = _voters(request, settings)
        voters = [spec for spec in able if spec.id in named]
        if not voters:
            raise BadQuestion("None of the voters can take this request.", param="capibara.voters")
    else:
        voters = _by_preference(tier, able, settings)[: request.max_voters]
    ids = tuple(spec.id for spec in voters)
    first = voters[0]
    return Plan(
        mode="consensus",
        models=ids,
        chain=tuple(spec.id for spec in _by_preference(tier, able, settings) if spec.id not in ids),
        tier=first.tier,
        # Equal until outcomes have been recorded: an invented weight would be worse than none.
        weights=dict.fromkeys(ids, 1.0),
        first_choice=first.id,
        reason=Reason(
            code="route.consensus",
            values={
                "count": len(ids),
                "models": ", ".join(ids),
                "domain": situation.classification.domain,
                "level": situation.classification.complexity_level,
            },
        ),
    )


def _voters(request: Request, settings: Settings) -> list[str]:
    try:
        named = list(dict.fromkeys(settings.spec(name).id for name in request.voters))
    except UnknownModel:
        known = ", ".join(spec.id for spec in settings.models)
        message = f"voters names a model that does not exist here. Known models: {known}."
        raise BadQuestion(message, param="capibara.voters", code="model_not_found") from None
    if len(named) != len(request.voters):
        raise BadQuestion("voters names one model twice; each model has one vote.", param="capibara.voters")
    return named


def _named(situation: Situation) -> Plan:
    request, settings = situation.request, situation.settings
    spec = settings.spec(request.model)
    if request.mode == "consensus" or request.voters:
        raise BadQuestion(
            f"{spec.id} is one model; several vote with the model capibara or capibara-consensus.",
            param="capibara.voters" if request.voters else "capibara.mode",
        )
    able = {other.id for other in _able(situation, [spec])}
    chain: tuple[str, ...] = (spec.id,)
    if request.fallback:
        able |= {other.id for other in _able(situation, settings.models)}
        chain = tuple(model for model in chain_of(spec, settings) if model in able)
    return Plan(
        mode="single",
        models=(spec.id,),
        chain=chain,
        tier=spec.tier,
        first_choice=spec.id,
        reason=Reason(code="route.named", values={"model": spec.id}),
    )


def _tier(situation: Situation) -> Tier:
    classification, quality = situation.classification, situation.request.quality
    level = LEVELS.index(classification.complexity_level)
    if quality == "best":
        level = 2
    elif quality == "fast":
        level = 0
    return TABLE[classification.domain][level]


def _by_preference(tier: Tier, able: list[ModelSpec], settings: Settings) -> list[ModelSpec]:
    """The tier's own models first, then the fallback order."""
    order = [tier, *(t for t in settings.routing.fallback_order if t != tier)]
    return sorted(able, key=lambda spec: order.index(spec.tier) if spec.tier in order else len(order))


def _climb(able: list[ModelSpec]) -> list[ModelSpec]:
    """From the smallest model to the largest."""
    return sorted(able, key=lambda spec: LADDER.index(spec.tier))


def _able(situation: Situation, specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Those of `specs` that can take the request at all; an error that names why when none can."""
    classification = situation.classification
    able = list(specs)
    if classification.modality == "image":
        able = [spec for spec in able if spec.sees_images]
        if not able:
            raise BadQuestion(
                "The request carries an image and no model that could answer it sees images. "
                "Send text only, or configure a model with sees_images and an mmproj file.",
                param="messages",
                code="image_not_supported",
            )
    if classification.wants_tools:
        able = [spec for spec in able if spec.calls_tools]
        if not able:
            raise BadQuestion(
                "No model that could answer this calls tools. Leave tools out, or configure a model with calls_tools.",
                param="tools",
                code="tools_not_supported",
            )
    needed = classification.prompt_tokens + min(situation.request.sampling.max_tokens or ANSWER_TOKENS, ANSWER_TOKENS)
    fitting = [spec for spec in able if spec.context_tokens >= needed]
    if not fitting:
        raise ContextTooLong(classification.prompt_tokens, max(spec.context_tokens for spec in able))
    return fitting
