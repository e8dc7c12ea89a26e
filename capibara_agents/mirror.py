"""What the exemplar store holds, in memory: its vectors as one matrix, so that neighbours are a product with it.

Over 3,373 exemplars the product takes 0.6 ms of a core where a query of Chroma takes 2.3, most of that on its way
through layers that do not depend on the number of exemplars; the cost of the product does (`MIRRORED`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from capibara_agents.embedder import DIMENSIONS, Vector
from capibara_agents.types import Domain, Neighbour

MIRRORED = 5_000
"""From so many exemplars on an index is not slower, and the matrix (2 kB each) is no longer small."""
DECIMALS = 6
"""Scores are rounded to what float32 tells apart, so that equal vectors are equal and ties are broken by id."""

Label = tuple[Domain, float]


def label_of(metadata: Mapping[str, Any]) -> Label:
    """Domain and complexity out of what the store keeps beside a vector."""
    return metadata["domain"], float(metadata["complexity"])


def by_score(ids: Sequence[str], scores: Sequence[float], labels: Sequence[Label], k: int) -> tuple[Neighbour, ...]:
    """The `k` best by falling score, ties by id."""
    rows = sorted(
        (-round(max(-1.0, min(1.0, float(score))), DECIMALS), identifier, label)
        for identifier, score, label in zip(ids, scores, labels, strict=True)
    )
    return tuple(
        Neighbour(id=identifier, score=-score, domain=label[0], complexity=label[1])
        for score, identifier, label in rows[:k]
    )


@dataclass(frozen=True)
class Mirror:
    """Exemplars' ids, labels and unit vectors, shape (n, 512), in the same order."""

    ids: tuple[str, ...]
    labels: tuple[Label, ...]
    vectors: Vector

    @classmethod
    def of(cls, ids: Sequence[str], labels: Sequence[Label], vectors: Sequence[Any]) -> Mirror:
        """Of vectors of any length above zero."""
        rows = np.asarray(vectors, dtype=np.float32).reshape(len(ids), DIMENSIONS)
        norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return cls(tuple(ids), tuple(labels), np.ascontiguousarray(rows / norms, dtype=np.float32))

    def with_rows(self, other: Mirror) -> Mirror:
        """These exemplars and the other's, which replace those of the same id."""
        rest = self.without(other.ids)
        vectors = np.concatenate([rest.vectors, other.vectors])
        return Mirror((*rest.ids, *other.ids), (*rest.labels, *other.labels), vectors)

    def without(self, ids: Iterable[str]) -> Mirror:
        """These exemplars but for some."""
        gone = set(ids)
        kept = [row for row, identifier in enumerate(self.ids) if identifier not in gone]
        if len(kept) == len(self.ids):
            return self
        return Mirror(tuple(self.ids[row] for row in kept), tuple(self.labels[row] for row in kept), self.vectors[kept])

    def nearest(self, vector: Vector, k: int) -> tuple[Neighbour, ...]:
        """At most `k` exemplars by falling cosine similarity to a unit vector, ties by id."""
        if not self.ids:
            return ()
        scores = np.round(self.vectors @ vector, DECIMALS)
        if k < len(self.ids):
            # All that are as near as the last one that has room: ids decide among them.
            least = np.partition(scores, -k)[-k]
            chosen = np.flatnonzero(scores >= least)
        else:
            chosen = np.arange(len(self.ids))
        return by_score(
            [self.ids[row] for row in chosen],
            scores[chosen].tolist(),
            [self.labels[row] for row in chosen],
            k,
        )


class Reflection:
    """What all stores of one folder in this process share: the mirror, and the right to write."""

    def __init__(self) -> None:
        self.write = threading.RLock()
        self.mirror: Mirror | None = None


_REFLECTIONS: WeakValueDictionary[Path, Reflection] = WeakValueDictionary()
_FINDING = threading.Lock()


def reflection_of(folder: Path) -> Reflection:
    """The folder's, which lives as long as one of its stores."""
    with _FINDING:
        return _REFLECTIONS.setdefault(folder.resolve(), Reflection())
