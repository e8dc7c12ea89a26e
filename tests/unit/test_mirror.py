"""Neighbours out of memory are the store's own: a real Chroma store beside its mirror."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
        patch.setattr(store._shared, "mirror", None)
        asked = [store.nearest(embedder.embed(question), 15) for question in QUESTIONS]
    for ours, chromas in zip(mirrored, asked, strict=True):
        assert [n.id for n in ours] == [n.id for n in chromas]
        assert [n.score for n in ours] == pytest.approx([n.score for n in chromas], abs=2e-6)
        assert [(n.domain, n.complexity) for n in ours] == [(n.domain, n.complexity) for n in chromas]


def test_the_mirror_has_the_stores_neighbours(store: ExemplarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after something was added, replaced or removed."""
    assert store._shared.mirror is not None
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
    assert store._shared.mirror is None
    assert store.nearest(FakeEmbedder().embed(MINE.content), 1)[0].id == MINE.id
    store.remove([MINE.id])
    assert store._shared.mirror is not None


def test_a_change_reads_no_more_than_itself(store: ExemplarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 exemplars, only those that are written or taken away are read."""
    read: list[int] = []
    get = store._collection.get

    def watched(**given: Any) -> Any:
        found = get(**given)
        read.append(len(found["ids"]))
        return found

    monkeypatch.setattr(store._collection, "get", watched)
    store.merge([MINE, SHIPPED[3]])
    assert store.nearest(FakeEmbedder().embed(MINE.content), 1)[0].id == MINE.id
    store.remove([MINE.id])
    assert store.nearest(FakeEmbedder().embed(MINE.content), 1)[0].id != MINE.id
    assert read
    assert max(read) <= 2


def test_stores_of_one_folder_see_each_others_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two apps in one process: what one adds or removes, the other finds or misses at once."""
    one, other = (ExemplarStore.open(tmp_path / "s", FakeEmbedder(), shipped=SHIPPED) for _ in range(2))
    vector = FakeEmbedder().embed(MINE.content)
    one.add([MINE])
    assert other.nearest(vector, 1)[0].id == MINE.id
    agree(other, monkeypatch)
    other.remove([MINE.id, "es-0007"])
    assert one.nearest(vector, 1)[0].id != MINE.id
    agree(one, monkeypatch)
    one.close()
    other.add([MINE])
    assert other.nearest(vector, 1)[0].id == MINE.id


def test_writers_of_two_stores_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side, each exemplar is in both mirrors in the end."""
    stores = [ExemplarStore.open(tmp_path / "s", FakeEmbedder(), shipped=SHIPPED[:20]) for _ in range(2)]
    new = [user_exemplar(f"nueva {i}", language="es", domain="other", complexity=0.2) for i in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda pair: stores[pair[0] % 2].add([pair[1]]), enumerate(new)))
    for store in stores:
        assert {store.nearest(FakeEmbedder().embed(e.content), 1)[0].id for e in new} == {e.id for e in new}
        agree(store, monkeypatch)


def test_a_folder_made_anew_has_a_mirror_of_its_own(tmp_path: Path) -> None:
    """Nothing of another folder's, and nothing of what was there before."""
    first = ExemplarStore.open(tmp_path / "s", FakeEmbedder(), shipped=SHIPPED[:5])
    elsewhere = ExemplarStore.open(tmp_path / "t", FakeEmbedder(), shipped=SHIPPED[:5])
    first.add([MINE])
    assert MINE.id not in {n.id for n in elsewhere.nearest(FakeEmbedder().embed(MINE.content), 10)}


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
