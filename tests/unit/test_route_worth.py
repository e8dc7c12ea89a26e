"""What moves the choice away from the table: outcomes, loading, queues, memory, deadlines, doubt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from capibara_agents.config import load
from capibara_agents.outcomes import Learner, Outcome
from capibara_agents.route import Situation, first_plan, worth
from capibara_agents.route.able import can_run
from capibara_agents.settings import Settings
from capibara_agents.signature import SIGNATURE_SIZE
from capibara_agents.texts import sentence
from capibara_agents.types import (
    Domain,
    Expectation,
    FleetSnapshot,
    ModelStatus,
    Neighbour,
    Plan,
    Reason,
    Request,
    ServerState,
    Tier,
)
from tests.fakes import GEMMA, GPT, MISTRAL, PHI, QWEN, classification

ALL = (PHI, QWEN, MISTRAL, GEMMA, GPT)
GIB = 2**30


@pytest.fixture
def five(tmp_path: Any) -> Settings:
    """The real models, whose weights differ in size."""
    return load(flags={"fleet": "five", "runtime": {"data_dir": str(tmp_path)}}, environ={}, cwd=tmp_path).settings


def fleet(budget_bytes: int | None = None, used_bytes: int | None = None, **ready: Any) -> FleetSnapshot:
    """Everything stopped, but for what is given by tier: `general={"state": "ready", …}`."""
    by_tier = dict(zip(("fast_response", "balanced", "general", "multimodal", "complex"), ALL, strict=True))
    models = []
    for tier, model in by_tier.items():
        models.append(ModelStatus.model_validate({"id": model, "state": "stopped", **ready.get(tier, {})}))
    return FleetSnapshot(models=tuple(models), budget_bytes=budget_bytes, used_bytes=used_bytes)


UP = {"state": "ready"}


def plan(
    settings: Settings,
    snapshot: FleetSnapshot,
    request: dict[str, Any] | None = None,
    expectations: Mapping[str, Expectation] | None = None,
    admitted: tuple[str, ...] = (),
    **question: Any,
) -> Plan:
    asked = Request.model_validate(request or {})
    return first_plan(Situation(classification(**question), asked, settings, snapshot, expectations or {}, admitted))


def expects(good: float, support: float = 100, seconds: float | None = None) -> Expectation:
    return Expectation(good=good, support=support, seconds=seconds)


# ---------------------------------------------------------------- loading and queues


@pytest.mark.parametrize(
    ("domain", "up", "quality", "model", "code"),
    [
        # Nothing is up: all would have to be loaded, and the table's choice stands.
        ("math", {}, "balanced", GPT, "route.table"),
        ("long_context", {}, "balanced", GEMMA, "route.table"),
        ("vision", {}, "fast", GEMMA, "route.table"),
        # A small model that is up does not stand in for a much stronger one, but one rung below is near enough.
        ("math", {"fast_response": UP}, "balanced", GPT, "route.table"),
        ("long_context", {"general": UP}, "balanced", GEMMA, "route.table"),
        ("long_context", {"general": UP}, "fast", MISTRAL, "route.load"),
        ("math", {"multimodal": UP}, "fast", GEMMA, "route.load"),
        ("math", {"multimodal": UP}, "best", GPT, "route.table"),
        # A stronger model that is up is as good as a small one that would have to be loaded.
        ("factual_qa", {"general": UP}, "balanced", MISTRAL, "route.load"),
        ("factual_qa", {"general": UP, "fast_response": UP}, "balanced", PHI, "route.table"),
        # A model for programs does not take over what is no program.
        ("translation", {"balanced": UP}, "balanced", MISTRAL, "route.table"),
        ("translation", {"balanced": UP, "fast_response": UP}, "fast", PHI, "route.load"),
    ],
)
def test_a_model_is_loaded_only_where_that_pays(
    five: Settings, domain: str, up: dict[str, Any], quality: str, model: str, code: str
) -> None:
    """Seconds of loading against what the model is better, at the price that the quality sets."""
    made = plan(five, fleet(**up), {"quality": quality}, domain=domain)
    assert (made.models, made.reason.code) == ((model,), code)


def test_a_measured_load_counts_and_not_the_guess(five: Settings) -> None:
    """gpt-oss that loads in five minutes loses to a ready gemma even in balanced quality; in one second it wins."""
    up = {"multimodal": UP}
    assert plan(five, fleet(**up, complex={"load_s": 300.0}), domain="math").models == (GEMMA,)
    assert plan(five, fleet(**up, complex={"load_s": 1.0}), domain="math").models == (GPT,)


def test_a_load_under_way_costs_what_is_left_of_it(five: Settings) -> None:
    """Nearly loaded is nearly ready."""
    up = {"multimodal": UP}
    starting = {"state": "starting", "load_s": 100.0}
    assert plan(five, fleet(**up, complex={**starting, "load_progress": 0.1}), domain="math").models == (GEMMA,)
    assert plan(five, fleet(**up, complex={**starting, "load_progress": 0.95}), domain="math").models == (GPT,)


def test_a_long_queue_sends_the_question_elsewhere(five: Settings) -> None:
    """Only a queue beyond the free places counts, and only as much as the quality says."""

    def busy(active: int, queue: int) -> FleetSnapshot:
        return fleet(general=UP, fast_response={**UP, "slots": 2, "active": active, "queue": queue})

    assert plan(five, busy(1, 0)).models == (PHI,)
    made = plan(five, busy(2, 9))
    assert (made.models, made.reason.code) == ((MISTRAL,), "route.queue")
    assert made.reason.values["seconds"] == 50
    assert plan(five, busy(2, 9), {"quality": "best"}, domain="chitchat").models == (MISTRAL,)


def test_room_that_must_be_made_counts_twice(five: Settings) -> None:
    """What is pushed out of memory has to come back."""
    spec = five.spec(GPT)
    alone = worth.load_s(spec, fleet().get(GPT), fleet(64 * GIB, 10 * GIB))
    crowded = worth.load_s(spec, fleet().get(GPT), fleet(64 * GIB, 60 * GIB))
    assert crowded == 2 * alone > 20


def test_a_model_that_cannot_run_is_not_chosen_first(five: Settings) -> None:
    """After a failure for good, or when its weights exceed the whole budget; the reason names it."""
    broken = fleet(complex={"state": "failed", "permanent": True})
    for snapshot in (broken, fleet(budget_bytes=10 * GIB)):
        made = plan(five, snapshot, domain="math")
        assert GPT not in made.models
        assert (made.reason.code, made.reason.values["wanted"]) == ("route.cannot_run", GPT)
    assert can_run(five.spec(GPT), fleet(complex={"state": "failed"})), "a failure that a restart may mend"
    assert plan(five, broken, {"model": GPT}).models == (GPT,), "a named model is obeyed"


def test_where_nothing_can_run_the_tables_choice_says_why(five: Settings) -> None:
    """Its failure is the answer, not an empty plan."""
    assert plan(five, fleet(budget_bytes=1), domain="math").models == (GPT,)


# ---------------------------------------------------------------- deadlines


def test_a_deadline_that_a_load_would_break_is_kept_by_another(five: Settings) -> None:
    """Also with nothing up: then it is the model that is soonest there."""
    made = plan(five, fleet(fast_response=UP), {"deadline_s": 5, "quality": "best"}, domain="math")
    assert (made.models, made.reason.code, made.reason.values["wanted"]) == ((PHI,), "route.deadline", GPT)
    assert plan(five, fleet(), {"deadline_s": 0.5}, domain="math").models == (QWEN,), "the smallest file"
    assert plan(five, fleet(), {"deadline_s": 600}, domain="math").models == (GPT,)


# ---------------------------------------------------------------- outcomes


def test_recorded_outcomes_move_the_choice_with_their_support(five: Settings) -> None:
    """A few say little against the table, many decide; the reason gives both figures."""
    everyone_up = fleet(**dict.fromkeys(("fast_response", "balanced", "general", "multimodal", "complex"), UP))
    for support, model in ((0.2, PHI), (0.9, PHI), (100, GEMMA)):
        recorded = {PHI: expects(0.55, support), GEMMA: expects(0.9, support)}
        made = plan(five, everyone_up, expectations=recorded)
        assert made.models == (model,), support
    assert made.reason.code == "route.good"
    assert made.reason.values["good"] > made.reason.values["wanted_good"]


def test_a_hard_question_does_not_favour_models_without_outcomes(five: Settings) -> None:
    """That the recorded models are bad at it says that it is hard, for the others too."""
    everyone_up = fleet(**dict.fromkeys(("fast_response", "balanced", "general", "multimodal", "complex"), UP))
    recorded = {GPT: expects(0.3), GEMMA: expects(0.28), MISTRAL: expects(0.2)}
    assert plan(five, everyone_up, expectations=recorded, domain="math").models == (GPT,)


def test_nothing_recorded_is_the_table(five: Settings) -> None:
    """No support, no influence."""
    assert plan(five, fleet(), expectations={PHI: expects(1.0, 0)}, domain="math").models == (GPT,)


def test_slower_answers_cost_as_waiting_does(five: Settings) -> None:
    """Equally good, a minute slower: the quicker one, unless the best is asked for."""
    recorded = {PHI: expects(0.8, seconds=70), MISTRAL: expects(0.79, seconds=5)}
    up = fleet(fast_response=UP, general=UP)
    assert plan(five, up, expectations=recorded).models == (MISTRAL,)
    assert plan(five, up, {"quality": "best"}, expectations=recorded, domain="chitchat").models == (MISTRAL,)


def test_outcomes_outweigh_a_load_where_they_say_so(five: Settings) -> None:
    """A cold model that is known to be far better is loaded."""
    recorded = {MISTRAL: expects(0.2), GEMMA: expects(0.9)}
    assert plan(five, fleet(general=UP), expectations=recorded, domain="translation").models == (GEMMA,)


# ---------------------------------------------------------------- doubt


def near(*domains: Domain) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(id=d, score=0.5, domain=d, complexity=0.5) for d in domains)


@pytest.mark.parametrize(
    ("domain", "complexity", "neighbours", "model", "code"),
    [
        ("factual_qa", 0.1, ("factual_qa", "other"), PHI, "route.table"),
        ("factual_qa", 0.1, ("factual_qa", "translation"), MISTRAL, "route.unsure"),
        ("coding", 0.1, ("sql", "coding"), QWEN, "route.table"),
        ("coding", 0.1, ("coding", "summarization"), MISTRAL, "route.unsure"),
        ("math", 0.1, ("math", "factual_qa"), GPT, "route.table"),
    ],
)
def test_a_doubt_that_matters_prefers_the_general_tier(
    settings: Settings, domain: str, complexity: float, neighbours: tuple[Domain, ...], model: str, code: str
) -> None:
    """A doubt between domains of one tier is none about the tier, and a stronger tier is safe already."""
    question = {"domain": domain, "complexity": complexity, "neighbours": near(*neighbours)}
    made = plan(settings, FleetSnapshot(models=()), confidence=0.3, **question)
    assert (made.models, made.reason.code) == ((model,), code)
    assert plan(settings, FleetSnapshot(models=()), confidence=0.9, **question).reason.code == "route.table"


UNSURE = {"domain": "other", "complexity": 0.5, "confidence": 0.3, "neighbours": near("other", "chitchat")}


def test_a_draft_is_tried_where_it_pays(settings: Settings) -> None:
    """Unsure, of medium difficulty, balanced, and the small model is up while nobody waits for tokens."""
    made = plan(settings, fleet(fast_response=UP), **UNSURE)
    assert (made.mode, made.models, made.chain[0]) == ("cascade", (PHI,), GPT)
    assert (made.reason.code, made.reason.values["next"]) == ("route.cascade_unsure", GPT)


@pytest.mark.parametrize(
    ("change", "request_", "up"),
    [
        ({"confidence": 0.9}, {}, {"fast_response": UP}),
        ({"complexity": 0.9}, {}, {"fast_response": UP}),
        ({"wants_tools": False}, {"quality": "best"}, {"fast_response": UP}),
        ({}, {"stream": "eager"}, {"fast_response": UP}),
        ({}, {"deadline_s": 60}, {"fast_response": UP}),
        ({}, {"mode": "single"}, {"fast_response": UP}),
        ({}, {"model": "capibara-fast"}, {"fast_response": UP}),
        ({}, {}, {}),
        ({}, {}, {"complex": UP}),
    ],
)
def test_otherwise_no_draft_is_tried(
    settings: Settings, change: dict[str, Any], request_: dict[str, Any], up: dict[str, Any]
) -> None:
    """Each condition is necessary."""
    assert plan(settings, fleet(**up), request_, **{**UNSURE, **change}).mode == "single"


# ---------------------------------------------------------------- votes by itself


@pytest.mark.parametrize(
    ("request_", "ready", "mode"),
    [
        ({}, ("general", "complex"), "consensus"),
        ({"stream": "verified"}, ("general", "complex"), "consensus"),
        ({"stream": "auto"}, ("general", "complex"), "single"),
        ({"quality": "fast"}, ("general", "complex"), "single"),
        ({"deadline_s": 60}, ("general", "complex"), "single"),
        ({"model": "capibara-fast"}, ("general", "complex"), "single"),
        ({}, ("general",), "single"),
    ],
)
def test_a_vote_that_pays_is_held_where_nobody_is_in_a_hurry(
    settings: Settings, request_: dict[str, Any], ready: tuple[str, ...], mode: str
) -> None:
    """Voters are admitted elsewhere; here they must be ready, and nobody may wait for tokens or a deadline."""
    room = fleet(**dict.fromkeys(ready, UP))
    made = plan(settings, room, request_, admitted=(MISTRAL, GPT))
    assert made.mode == mode
    if mode == "consensus":
        assert (set(made.models), made.reason.code) == ({MISTRAL, GPT}, "route.consensus_pays")


def test_the_configuration_can_forbid_votes_that_nobody_asked_for(settings: Settings) -> None:
    """routing.consensus: false leaves votes to the request."""
    room = fleet(general=UP, complex=UP)
    forbidding = settings.model_copy(update={"routing": settings.routing.model_copy(update={"consensus": False})})
    assert plan(forbidding, room, admitted=(MISTRAL, GPT)).mode == "single"
    assert plan(forbidding, room, {"mode": "consensus"}).mode == "consensus"


# ---------------------------------------------------------------- all of it


def test_all_five_models_are_reachable(five: Settings) -> None:
    """By the table alone, in balanced quality."""
    reached = {
        plan(five, fleet(), domain=domain, complexity=level).models[0]
        for domain in get_args(Domain)
        for level in (0.1, 0.5, 0.9)
    }
    assert reached == set(ALL)


@pytest.mark.parametrize("domain", get_args(Domain))
def test_what_is_assumed_peaks_at_the_tier_of_the_table(domain: Domain) -> None:
    """For every domain and tier: no other tier is taken to be better than the one that should answer."""
    for tier in get_args(Tier):
        values = {other: worth.assumed(other, tier, domain) for other in get_args(Tier)}
        assert max(values, key=lambda t: values[t]) == tier
        assert len({v for t, v in values.items() if t != tier}) >= 3
        assert all(0 < value < 1 for value in values.values())


CODES = (
    "table", "only_able", "quality", "unsure", "good", "load", "queue", "read", "deadline", "cannot_run", "cascade",
    "cascade_unsure", "consensus_read", "consensus", "consensus_pays", "named", "after_failure",
    "after_rejection", "after_draft",
)  # fmt: skip
VALUES: dict[str, str | int | float] = {
    "domain": "math", "level": "medium", "model": "A", "wanted": "B", "next": "C", "before": "D", "confidence": 33,
    "quality": "best", "seconds": 12, "deadline": 5, "good": 90, "wanted_good": 70, "count": 2, "models": "A, B",
    "tokens": 2000,
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("language", ["es", "en"])
def test_every_reason_is_one_sentence(code: str, language: Any) -> None:
    """In both languages, with nothing left to fill in."""
    reason = Reason(code=f"route.{code}", values=VALUES)
    said = sentence(reason.code, language, **reason.values)
    assert said.endswith(".")
    assert "$" not in said
    assert said.count(". ") == 0
    assert len(said) < 220


def test_states_of_servers_are_all_priced(five: Settings) -> None:
    """Only ready costs nothing; no state breaks the arithmetic."""
    for state in ServerState:
        status = ModelStatus(id=GPT, state=state)
        assert (worth.load_s(five.spec(GPT), status, fleet()) == 0) == (state is ServerState.ready)


def test_praise_keeps_a_model_and_blame_moves_the_question_on(settings: Settings, tmp_path: Path) -> None:
    """With the learner itself: one good answer does not cost a model its question, several bad ones do."""
    signature = tuple((np.ones(SIGNATURE_SIZE) / SIGNATURE_SIZE**0.5).tolist())
    asked = classification(signature=signature)
    learner = Learner(tmp_path, prior=dict.fromkeys(ALL, worth.ASSUMED))

    def told(number: int, good: float) -> tuple[str, ...]:
        outcome = Outcome(
            request_id=f"r{number}", signature=signature, domain="factual_qa", language="es", model=PHI, good=good,
            origin="feedback",
        )  # fmt: skip
        learner.record([outcome])
        situation = Situation(asked, Request(), settings, FleetSnapshot(models=()), learner.expect(asked))
        return first_plan(situation).models

    assert told(0, 1.0) == told(1, 1.0) == (PHI,)
    assert [told(number, 0.0) for number in range(2, 10)][-1] != (PHI,)
    learner.close()
