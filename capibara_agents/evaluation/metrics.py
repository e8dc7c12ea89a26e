"""Shares with intervals, confusion. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

Z_95 = NormalDist().inv_cdf(0.975)


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


def confusion(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Truth -> what was said instead or rightly -> how often; in the order of the labels."""
    counted = Counter(pairs)
    table: dict[str, dict[str, int]] = {}
    for truth, said in sorted(counted):
        table.setdefault(truth, {})[said] = counted[truth, said]
    return table
