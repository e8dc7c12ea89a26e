"""What recorded outcomes let one expect of each model on a question. Pure linear algebra; no store, no clock.

Each model's score on a question x is a Gaussian process over questions (Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006, ch. 2; several models at once: Bonilla et al., Multi-task GP prediction, 2007):

    score(x, m) = mean + level_m + f_m(x) + noise         cov(f_m(x), f_n(y)) = (shared + own [m = n]) k(x, y)

    k = joint k_meaning k_form + (1 - joint) (k_meaning + k_form) / 2        k_meaning, k_form: squared exponentials

Meaning is the sentence vector, and beside it what `contrast.py` makes of the signature: subject and difficulty.

So a few outcomes move a model's level, and many move it near questions of like meaning and like form. What all models
have in common, how hard the question is, is learned from all of them. k is held by landmarks, questions that have
outcomes (Nyström), so that asking costs the same however many outcomes there are; below the limit it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from capibara_agents.contrast import shipped_contrast
from capibara_agents.embedder import DIMENSIONS
from capibara_agents.signature import SIGNATURE_SIZE
from capibara_agents.types import Expectation

Array = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.intp]

COEFFICIENTS = 3000
"""At most so many weights are learned, over all models: a fit takes seconds and memory by their square."""
LANDMARKS = 1500


@dataclass(frozen=True)
class Beliefs:
    """What is believed before any outcome: variances of scores in [0, 1], and how far is near."""

    meaning: float = 0.8
    form: float = 1.2
    contrast: float = 0.8
    joint: float = 1.0
    shared: float = 0.03
    own: float = 0.01
    shared_level: float = 0.04
    own_level: float = 0.02
    noise: float = 0.2


BELIEFS = Beliefs()
CANDIDATES = tuple(Beliefs(own=own, joint=joint) for own in (0.03, 0.01, 0.003, 0.001) for joint in (1.0, 0.4))
"""What is learned of a fleet before all else: how much its models differ from question to question."""
TRIED = 1500
"""So many weights are learned when beliefs are compared."""
COMPARED, MEASURED = 30, 1500
"""Beliefs are compared by questions that several models answered from so many on; no more than so many are measured."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """n outcomes on q questions.

    signatures (q, SIGNATURE_SIZE); of each outcome its question, its model (an index into `models`), its score in
    [0, 1], the noise it is counted with (1 for an exact one) and its seconds (NaN where unknown).
    """

    models: tuple[str, ...]
    signatures: Array
    question: Indices
    model: Indices
    score: Array
    noise: Array
    seconds: Array

    @cached_property
    def asked(self) -> Indices:
        """The questions that have outcomes, in order."""
        return np.unique(self.question)

    @classmethod
    def complete(cls, models: Sequence[str], signatures: Array, scores: Array) -> Evidence:
        """Evidence of a table of scores (q, models); NaN where a model was not asked."""
        question, model = np.nonzero(~np.isnan(scores))
        n = len(question)
        return cls(
            models=tuple(models),
            signatures=signatures,
            question=question,
            model=model,
            score=np.asarray(scores, dtype=np.float64)[question, model],
            noise=np.ones(n),
            seconds=np.full(n, np.nan),
        )


def empty_evidence(models: Sequence[str]) -> Evidence:
    """No outcomes of these models."""
    return Evidence.complete(models, np.empty((0, SIGNATURE_SIZE), dtype=np.float32), np.empty((0, len(models))))


@dataclass(frozen=True, eq=False)
class Placed:
    """Questions where they lie in a space, meaning and form apart, both in units of what is near."""

    meaning: Array
    form: Array

    def __getitem__(self, rows: Indices) -> Placed:
        return Placed(self.meaning[rows], self.form[rows])

    def __len__(self) -> int:
        return len(self.meaning)

    @cached_property
    def squares(self) -> tuple[Array, Array]:
        """Squared lengths of the rows."""
        return (self.meaning * self.meaning).sum(1), (self.form * self.form).sum(1)


@dataclass(frozen=True, eq=False)
class _Space:
    """Where questions are near each other: the kernel k of the module's docstring."""

    centre: Array
    scale: Array
    beliefs: Beliefs

    @classmethod
    def of(cls, signatures: Array, beliefs: Beliefs) -> _Space:
        form = np.asarray(signatures[:, DIMENSIONS:], dtype=np.float64)
        if not len(form):
            form = np.zeros((1, form.shape[1]))
        # A floor, so that a mark that has hardly been seen does not put its question out of all reach.
        return cls(form.mean(0), np.maximum(form.std(0), 0.05), beliefs)

    def place(self, signatures: Array) -> Placed:
        form = np.clip((signatures[:, DIMENSIONS:] - self.centre) / self.scale, -4, 4)
        form *= 1 / (self.beliefs.form * np.sqrt(form.shape[1]))
        parts = [signatures[:, :DIMENSIONS] / self.beliefs.meaning]
        contrast = shipped_contrast()
        if contrast is not None and signatures.shape[1] == SIGNATURE_SIZE:
            parts.append(contrast(signatures) / self.beliefs.contrast)
        return Placed(np.hstack(parts).astype(np.float32), form.astype(np.float32))

    def nearness(self, x: Placed, landmarks: Placed) -> Array:
        """k between the rows of `x` and of `landmarks`."""
        meaning = _distances(x.squares[0], landmarks.squares[0], x.meaning @ landmarks.meaning.T)
        form = _distances(x.squares[1], landmarks.squares[1], x.form @ landmarks.form.T)
        joint = self.beliefs.joint
        near: Array = joint * np.exp(-0.5 * (meaning + form))
        if joint < 1:
            near += (1 - joint) / 2 * (np.exp(-0.5 * meaning) + np.exp(-0.5 * form))
        return near.astype(np.float64)


def _distances(x_squares: Array, y_squares: Array, products: Array) -> Array:
    """Squared distances between the rows of x and of y."""
    squares: Array = x_squares[:, None] + y_squares[None] - 2 * products
    return np.maximum(0, squares)


@dataclass(frozen=True, eq=False)
class Expectations:
    """A fit. `expect` costs one product with the landmarks; all else is precomputed."""

    models: tuple[str, ...]
    beliefs: Beliefs
    outcomes: int
    _space: _Space
    _landmarks: Placed
    _levels: Array
    _weights: Array
    _support: Array
    _timed: Array
    _log_seconds: Array
    _mean_log_seconds: Array

    @property
    def signature_size(self) -> int:
        return DIMENSIONS + len(self._space.centre)

    def good(self, signatures: Array) -> Array:
        """Expected scores (questions, models), in [0, 1] but for a little beyond."""
        near = self._space.nearness(self._space.place(signatures), self._landmarks)
        values: Array = self._levels + near @ self._weights
        return values

    def expect(self, signature: Array) -> dict[str, Expectation]:
        """What to expect of each model that has outcomes, on the question of one signature (SIGNATURE_SIZE,)."""
        near = self._space.nearness(self._space.place(signature[None]), self._landmarks)[0]
        good = np.clip(self._levels + near @ self._weights, 0, 1)
        support = np.maximum(0, near @ self._support)
        timed = np.maximum(0, near @ self._timed)
        logs = (self._mean_log_seconds + near @ self._log_seconds) / (1 + timed)
        return {
            model: Expectation(
                good=float(good[m]),
                support=float(support[m]),
                seconds=None if np.isnan(logs[m]) else float(np.exp(logs[m])),
            )
            for m, model in enumerate(self.models)
        }


@dataclass(frozen=True, eq=False)
class Fit:
    """A Bayesian regression of scores on features = [landmark coordinates, 1], with one weight vector a model."""

    evidence: Evidence
    beliefs: Beliefs
    space: _Space
    landmarks: Placed
    to_landmarks: Array
    features: Array
    prior: Array
    system: Array
    target: Array
    weights: Array

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        beliefs: Beliefs = BELIEFS,
        prior: Mapping[str, float] | None = None,
        *,
        coefficients: int = COEFFICIENTS,
    ) -> Fit:
        """`prior` gives expected scores before the evidence; without it, what all outcomes have in common."""
        space = _Space.of(evidence.signatures, beliefs)
        placed = space.place(evidence.signatures)
        count = max(1, len(evidence.models))
        chosen = _choose(len(placed), min(LANDMARKS, coefficients // count))
        landmarks = placed[chosen]
        among = space.nearness(landmarks, landmarks) + 1e-4 * np.eye(len(landmarks))
        lower = np.linalg.cholesky(among) if len(landmarks) else among
        to_landmarks = np.linalg.inv(lower).T if len(landmarks) else among
        features = np.hstack([space.nearness(placed, landmarks) @ to_landmarks, np.ones((len(placed), 1))])
        expected = _prior(evidence, prior)
        system, target = _equations(evidence, beliefs, features, expected)
        weights: Array = np.linalg.solve(system, target).reshape(-1, features.shape[1])
        return cls(evidence, beliefs, space, landmarks, to_landmarks, features, expected, system, target, weights)

    def expectations(self) -> Expectations:
        """The fit in the form in which questions are asked of it."""
        evidence, count = self.evidence, len(self.evidence.models)
        asked = np.zeros((len(evidence.signatures), count))
        np.add.at(asked, (evidence.question, evidence.model), 1.0)
        known = ~np.isnan(evidence.seconds)
        at = (evidence.question[known], evidence.model[known])
        timed, logs = np.zeros_like(asked), np.zeros_like(asked)
        np.add.at(timed, at, 1.0)
        np.add.at(logs, at, np.log(np.maximum(1e-3, evidence.seconds[known])))
        with np.errstate(invalid="ignore"):
            mean_log = logs.sum(0) / timed.sum(0)
        near = self.to_landmarks @ self.features[:, :-1].T
        return Expectations(
            models=evidence.models,
            beliefs=self.beliefs,
            outcomes=len(evidence.score),
            _space=self.space,
            _landmarks=self.landmarks,
            _levels=self.prior + self.weights[:, -1],
            _weights=self.to_landmarks @ self.weights[:, :-1].T,
            _support=near @ asked,
            _timed=near @ timed,
            _log_seconds=near @ logs,
            _mean_log_seconds=mean_log,
        )

    def log_likelihood(self) -> float:
        """Log of the evidence's probability under the beliefs, but for a constant (Rasmussen and Williams, ch. 5)."""
        evidence, beliefs, width = self.evidence, self.beliefs, self.features.shape[1]
        noise = beliefs.noise * evidence.noise
        error = evidence.score - self.prior[evidence.model]
        near, level = _covariances(beliefs, len(evidence.models))
        fit = (error * error / noise).sum() - (self.target * self.weights.reshape(-1)).sum()
        size = np.linalg.slogdet(self.system)[1] + np.log(noise).sum()
        size += (width - 1) * np.linalg.slogdet(near)[1] + np.linalg.slogdet(level)[1]
        return float(-0.5 * (fit + size))

    def difference_error(self, rows: Indices) -> float:
        """Mean squared error of differences between models on these questions, each question left out."""
        scores, weight = self._scores(rows)
        known = weight > 0
        error = np.where(known, scores - self.left_out(rows), 0.0)
        error -= error.sum(1, keepdims=True) / known.sum(1, keepdims=True)
        return float((error * error)[known].mean())

    def left_out(self, rows: Indices) -> Array:
        """Expected scores (rows, models) of these questions, had none of their own outcomes been recorded.

        Taking block b out of a Bayesian regression, C being the covariance of its weights w:
        w - C Φ_bᵀ R⁻¹ (I - Φ_b C Φ_bᵀ R⁻¹)⁻¹ (y_b - ŷ_b).
        """
        count = len(self.evidence.models)
        features = self.features[rows]
        covariance = self._covariance(features)
        score, weight = self._scores(rows)
        fitted = self.prior + features @ self.weights.T
        error = np.where(weight > 0, score - fitted, 0.0)
        hat = covariance * weight[:, None, :]
        change = np.linalg.solve(np.eye(count) - hat, error[:, :, None])
        result: Array = fitted - (hat @ change)[:, :, 0]
        return result

    def _covariance(self, features: Array) -> Array:
        """Posterior covariance (rows, models, models) of the scores on questions of these features."""
        count, width = len(self.evidence.models), features.shape[1]
        blocks = np.linalg.inv(self.system).reshape(count, width, count, width)
        covariance = np.empty((len(features), count, count))
        for m in range(count):
            for n in range(m + 1):
                shared = ((features @ blocks[m, :, n, :]) * features).sum(1)
                covariance[:, m, n] = covariance[:, n, m] = shared
        return covariance

    def _scores(self, rows: Indices) -> tuple[Array, Array]:
        """Mean recorded scores (rows, models) and their precision; 0 and 0 where nothing is recorded."""
        evidence = self.evidence
        weight, total = np.zeros((len(self.features), self.prior.size)), np.zeros((len(self.features), self.prior.size))
        precision = 1 / (self.beliefs.noise * evidence.noise)
        at = (evidence.question, evidence.model)
        np.add.at(weight, at, precision)
        np.add.at(total, at, precision * evidence.score)
        weight, total = weight[rows], total[rows]
        return total / np.where(weight > 0, weight, 1), weight


def _choose(count: int, limit: int) -> Indices:
    """Which questions are landmarks: all, or so many by chance, the same for the same count."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(count).permutation(count)[:limit])


def _prior(evidence: Evidence, prior: Mapping[str, float] | None) -> Array:
    """Expected scores before the evidence, by model: as given, else one for all, halfway of ten outcomes."""
    common = (5.0 + evidence.score.sum()) / (10.0 + len(evidence.score))
    return np.array([(prior or {}).get(model, common) for model in evidence.models])


def _covariances(beliefs: Beliefs, count: int) -> tuple[Array, Array]:
    """Between models: of what they do near a question, and of their levels; shape (models, models) each."""
    own, all_alike = np.eye(count), np.ones((count, count))
    return (
        beliefs.shared * all_alike + beliefs.own * own,
        beliefs.shared_level * all_alike + beliefs.own_level * own,
    )


def learned_beliefs(evidence: Evidence, prior: Mapping[str, float] | None = None) -> Beliefs:
    """The beliefs, of a few, that foretell the evidence best; seconds at most.

    With questions that several models answered: by how well the differences between their scores are foretold when the
    question is left out, for it is differences that choices are made by. Without: by likelihood.
    """
    rows = _compared(evidence)
    if len(rows) >= COMPARED:
        rows = rows[_choose(len(rows), MEASURED)]

    def merit(beliefs: Beliefs) -> float:
        fit = Fit.of(evidence, beliefs, prior, coefficients=TRIED)
        return -fit.difference_error(rows) if len(rows) >= COMPARED else fit.log_likelihood()

    return max(CANDIDATES, key=merit) if len(evidence.score) >= COMPARED else BELIEFS


@dataclass(frozen=True)
class Chosen:
    """Beliefs and the number of outcomes that they were chosen on."""

    beliefs: Beliefs = BELIEFS
    outcomes: int = 0


def revisited(evidence: Evidence, last: Chosen, prior: Mapping[str, float] | None = None) -> Chosen:
    """Beliefs chosen anew where outcomes have doubled since the last time: choosing takes as long as many fits."""
    count = len(evidence.score)
    if count < max(COMPARED, 2 * last.outcomes):
        return last
    return Chosen(learned_beliefs(evidence, prior), count)


def _compared(evidence: Evidence) -> Indices:
    """The questions that several models answered."""
    pairs = np.unique(np.stack([evidence.question, evidence.model]), axis=1)
    questions, answers = np.unique(pairs[0], return_counts=True)
    return questions[answers > 1]


def _equations(evidence: Evidence, beliefs: Beliefs, features: Array, prior: Array) -> tuple[Array, Array]:
    """Precision matrix and right-hand side over the weights of all models, model by model."""
    count, width = len(evidence.models), features.shape[1]
    system = np.zeros((count, width, count, width))
    target = np.zeros((count, width))
    near, level = (np.linalg.inv(covariance) for covariance in _covariances(beliefs, count))
    inner, last = np.arange(width - 1), width - 1
    for m in range(count):
        for n in range(count):
            system[m, inner, n, inner] = near[m, n]
            system[m, last, n, last] = level[m, n]
        of_model = evidence.model == m
        rows = features[evidence.question[of_model]]
        precision = 1 / (beliefs.noise * evidence.noise[of_model])
        system[m, :, m, :] += rows.T @ (rows * precision[:, None])
        target[m] = rows.T @ (precision * (evidence.score[of_model] - prior[m]))
    return system.reshape(count * width, count * width), target.reshape(-1)
