"""Picking one of several models for each question from recorded outcomes, on rows that were not learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capibara_agents.embedder import Vector
from capibara_agents.errors import ConfigError
from capibara_agents.evaluation.replay import RESAMPLES, Interval, score_of, signatures_of, split
from capibara_agents.expectations import Evidence, Fit, learned_beliefs
from capibara_agents.texts import phrase
from capibara_agents.types import Value

Array = npt.NDArray[np.floating[Any]]


class SelectionResult(Value):
    """What picking came to; all in [0, 1]. A missing answer counts as wrong.

    `gain` is the accuracy over that of the best single model of all rows, `oracle` the share of questions that any
    model answers.
    """

    n: int
    labels: int
    folds: int
    models: tuple[str, ...]
    singles: dict[str, float]
    accuracy: Interval
    gain: Interval
    oracle: float
    picked: dict[str, float]


def select(
    rows: Sequence[Mapping[str, Any]],
    *,
    models: Sequence[str],
    embed_many: Callable[[Sequence[str]], Vector],
    labels: int | None = None,
    folds: int = 5,
    seed: int = 0,
) -> SelectionResult:
    """Learn from `labels` rows outside each fold (None: all) and pick on the fold. ConfigError for too few rows."""
    if len(rows) < 2 * folds or folds < 2 or len(models) < 2:
        raise ConfigError(phrase("rows.too_few", rows=len(rows), models=len(models), folds=folds))
    scores = np.array([[score_of(row, model) for model in models] for row in rows])
    if np.isnan(scores).all(0).any():
        missing = [model for model, none in zip(models, np.isnan(scores).all(0), strict=True) if none]
        raise ConfigError(phrase("rows.no_outcome", models=", ".join(missing)))
    signatures = signatures_of(rows, embed_many)
    picks = picked(signatures, scores, folds=folds, labels=labels, seed=seed)
    used = max(len(train) for train, _ in split(len(rows), folds=folds, labels=labels, seed=seed))
    return _result(picks, np.nan_to_num(scores), tuple(models), (used, folds, seed))


def picked(signatures: Vector, scores: Array, *, folds: int, labels: int | None, seed: int) -> npt.NDArray[np.intp]:
    """The model, an index into the columns of `scores` (n, models), that is picked for each question."""
    picks = np.empty(len(scores), dtype=np.intp)
    for train, test in split(len(scores), folds=folds, labels=labels, seed=seed):
        names = [str(column) for column in range(scores.shape[1])]
        evidence = Evidence.complete(names, signatures[train], scores[train])
        learned = Fit.of(evidence, learned_beliefs(evidence)).expectations()
        picks[test] = learned.good(signatures[test]).argmax(1)
    return picks


def _result(
    picks: npt.NDArray[np.intp], scores: Array, models: tuple[str, ...], run: tuple[int, int, int]
) -> SelectionResult:
    labels, folds, seed = run
    mine = scores[np.arange(len(scores)), picks]
    best = scores[:, scores.mean(0).argmax()]
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(mine), len(mine)) for _ in range(RESAMPLES)]
    return SelectionResult(
        n=len(mine),
        labels=labels,
        folds=folds,
        models=models,
        singles={model: float(share) for model, share in zip(models, scores.mean(0), strict=True)},
        accuracy=_interval(mine, drawn),
        gain=_interval(mine - best, drawn),
        oracle=float(scores.max(1).mean()),
        picked={model: float((picks == column).mean()) for column, model in enumerate(models)},
    )


def _interval(values: Array, drawn: Sequence[npt.NDArray[np.integer[Any]]]) -> Interval:
    low, high = np.percentile([values[rows].mean() for rows in drawn], [2.5, 97.5])
    return Interval(value=float(values.mean()), low=float(low), high=float(high))
