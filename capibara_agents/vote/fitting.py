"""Maximum a posteriori weights of a conditional logit, by Newton's method. Pure linear algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

STEPS, HALVINGS, GAIN = 25, 12, 1e-2


@dataclass(frozen=True, eq=False)
class Choices:
    """n alternatives of b ballots, in the ballots' order, d columns; every ballot has at least one right alternative.

    matrix (n, d), ballot (n,) rising from 0, right (n,) in {0, 1}, precision (d,): of the Gaussian prior around 0;
    offset (n,): log-odds that are given beforehand.
    """

    names: tuple[str, ...]
    matrix: Array
    ballot: npt.NDArray[np.intp]
    right: Array
    precision: Array
    offset: Array | None = None


def fit(choices: Choices) -> Array:
    """The weights (d,) with the greatest posterior density, to GAIN nats."""
    x = choices.matrix
    starts = _starts(choices)
    target = choices.right / np.add.reduceat(choices.right, starts)[choices.ballot]
    theta = np.zeros(x.shape[1])
    chances = probabilities(choices, theta)
    before = _posterior(choices, target, chances, theta)
    for _ in range(STEPS):
        gradient = x.T @ (target - chances) - choices.precision * theta
        weighted = x * chances[:, None]
        means = np.add.reduceat(weighted, starts)
        curvature = x.T @ weighted - means.T @ means
        curvature[np.diag_indices_from(curvature)] += choices.precision
        step = np.linalg.solve(curvature, gradient)
        for _ in range(HALVINGS):
            tried = probabilities(choices, theta + step)
            after = _posterior(choices, target, tried, theta + step)
            if after >= before:
                break
            step = step / 2
        else:
            return theta
        theta, chances, gained, before = theta + step, tried, after - before, after
        if gained < GAIN:
            break
    return theta


def probabilities(choices: Choices, theta: Array) -> Array:
    """Of each alternative within its ballot, (n,)."""
    scores, starts = choices.matrix @ theta, _starts(choices)
    if choices.offset is not None:
        scores = scores + choices.offset
    scores -= np.maximum.reduceat(scores, starts)[choices.ballot]
    shares: Array = np.exp(scores)
    return shares / np.add.reduceat(shares, starts)[choices.ballot]


def _posterior(choices: Choices, target: Array, chances: Array, theta: Array) -> float:
    likelihood = target @ np.log(np.maximum(chances, 1e-300))
    return float(likelihood - 0.5 * choices.precision @ (theta * theta))


def _starts(choices: Choices) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.diff(choices.ballot, prepend=-1))
