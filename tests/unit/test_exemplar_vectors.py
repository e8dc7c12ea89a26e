"""The vectors that ship with the exemplars: what the embedder gives, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from capibara_agents.embedder import DIMENSIONS, Embedder, Vector
from capibara_agents.exemplar_vectors import FILE, KnownVectors, digest, read, write
from capibara_agents.exemplars import shipped_exemplars

EVERY = 100


class Counting:
    """An embedder that says what it was asked for; every text has a vector of its own."""

    version = "counting-1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_many(self, texts: Sequence[str]) -> Vector:
        self.asked += texts
        rows = np.stack([np.random.default_rng(len(text)).normal(size=DIMENSIONS) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_shipped_vectors_are_those_of_this_embedder() -> None:
    """A sample is computed anew. A failure means that `make vectors` is due."""
    embedder = Embedder()
    known = read(FILE, embedder.version)
    texts = [exemplar.content for exemplar in shipped_exemplars() if digest(exemplar.content) in known][::EVERY]
    assert len(texts) >= 10
    expected, shipped = embedder.embed_many(texts), KnownVectors.shipped(embedder).embed_many(texts)
    assert float(np.abs(expected - shipped).max()) < 1e-3
    assert float((expected * shipped).sum(axis=1).min()) > 0.99999


def test_every_shipped_exemplar_has_its_vector_and_nothing_else_has() -> None:
    """A failure means that exemplars were changed and `make vectors` was not run afterwards."""
    exemplars = {digest(exemplar.content) for exemplar in shipped_exemplars()}
    assert set(read(FILE, Embedder().version)) == exemplars


def test_only_unknown_texts_are_embedded_and_the_order_is_kept(tmp_path: Path) -> None:
    """Case and accents do not count, as they do not for the embedder."""
    file, embedder = tmp_path / "some.npz", Counting()
    assert write(file, ["one", "three", "ONE"], embedder) == 2
    known, asker = read(file, embedder.version), Counting()
    vectors = KnownVectors(asker, known).embed_many(["three", "something else", "Óne"])
    assert asker.asked == ["something else"]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, Counting().embed_many(["three", "something else", "one"]), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("damage", ["version", "bytes", "missing"])
def test_a_file_that_does_not_fit_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    """Of another embedder, damaged, or not there: everything is embedded, and the log says why."""
    file, embedder = tmp_path / "some.npz", Counting()
    write(file, ["one"], embedder)
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:200])
    if damage == "missing":
        file.unlink()
    known = read(file, "counting-2" if damage == "version" else embedder.version)
    assert known == {}
    assert "not used" in caplog.text
    np.testing.assert_array_equal(KnownVectors(embedder, known).embed_many(["two"]), Counting().embed_many(["two"]))
