"""What is measured of decisions, over a classifier that says what it is told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import BaseMessage

from capibara_agents.evaluation import robustness, routing
from capibara_agents.evaluation.perturbation import KINDS, accents, marks, perturbed, typo
from capibara_agents.evaluation.routing import as_json, decide_all, decider, figures
from capibara_agents.evaluation.rows import Row
from capibara_agents.settings import Settings
from capibara_agents.types import Classification, Expectation
from tests.fakes import classification


class Scripted:
    """Classifies by the first word of a text; small letters make no difference."""

    def __init__(self, says: dict[str, Classification]) -> None:
        self._says = says

    def classify(self, messages: Sequence[BaseMessage]) -> Classification:
        """The prepared classification."""
        return self._says[str(messages[-1].content).split()[0].lower()]


def row(prompt: str, **values: Any) -> Row:
    return Row.model_validate({"id": f"set:{prompt}", "prompt": prompt, "language": "en", **values})


SAYS = {
    "sum": classification(domain="math", confidence=0.9, language="en"),
    "suma": classification(domain="math", confidence=0.9, language="es"),
    "hello": classification(domain="chitchat", confidence=0.6, language="en"),
    "huge": classification(domain="math", confidence=0.9, language="en", prompt_tokens=10_000_000),
}


@pytest.fixture
def decide(settings: Settings) -> routing.Decide:
    return decider(Scripted(SAYS), settings)


def test_a_plan_is_made_without_any_server(settings: Settings, decide: routing.Decide) -> None:
    """Every model counts as ready; what no model can take has no plan."""
    decided = decide("sum")
    assert decided.plan is not None
    assert decided.plan.models[0] in {spec.id for spec in settings.models}
    assert decide("huge").plan is None
    assert decide("huge").choice is None


def test_what_was_learned_counts(settings: Settings) -> None:
    """A model that was always right near a question is asked where the table would ask another."""
    other = next(spec.id for spec in settings.models if spec.tier == "general")
    plain = decider(Scripted(SAYS), settings)("sum")
    expected = {spec.id: Expectation(good=float(spec.id == other), support=1000) for spec in settings.models}
    learned = decider(Scripted(SAYS), settings, lambda _: expected)("sum")
    assert plain.plan is not None
    assert plain.plan.models != (other,)
    assert learned.plan is not None
    assert other in learned.plan.models


def test_figures_by_hand(decide: routing.Decide) -> None:
    """Six rows: five with a domain, three of them right; four clean; one with a tier."""
    rows = [
        row("sum", domain="math", source="a", tier="complex"),
        row("sum", domain="sql", source="a"),
        row("hello", domain="chitchat", source="b", label_source="regex"),
        row("suma", domain="math", source="b", language="es"),
        row("suma", domain="math", source="c", language="en"),
        row("hello", language="es"),
    ]
    outcomes = list(decide_all(rows, decide))
    measured = as_json(figures(outcomes))
    assert (measured["n"], measured["domain_n"]) == (6, 5)
    assert measured["domain_accuracy"] == 80
    assert measured["language_accuracy"] == pytest.approx(66.67)
    assert measured["tier_accuracy"] == 100
    assert (
        measured["by_language"]["es"] | {"n": 2, "domain_n": 1, "domain_accuracy": 100.0}
        == measured["by_language"]["es"]
    )
    assert measured["by_source"]["a"]["domain_accuracy"] == 50
    assert measured["by_source"]["-"]["domain_accuracy"] is None
    assert measured["confusion"] == {"chitchat": {"chitchat": 1}, "math": {"math": 3}, "sql": {"math": 1}}
    # 4 at 0.9, of which 3 right; 1 at 0.6, right.
    assert measured["ece"] == pytest.approx((4 * 0.15 + 0.4) / 5)
    clean = figures([outcome for outcome in outcomes if outcome.row.is_clean])
    assert (clean.total.n, clean.total.domain.percent) == (4, 75)


def test_a_wrong_tier_and_a_missing_plan_count_as_wrong(decide: routing.Decide) -> None:
    """They are not left out of the share."""
    rows = [row("sum", tier="complex"), row("huge", tier="complex"), row("hello", tier="complex")]
    measured = figures(list(decide_all(rows, decide)))
    assert (measured.total.tier.hits, measured.total.tier.n) == (1, 3)
    assert measured.refused == 1


def test_mistakes_name_the_row_and_both_labels(decide: routing.Decide) -> None:
    """What is not labelled is no mistake, and no text is shown."""
    rows = [row("sum", domain="sql", id="a"), row("sum", domain="math"), row("suma"), row("hello", tier="complex")]
    found = routing.mistakes(list(decide_all(rows, decide)))
    assert [(wrong["id"], set(wrong) - {"id", "confidence"}) for wrong in found] == [
        ("a", {"domain"}),
        ("set:suma", {"language"}),
        ("set:hello", {"tier"}),
    ]
    assert found[0]["domain"] == ["sql", "math"]
    assert found[1]["language"] == ["en", "es"]


def test_without_a_tier_in_the_file_there_is_no_tier_accuracy(decide: routing.Decide) -> None:
    """Nor is a missing domain accuracy a number."""
    measured = as_json(figures(list(decide_all([row("sum")], decide))))
    assert "tier_accuracy" not in measured
    assert measured["domain_accuracy"] is None
    assert measured["ece"] is None


def test_times_are_percentiles_of_the_outcomes() -> None:
    """The median is not the mean."""
    decided = routing.Decided(SAYS["sum"], None)
    outcomes = [routing.Outcome(row("sum"), decided, ms) for ms in (1.0, 2.0, 90.0)]
    measured = figures(outcomes)
    assert measured.p50_ms == 2
    assert measured.p99_ms == pytest.approx(88.24)
    assert as_json(figures([]))["ms"] == {"p50": None, "p99": None}


def test_pairs_are_compared_once_and_only_across_languages(decide: routing.Decide) -> None:
    """Two pairs of the same tier, one of different tiers, and rows without a partner."""
    rows = [
        row("sum", id="set:en-1"),
        row("suma", id="set:es-1", language="es"),
        row("hello", id="set:en-2"),
        row("suma", id="set:es-2", language="es"),
        row("sum", id="set:en-3"),
        row("suma", id="set:es-4", language="es"),
        row("sum", id="set:en-4"),
        row("sum", pair="x"),
        row("sum", pair="x"),
    ]
    measured = figures(list(decide_all(rows, decide)))
    assert (measured.pairs_tier.hits, measured.pairs_tier.n) == (2, 3)
    assert (measured.pairs_domain.hits, measured.pairs_domain.n) == (2, 3)


# ---------------------------------------------------------------- written differently


TEXT = "¿Cuántos años vivió Platón, según ¡Aristóteles!?"


def test_changes_are_the_same_for_the_same_seed() -> None:
    """And another seed gives another typing error."""
    for kind in KINDS:
        assert perturbed(TEXT, kind, 1, "a") == perturbed(TEXT, kind, 1, "a")
    assert len({perturbed(TEXT, "typo", seed, "a") for seed in range(20)}) > 5


def test_each_change_does_what_it_says() -> None:
    """Accents and tildes, marks, letters."""
    chance = random.Random(0)
    assert accents(TEXT, chance) == "¿Cuantos anos vivio Platon, segun ¡Aristoteles!?"
    assert marks(TEXT, chance) == "Cuántos años vivió Platón, según Aristóteles!?"
    assert perturbed(TEXT, "lower", 0, "a") == TEXT.lower()
    assert perturbed(TEXT, "upper", 0, "a") == TEXT.upper()


def test_a_typing_error_is_one_slip_in_one_longer_word() -> None:
    """The first letter stays, short words stay, and something always changes."""
    for seed in range(300):
        changed = typo("see the garden", random.Random(seed))
        assert changed != "see the garden"
        assert changed.startswith("see the g")
        assert abs(len(changed) - len("see the garden")) <= 1
    assert typo("1 + 1 is two", random.Random(0)) == "1 + 1 is two"
    assert typo("aaaa", random.Random(0)) in ("aaa", "aaaaa")


def test_what_cannot_change_is_no_trial() -> None:
    """A text without accents has no version without them."""
    assert perturbed("abc", "accents", 0, "a") is None
    assert perturbed("abc", "marks", 0, "a") is None
    assert [kind for _, kind, _ in robustness.variants([row("Hello you")], 0)] == ["typo", "lower", "upper"]


def test_stability_counts_decisions_by_kind(settings: Settings) -> None:
    """Capitals change the domain and the model, small letters nothing."""

    class Touchy(Scripted):
        def classify(self, messages: Sequence[BaseMessage]) -> Classification:
            return SAYS["hello" if str(messages[-1].content).isupper() else "sum"]

    decide = decider(Touchy(SAYS), settings)
    outcomes = list(decide_all([row("Sum it"), row("Sum is")], decide))
    tried = [trial for trials in robustness.trials(outcomes, decide, 0) for trial in trials]
    measured = robustness.as_json(tried)
    assert measured["n"] == 4
    assert measured["unchanged"] == 50
    assert measured["by_kind"]["lower"]["unchanged"] == 100
    assert measured["by_kind"]["upper"]["unchanged"] == 0
    assert measured["by_kind"]["upper"]["domain_unchanged"] == 0
    assert "typo" not in measured["by_kind"]
