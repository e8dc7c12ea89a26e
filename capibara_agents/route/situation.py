"""All that a plan depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from capibara_agents.settings import Settings
from capibara_agents.types import Classification, Expectation, FleetSnapshot, Request


@dataclass(frozen=True)
class Situation:
    """A question, how it is to be answered, and the fleet at this moment."""

    classification: Classification
    request: Request
    settings: Settings
    fleet: FleetSnapshot
    expectations: Mapping[str, Expectation] = field(default_factory=dict)
    """What recorded outcomes let one expect of each model here, by id; a model without any is not in it."""
    admitted: tuple[str, ...] = ()
    """Voters whose vote is expected to beat the best of them alone; see vote/policy.py."""
    read_tokens: Mapping[str, int] = field(default_factory=dict)
    """Of this conversation, what each model's server has read and still holds; a model without any is not in it."""
    prefill_per_s: Mapping[str, float] = field(default_factory=dict)
    """Tokens of a prompt that a model reads in a second, where that was measured."""
