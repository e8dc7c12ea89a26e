"""What having read a conversation changes in the choice of a model, and what it does not. At stated speeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.config import load
from capibara_agents.route import Situation, first_plan
from capibara_agents.route.worth import PREFILL_BYTES_PER_S, prefill_per_s
from capibara_agents.settings import Settings
from capibara_agents.texts import sentence
from capibara_agents.types import Expectation, FleetSnapshot, ModelStatus, Neighbour, Plan, Request, ServerState
from tests.fakes import GEMMA, GPT, MISTRAL, PHI, QWEN, classification

READY = FleetSnapshot(
    models=tuple(ModelStatus(id=model, state=ServerState.ready) for model in (PHI, QWEN, MISTRAL, GEMMA, GPT))
)
# Tokens a second on a small machine.
SPEEDS = {PHI: 100.0, QWEN: 200.0, MISTRAL: 60.0, GEMMA: 15.0, GPT: 40.0}


@pytest.fixture
def five(tmp_path: Path) -> Settings:
    """The real models, whose weights differ in size."""
    return load(flags={"fleet": "five", "runtime": {"data_dir": str(tmp_path)}}, environ={}, cwd=tmp_path).settings


def plan(settings: Settings, read: dict[str, int], request: dict[str, Any] | None = None, **question: Any) -> Plan:
    parts = ("fleet", "expectations", "admitted", "prefill_per_s")
    more = {key: question.pop(key) for key in parts if key in question}
    values: dict[str, Any] = {"fleet": READY, "read_tokens": read, "prefill_per_s": SPEEDS, **more}
    asked = Request.model_validate(request or {})
    return first_plan(Situation(classification(**question), asked, settings, **values))


def chosen(settings: Settings, read: dict[str, int], quality: str, **question: Any) -> str:
    return plan(settings, read, {"quality": quality}, **question).models[0]


@pytest.mark.parametrize(
    ("domain", "reader", "tokens", "quality", "model"),
    [
        # A larger model that has read it goes on with a question that a small one would do, when it is long.
        ("factual_qa", MISTRAL, 200, "balanced", PHI),
        ("factual_qa", MISTRAL, 1000, "balanced", MISTRAL),
        ("chitchat", GPT, 1000, "balanced", PHI),
        ("chitchat", GPT, 3000, "balanced", GPT),
        ("chitchat", GPT, 300, "fast", GPT),
        # A small one that has read it, instead of the table's, only where waiting is dear.
        ("translation", PHI, 2000, "balanced", MISTRAL),
        ("translation", PHI, 2000, "fast", PHI),
        ("translation", PHI, 100, "fast", MISTRAL),
        # Neither a short chat nor a long one makes it a programmer, or a mathematician.
        ("coding", PHI, 300, "fast", QWEN),
        ("coding", PHI, 3500, "balanced", QWEN),
        ("math", PHI, 2000, "balanced", GPT),
        ("math", PHI, 100_000, "balanced", GPT),
        ("math", PHI, 100_000, "fast", GPT),
        ("math", QWEN, 100_000, "fast", GPT),
        # For the best answer, reading is no reason but between equals.
        ("factual_qa", PHI, 10_000, "best", GPT),
        ("factual_qa", PHI, 500, "best", GEMMA),
        ("math", GEMMA, 10_000, "best", GPT),
    ],
)
def test_a_long_conversation_tips_the_choice_and_a_short_one_does_not(
    five: Settings, domain: str, reader: str, tokens: int, quality: str, model: str
) -> None:
    """In proportion to the seconds of reading, at the price that the quality sets, never by two rungs."""
    assert chosen(five, {reader: tokens}, quality, domain=domain) == model


@pytest.mark.parametrize("quality", ["fast", "balanced", "best"])
@pytest.mark.parametrize("prompt_tokens", [12, 2500])
def test_a_new_conversation_is_decided_as_before(five: Settings, quality: str, prompt_tokens: int) -> None:
    """However slowly models read: what nobody has read is read by whoever answers. So is what all have read."""
    for domain in ("factual_qa", "coding", "math", "translation", "long_context"):
        question = {"domain": domain, "prompt_tokens": prompt_tokens}
        unknown = first_plan(
            Situation(classification(**question), Request.model_validate({"quality": quality}), five, READY)
        )
        assert plan(five, {}, {"quality": quality}, **question) == unknown
        everyone = plan(five, dict.fromkeys(SPEEDS, 2000), {"quality": quality}, **question)
        assert (everyone.models, everyone.reason) == (unknown.models, unknown.reason)


def test_only_what_another_has_read_counts(five: Settings) -> None:
    """Who has read nearly all of it has little to read; seconds are those of the difference."""
    assert chosen(five, {MISTRAL: 1000, PHI: 900}, "balanced") == PHI
    assert chosen(five, {MISTRAL: 1000, PHI: 100}, "balanced") == MISTRAL


def test_a_measured_speed_counts_and_otherwise_the_size(five: Settings) -> None:
    """A machine that reads ten times as quickly has ten times less to weigh; one model's speed tells of the others'."""
    quick = {model: 10 * speed for model, speed in SPEEDS.items()}
    read = {MISTRAL: 1000}
    assert plan(five, read).models == (MISTRAL,)
    assert plan(five, read, prefill_per_s=quick).models == (PHI,)
    unknown = Situation(classification(), Request(), five, READY)
    assert prefill_per_s(five.spec(GPT), unknown) == pytest.approx(PREFILL_BYTES_PER_S / 12.1e9, rel=0.01)
    by_another = replace(unknown, prefill_per_s={PHI: 7.0})
    assert prefill_per_s(five.spec(PHI), by_another) == 7.0
    assert prefill_per_s(five.spec(GPT), by_another) == pytest.approx(7.0 * 2.49 / 12.1, rel=0.01)


def test_the_reason_says_it_where_it_was_decisive(five: Settings) -> None:
    """Who has read how much, and how long the other one would have read; not where the choice is the same without."""
    made = plan(five, {MISTRAL: 1000})
    assert made.reason.code == "route.read"
    assert (made.reason.values["wanted"], made.reason.values["tokens"], made.reason.values["seconds"]) == (
        PHI,
        1000,
        10,
    )
    assert "ya ha leído esta conversación" in sentence("route.read", "es", **made.reason.values)
    assert "has already read this conversation" in sentence("route.read", "en", **made.reason.values)
    same = plan(five, {PHI: 1000})
    assert (same.models, same.reason.code, same.read_tokens) == ((PHI,), "route.table", {PHI: 1000})


def test_it_is_the_reason_to_stay_with_the_tables_model_too(five: Settings) -> None:
    """Outcomes would have sent the question on; that it has read the conversation kept it."""
    recorded = {PHI: Expectation(good=0.7, support=100), MISTRAL: Expectation(good=0.72, support=100)}
    assert plan(five, {}, expectations=recorded).models == (MISTRAL,)
    stayed = plan(five, {PHI: 2000}, expectations=recorded)
    assert (stayed.models, stayed.reason.code, stayed.reason.values["wanted"]) == ((PHI,), "route.read", MISTRAL)


def test_another_reason_is_named_where_reading_was_not_decisive(five: Settings) -> None:
    """Outcomes alone would have done it, though they weigh less."""
    recorded = {PHI: Expectation(good=0.7, support=100), MISTRAL: Expectation(good=0.75, support=100)}
    made = plan(five, {MISTRAL: 20_000}, expectations=recorded)
    assert (made.models, made.reason.code) == ((MISTRAL,), "route.good")


def test_a_deadline_counts_the_reading(five: Settings) -> None:
    """Who would still read when time is over is passed over for who has read it."""
    made = plan(five, {PHI: 1000}, {"deadline_s": 5}, domain="math")
    assert (made.models, made.reason.code) == ((PHI,), "route.deadline")
    assert plan(five, {PHI: 1000}, {"deadline_s": 60}, domain="math").models == (GPT,)


def test_a_deadline_counts_a_prompt_that_nobody_has_read(five: Settings) -> None:
    """3,000 tokens take the large one 200 s and the small one 30; without a deadline the table decides."""
    question: dict[str, Any] = {"domain": "long_context", "prompt_tokens": 3000}
    free = plan(five, {}, **question)
    assert free.models == (GEMMA,)
    hurried = plan(five, {}, {"deadline_s": 60}, **question)
    assert (hurried.reason.code, hurried.reason.values["wanted"]) == ("route.deadline", GEMMA)
    assert 3000 / SPEEDS[hurried.models[0]] < 60
    assert plan(five, {}, {"deadline_s": 300}, **question).models == (GEMMA,)


def test_a_named_model_is_obeyed_whoever_has_read(five: Settings) -> None:
    """Reading is a reason of the policy, and the plan tells it all the same."""
    made = plan(five, {PHI: 1000}, {"model": GPT})
    assert (made.models, made.read_tokens) == ((GPT,), {PHI: 1000})


# ---------------------------------------------------------------- several models

UNSURE = {
    "domain": "other", "complexity": 0.5, "confidence": 0.3,
    "neighbours": tuple(Neighbour(id=d, score=0.5, domain=d, complexity=0.5) for d in ("other", "chitchat")),
}  # fmt: skip


def test_no_draft_by_a_model_that_would_have_to_read_it_all(five: Settings) -> None:
    """A draft saves time; a minute of reading before it does not. One that has read it may draft."""
    for read, mode in (({}, "cascade"), ({PHI: 3000}, "cascade"), ({GPT: 100}, "cascade"), ({GPT: 3000}, "single")):
        assert plan(five, read, **UNSURE).mode == mode, read


def test_no_unasked_vote_that_reads_it_all_again(five: Settings) -> None:
    """Among those who have little to read a vote is held, and among too few of them none."""
    for read, voters in (
        ({}, {PHI, MISTRAL, GPT}),
        ({MISTRAL: 100}, {PHI, MISTRAL, GPT}),
        ({MISTRAL: 1000, GPT: 1000}, {MISTRAL, GPT}),
        ({PHI: 5000}, {PHI}),
    ):
        made = plan(five, read, admitted=(PHI, MISTRAL, GPT), domain="factual_qa")
        assert (set(made.models), made.mode) == (voters, "consensus" if len(voters) > 1 else "single"), read
    best = plan(five, {MISTRAL: 1000}, {"quality": "best"}, admitted=(MISTRAL, GPT))
    assert best.mode == "consensus", "there a minute is cheap"


def test_voters_who_have_read_it_are_preferred_by_a_place(five: Settings) -> None:
    """A vote that was asked for: the best suited stays, a reader comes before its neighbour; named voters are named."""
    fresh = plan(five, {}, {"mode": "consensus"})
    assert (set(fresh.models), fresh.reason.code) == ({PHI, MISTRAL, QWEN}, "route.consensus")
    made = plan(five, {GEMMA: 4000, PHI: 4000, MISTRAL: 4000}, {"mode": "consensus", "quality": "fast"})
    assert (set(made.models), made.reason.code) == ({PHI, MISTRAL, GEMMA}, "route.consensus_read")
    assert set(plan(five, {GPT: 4000}, {"mode": "consensus", "quality": "fast"}).models) == {PHI, MISTRAL, QWEN}
    named = plan(five, {GEMMA: 4000}, {"voters": [PHI, QWEN], "quality": "fast"})
    assert (set(named.models), named.reason.code) == ({PHI, QWEN}, "route.consensus")
