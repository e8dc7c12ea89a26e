"""Shares with intervals, calibration, confusion. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

Z_95 = NormalDist().inv_cdf(0.975)
BINS = 10


@dataclass(frozen=True)
class Share:
    """`hits` of `n`."""

    hits: int
    n: int

    @property
    def percent(self) -> float | None:
        """In percent; None of nothing."""
        return 100 * self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval (E. B. Wilson, JASA 22, 1927), in percent; None of nothing."""
        if not self.n:
            return None
        p, z2 = self.hits / self.n, Z_95 * Z_95
        centre = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = Z_95 / (1 + z2 / self.n) * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n * self.n))
        return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def share(hits: Iterable[bool]) -> Share:
    """How many of them are true."""
    counted = Counter(hits)
    return Share(counted[True], counted.total())


@dataclass(frozen=True)
class Bin:
    """The answers given with a confidence in (low, high], the first bin with 0 too; all in [0, 1]."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> tuple[Bin, ...]:
    """The bins of equal width that hold anything, by rising confidence."""
    edges = [(index + 1) / bins for index in range(bins - 1)]
    filled: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, right, strict=True):
        filled.setdefault(bisect_left(edges, confidence), []).append((confidence, hit))
    return tuple(
        Bin(
            low=index / bins,
            high=(index + 1) / bins,
            n=len(held),
            confidence=sum(confidence for confidence, _ in held) / len(held),
            accuracy=sum(hit for _, hit in held) / len(held),
        )
        for index, held in sorted(filled.items())
    )


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error in [0, 1] (Guo et al. 2017): gap of each bin, weighed by what it holds."""
    total = sum(held.n for held in bins)
    return sum(held.n * abs(held.accuracy - held.confidence) for held in bins) / total if total else None


def confusion(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Truth -> what was said instead or rightly -> how often; in the order of the labels."""
    counted = Counter(pairs)
    table: dict[str, dict[str, int]] = {}
    for truth, said in sorted(counted):
        table.setdefault(truth, {})[said] = counted[truth, said]
    return table
