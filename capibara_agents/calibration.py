"""Whether a confidence means what it says: bins of confidence, and their gap to what proved right. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

BINS = 10


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
