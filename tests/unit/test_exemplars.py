"""The exemplar store: real Chroma in a temporary folder, a counting embedder."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from capibara_agents.embedder import Vector
from capibara_agents.errors import BadQuestion, StoreError
from capibara_agents.exemplars import (
    Exemplar,
    ExemplarStore,
    content_version,
    parse_jsonl,
    read_jsonl,
    user_exemplar,
    write_jsonl,
)
from capibara_agents.types import Domain


class FakeEmbedder:
    """A vector per text from its hash; counts what it was asked."""

    def __init__(self, version: str = "fake-1") -> None:
        self.version = version
        self.asked: list[str] = []

    def embed(self, text: str) -> Vector:
        seed = int.from_bytes(hashlib.sha256((self.version + text).encode()).digest()[:4], "big")
        vector = np.random.default_rng(seed).standard_normal(512).astype(np.float32)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def embed_many(self, texts: Sequence[str]) -> Vector:
        self.asked.extend(texts)
        return np.stack([self.embed(text) for text in texts])


def shipped(identifier: str, content: str, domain: Domain = "math") -> Exemplar:
    return Exemplar(id=identifier, language="es", domain=domain, complexity=0.5, content=content, origin="shipped")


SHIPPED = [shipped(f"es-math-{i:03d}", f"suma {i} y {i + 1}") for i in range(30)]
MINE = user_exemplar("mi propia frase", language="es", domain="other", complexity=0.2)


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


def reopened(
    folder: Path, store: ExemplarStore, embedder: FakeEmbedder, exemplars: Sequence[Exemplar]
) -> ExemplarStore:
    store.close()
    return ExemplarStore.open(folder, embedder, shipped=exemplars)


def test_nearest_are_sorted_by_cosine(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """The exemplar itself comes first with score 1, the scores are true cosines."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    vector = embedder.embed(SHIPPED[3].content)
    found = store.nearest(vector, 5)
    assert found[0].id == SHIPPED[3].id
    assert found[0].score == pytest.approx(1, abs=1e-4)
    assert [n.score for n in found] == sorted((n.score for n in found), reverse=True)
    content = {exemplar.id: exemplar.content for exemplar in SHIPPED}
    for neighbour in found:
        assert neighbour.score == pytest.approx(float(vector @ embedder.embed(content[neighbour.id])), abs=1e-4)
    assert (found[0].domain, found[0].complexity) == ("math", 0.5)
    assert len(store.nearest(vector, 100)) == 30


def test_unchanged_data_is_not_embedded_again(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """A second open costs no embeddings."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    embedder.asked.clear()
    assert reopened(tmp_path / "s", store, embedder, SHIPPED).count() == 30
    assert embedder.asked == []


def test_changed_data_replaces_only_the_shipped_part(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """What a user added stays when the package brings other sentences."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    store.add([MINE])
    newer = [shipped("es-math-000", "otra suma"), shipped("es-math-900", "una resta")]
    store = reopened(tmp_path / "s", store, embedder, newer)
    assert {e.id: e.content for e in store.list()} == {
        "es-math-000": "otra suma",
        "es-math-900": "una resta",
        MINE.id: MINE.content,
    }


def test_another_embedder_embeds_everything_again(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """Vectors of two models are never compared."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    store.add([MINE])
    other = FakeEmbedder("fake-2")
    store = reopened(tmp_path / "s", store, other, SHIPPED)
    assert MINE.content in other.asked
    assert store.nearest(other.embed(MINE.content), 1)[0].id == MINE.id


def test_add_list_remove(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """A user's exemplar is found, listed as the user's, and gone after removal."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    assert store.add([MINE, MINE]) == 1
    assert store.add([MINE]) == 1
    assert store.count() == 31
    assert store.list(origin="user") == (MINE,)
    assert store.nearest(embedder.embed(MINE.content), 1)[0].id == MINE.id
    assert store.remove([MINE.id, "nobody"]) == 1
    assert store.list(origin="user") == ()
    assert store.add([]) == 0
    assert store.remove([]) == 0


def test_a_shipped_id_cannot_be_taken(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """Nothing is written then."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    with pytest.raises(BadQuestion, match="es-math-001"):
        store.add([MINE, SHIPPED[1].model_copy(update={"content": "otra"})])
    assert store.count() == 30


def test_an_export_can_be_imported(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """Into another store, user part and all, without doubling the shipped ones."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    store.add([MINE])
    write_jsonl(store.list(), tmp_path / "out.jsonl")
    other = ExemplarStore.open(tmp_path / "t", embedder, shipped=SHIPPED)
    assert other.merge(read_jsonl(tmp_path / "out.jsonl")) == 1
    assert other.list() == store.list()


def test_a_list_can_be_narrowed(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """By origin, domain and language, alone and together."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    english = user_exemplar("a sum", language="en", domain="math", complexity=0.1)
    store.add([MINE, english])
    assert store.list(domain="other") == (MINE,)
    assert store.list(language="en") == (english,)
    assert store.list(origin="user", domain="math") == (english,)
    assert store.list(origin="user", domain="math", language="es") == ()
    assert len(store.list(domain="math")) == 31


def test_pages_are_the_slices_of_a_list(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """With how many there are in all, narrowed or not, to the end and beyond it."""
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    store.add([MINE])
    whole = store.list()
    for limit, offset in ((5, 0), (5, 28), (0, 0), (100, 3), (5, 99)):
        assert store.page(limit, offset) == (31, whole[offset : offset + limit])
    assert store.page(5, origin="user") == (1, (MINE,))
    assert store.page(3, 1, origin="shipped", domain="math", language="es") == (30, whole[1:4])
    assert store.page(3, language="en") == (0, ())


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    """With its file; nothing of such a file is taken."""
    good = json.dumps({"id": "a", "language": "es", "domain": "sql", "complexity": 0.1, "content": "x"})
    for bad in ('{"id": "b"}', "no json", "[]", good.replace("sql", "poetry")):
        (tmp_path / "in.jsonl").write_text(f"{good}\n{bad}\n", encoding="utf-8")
        with pytest.raises(StoreError, match=r"in\.jsonl, line 2"):
            read_jsonl(tmp_path / "in.jsonl")
    with pytest.raises(StoreError, match="cannot be read"):
        read_jsonl(tmp_path / "absent.jsonl")


def damage_table(folder: Path) -> None:
    (folder / "chroma.sqlite3").write_bytes(b"no database" * 1000)


def damage_half_a_table(folder: Path) -> None:
    table = (folder / "chroma.sqlite3").read_bytes()
    (folder / "chroma.sqlite3").write_bytes(table[: len(table) // 3])


@pytest.mark.parametrize("damage", [damage_table, damage_half_a_table])
def test_a_damaged_store_is_kept_aside_and_rebuilt(tmp_path, embedder, damage, caplog) -> None:  # type: ignore[no-untyped-def]
    """With a warning; the new one holds the shipped exemplars and works."""
    folder = tmp_path / "s"
    store = ExemplarStore.open(folder, embedder, shipped=SHIPPED)
    store.add([MINE])
    store.close()
    damage(folder)
    with caplog.at_level(logging.WARNING):
        store = ExemplarStore.open(folder, embedder, shipped=SHIPPED)
    assert "damaged" in caplog.text
    assert str(tmp_path / "s.damaged-1") in caplog.text
    assert (tmp_path / "s.damaged-1" / "chroma.sqlite3").exists()
    assert store.nearest(embedder.embed(SHIPPED[0].content), 1)[0].id == SHIPPED[0].id
    assert store.list(origin="user") == (MINE,)
    assert store.count() == 31


def test_a_missing_store_brings_the_users_exemplars_back(
    tmp_path: Path, embedder: FakeEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    """From the copy beside it, which follows every change."""
    folder = tmp_path / "s"
    store = ExemplarStore.open(folder, embedder, shipped=SHIPPED)
    gone = user_exemplar("ya no", language="es", domain="other", complexity=0.2)
    store.add([MINE, gone])
    store.remove([gone.id])
    store.close()
    shutil.rmtree(folder)
    store = ExemplarStore.open(folder, embedder, shipped=SHIPPED)
    assert store.list(origin="user") == (MINE,)
    assert store.nearest(embedder.embed(MINE.content), 1)[0].id == MINE.id
    assert str(tmp_path / "s.user.jsonl") in caplog.text


def test_a_spoilt_copy_is_kept_aside(tmp_path: Path, embedder: FakeEmbedder, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither taken for exemplars nor written over."""
    (tmp_path / "s.user.jsonl").write_text("not an exemplar\n")
    store = ExemplarStore.open(tmp_path / "s", embedder, shipped=SHIPPED)
    store.add([MINE])
    assert (tmp_path / "s.user.jsonl.damaged-1").read_text() == "not an exemplar\n"
    assert "damaged-1" in caplog.text
    assert read_jsonl(tmp_path / "s.user.jsonl") == (MINE,)


def test_a_lost_index_is_noticed_and_the_users_exemplars_survive(
    tmp_path: Path, embedder: FakeEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    """Chroma opens such a folder without complaint and then finds next to nothing."""
    many = [shipped(f"es-math-{i:04d}", f"frase numero {i}") for i in range(2500)]
    folder = tmp_path / "s"
    store = ExemplarStore.open(folder, embedder, shipped=many)
    store.add([MINE])
    store.close()
    for part in folder.iterdir():
        if part.is_dir():
            shutil.rmtree(part)
    store = ExemplarStore.open(folder, embedder, shipped=many)
    assert "damaged" in caplog.text
    assert store.count() == 2501
    assert store.nearest(embedder.embed(MINE.content), 1)[0].id == MINE.id
    assert len(store.nearest(embedder.embed("frase numero 7"), 15)) == 15


def test_a_missing_folder_is_made(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """Parents too; an empty shipped set is a store without neighbours."""
    store = ExemplarStore.open(tmp_path / "a" / "b" / "c", embedder, shipped=[])
    assert store.count() == 0
    assert store.nearest(embedder.embed("hola"), 15) == ()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, embedder: FakeEmbedder) -> None:
    """A file in its place, say."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        ExemplarStore.open(tmp_path / "file" / "s", embedder, shipped=[])


def test_a_server_that_does_not_answer_is_an_error(embedder: FakeEmbedder) -> None:
    """It is never replaced by an embedded store in silence."""
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9"):
        ExemplarStore.open("http://127.0.0.1:9", embedder, shipped=[])


def test_the_version_follows_content_and_embedder() -> None:
    """Any change of a sentence, its labels or the model is seen."""
    version = content_version(SHIPPED, "a")
    assert version == content_version(list(SHIPPED), "a")
    assert version != content_version(SHIPPED, "b")
    assert version != content_version([SHIPPED[0].model_copy(update={"complexity": 0.6}), *SHIPPED[1:]], "a")


def test_lines_keep_unusual_line_breaks() -> None:
    """Only a line feed ends a line of JSONL."""
    line = json.dumps({**MINE.model_dump(), "content": "uno\u2028dos"}, ensure_ascii=False)
    assert [e.content for e in parse_jsonl(line, "x", origin="user")] == ["uno\u2028dos"]


def test_the_module_does_not_load_chroma() -> None:
    """`capibara --help` must not wait for it."""
    code = (
        "import sys, capibara_agents.exemplars, capibara_agents.classify; "
        "print('chromadb' in sys.modules, 'lingua' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_nobody_adds_while_another_store_of_the_folder_is_brought_up_to_date(tmp_path: Path) -> None:
    """The shipped ones are gone for a moment then, and their ids are not free."""
    with closing(ExemplarStore.open(tmp_path, FakeEmbedder(), shipped=SHIPPED)) as first:
        outcomes: list[object] = []

        def add() -> None:
            try:
                outcomes.append(first.add([MINE.model_copy(update={"id": SHIPPED[0].id})]))
            except BadQuestion as error:
                outcomes.append(error.param)

        adding = threading.Thread(target=add)

        class Meanwhile(FakeEmbedder):
            def embed_many(self, texts: Sequence[str]) -> Vector:
                adding.start()
                adding.join(0.5)
                return super().embed_many(texts)

        with closing(ExemplarStore.open(tmp_path, Meanwhile(), shipped=SHIPPED[:20])):
            adding.join(60)
            assert outcomes == ["id"]
