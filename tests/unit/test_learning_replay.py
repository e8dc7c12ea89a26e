"""Picking one of several models, and learning one batch after another, on outcomes whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from capibara_agents.embedder import DIMENSIONS
from capibara_agents.errors import ConfigError
from capibara_agents.evaluation.learning import Stream, best_single, learn, offline, recovered
from capibara_agents.evaluation.selection import picked, select
from capibara_agents.outcomes import GUARD
from capibara_agents.signature import FORM_SIZE

MODELS = ("calm", "keen")


def world(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Two topics; each model is good at one."""
    rng = np.random.default_rng(2)
    topic = np.arange(count) % 2
    centres = rng.normal(size=(2, DIMENSIONS))
    meaning = centres[topic] + 0.4 * rng.normal(size=(count, DIMENSIONS))
    meaning /= np.linalg.norm(meaning, axis=1, keepdims=True)
    rates = np.array([[0.9, 0.3], [0.3, 0.8]])[topic]
    scores = (rng.random((count, 2)) < rates).astype(float)
    return np.hstack([meaning, rng.random((count, FORM_SIZE))]).astype(np.float32), scores


def test_each_question_goes_to_who_is_good_at_it() -> None:
    signatures, scores = world()
    picks = picked(signatures, scores, folds=5, labels=None, seed=0)
    assert (picks == np.arange(200) % 2).mean() > 0.95


def test_the_figures_of_picking() -> None:
    _, scores = world(60)
    rows: list[dict[str, Any]] = [
        {
            "id": str(n),
            "prompt": f"{'stars' if n % 2 else 'soups'} {n}",
            **dict(zip(MODELS, map(bool, line), strict=True)),
        }
        for n, line in enumerate(scores)
    ]

    def embed_many(texts: Any) -> np.ndarray:
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        vectors[np.arange(len(texts)), [int(text.startswith("stars")) for text in texts]] = 1
        return vectors

    result = select(rows, models=MODELS, embed_many=embed_many)
    assert result.singles["calm"] == pytest.approx(scores[:, 0].mean())
    assert result.oracle == pytest.approx(scores.max(1).mean())
    assert result.gain.value == pytest.approx(result.accuracy.value - max(result.singles.values()))
    assert result.gain.value > 0.1
    assert sum(result.picked.values()) == pytest.approx(1)
    with pytest.raises(ConfigError):
        select(rows, models=("calm", "nobody"), embed_many=embed_many)
    with pytest.raises(ConfigError):
        select(rows[:3], models=MODELS, embed_many=embed_many)


@pytest.mark.parametrize("asked", ["all", "one"])
def test_learning_by_batches_comes_near_to_learning_at_once(asked: Any) -> None:
    signatures, scores = world()
    stream = Stream(signatures, scores, np.arange(120), np.arange(120, 200))
    steps = learn(stream, questions=120, batch=30, asked=asked)
    assert steps[-1].accuracy > best_single(stream) + 0.1
    assert steps[-1].accuracy >= offline(stream) - 0.05
    assert max(step.loss for step in steps) <= GUARD
    assert steps[0].outcomes == (60 if asked == "all" else 30)


def test_what_is_recovered_is_a_share_of_what_can_be() -> None:
    share, low, high = recovered([0.05, 0.04], [0.1, 0.1])
    assert share == pytest.approx(0.45)
    assert low <= share <= high
