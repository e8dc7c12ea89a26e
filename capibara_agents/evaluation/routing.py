"""Classify and route the rows of a file, and compare with what is known of them.

rows -> decide_all (the one that takes time) -> outcomes -> figures (pure) -> tables, JSON, report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from langchain_core.messages import BaseMessage, HumanMessage

from capibara_agents.calibration import Bin, calibration_error, reliability
from capibara_agents.errors import BadQuestion
from capibara_agents.evaluation.metrics import Share, confusion, share
from capibara_agents.evaluation.rows import Row
from capibara_agents.route import Situation, first_plan
from capibara_agents.settings import Settings
from capibara_agents.types import Classification, Expectation, FleetSnapshot, ModelStatus, Plan, Request, ServerState

SHORT_WORDS, MEDIUM_WORDS = 3, 64


class Classifies(Protocol):
    """What is needed of a classifier."""

    def classify(self, messages: Sequence[BaseMessage]) -> Classification: ...


@dataclass(frozen=True)
class Decided:
    """A classification and its plan; None where no model can take the question."""

    classification: Classification
    plan: Plan | None

    @property
    def choice(self) -> tuple[tuple[str, ...], str] | None:
        """Who is asked, and how."""
        return (self.plan.models, self.plan.mode) if self.plan else None


Decide = Callable[[str], Decided]
Expect = Callable[[Classification], Mapping[str, Expectation]]


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    row: Row
    decided: Decided
    took_ms: float

    @property
    def domain_right(self) -> bool:
        return self.decided.classification.domain == self.row.domain

    @property
    def language_right(self) -> bool:
        return self.decided.classification.language == self.row.language

    @property
    def tier(self) -> str | None:
        return self.decided.plan.tier if self.decided.plan else None


def all_ready(settings: Settings) -> FleetSnapshot:
    """The configured fleet with every model loaded and at rest: decisions do not hang on the moment."""
    return FleetSnapshot(models=tuple(ModelStatus(id=spec.id, state=ServerState.ready) for spec in settings.models))


def decider(classifier: Classifies, settings: Settings, expect: Expect = lambda _: {}) -> Decide:
    """Classify and plan one prompt for the model `capibara`, every model being ready.

    `expect` gives what was learned of the models on such a question; by default nothing was.
    """
    request, fleet = Request(), all_ready(settings)

    def decide(prompt: str) -> Decided:
        classification = classifier.classify([HumanMessage(prompt)])
        situation = Situation(classification, request, settings, fleet, expect(classification))
        try:
            return Decided(classification, first_plan(situation))
        except BadQuestion:
            return Decided(classification, None)

    return decide


def decide_all(rows: Iterable[Row], decide: Decide) -> Iterator[Outcome]:
    """Each row's outcome, one after the other."""
    for row in rows:
        started = time.perf_counter()
        decided = decide(row.prompt)
        yield Outcome(row, decided, 1000 * (time.perf_counter() - started))


# ---------------------------------------------------------------- figures


@dataclass(frozen=True)
class Group:
    """How many rows, and the shares that were right of those that have the label."""

    n: int
    domain: Share
    language: Share
    tier: Share


@dataclass(frozen=True)
class Figures:
    """All that is measured of the decisions on some rows. `ece` in [0, 1]; None is of nothing."""

    total: Group
    by: dict[str, dict[str, Group]]
    confusion: dict[str, dict[str, int]]
    bins: tuple[Bin, ...]
    ece: float | None
    p50_ms: float | None
    p99_ms: float | None
    refused: int
    pairs_tier: Share
    pairs_domain: Share


GROUPINGS: dict[str, Callable[[Row], str]] = {
    "language": lambda row: row.language,
    "source": lambda row: row.source or "-",
    "domain": lambda row: row.domain or "-",
    "label_source": lambda row: row.label_source or "-",
    "templated": lambda row: {True: "yes", False: "no", None: "-"}[row.templated],
    "words": lambda row: _length(row.prompt),
}


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """Measure; an empty sequence gives empty shares."""
    labelled = [outcome for outcome in outcomes if outcome.row.domain]
    bins = reliability(
        [outcome.decided.classification.confidence for outcome in labelled],
        [outcome.domain_right for outcome in labelled],
    )
    took = [outcome.took_ms for outcome in outcomes]
    versions = list(pairs(outcomes))
    return Figures(
        total=group(outcomes),
        by={name: _grouped(outcomes, key) for name, key in GROUPINGS.items()},
        confusion=confusion((str(o.row.domain), o.decided.classification.domain) for o in labelled),
        bins=bins,
        ece=calibration_error(bins),
        p50_ms=float(np.percentile(took, 50)) if took else None,
        p99_ms=float(np.percentile(took, 99)) if took else None,
        refused=sum(outcome.decided.plan is None for outcome in outcomes),
        pairs_tier=share(one.tier == other.tier for one, other in versions),
        pairs_domain=share(
            one.decided.classification.domain == other.decided.classification.domain for one, other in versions
        ),
    )


def group(outcomes: Sequence[Outcome]) -> Group:
    """The shares of some outcomes."""
    return Group(
        n=len(outcomes),
        domain=share(outcome.domain_right for outcome in outcomes if outcome.row.domain),
        language=share(outcome.language_right for outcome in outcomes),
        tier=share(outcome.tier == outcome.row.tier for outcome in outcomes if outcome.row.tier),
    )


def pairs(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Outcome]]:
    """An English and a Spanish version of one question each, by `Row.pair_key`; the first of each language."""
    versions: dict[str, dict[str, Outcome]] = {}
    for outcome in outcomes:
        if key := outcome.row.pair_key:
            versions.setdefault(key, {}).setdefault(outcome.row.language, outcome)
    yield from ((found["en"], found["es"]) for found in versions.values() if len(found) == 2)


def _grouped(outcomes: Sequence[Outcome], key: Callable[[Row], str]) -> dict[str, Group]:
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(key(outcome.row), []).append(outcome)
    return {name: group(grouped[name]) for name in sorted(grouped)}


def _length(prompt: str) -> str:
    words = len(prompt.split())
    if words <= SHORT_WORDS:
        return f"1-{SHORT_WORDS}"
    return f"{SHORT_WORDS + 1}-{MEDIUM_WORDS}" if words <= MEDIUM_WORDS else f"{MEDIUM_WORDS + 1}+"


# ---------------------------------------------------------------- JSON


def as_json(measured: Figures) -> dict[str, Any]:
    """Accuracies and their intervals in percent, `ece` and bins in [0, 1], times in milliseconds."""
    return {
        **_group_json(measured.total),
        **{f"by_{name}": {k: _group_json(g) for k, g in groups.items()} for name, groups in measured.by.items()},
        "ece": rounded(measured.ece, 4),
        "ms": {"p50": rounded(measured.p50_ms, 2), "p99": rounded(measured.p99_ms, 2)},
        "bins": [
            {**vars(held), "confidence": round(held.confidence, 4), "accuracy": round(held.accuracy, 4)}
            for held in measured.bins
        ],
        "confusion": measured.confusion,
        "refused": measured.refused,
        "pairs": {
            "n": measured.pairs_tier.n,
            **share_json("same_tier", measured.pairs_tier),
            **share_json("same_domain", measured.pairs_domain),
        },
    }


def mistakes(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The rows that were not as labelled, without their text: label and what was said instead."""
    found = []
    for outcome in outcomes:
        row, said = outcome.row, outcome.decided.classification
        wrong = {
            "domain": (row.domain, said.domain),
            "language": (row.language, said.language),
            "tier": (row.tier, outcome.tier),
        }
        named = {name: list(both) for name, both in wrong.items() if both[0] is not None and both[0] != both[1]}
        if named:
            found.append({"id": row.id, **named, "confidence": round(said.confidence, 4)})
    return found


def _group_json(measured: Group) -> dict[str, Any]:
    values = {
        "n": measured.n,
        "domain_n": measured.domain.n,
        **share_json("domain_accuracy", measured.domain),
        **share_json("language_accuracy", measured.language),
    }
    if measured.tier.n:
        values |= {"tier_n": measured.tier.n, **share_json("tier_accuracy", measured.tier)}
    return values


def share_json(name: str, measured: Share) -> dict[str, Any]:
    """The share under its name and its interval beside it."""
    interval = measured.interval
    return {
        name: rounded(measured.percent, 2),
        f"{name}_interval": [round(bound, 2) for bound in interval] if interval else None,
    }


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
