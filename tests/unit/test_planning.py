"""Who votes when nobody asked for a vote, and in which order voters stand."""

from __future__ import annotations

import random

import pytest

from capibara_agents.errors import BadQuestion
from capibara_agents.planning import first_plan, situation_of
from capibara_agents.settings import Settings
from capibara_agents.types import Expectation, FleetSnapshot, ModelStatus, Request, ServerState
from capibara_agents.vote import Cluster, Round, Tally, VoteWeights, learn
from tests.fakes import GPT, MISTRAL, PHI, QWEN, classification

NEAR_EQUAL = {model: Expectation(good=0.7, support=50) for model in (PHI, MISTRAL, GPT)}


def ready(settings: Settings, budget_bytes: int | None = None) -> FleetSnapshot:
    models = tuple(ModelStatus(id=spec.id, state=ServerState.ready) for spec in settings.models)
    return FleetSnapshot(models=models, budget_bytes=budget_bytes)


def recorded() -> VoteWeights:
    """What votes teach in which GPT is right most often and PHI least."""
    draw = random.Random(0)
    rounds = []
    for _ in range(200):
        rights = {m: draw.random() < p for m, p in ((PHI, 0.6), (MISTRAL, 0.7), (GPT, 0.8))}
        right = tuple(m for m in rights if rights[m])
        clusters = [Cluster(voters=right)] if right else []
        clusters += [Cluster(voters=(m,)) for m in rights if not rights[m]]
        truth = tuple(bool(right) and k == 0 for k in range(len(clusters)))
        rounds.append(Round(tally=Tally(domain="factual_qa", clusters=tuple(clusters)), right=truth))
    return learn(rounds, (PHI, MISTRAL, GPT))


def test_nobody_votes_unasked_before_votes_were_recorded(settings: Settings) -> None:
    """Models that look alike by their checks alone are not known to be."""
    for learned, mode in ((VoteWeights(), "single"), (recorded(), "consensus")):
        situation = situation_of(
            classification(), Request(), settings, ready(settings), expectations=NEAR_EQUAL, learned=learned
        )
        assert first_plan(situation, learned, 8).mode == mode


def test_voters_stand_in_the_order_of_their_value(settings: Settings) -> None:
    """By recorded votes, else by recorded outcomes, else by preference."""
    request = Request(voters=(PHI, MISTRAL, GPT))
    situation = situation_of(
        classification(), request, settings, ready(settings), expectations={}, learned=VoteWeights()
    )
    assert first_plan(situation, recorded(), 8).models == (GPT, MISTRAL, PHI)
    expected = {PHI: Expectation(good=0.5, support=50), MISTRAL: Expectation(good=0.9, support=50)}
    known = situation_of(
        classification(), request, settings, ready(settings), expectations=expected, learned=VoteWeights()
    )
    plan = first_plan(known, VoteWeights(), 8)
    assert (plan.models[0], plan.first_choice) == (MISTRAL, MISTRAL)
    assert plan.weights[MISTRAL] > plan.weights[GPT] > plan.weights[PHI]


@pytest.mark.parametrize(("n", "samples", "models"), [(3, 3, 3), (4, 3, None), (2, 1, None), (1, 1, 1)])
def test_samples_that_were_asked_for_are_choices(settings: Settings, n: int, samples: int, models: int | None) -> None:
    """One voter and three samples are three answers; more choices than answers are refused."""
    request = Request(voters=(PHI,), samples=samples, choices=n)
    situation = situation_of(
        classification(), request, settings, ready(settings), expectations={}, learned=VoteWeights()
    )
    if models is not None:
        assert len(first_plan(situation, VoteWeights(), 8).models) == models
        return
    with pytest.raises(BadQuestion) as refused:
        first_plan(situation, VoteWeights(), 8)
    assert refused.value.param == "n"


@pytest.mark.parametrize(("n", "voters"), [(1, 4), (2, 3)])
def test_samples_that_learning_adds_are_no_choices(settings: Settings, n: int, voters: int) -> None:
    """They take part in a vote with one choice, and not where each answer may become one."""
    learned = recorded().model_copy(update={"samples": {GPT: 2}})
    request = Request(voters=(PHI, MISTRAL, GPT), choices=n)
    situation = situation_of(classification(), request, settings, ready(settings), expectations={}, learned=learned)
    assert len(first_plan(situation, learned, 8).models) == voters


def test_the_schedule_follows_cores_and_memory(settings: Settings) -> None:
    """Fewer cores than voters, or less memory than all of them need: one after the other."""
    request = Request(voters=(PHI, QWEN))

    def schedule(cores: int, budget_bytes: int | None) -> str:
        situation = situation_of(
            classification(), request, settings, ready(settings, budget_bytes), expectations={}, learned=VoteWeights()
        )
        return first_plan(situation, VoteWeights(), cores).schedule

    assert schedule(2, None) == "together"
    assert schedule(1, None) == "turns"
    assert schedule(2, 150_000_000) == "turns"
