"""Learning one question after another, as the product learns, in guarded batches; and how soon it is at its best.

Questions come in a random order. Either the outcomes of all models are recorded (`asked="all"`), or that of one model,
drawn by chance (`asked="one"`). After each batch the choice is measured on questions that are never learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capibara_agents.embedder import Vector
from capibara_agents.expectations import Beliefs, Chosen, Evidence, Fit, learned_beliefs, revisited
from capibara_agents.outcomes import GUARD, debt, replayed
from capibara_agents.types import Value

Array = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.intp]


class Step(Value):
    """Where learning stood. `accuracy` is that of the choice on unseen questions; `loss` what updates cost the past."""

    questions: int
    outcomes: int
    accuracy: float
    applied: bool
    loss: float


@dataclass(frozen=True, eq=False)
class Stream:
    """Scores (n, models) of questions, those that come (in this order) and those that measure."""

    signatures: Vector
    scores: Array
    arriving: Indices
    measuring: Indices

    @property
    def names(self) -> list[str]:
        return [str(column) for column in range(self.scores.shape[1])]

    def evidence(self, rows: Indices, scores: Array) -> Evidence:
        """What is known after these rows, of which `scores` (n, models; NaN: not asked) were recorded."""
        return Evidence.complete(self.names, self.signatures[rows], scores[rows])


def learn(
    stream: Stream, *, questions: int, batch: int = 50, asked: Literal["all", "one"] = "all", seed: int = 0
) -> tuple[Step, ...]:
    """Let `questions` questions come in batches, each applied unless the guard refuses it."""
    recorded = _recorded(stream.scores, asked, seed)
    kept: Indices = np.empty(0, dtype=np.intp)
    fit: Fit | None = None
    chosen = Chosen()
    steps: list[Step] = []
    paid: list[tuple[float, float]] = []
    for start in range(0, questions, batch):
        wanted = np.concatenate([kept, stream.arriving[start : min(start + batch, questions)]])
        evidence = stream.evidence(wanted, recorded)
        revised = revisited(evidence, chosen)
        after = Fit.of(evidence, revised.beliefs)
        weighed = (0.0, 0.0)
        if fit is not None:
            past = stream.evidence(kept, recorded)
            weighed = replayed(past, fit.left_out(past.asked), after.left_out(past.asked))
        applied = weighed[0] <= weighed[1] or debt([*paid, weighed]) <= GUARD
        if applied:
            kept, fit, chosen = wanted, after, revised
            paid.append(weighed)
        steps.append(
            Step(
                questions=min(start + batch, questions),
                outcomes=int((~np.isnan(recorded[kept])).sum()),
                accuracy=accuracy(fit, stream) if fit else 0.0,
                applied=applied,
                loss=debt(paid),
            )
        )
    return tuple(steps)


def offline(stream: Stream, beliefs: Beliefs | None = None) -> float:
    """The accuracy after learning from all that arrives, at once and with all outcomes."""
    evidence = stream.evidence(stream.arriving, stream.scores)
    return accuracy(Fit.of(evidence, beliefs or learned_beliefs(evidence)), stream)


def best_single(stream: Stream) -> float:
    """The accuracy of the model that is best on what arrives, on what measures."""
    best = np.nanmean(stream.scores[stream.arriving], axis=0).argmax()
    return float(np.nan_to_num(stream.scores[stream.measuring, best]).mean())


def accuracy(fit: Fit, stream: Stream) -> float:
    """Of the choice on what measures; a missing answer counts as wrong."""
    chosen = fit.expectations().good(stream.signatures[stream.measuring]).argmax(1)
    return float(np.nan_to_num(stream.scores[stream.measuring, chosen]).mean())


def recovered(online: Sequence[float], full: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Share of the offline gain that learning recovered, over all runs, with its 95 % bootstrap interval."""
    gains, limits = np.array(online), np.array(full)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(gains), len(gains)) for _ in range(1000)]
    shares = [gains[rows].mean() / limits[rows].mean() for rows in drawn if limits[rows].mean() > 0]
    low, high = np.percentile(shares, [2.5, 97.5]) if shares else (float("nan"), float("nan"))
    return float(gains.mean() / limits.mean()), float(low), float(high)


def _recorded(scores: Array, asked: Literal["all", "one"], seed: int) -> Array:
    if asked == "all":
        return scores
    one = np.full_like(scores, np.nan)
    at = np.arange(len(scores)), np.random.default_rng(seed).integers(0, scores.shape[1], len(scores))
    one[at] = scores[at]
    return one
