"""A fitted head: probabilities over domains from the vector of a question and what its text shows.

Multinomial logistic regression; only numbers ship, in `head_data/head.npz`. `head_data/PROVENANCE.json` says what
they were fitted on, and `benchmarks/fit_head.py` fits them anew.
"""

from __future__ import annotations

import logging
from importlib import resources
from typing import get_args

import numpy as np
import numpy.typing as npt

from capibara_agents.embedder import DIMENSIONS, Vector
from capibara_agents.features import SURFACE, Features
from capibara_agents.npz import UNREADABLE
from capibara_agents.types import Domain

log = logging.getLogger(__name__)

DOMAINS: tuple[Domain, ...] = get_args(Domain)
COLUMNS = DIMENSIONS + len(DOMAINS) + len(SURFACE) + 1
"""Of `columns`: the vector, evidence per domain, surface, and a constant."""

# One unit of each part of a row is to mean about as much to the penalty of the fit as one of another.
VECTOR_SCALE = 4.0
EVIDENCE_SCALE = 1 / 3


def columns(vector: Vector, features: Features) -> Vector:
    """What the head weighs, shape (COLUMNS,)."""
    evidence = [EVIDENCE_SCALE * features.evidence.get(domain, 0.0) for domain in DOMAINS]
    return np.concatenate((VECTOR_SCALE * vector, evidence, features.surface, (1.0,)), dtype=np.float32)


class Head:
    """Weights of shape (COLUMNS, number of domains)."""

    def __init__(self, weights: npt.NDArray[np.float32]) -> None:
        if weights.shape != (COLUMNS, len(DOMAINS)):
            raise ValueError(f"The head has weights of shape {weights.shape}, not {(COLUMNS, len(DOMAINS))}.")
        self._weights = weights

    @classmethod
    def shipped(cls) -> Head | None:
        """The head of the package; None, with a warning, where its numbers do not fit this version's features."""
        file = resources.files("capibara_agents").joinpath("head_data", "head.npz")
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
                if tuple(data["domains"]) != DOMAINS or tuple(data["surface"]) != SURFACE:
                    raise ValueError("it was fitted for other domains or features")
                return cls(data["weights"].astype(np.float32))
        except UNREADABLE as error:
            log.warning("The fitted head is not used: %s. Domains come from exemplars and features alone.", error)
            return None

    def __call__(self, vector: Vector, features: Features) -> dict[Domain, float]:
        """Probabilities over domains, summing to 1."""
        odds = columns(vector, features) @ self._weights
        powers = np.exp(odds - odds.max())
        return dict(zip(DOMAINS, (powers / powers.sum()).tolist(), strict=True))
