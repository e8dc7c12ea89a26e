"""Plans: whom to ask first, and whom after a failed or rejected attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capibara_agents.errors import BadQuestion
from capibara_agents.route.able import able, runnable_now
from capibara_agents.route.cascade import cascade_pays, climb
from capibara_agents.route.situation import Situation
from capibara_agents.route.table import Wanted, wanted
from capibara_agents.route.votes import chosen_voters, voters_that_pay
from capibara_agents.route.worth import (
    PRICE_PER_S,
    STEP_DOWN,
    Part,
    Prospect,
    begins_s,
    decisive_part,
    prospects,
    reading,
    reread_s,
)
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.texts import phrase
from capibara_agents.types import VIRTUAL_MODELS, Candidate, Mode, Plan, Reason, Request, Tier

Values = dict[str, str | int | float]


def first_plan(situation: Situation) -> Plan:
    """The plan of attempt 1. Raises UnknownModel, BadQuestion, ContextTooLong."""
    plan = _planned(situation)
    # Further samples of a voter, where they are asked for, are answers too.
    count = len(plan.models) + situation.request.samples - 1
    if situation.request.choices > count:
        several = "plan.choices_of_answers" if count > len(plan.models) else "plan.choices_of_models"
        told = phrase("plan.one_choice") if count == 1 else phrase(several, count=count)
        raise BadQuestion(told, param="n", code="unsupported_parameter")
    if situation.read_tokens:
        return plan.model_copy(update={"read_tokens": dict(situation.read_tokens)})
    return plan


def _planned(situation: Situation) -> Plan:
    request = situation.request
    if request.model not in VIRTUAL_MODELS:
        return _named(situation)
    mode = _asked_mode(request)
    if mode == "consensus":
        return _consensus(situation)
    if mode == "cascade":
        return _cascade(situation, "route.cascade")
    return _decided(situation, may_change_mode=mode is None)


def next_plan(previous: Plan, candidates: Sequence[Candidate]) -> Plan:
    """The plan after a failed or rejected attempt: the next model of the chain.

    Only called while `previous.chain` is not empty.
    """
    last = [c for c in candidates if c.attempt == previous.attempt]
    failed = all(c.error for c in last)
    next_model, *rest = previous.chain
    values: Values = {"model": next_model, "before": ", ".join(previous.models)}
    rejected = "route.after_draft" if previous.mode == "cascade" else "route.after_rejection"
    return previous.model_copy(
        update={
            "models": (next_model,),
            "chain": tuple(rest),
            "attempt": previous.attempt + 1,
            "reason": Reason(code="route.after_failure" if failed else rejected, values=values),
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


def _asked_mode(request: Request) -> Mode | None:
    """The mode that the request asks for; None leaves it to the policy. BadQuestion for what cannot go together."""
    virtual = VIRTUAL_MODELS[request.model]
    votes = request.mode == "consensus" or bool(request.voters) or request.samples > 1
    if virtual == "single" and votes:
        param = "capibara.mode" if request.mode == "consensus" else _asks_for_a_vote(request)
        raise BadQuestion(phrase("plan.fast_is_one"), param=param)
    if request.samples > 1 and request.mode in ("single", "cascade"):
        raise BadQuestion(phrase("plan.no_vote", key="samples", chosen=request.mode), param="capibara.samples")
    if request.voters and request.mode in ("single", "cascade"):
        raise BadQuestion(phrase("plan.no_vote", key="voters", chosen=request.mode), param="capibara.voters")
    if request.mode != "auto":
        return request.mode
    # Several choices are the answers of several models.
    if virtual == "consensus" or votes or (request.choices > 1 and virtual != "single"):
        return "consensus"
    return "single" if virtual == "single" else None


def _asks_for_a_vote(request: Request) -> str:
    """The option that does."""
    if request.voters:
        return "capibara.voters"
    return "capibara.samples" if request.samples > 1 else "capibara.mode"


# ---------------------------------------------------------------- one model


def _decided(situation: Situation, *, may_change_mode: bool) -> Plan:
    """One model, unless a vote or a draft pays and the request leaves that open."""
    if may_change_mode and situation.settings.routing.consensus:
        voters = voters_that_pay(situation)
        if voters:
            return _vote_of(situation, voters)
    choice = _choose(situation)
    if may_change_mode:
        order = climb(choice.able, choice.wanted.tier, situation.classification.domain)
        if cascade_pays(situation, order, choice.spec):
            return _cascade(situation, "route.cascade_unsure")
    able_ids = {spec.id for spec in choice.able}
    chain = tuple(model for model in chain_of(choice.spec, situation.settings) if model in able_ids)
    return Plan(
        mode="single",
        models=(choice.spec.id,),
        chain=chain,
        tier=choice.spec.tier,
        first_choice=choice.spec.id,
        reason=choice.reason,
    )


@dataclass(frozen=True)
class _Choice:
    """The model that answers, why, and who else could."""

    spec: ModelSpec
    wanted: Wanted
    able: list[ModelSpec]
    reason: Reason


def _choose(situation: Situation) -> _Choice:
    """The model that is worth most, among those in time for the deadline if there is one."""
    request, settings = situation.request, situation.settings
    everyone = able(situation, settings.models)
    running = runnable_now(everyone, situation.fleet)
    aim = wanted(situation.classification, request.quality)
    price = PRICE_PER_S[request.quality]
    found = prospects(situation, by_preference(aim.tier, running, settings), aim.tier)
    free = _best(found, price)
    chosen = _best(_in_time(found, situation), price)
    unread = _best(found, price, without="read")
    meant = next((p for p in found if p.spec.tier == aim.tier), None)
    values: Values = {**_question(situation), "model": chosen.spec.id}
    if chosen is not free:
        code, more = "route.deadline", {"wanted": free.spec.id, "deadline": _seconds(request.deadline_s or 0.0)}
    elif chosen is not unread:
        seconds = _seconds(unread.reread_s - chosen.reread_s)
        tokens = situation.read_tokens.get(chosen.spec.id, 0)
        code, more = "route.read", {"wanted": unread.spec.id, "tokens": tokens, "seconds": seconds}
    elif meant is chosen:
        code, more = aim.because, {"quality": request.quality}
    elif meant is None:
        code, more = _missing(aim.tier, everyone, settings)
    else:
        code, more = _preferred(chosen, meant, price)
    return _Choice(chosen.spec, aim, everyone, Reason(code=code, values={**values, **more}))


def _best(found: Sequence[Prospect], price: float, *, without: Part | None = None) -> Prospect:
    """The one worth most, or most without one part of its worth; on a tie the earlier one, which is preferred."""
    return max(found, key=lambda prospect: prospect.worth(price, without=without))


def _in_time(found: Sequence[Prospect], situation: Situation) -> Sequence[Prospect]:
    """Those that begin before the deadline, if there is one; where none does, the one that comes nearest to it."""
    deadline_s = situation.request.deadline_s
    if deadline_s is None:
        return found
    begin_s = [begins_s(prospect, situation) for prospect in found]
    in_time = [prospect for prospect, at_s in zip(found, begin_s, strict=True) if at_s < deadline_s]
    return in_time or [found[begin_s.index(min(begin_s))]]


def _missing(tier: Tier, everyone: Sequence[ModelSpec], settings: Settings) -> tuple[str, Values]:
    """Why no model of the tier was there to be chosen: it cannot run now, or cannot take the request."""
    stuck = next((spec for spec in everyone if spec.tier == tier), None)
    if stuck is not None:
        return "route.cannot_run", {"wanted": stuck.id}
    return "route.only_able", {}


def _preferred(chosen: Prospect, meant: Prospect, price: float) -> tuple[str, Values]:
    """Why another model than the table's was chosen."""
    part = decisive_part(chosen, meant, price)
    values: Values = {"wanted": meant.spec.id}
    if part == "good":
        return "route.good", {**values, "good": round(100 * chosen.good), "wanted_good": round(100 * meant.good)}
    if part == "load":
        return "route.load", {**values, "seconds": _seconds(meant.load_s)}
    return "route.queue", {**values, "seconds": _seconds(meant.queue_s)}


def _named(situation: Situation) -> Plan:
    request, settings = situation.request, situation.settings
    spec = settings.spec(request.model)
    if request.mode == "consensus" or request.voters or request.samples > 1:
        raise BadQuestion(
            phrase("plan.one_model", model=spec.id),
            param=_asks_for_a_vote(request),
        )
    able_ids = {other.id for other in able(situation, [spec])}
    chain: tuple[str, ...] = (spec.id,)
    if request.fallback:
        able_ids |= {other.id for other in able(situation, settings.models)}
        chain = tuple(model for model in chain_of(spec, settings) if model in able_ids)
    return Plan(
        mode="single",
        models=(spec.id,),
        chain=chain,
        tier=spec.tier,
        first_choice=spec.id,
        reason=Reason(code="route.named", values={"model": spec.id}),
    )


# ---------------------------------------------------------------- cascades and votes


def _cascade(situation: Situation, code: str) -> Plan:
    everyone = able(situation, situation.settings.models)
    aim = wanted(situation.classification, situation.request.quality)
    draft, *rest = climb(runnable_now(everyone, situation.fleet), aim.tier, situation.classification.domain)
    values: Values = {**_question(situation), "model": draft.id, "next": rest[0].id if rest else draft.id}
    return Plan(
        mode="cascade",
        models=(draft.id,),
        chain=tuple(spec.id for spec in rest),
        # What the question is worth, not who drafts.
        tier=aim.tier,
        first_choice=draft.id,
        reason=Reason(code=code, values=values),
    )


def _consensus(situation: Situation) -> Plan:
    request, settings = situation.request, situation.settings
    everyone = able(situation, settings.models)
    preferred = by_preference(wanted(situation.classification, request.quality).tier, everyone, settings)
    readers_first = by_reading(situation, preferred)
    voters = chosen_voters(request, settings, everyone, readers_first)
    without = chosen_voters(request, settings, everyone, preferred)
    if {spec.id for spec in voters} == {spec.id for spec in without}:
        return _vote(situation, without, preferred, "route.consensus")
    return _vote(situation, voters, readers_first, "route.consensus_read")


def _vote_of(situation: Situation, voters: Sequence[str]) -> Plan:
    """The vote that the policy itself has found to pay."""
    settings = situation.settings
    everyone = able(situation, settings.models)
    preferred = by_preference(wanted(situation.classification, situation.request.quality).tier, everyone, settings)
    return _vote(situation, [s for s in everyone if s.id in voters], preferred, "route.consensus_pays")


def _vote(situation: Situation, voters: Sequence[ModelSpec], preferred: Sequence[ModelSpec], code: str) -> Plan:
    ids = tuple(spec.id for spec in voters)
    return Plan(
        mode="consensus",
        models=ids,
        chain=tuple(spec.id for spec in preferred if spec.id not in ids),
        tier=voters[0].tier,
        first_choice=ids[0],
        reason=Reason(code=code, values={**_question(situation), "count": len(ids), "models": ", ".join(ids)}),
    )


# ---------------------------------------------------------------- what they share


def by_preference(tier: Tier, specs: Sequence[ModelSpec], settings: Settings) -> list[ModelSpec]:
    """The tier's own models first, then the fallback order."""
    order = [tier, *(t for t in settings.routing.fallback_order if t != tier)]
    return sorted(specs, key=lambda spec: order.index(spec.tier) if spec.tier in order else len(order))


def by_reading(situation: Situation, preferred: Sequence[ModelSpec]) -> list[ModelSpec]:
    """In the order of preference, but for what each would have to read anew: a place counts as much as a rung."""
    anew_s, price = reread_s(situation, preferred), PRICE_PER_S[situation.request.quality]
    places = {spec.id: STEP_DOWN * place for place, spec in enumerate(preferred)}
    return sorted(preferred, key=lambda spec: places[spec.id] + reading(anew_s.get(spec.id, 0.0), price))


def _question(situation: Situation) -> Values:
    classification = situation.classification
    return {
        "domain": classification.domain,
        "level": classification.complexity_level,
        "language": classification.language,
        "confidence": round(100 * classification.confidence),
    }


def _seconds(seconds: float) -> int | float:
    """For people: whole seconds, tenths below ten."""
    return round(seconds) if seconds >= 10 else round(seconds, 1)
