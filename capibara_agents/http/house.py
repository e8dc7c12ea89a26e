"""What the faces need of the house, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.messages import BaseMessage

from capibara_agents.models import Models
from capibara_agents.runnable import GraphRunnable
from capibara_agents.settings import Settings
from capibara_agents.types import Classification, Fleet, Plan, Request


class House(Protocol):
    """The parts of one Capibara, made when first used."""

    settings: Settings

    @property
    def fleet(self) -> Fleet: ...
    @property
    def models(self) -> Models: ...
    @property
    def capibara(self) -> GraphRunnable: ...
    @property
    def graph(self) -> Any: ...

    def decide(self, messages: Sequence[BaseMessage], request: Request) -> tuple[Classification, Plan]:
        """Classify and route without generating anything."""
        ...
