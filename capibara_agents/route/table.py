"""The tier that should answer, before anything has been recorded: domain x level, and what quality changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from capibara_agents.types import Classification, Domain, Level, Tier

# The tier that answers a domain at each level of complexity (simple, medium, complex).
TABLE: dict[Domain, tuple[Tier, Tier, Tier]] = {
    "chitchat": ("fast_response", "fast_response", "general"),
    "factual_qa": ("fast_response", "general", "complex"),
    "translation": ("general", "general", "general"),
    "summarization": ("general", "general", "general"),
    "creative_writing": ("general", "general", "general"),
    "coding": ("balanced", "balanced", "complex"),
    "sql": ("balanced", "balanced", "complex"),
    "math": ("complex", "complex", "complex"),
    "logic_reasoning": ("complex", "complex", "complex"),
    "long_context": ("multimodal", "multimodal", "multimodal"),
    "vision": ("multimodal", "multimodal", "multimodal"),
    # What is asked of no kind and is not simple is mostly analysis, comparison and planning.
    "other": ("fast_response", "complex", "complex"),
}
# The tier that answers a domain best, whatever it takes.
BEST: dict[Domain, Tier] = {
    "chitchat": "general",
    "factual_qa": "multimodal",
    "translation": "multimodal",
    "summarization": "multimodal",
    "creative_writing": "multimodal",
    "coding": "complex",
    "sql": "complex",
    "math": "complex",
    "logic_reasoning": "complex",
    "long_context": "multimodal",
    "vision": "multimodal",
    "other": "complex",
}
LEVELS: tuple[Level, Level, Level] = ("simple", "medium", "complex")
# From the weakest to the strongest. The balanced tier is a small model made for programs and is worth more there; at
# images and long texts none is above the one made for them.
LADDER: tuple[Tier, ...] = ("balanced", "fast_response", "general", "multimodal", "complex")
PROGRAMMING: tuple[Tier, ...] = ("fast_response", "balanced", "general", "multimodal", "complex")
READING: tuple[Tier, ...] = ("balanced", "fast_response", "general", "complex", "multimodal")
LADDERS: dict[Domain, tuple[Tier, ...]] = {
    "coding": PROGRAMMING,
    "sql": PROGRAMMING,
    "long_context": READING,
    "vision": READING,
}
# Below this confidence in the domain the choice is not left to the domain alone.
UNSURE = 0.45
SAFE: Tier = "general"
# So many of the nearest exemplars have a say in whether a doubt about the domain is one about the tier.
NEAREST = 5


@dataclass(frozen=True)
class Wanted:
    """The tier that should answer, and the code of what made it so."""

    tier: Tier
    because: Literal["route.table", "route.quality", "route.unsure"]


def wanted(classification: Classification, quality: Literal["fast", "balanced", "best"]) -> Wanted:
    """The tier of the table; `fast` asks as if the question were simple, `best` takes the strongest for its domain.

    When the domain is unsure (confidence below UNSURE) and the nearest exemplars do not all lead to the same tier, a
    weaker tier than the general one gives way to it.
    """
    usual = TABLE[classification.domain][LEVELS.index(classification.complexity_level)]
    if quality == "best":
        best = BEST[classification.domain]
        return Wanted(best, "route.table" if best == usual else "route.quality")
    tier = TABLE[classification.domain][0] if quality == "fast" else usual
    if is_doubtful(classification) and _is_weaker(tier, SAFE, classification.domain):
        return Wanted(SAFE, "route.unsure")
    return Wanted(tier, "route.table" if tier == usual else "route.quality")


def is_doubtful(classification: Classification) -> bool:
    """Whether the domain is unsure in a way that matters for the tier."""
    if classification.confidence >= UNSURE:
        return False
    level = LEVELS.index(classification.complexity_level)
    near = {TABLE[neighbour.domain][level] for neighbour in classification.neighbours[:NEAREST]}
    return near != {TABLE[classification.domain][level]}


def ladder(domain: Domain) -> tuple[Tier, ...]:
    """The tiers from weakest to strongest at a domain."""
    return LADDERS.get(domain, LADDER)


def _is_weaker(tier: Tier, other: Tier, domain: Domain) -> bool:
    rungs = ladder(domain)
    return rungs.index(tier) < rungs.index(other)
