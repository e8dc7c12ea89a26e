"""Everything that reads several answers: whole ballots, how a vote stands, who is asked next. Never on the loop.

Reading an answer takes up to 20 ms (a long program, an expression), embedding one about 10 ms.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from capibara_agents import vote as voting
from capibara_agents.embedder import Embedder, Vector
from capibara_agents.graphs.panel import Standing
from capibara_agents.graphs.state import runs_of
from capibara_agents.types import Ballot, Candidate, Plan, Request

KEPT_VECTORS = 64


@dataclass(frozen=True)
class Vote:
    """What is voted on, by whom, and how it is to be counted; `settled`: what running the question's code gave."""

    plan: Plan
    request: Request
    matter: voting.Matter
    settled: str


class Counting:
    """Blocks; to be called from threads, and safe to share between them."""

    def __init__(self, embedder: Embedder, weights: Callable[[], voting.VoteWeights]) -> None:
        self._weights = weights
        self._likeness = Likeness(embedder)

    def ballot(self, vote: Vote, candidates: Sequence[Candidate]) -> Ballot:
        """The ballot over these candidates."""
        return voting.count(
            candidates,
            matter=vote.matter,
            method=vote.request.voting,
            weights=vote.plan.weights,
            similarity=lambda: self._likeness.between([c.content for c in candidates if c.has_answer]),
            learned=self._weights(),
            runs=runs_of(candidates, vote.matter.question, vote.settled),
        )

    def standing(self, vote: Vote, candidates: Sequence[Candidate]) -> Standing:
        """How a vote stands, and whether the voters who have not answered yet can, and are expected to, change it."""
        answered = sum(c.has_answer for c in candidates)
        agreement = self.ballot(vote, candidates).agreement if answered else None
        return Standing(answered, agreement, is_decided=self.next_voter(vote, candidates) is None)

    def next_voter(self, vote: Vote, heard: Sequence[Candidate]) -> str | None:
        """The voter to ask now; None when asking on does not pay."""
        plan, request = vote.plan, vote.request
        runs = runs_of(heard, vote.matter.question, vote.settled)
        remaining = [voter for voter in plan.models if voter not in {c.voter for c in heard}]
        if runs.refuted and not runs.proven and remaining:
            # What was tried is wrong: the next one may be right, whatever the others' number.
            return remaining[0]
        learned = self._weights()
        worth = voting.words(
            plan.models,
            heard,
            method=request.voting,
            weights=plan.weights,
            learned=learned,
            runs=runs,
            domain=vote.matter.domain,
        )
        return voting.next_voter(
            voting.said(heard, vote.matter, runs=runs),
            remaining,
            voting.deciding(request.voting, runs, learned),
            prior=worth,
            min_voters=min(max(request.min_voters, request.choices), len(plan.models)),
        )


class Likeness:
    """Cosine similarities of texts; the vectors of the last ones are kept, for a vote that goes on."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._kept: OrderedDict[str, Vector] = OrderedDict()
        self._door = threading.Lock()

    def between(self, texts: Sequence[str]) -> list[list[float]] | None:
        """similarity[i][j] in [-1, 1]; None for fewer than two texts."""
        if len(texts) < 2:
            return None
        with self._door:
            known = {text: self._kept[text] for text in texts if text in self._kept}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known |= dict(zip(new, self._embedder.embed_many(new), strict=True))
            self._keep({text: known[text] for text in new})
        rows = np.stack([known[text] for text in texts])
        similarity: list[list[float]] = (rows @ rows.T).tolist()
        return similarity

    def _keep(self, new: dict[str, Vector]) -> None:
        with self._door:
            self._kept |= new
            while len(self._kept) > KEPT_VECTORS:
                self._kept.popitem(last=False)
