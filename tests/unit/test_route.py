"""Which models are asked, in which order, and what is refused before anything is asked."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from capibara_agents.errors import BadQuestion, ContextTooLong, UnknownModel
from capibara_agents.route import TABLE, Situation, chain_of, first_plan, next_plan
from capibara_agents.route.table import BEST, ladder
from capibara_agents.settings import Settings
from capibara_agents.types import Candidate, Domain, FleetSnapshot, Plan, Request, Tier, Timings
from tests.fakes import GEMMA, GPT, MISTRAL, PHI, QWEN, classification

ORDER = (PHI, MISTRAL, QWEN, GEMMA, GPT)


def plan(settings: Settings, request: dict[str, Any] | None = None, **question: Any) -> Plan:
    asked = Request.model_validate(request or {})
    return first_plan(Situation(classification(**question), asked, settings, FleetSnapshot(models=())))


def changed(settings: Settings, model: str, **values: Any) -> Settings:
    models = tuple(s.model_copy(update=values) if s.id == model else s for s in settings.models)
    return settings.model_copy(update={"models": models})


def failed(model: str, attempt: int = 1, error: str | None = "model_crashed") -> Candidate:
    return Candidate(model=model, attempt=attempt, error=error, timings=Timings(wait_ms=0, total_ms=0))


def test_every_domain_has_a_tier_at_every_level() -> None:
    """The table knows all domains."""
    assert set(TABLE) == set(BEST) == set(get_args(Domain))
    assert all(len(tiers) == 3 for tiers in TABLE.values())
    assert all(sorted(ladder(domain)) == sorted(get_args(Tier)) for domain in get_args(Domain))


@pytest.mark.parametrize(
    ("domain", "complexity", "model"),
    [
        ("chitchat", 0.1, PHI),
        ("factual_qa", 0.1, PHI),
        ("factual_qa", 0.5, MISTRAL),
        ("factual_qa", 0.9, GPT),
        ("coding", 0.1, QWEN),
        ("sql", 0.5, QWEN),
        ("coding", 0.9, GPT),
        ("translation", 0.5, MISTRAL),
        ("math", 0.1, GPT),
        ("long_context", 0.5, GEMMA),
        ("vision", 0.5, GEMMA),
        ("other", 0.5, GPT),
    ],
)
def test_the_table_decides(settings: Settings, domain: str, complexity: float, model: str) -> None:
    """Domain and level choose the model; the others follow in the fallback order, each once."""
    made = plan(settings, domain=domain, complexity=complexity)
    assert (made.mode, made.models, made.attempt) == ("single", (model,), 1)
    assert made.chain == tuple(other for other in ORDER if other != model)


@pytest.mark.parametrize(
    ("domain", "quality", "model", "code"),
    [
        ("other", "fast", PHI, "route.quality"),
        ("other", "balanced", GPT, "route.table"),
        ("coding", "best", GPT, "route.quality"),
        ("translation", "best", GEMMA, "route.quality"),
        ("math", "best", GPT, "route.table"),
        ("math", "fast", GPT, "route.table"),
    ],
)
def test_quality_asks_for_another_tier(settings: Settings, domain: str, quality: str, model: str, code: str) -> None:
    """Fast asks as if the question were simple, best for the strongest at its domain; the reason says when it did."""
    made = plan(settings, {"quality": quality}, domain=domain, complexity=0.5)
    assert (made.models, made.reason.code) == ((model,), code)


def test_a_model_named_by_alias_is_asked_alone_and_may_be_repeated_once(settings: Settings) -> None:
    """Without leave to fall back the chain of a named model is itself."""
    made = plan(settings, {"model": "phi4:mini"})
    assert (made.models, made.chain) == ((PHI,), (PHI,))


def test_a_named_model_falls_back_only_when_allowed(settings: Settings) -> None:
    """With fallback the usual order follows."""
    assert plan(settings, {"model": GPT, "fallback": True}).chain == (PHI, MISTRAL, QWEN, GEMMA)


def test_a_models_own_fallback_list_wins_and_names_nobody_twice(settings: Settings) -> None:
    """Repetitions and the model itself are taken out of the list, so that no chain can loop."""
    own = changed(settings, PHI, fallback=(GPT, PHI, GPT, QWEN))
    assert chain_of(own.spec(PHI), own) == (GPT, QWEN)
    assert plan(own).chain == (GPT, QWEN)


def test_an_unknown_model_is_told_the_known_ones(settings: Settings) -> None:
    """The error lists virtual and real models."""
    with pytest.raises(UnknownModel) as caught:
        plan(settings, {"model": "gpt-4"})
    assert all(name in caught.value.message for name in ("capibara", "capibara-consensus", *ORDER))
    assert caught.value.param == "model"


def test_consensus_takes_the_best_suited(settings: Settings) -> None:
    """max_voters models by preference; the rest is the chain."""
    made = plan(settings, {"model": "capibara-consensus"}, domain="math")
    assert made.models == (GPT, PHI, MISTRAL)
    assert made.chain == (QWEN, GEMMA)


def test_naming_voters_asks_for_a_vote(settings: Settings) -> None:
    """Voters are never dropped in silence: they make an automatic question a vote."""
    made = plan(settings, {"voters": ["qwen_coder", GPT]})
    assert (made.mode, set(made.models)) == ("consensus", {QWEN, GPT})


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"model": "capibara-fast", "mode": "consensus"}, "capibara.mode"),
        ({"model": "capibara-fast", "voters": [PHI, GPT]}, "capibara.voters"),
        ({"mode": "single", "voters": [PHI, GPT]}, "capibara.voters"),
        ({"model": PHI, "mode": "consensus"}, "capibara.mode"),
        ({"model": PHI, "voters": [PHI]}, "capibara.voters"),
        ({"mode": "consensus", "voters": [PHI, "phi4_fast"]}, "capibara.voters"),
        ({"mode": "consensus", "voters": [PHI, "nobody"]}, "capibara.voters"),
    ],
)
def test_contradictions_are_refused_by_name(settings: Settings, request_: dict[str, Any], param: str) -> None:
    """What cannot be honoured is an error that names the option."""
    with pytest.raises(BadQuestion) as caught:
        plan(settings, request_)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("domain", "order"),
    [
        ("math", (PHI, GPT, GEMMA, MISTRAL, QWEN)),
        ("translation", (PHI, MISTRAL, GEMMA, GPT, QWEN)),
        ("factual_qa", (PHI, MISTRAL, GEMMA, GPT, QWEN)),
        ("coding", (QWEN, MISTRAL, GEMMA, GPT, PHI)),
    ],
)
def test_a_cascade_drafts_small_then_asks_who_should_answer(
    settings: Settings, domain: str, order: tuple[str, ...]
) -> None:
    """Few attempts are made, so the second is the tier of the table; then the stronger ones, then the rest."""
    made = plan(settings, {"mode": "cascade"}, domain=domain)
    assert (made.mode, made.tier) == ("cascade", TABLE[domain][0])  # type: ignore[index]
    assert (*made.models, *made.chain) == order


def test_an_image_goes_only_to_models_that_see(settings: Settings) -> None:
    """Blind models are in no part of the plan; without one that sees it is the caller's error."""
    with pytest.raises(BadQuestion) as caught:
        plan(settings, modality="image", domain="vision")
    assert (caught.value.reason, caught.value.param) == ("image_not_supported", "messages")
    seeing = changed(settings, GEMMA, sees_images=True)
    made = plan(seeing, modality="image", domain="vision")
    assert (made.models, made.chain) == ((GEMMA,), ())


def test_tools_go_only_to_models_that_call_them(settings: Settings) -> None:
    """As for images."""
    with pytest.raises(BadQuestion) as caught:
        plan(settings, wants_tools=True)
    assert (caught.value.reason, caught.value.param) == ("tools_not_supported", "tools")
    able = changed(settings, QWEN, calls_tools=True)
    assert plan(able, wants_tools=True).models == (QWEN,)


def test_a_long_prompt_goes_where_it_fits_or_is_refused(settings: Settings) -> None:
    """Models with too small a context are left out; beyond the largest it is context_length_exceeded."""
    made = plan(settings, prompt_tokens=5000)
    assert (made.models, made.chain) == ((GEMMA,), ())
    with pytest.raises(ContextTooLong) as caught:
        plan(settings, prompt_tokens=9000)
    assert (caught.value.reason, caught.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(ContextTooLong):
        plan(settings, {"model": PHI}, prompt_tokens=5000)


def test_each_attempt_takes_one_model_from_the_chain(settings: Settings) -> None:
    """The chain gets shorter by one, attempts count up, and the reason says whether it failed or was rejected."""
    first = plan(settings)
    second = next_plan(first, [failed(PHI)])
    third = next_plan(second, [failed(PHI), failed(MISTRAL, 2, error=None)])
    assert [(p.attempt, p.models, p.chain) for p in (second, third)] == [
        (2, (MISTRAL,), (QWEN, GEMMA, GPT)),
        (3, (QWEN,), (GEMMA, GPT)),
    ]
    assert second.reason.code == "route.after_failure"
    assert third.reason.code == "route.after_rejection"
    assert third.first_choice == PHI
    climbing = plan(settings, {"mode": "cascade"}, domain="math")
    assert next_plan(climbing, [failed(PHI, error=None)]).reason.code == "route.after_draft"
