"""In what questions differ where models differ: a fitted projection of signatures. Pure but for reading its numbers.

    contrast = [ subject: SUBJECT numbers | difficulty: DIFFICULTY numbers ]      each part of mean squared length 1

Sentence vectors put questions of one subject near each other only roughly, and say little of how hard they are. The
projection was fitted on which of many models answered public questions rightly and what subjects those were of; only
numbers ship, in `head_data/contrast.npz`. `head_data/CONTRAST.json` says what they were fitted on, and
`benchmarks/fit_contrast.py` fits them anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from capibara_agents.embedder import DIMENSIONS, Vector
from capibara_agents.npz import UNREADABLE
from capibara_agents.signature import FORM_SIZE, SIGNATURE_SIZE

log = logging.getLogger(__name__)

SUBJECT, DIFFICULTY = 24, 4
CONTRAST_SIZE = SUBJECT + DIFFICULTY
# One unit of the vector is to mean as much to the penalty of the fit as the standardised form does.
VECTOR_SCALE = 10.0
FORM_LIMIT = 4.0


@dataclass(frozen=True, eq=False)
class Contrast:
    """centre and scale (FORM_SIZE,), weights (SIGNATURE_SIZE, CONTRAST_SIZE), offset (CONTRAST_SIZE,)."""

    centre: Vector
    scale: Vector
    weights: Vector
    offset: Vector

    def __post_init__(self) -> None:
        shapes = (self.centre.shape, self.scale.shape, self.weights.shape, self.offset.shape)
        if shapes != ((FORM_SIZE,), (FORM_SIZE,), (SIGNATURE_SIZE, CONTRAST_SIZE), (CONTRAST_SIZE,)):
            raise ValueError(f"its numbers are of shapes {shapes}")

    def __call__(self, signatures: Vector) -> Vector:
        """The contrasts of signatures (questions, SIGNATURE_SIZE), shape (questions, CONTRAST_SIZE)."""
        result: Vector = columns(signatures, self.centre, self.scale) @ self.weights + self.offset
        return result


def columns(signatures: Vector, centre: Vector, scale: Vector) -> Vector:
    """What the projection weighs, shape of `signatures`, float32."""
    form = np.clip((signatures[:, DIMENSIONS:] - centre) / scale, -FORM_LIMIT, FORM_LIMIT)
    return np.hstack([VECTOR_SCALE * signatures[:, :DIMENSIONS], form]).astype(np.float32, copy=False)


@cache
def shipped_contrast() -> Contrast | None:
    """The projection of the package; None, with a warning, where its numbers do not fit this version's signatures."""
    file = resources.files("capibara_agents").joinpath("head_data", "contrast.npz")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            return Contrast(*(data[name].astype(np.float32) for name in ("centre", "scale", "weights", "offset")))
    except UNREADABLE as error:
        log.warning("The fitted contrast is not used: %s. Questions are near by meaning and form alone.", error)
        return None
