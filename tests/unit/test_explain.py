"""Signals of a decision and the decision without them, from the decision itself."""

from __future__ import annotations

from typing import Any

import pytest

from capibara_agents.classify import LONG_CONTEXT_TOKENS, Reading, decide
from capibara_agents.explain import explained, signals, without
from capibara_agents.features import Features
from capibara_agents.route import Situation, first_plan
from capibara_agents.settings import Settings
from capibara_agents.types import Domain, FleetSnapshot, Neighbour, Request
from tests.fakes import GPT, QWEN, classification


def near(*pairs: tuple[Domain, float]) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(id=f"n{i}", score=s, domain=d, complexity=0.5) for i, (d, s) in enumerate(pairs))


def reading(neighbours: tuple[Neighbour, ...] = (), prior: Any = None, **features: Any) -> Reading:
    seen = Features.model_validate({"evidence": {}, "structure": 0.2, "prompt_tokens": 20, **features})
    made = decide(neighbours, seen, prior)
    asked = classification(
        domain=made.domain, confidence=made.confidence, complexity=made.complexity, neighbours=neighbours
    )
    return Reading(asked, neighbours, seen, prior)


def test_the_strongest_signal_comes_first_and_signs_tell_for_and_against() -> None:
    """Near sums say mathematics, a word says coding."""
    found = signals(reading(near(("math", 0.6), ("math", 0.55), ("coding", 0.3)), evidence={"coding": 1.0}))
    assert [(s.name, s.domain) for s in found] == [("neighbours", "math"), ("words", "coding")]
    assert found[0].weight > 0 > found[1].weight


def test_the_weight_of_words_is_what_they_add() -> None:
    """Without them the share of the chosen domain falls; absent words are no signal."""
    asked = reading(near(("coding", 0.6), ("math", 0.6)), evidence={"coding": 3.0, "vision": -3.0})
    found = signals(asked)
    assert {s.name for s in found} == {"words", "neighbours"}
    words = next(s for s in found if s.name == "words")
    assert words.weight > 1
    left = without(asked, words)
    assert left.confidence < asked.classification.confidence


@pytest.mark.parametrize(
    ("features", "name", "domain"),
    [({"image": True}, "image", "vision"), ({"prompt_tokens": LONG_CONTEXT_TOKENS}, "length", "long_context")],
)
def test_what_decides_alone_is_the_strongest(features: dict[str, Any], name: str, domain: str) -> None:
    """An image, or great length; without it the neighbours decide."""
    asked = reading(near(("math", 0.9)), **features)
    assert asked.classification.domain == domain
    first = signals(asked)[0]
    assert (first.name, first.domain) == (name, domain)
    assert without(asked, first).domain == "math"


def test_a_fitted_head_is_a_signal_of_its_own() -> None:
    """With the domain that it finds most likely."""
    found = signals(reading(near(("math", 0.5)), prior={"math": 0.9, "coding": 0.05}))
    assert ("head", "math") in [(s.name, s.domain) for s in found]


def test_nothing_spoke() -> None:
    """Then there is nothing to take away."""
    assert signals(reading()) == ()


@pytest.mark.parametrize("language", ["es", "en"])
def test_an_explanation_holds_the_decision_without_the_strongest(settings: Settings, language: Any) -> None:
    """With its own model and reason, in the language asked for."""
    asked = reading(near(("math", 0.8), ("math", 0.7)), evidence={"coding": 5.0})
    situation = Situation(asked.classification, Request(), settings, FleetSnapshot(models=()))
    told = explained(asked, situation, first_plan(situation), language)
    assert told["model"] == GPT
    other = told["without_strongest"]
    assert other["signal"]["name"] == "neighbours"
    assert (other["domain"], other["model"], other["models"]) == ("coding", QWEN, [QWEN])
    assert ("modelo" in other["reason"]) == (language == "es")
    assert told["signals"][0]["text"] == other["signal"]["text"]
    assert told["features"]["structure"] == 0.2
