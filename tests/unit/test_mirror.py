"""Neighbours out of memory are the store's own: a real Chroma store beside its mirror."""

from pathlib import Path

import numpy as np
import pytest

from capibara_agents import exemplars
from capibara_agents.exemplars import Exemplar, ExemplarStore, user_exemplar
from capibara_agents.mirror import Mirror
from tests.fakes import FakeEmbedder

SHIPPED = [
    Exemplar(id=f"es-{i:04d}", language="es", domain="math", complexity=i / 300, content=f"frase {i}", origin="shipped")
    for i in range(300)
]
MINE = user_exemplar("mi propia frase", language="es", domain="other", complexity=0.2)
QUESTIONS = ["frase 7", "mi propia frase", *(f"pregunta {i}" for i in range(40))]


@pytest.fixture
def store(tmp_path: Path) -> ExemplarStore:
    return ExemplarStore.open(tmp_path / "s", FakeEmbedder(), shipped=SHIPPED)


def agree(store: ExemplarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror's neighbours are those of Chroma's query: ids in order, scores, labels."""
    embedder = FakeEmbedder()
    mirrored = [store.nearest(embedder.embed(question), 15) for question in QUESTIONS]
    with monkeypatch.context() as patch:
        patch.setattr(store, "_mirror", None)
        asked = [store.nearest(embedder.embed(question), 15) for question in QUESTIONS]
    for ours, chromas in zip(mirrored, asked, strict=True):
        assert [n.id for n in ours] == [n.id for n in chromas]
        assert [n.score for n in ours] == pytest.approx([n.score for n in chromas], abs=2e-6)
        assert [(n.domain, n.complexity) for n in ours] == [(n.domain, n.complexity) for n in chromas]


def test_the_mirror_has_the_stores_neighbours(store: ExemplarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after something was added, replaced or removed."""
    assert store._mirror is not None
    agree(store, monkeypatch)
    store.add([MINE])
    agree(store, monkeypatch)
    assert store.nearest(FakeEmbedder().embed(MINE.content), 1)[0].domain == "other"
    store.add([MINE.model_copy(update={"domain": "sql"})])
    assert store.nearest(FakeEmbedder().embed(MINE.content), 1)[0].domain == "sql"
    store.remove([MINE.id, "es-0007"])
    agree(store, monkeypatch)
    assert store.nearest(FakeEmbedder().embed("frase 7"), 1)[0].id != "es-0007"


def test_a_large_store_is_asked_itself(store: ExemplarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the index answers; below it again the mirror does."""
    monkeypatch.setattr(exemplars, "MIRRORED", 300)
    store.add([MINE])
    assert store._mirror is None
    assert store.nearest(FakeEmbedder().embed(MINE.content), 1)[0].id == MINE.id
    store.remove([MINE.id])
    assert store._mirror is not None


def test_equal_vectors_come_by_id() -> None:
    """The one left out for want of room, too."""
    row = np.ones(512, dtype=np.float32) / np.sqrt(np.float32(512))
    ids = [f"e{i}" for i in (3, 1, 4, 2, 0)]
    mirror = Mirror.of(ids, [("math", 0.1)] * 5, [row] * 5)
    assert [n.id for n in mirror.nearest(row, 3)] == ["e0", "e1", "e2"]
    assert [n.id for n in mirror.nearest(row, 9)] == ["e0", "e1", "e2", "e3", "e4"]


def test_vectors_of_any_length_are_compared_by_angle() -> None:
    """As the store's cosine does."""
    long, other = np.zeros(512, dtype=np.float32), np.zeros(512, dtype=np.float32)
    long[0], other[1] = 40.0, 0.5
    mirror = Mirror.of(["a", "b"], [("math", 0.1), ("sql", 0.2)], [long, other])
    asked = np.zeros(512, dtype=np.float32)
    asked[1] = 1.0
    assert [(n.id, n.score) for n in mirror.nearest(asked, 2)] == [("b", 1.0), ("a", 0.0)]


def test_nothing_has_no_neighbours() -> None:
    """An empty store, and any number asked for."""
    assert Mirror.of([], [], []).nearest(np.ones(512, dtype=np.float32), 15) == ()
