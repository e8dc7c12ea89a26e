"""A decision explained: which signals spoke, how much, and what would have been decided without the strongest. Pure.

The weight of a signal is what it adds to the chosen domain: the log-odds of that domain's share with all signals, less
those without this one, from `classify.decide` itself. Nothing is explained that was not decided so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from capibara_agents.classify import LONG_CONTEXT_TOKENS, Decision, Reading, decide
from capibara_agents.outcome import explain
from capibara_agents.route import Situation, first_plan
from capibara_agents.texts import sentence
from capibara_agents.types import Classification, Domain, Language, Plan

Name = Literal["image", "length", "neighbours", "head", "words"]
# Log-odds beyond this say no more than certain.
CERTAIN = 10.0


@dataclass(frozen=True)
class Signal:
    """What spoke for or against the chosen domain. `weight` in log-odds, negative where it spoke against."""

    name: Name
    domain: Domain
    """What the signal itself points at."""
    weight: float


def signals(reading: Reading) -> tuple[Signal, ...]:
    """The signals of a decision, the strongest for the chosen domain first."""
    decided = _decided(reading)
    here = _log_odds(decided, decided.domain)
    found = [
        Signal(name, domain, round(here - _log_odds(_decided(_without(reading, name, domain)), decided.domain), 3))
        for name, domain in _named(reading)
    ]
    return tuple(sorted(found, key=lambda signal: -signal.weight))


def without(reading: Reading, signal: Signal) -> Classification:
    """What the question would have been taken for without one signal."""
    rest = _without(reading, signal.name, signal.domain)
    decided = _decided(rest)
    return reading.classification.model_copy(
        update={
            "domain": decided.domain,
            "confidence": decided.confidence,
            "complexity": decided.complexity,
            "neighbours": rest.neighbours,
        }
    )


def explained(reading: Reading, situation: Situation, plan: Plan, language: Language) -> dict[str, Any]:
    """The decision as JSON, with its signals and the decision without the strongest of them."""
    found = signals(reading)
    return {
        **explain(reading.classification, plan, language),
        "signals": [_shown(signal, language) for signal in found],
        "features": _features(reading),
        "without_strongest": _otherwise(reading, found[0], situation, language) if found else None,
    }


def _otherwise(reading: Reading, strongest: Signal, situation: Situation, language: Language) -> dict[str, Any]:
    classification = without(reading, strongest)
    plan = first_plan(replace(situation, classification=classification))
    told = explain(classification, plan, language)
    kept = ("domain", "confidence", "complexity", "complexity_level", "model", "tier", "mode", "models", "reason")
    return {"signal": _shown(strongest, language), **{key: told[key] for key in kept}}


def _shown(signal: Signal, language: Language) -> dict[str, Any]:
    words = sentence(f"signal.{signal.name}", language, domain=signal.domain)
    return {"name": signal.name, "domain": signal.domain, "weight": signal.weight, "text": words}


def _features(reading: Reading) -> dict[str, Any]:
    classification, prior = reading.classification, reading.prior
    likely = sorted(prior.items(), key=lambda pair: -pair[1])[:3] if prior else []
    return {
        "language_confidence": round(classification.language_confidence, 4),
        "reply_language": classification.reply_language,
        "structure": round(reading.features.structure, 4),
        "prompt_tokens": classification.prompt_tokens,
        "wants_json": classification.wants_json,
        "wants_tools": classification.wants_tools,
        "head": {domain: round(probability, 4) for domain, probability in likely} if prior else None,
    }


def _named(reading: Reading) -> list[tuple[Name, Domain]]:
    """The signals there are, each with the domain it points at."""
    features, prior = reading.features, reading.prior
    found: list[tuple[Name, Domain]] = []
    if features.image:
        found.append(("image", "vision"))
    if features.prompt_tokens >= LONG_CONTEXT_TOKENS:
        found.append(("length", "long_context"))
    if reading.neighbours:
        found.append(("neighbours", reading.neighbours[0].domain))
    if prior:
        found.append(("head", max(prior, key=lambda domain: prior[domain])))
    # What words speak against (negative evidence) is their absence, which nobody can take away.
    found.extend(("words", domain) for domain, weight in features.evidence.items() if weight > 0)
    return found


_REMOVE: dict[Name, Callable[[Reading, Domain], Reading]] = {
    "image": lambda r, _: replace(r, features=r.features.model_copy(update={"image": False})),
    "length": lambda r, _: replace(r, features=r.features.model_copy(update={"prompt_tokens": 0})),
    "neighbours": lambda r, _: replace(r, neighbours=()),
    "head": lambda r, _: replace(r, prior=None),
    "words": lambda r, domain: replace(
        r,
        features=r.features.model_copy(
            update={"evidence": {d: w for d, w in r.features.evidence.items() if d != domain}}
        ),
    ),
}


def _without(reading: Reading, name: Name, domain: Domain) -> Reading:
    return _REMOVE[name](reading, domain)


def _decided(reading: Reading) -> Decision:
    return decide(reading.neighbours, reading.features, reading.prior)


def _log_odds(decision: Decision, domain: Domain) -> float:
    share = decision.shares[domain]
    if share <= 0.0:
        return -CERTAIN
    if share >= 1.0:
        return CERTAIN
    return max(-CERTAIN, min(CERTAIN, math.log(share / (1.0 - share))))
