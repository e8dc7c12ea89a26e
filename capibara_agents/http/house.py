"""What the faces need of the house, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.messages import BaseMessage

from capibara_agents.classify import Classifier
from capibara_agents.conversations import Conversations
from capibara_agents.embedder import Embedder
from capibara_agents.exemplars import ExemplarStore
from capibara_agents.learning import Learning
from capibara_agents.metering import Metering
from capibara_agents.models import Models
from capibara_agents.runnable import GraphRunnable
from capibara_agents.settings import Settings
from capibara_agents.threads import Threads
from capibara_agents.types import Classification, Fleet, Language, Plan, Request


class House(Protocol):
    """The parts of one Capibara, made when first used."""

    settings: Settings

    @property
    def fleet(self) -> Fleet: ...
    @property
    def embedder(self) -> Embedder: ...
    @property
    def exemplars(self) -> ExemplarStore: ...
    @property
    def classifier(self) -> Classifier: ...
    @property
    def learning(self) -> Learning: ...
    @property
    def conversations(self) -> Conversations: ...
    @property
    def metering(self) -> Metering: ...
    @property
    def threads(self) -> Threads: ...
    @property
    def models(self) -> Models: ...
    @property
    def capibara(self) -> GraphRunnable: ...
    @property
    def graph(self) -> Any: ...

    def decide(self, messages: Sequence[BaseMessage], request: Request) -> tuple[Classification, Plan]:
        """Classify and route without generating anything."""
        ...

    def explain(
        self, messages: Sequence[BaseMessage], request: Request, language: Language | None = None
    ) -> dict[str, Any]:
        """As `decide`, as JSON with what spoke for it; the reason in the question's language unless one is given."""
        ...
