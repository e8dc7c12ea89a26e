"""All that the graph's nodes use, in one value; what a plan depends on is put together here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage

from capibara_agents import planning
from capibara_agents.classify import Classifier
from capibara_agents.embedder import Embedder
from capibara_agents.models import Models
from capibara_agents.route import Situation
from capibara_agents.settings import Settings
from capibara_agents.templates import apply as apply_template
from capibara_agents.types import Ballot, Candidate, Classification, Expectation, Fleet, Plan, Request, Verdict
from capibara_agents.verify import sandbox
from capibara_agents.verify.behaviour import Runner
from capibara_agents.vote import VoteWeights


@dataclass(frozen=True)
class Services:
    """Its methods are safe to call from any thread."""

    settings: Settings
    fleet: Fleet
    classifier: Classifier
    embedder: Embedder
    models: Models
    expect: Callable[[Classification], Mapping[str, Expectation]] = lambda _: {}
    """What recorded outcomes let one expect of each model on a question."""
    weights: Callable[[], VoteWeights] = VoteWeights
    """What recorded votes taught of the voters; learned at the first call."""
    runner: Runner = sandbox
    """Where code is run."""
    cores: int = os.cpu_count() or 1
    ended: Callable[[Classification, Sequence[Candidate], Ballot, Verdict], None] = lambda *_: None
    """Told of every run that is over; never waits, never raises."""

    def situation(self, classification: Classification, messages: Sequence[BaseMessage], request: Request) -> Situation:
        """What a plan depends on, as it is now. Of a long conversation (`affinity.takes_long`) work for a thread."""
        fleet, affinity = self.fleet.snapshot(), self.models.affinity
        as_sent = apply_template(request.template, messages, classification.reply_language)
        return planning.situation_of(
            classification,
            request,
            self.settings,
            fleet,
            expectations=self.expect(classification),
            learned=self.weights(),
            read_tokens=affinity.read(as_sent, request.sampling, fleet),
            prefill_per_s=affinity.speeds(),
        )

    def first_plan(self, situation: Situation) -> Plan:
        """Who is asked first. Raises UnknownModel, BadQuestion, ContextTooLong."""
        return planning.first_plan(situation, self.weights(), self.cores)

    def decide(self, messages: Sequence[BaseMessage], request: Request) -> tuple[Classification, Plan]:
        """Classify and route without generating anything. Raises as `first_plan`."""
        classification = self.classifier.classify(messages, request.sampling)
        return classification, self.first_plan(self.situation(classification, messages, request))
