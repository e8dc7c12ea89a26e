"""Choosing between a strong and a weak model from recorded outcomes, replayed on rows that were not learned from.

Accuracy is drawn against the share of questions that go to the strong model, those first for which the learned gain
P(strong right) - P(weak right) is largest. As in RouteLLM (Ong et al., 2024, arXiv:2406.18665; the repository's
routellm/evals/evaluate.py):

    PGR  = (accuracy - weak) / (strong - weak)            performance gap recovered
    APGR = area under PGR over the share of strong calls   0.5 for chance, by trapezoids
    CPT  = the least share of strong calls that recovers 50 % or 80 % of the gap

Every threshold is a point of the curve here, where the original draws ten. Each fold is an evaluation of its own;
figures are means over folds, intervals bootstrap the questions of each fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capibara_agents.embedder import Vector
from capibara_agents.errors import ConfigError
from capibara_agents.expectations import Evidence, Fit, learned_beliefs
from capibara_agents.signature import signature
from capibara_agents.texts import phrase
from capibara_agents.types import Value

Array = npt.NDArray[np.floating[Any]]
RESAMPLES = 1000
POINTS = 51
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BATCH = 64


class Interval(Value):
    """A figure with its 95 % bootstrap interval over questions."""

    value: float
    low: float
    high: float


class Point(Value):
    """One point of the curve; both lie in [0, 1]."""

    strong_share: float
    accuracy: float


class _Run(Value):
    strong: str
    weak: str
    labels: int
    folds: int
    seed: int


class ReplayResult(Value):
    """What choosing came to. `cpt50` and `cpt80` are shares of strong calls in [0, 1]."""

    n: int
    labels: int
    folds: int
    strong: str
    weak: str
    strong_accuracy: float
    weak_accuracy: float
    apgr: Interval
    cpt50: Interval
    cpt80: Interval
    curve: tuple[Point, ...]


def prompt_of(row: Mapping[str, Any]) -> str:
    """The question as a model is asked it: with its options, where the row keeps them apart."""
    options = row.get("options") or ()
    return "\n".join(
        [str(row["prompt"]), *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))]
    )


def score_of(row: Mapping[str, Any], model: str) -> float:
    """1 for a right answer, 0 for a wrong one, NaN where the row has none of this model.

    Reads `{model: bool}` as well as `{answers: [{model, correct}]}`.
    """
    if model in row:
        return float(row[model])
    for answer in row.get("answers") or ():
        if answer.get("model") == model:
            return float(bool(answer.get("correct")))
    return float("nan")


def signatures_of(rows: Sequence[Mapping[str, Any]], embed_many: Callable[[Sequence[str]], Vector]) -> Vector:
    """The signatures of the rows' questions, shape (rows, SIGNATURE_SIZE)."""
    texts = [prompt_of(row) for row in rows]
    parts: list[Vector] = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        parts.extend(signature(text, vector) for text, vector in zip(batch, embed_many(batch), strict=True))
    return np.stack(parts)


def replay(
    rows: Sequence[Mapping[str, Any]],
    *,
    strong: str,
    weak: str,
    embed_many: Callable[[Sequence[str]], Vector],
    labels: int | None = None,
    folds: int = 5,
    seed: int = 0,
) -> ReplayResult:
    """Learn from `labels` rows outside each fold (None: all of them) and choose on the fold.

    Rows that lack one of the models are left out. ConfigError when fewer than two a fold are left, or when the strong
    model is no better than the weak one.
    """
    scores = np.array([[score_of(row, weak), score_of(row, strong)] for row in rows]).reshape(-1, 2)
    known = ~np.isnan(scores).any(1)
    _check(rows, scores[known], strong, weak, folds)
    kept = [row for row, both in zip(rows, known, strict=True) if both]
    signatures, scores = signatures_of(kept, embed_many), scores[known]
    ranks = ranked(signatures, scores, folds=folds, labels=labels, seed=seed)
    used = max(len(train) for train, _ in split(len(kept), folds=folds, labels=labels, seed=seed))
    return _result(ranks, scores, _Run(strong=strong, weak=weak, labels=used, folds=folds, seed=seed))


def ranked(signatures: Vector, scores: Array, *, folds: int, labels: int | None, seed: int) -> Array:
    """Each question's place in [0, 1] within its fold, those first for whom the strong model is expected to gain most.

    scores (n, 2): of the weak and the strong model. Places and not gains, because each fold learns from other rows.
    """
    places = np.empty(len(scores))
    for train, test in split(len(scores), folds=folds, labels=labels, seed=seed):
        evidence = Evidence.complete(("weak", "strong"), signatures[train], scores[train])
        good = Fit.of(evidence, learned_beliefs(evidence)).expectations().good(signatures[test])
        places[test] = _places(good[:, 1] - good[:, 0])
    return places


def split(
    count: int, *, folds: int, labels: int | None, seed: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Training rows (at most `labels`, drawn by chance) and the rows of each fold."""
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(count), folds)
    for fold, test in enumerate(parts):
        rest = np.concatenate([part for other, part in enumerate(parts) if other != fold])
        yield rng.permutation(rest)[:labels], test


def _check(rows: Sequence[Any], scores: Array, strong: str, weak: str, folds: int) -> None:
    if folds < 2 or len(scores) < 2 * folds:
        needed = {"strong": strong, "weak": weak, "folds": folds, "least": 2 * max(2, folds)}
        raise ConfigError(phrase("rows.too_few_of_both", count=len(scores), rows=len(rows), **needed))
    if scores[:, 1].mean() <= scores[:, 0].mean():
        raise ConfigError(phrase("rows.no_gap", strong=strong, weak=weak))


def _places(gain: Array) -> Array:
    places = np.empty(len(gain))
    places[np.argsort(-gain, kind="stable")] = (np.arange(len(gain)) + 0.5) / len(gain)
    return places


def pgr_curve(ranks: Array, gain: Array) -> Array:
    """Performance gap recovered after each of 0 … n strong calls, by rising rank."""
    total = gain.sum()
    curve: Array = np.concatenate([[0.0], np.cumsum(gain[np.argsort(ranks, kind="stable")])]) / total
    return curve


def figures(ranks: Array, gain: Array) -> tuple[float, float, float]:
    """APGR, CPT(50 %), CPT(80 %)."""
    curve = pgr_curve(ranks, gain)
    n = len(gain)
    area = float((curve[1:] + curve[:-1]).sum() / (2 * n))
    return area, float(np.argmax(curve >= 0.5)) / n, float(np.argmax(curve >= 0.8)) / n


def _mean_figures(ranks: Array, gain: Array, folds: Sequence[npt.NDArray[np.intp]]) -> tuple[float, float, float]:
    """The figures of each fold by itself, and their mean; folds in which the weak model wins have no gap, so none."""
    found = [figures(ranks[rows], gain[rows]) for rows in folds if gain[rows].sum() > 0]
    area, half, most = np.mean(found, axis=0) if found else (np.nan, np.nan, np.nan)
    return float(area), float(half), float(most)


def _result(ranks: Array, scores: Array, run: _Run) -> ReplayResult:
    gain = scores[:, 1] - scores[:, 0]
    tests = [test for _, test in split(len(gain), folds=run.folds, labels=run.labels, seed=run.seed)]
    rng = np.random.default_rng(run.seed)
    drawn = [[rng.choice(test, len(test)) for test in tests] for _ in range(RESAMPLES)]
    samples = np.array([_mean_figures(ranks, gain, rows) for rows in drawn])
    lows, highs = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    intervals = [
        Interval(value=value, low=float(low), high=float(high))
        for value, low, high in zip(_mean_figures(ranks, gain, tests), lows, highs, strict=True)
    ]
    curve = pgr_curve(ranks, gain) * gain.mean() + scores[:, 0].mean()
    places = np.linspace(0, len(gain), POINTS).round().astype(int)
    return ReplayResult(
        n=len(gain),
        labels=run.labels,
        folds=run.folds,
        strong=run.strong,
        weak=run.weak,
        strong_accuracy=float(scores[:, 1].mean()),
        weak_accuracy=float(scores[:, 0].mean()),
        apgr=intervals[0],
        cpt50=intervals[1],
        cpt80=intervals[2],
        curve=tuple(Point(strong_share=float(p) / len(gain), accuracy=float(curve[p])) for p in places),
    )
