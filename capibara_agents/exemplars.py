"""The exemplars a question is compared with, kept in Chroma; the only importer of chromadb.

Shipped exemplars (`exemplars_data/*.jsonl`) are put into the store when it is opened and replaced when they,
or the embedder, have changed. What users add stays: it is also kept as lines of JSON beside the folder, and read back
from there when the folder is gone. A folder that Chroma cannot read is moved aside and built anew.
One process owns a folder: for several, run a Chroma server and give its URL.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from capibara_agents.embedder import Vector
from capibara_agents.errors import BadQuestion, StoreError, reason
from capibara_agents.mirror import MIRRORED, Label, Mirror, Reflection, by_score, label_of, reflection_of
from capibara_agents.texts import Phrase, phrase
from capibara_agents.types import Domain, Language, Neighbour, Value
from capibara_agents.wishes import wish_of

log = logging.getLogger(__name__)

Origin = Literal["shipped", "user"]
COLLECTION = "capibara-exemplars"
BATCH = 500
# Exact enough that neighbours do not depend on the order of insertion at a few thousand exemplars.
HNSW = {"space": "cosine", "ef_construction": 200, "ef_search": 200, "max_neighbors": 32, "num_threads": 1}


class Exemplar(Value):
    """A sentence with what is known of it. `complexity` lies in [0, 1]."""

    id: str = Field(min_length=1, max_length=200)
    language: Language
    domain: Domain
    complexity: float = Field(ge=0, le=1)
    content: str = Field(min_length=1, max_length=20_000)
    origin: Origin = "user"


class Embeds(Protocol):
    """What the store needs of an embedder."""

    @property
    def version(self) -> str: ...

    def embed_many(self, texts: Sequence[str]) -> Vector: ...


def user_exemplar(content: str, *, language: Language, domain: Domain, complexity: float) -> Exemplar:
    """An exemplar of a user's, with an id made from its content: adding it twice changes nothing."""
    digest = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]
    return Exemplar(id=f"user-{digest}", language=language, domain=domain, complexity=complexity, content=content)


def shipped_exemplars() -> tuple[Exemplar, ...]:
    """All exemplars of the package, by id."""
    found: list[Exemplar] = []
    for file in resources.files("capibara_agents").joinpath("exemplars_data").iterdir():
        if file.name.endswith(".jsonl"):
            found.extend(parse_jsonl(file.read_text(encoding="utf-8"), file.name, origin="shipped"))
    return tuple(sorted(found, key=lambda exemplar: exemplar.id))


def parse_jsonl(text: str, name: str, *, origin: Origin) -> Iterator[Exemplar]:
    """The exemplars of a JSONL text, one a line; StoreError names the file and the line that is wrong."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise TypeError
            yield Exemplar.model_validate({**values, "origin": origin})
        except (json.JSONDecodeError, ValidationError, TypeError) as error:
            raise StoreError(phrase("stored.no_exemplar", file=name, line=number, wish=_wish(error))) from error


def write_jsonl(exemplars: Iterable[Exemplar], path: Path) -> None:
    """Write exemplars as JSONL, one a line. Raises StoreError when the file cannot be written."""
    try:
        path.write_text("".join(exemplar.model_dump_json() + "\n" for exemplar in exemplars), encoding="utf-8")
    except OSError as error:
        raise StoreError(phrase("wrong.unwritable", file=str(path), error=reason(error))) from error


def read_jsonl(path: Path) -> tuple[Exemplar, ...]:
    """The exemplars of a JSONL file, as the user's own. Raises StoreError that names the file and the wrong line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(phrase("wrong.unreadable", file=str(path), error=reason(error))) from error
    return tuple(parse_jsonl(text, path.name, origin="user"))


def _wish(error: json.JSONDecodeError | ValidationError | TypeError) -> Phrase:
    """What the line should be."""
    if isinstance(error, json.JSONDecodeError):
        return phrase("wish.json", error=error.msg, column=error.colno)
    if isinstance(error, TypeError):
        return phrase("wish.dict_type")
    first = error.errors()[0]
    wish = wish_of(first)
    place = ".".join(str(step) for step in first["loc"])
    return phrase("wish.of_key", key=place, wish=wish) if place else wish


def content_version(exemplars: Iterable[Exemplar], embedder_version: str) -> str:
    """Changes with any change of an exemplar or of the embedder."""
    digest = hashlib.sha256(embedder_version.encode())
    for exemplar in exemplars:
        digest.update(exemplar.model_dump_json().encode())
    return digest.hexdigest()[:32]


class ExemplarStore:
    """Open one with `ExemplarStore.open`. Calls block for a few milliseconds; safe to share between threads."""

    def __init__(self, client: Any, embedder: Embeds) -> None:
        self._client = client
        self._collection = _collection(client)
        self._embedder = embedder
        self._copy: Path | None = None
        # A mirror is only where nobody else writes: not on a server.
        self._shared = Reflection()
        self._is_owner = False

    @classmethod
    def open(cls, where: Path | str, embedder: Embeds, *, shipped: Sequence[Exemplar] | None = None) -> ExemplarStore:
        """Open a folder, or a Chroma server (`http://host:port`), and bring its shipped part up to date.

        Raises StoreError when a server does not answer, or a folder cannot be written.
        """
        exemplars = shipped_exemplars() if shipped is None else tuple(shipped)
        if isinstance(where, str) and where.startswith(("http://", "https://")):
            return cls._open_server(where, embedder, exemplars)
        return cls._open_folder(Path(where), embedder, exemplars)

    @classmethod
    def _open_server(cls, url: str, embedder: Embeds, exemplars: Sequence[Exemplar]) -> ExemplarStore:
        try:
            store = cls(_server_client(url), embedder)
            store._synchronise(exemplars)
        except Exception as error:  # (Chroma lets errors of httpx, pydantic and its own through)
            raise StoreError(phrase("stored.chroma", url=url, error=type(error).__name__)) from error
        return store

    @classmethod
    def _open_folder(cls, folder: Path, embedder: Embeds, exemplars: Sequence[Exemplar]) -> ExemplarStore:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(phrase("stored.exemplars_folder", folder=str(folder), error=reason(error))) from error
        # Damaged files surface as errors of Chroma's, of SQLite's, or as KeyError and ValueError of what was read.
        try:
            return cls._opened(folder, embedder, exemplars)
        except Exception as error:  # noqa: BLE001
            damage = type(error).__name__
        users = cls._salvaged(folder, embedder)
        aside = _set_aside(folder)
        try:
            _forget_client()
            store = cls._opened(folder, embedder, exemplars)
            store.merge(users)
        except Exception as error:  # (as above: whatever Chroma or SQLite raised, there is no store)
            raise StoreError(phrase("stored.exemplars", folder=str(folder), error=type(error).__name__)) from error
        log.warning(
            "The exemplar store in %s was damaged (%s). It was moved to %s and rebuilt from the shipped exemplars; "
            "%d exemplars of the user's were read back.",
            *(folder, damage, aside, len(store.list(origin="user"))),
        )
        return store

    @classmethod
    def _opened(cls, folder: Path, embedder: Embeds, exemplars: Sequence[Exemplar]) -> ExemplarStore:
        store = cls(_folder_client(folder), embedder)
        store._shared = reflection_of(folder)
        # Nobody else of this process writes, or copies what is written, until all of it is there.
        with store._shared.write:
            is_new = not (store._collection.metadata or {}).get("shipped_version")
            store._synchronise(exemplars)
            store._copy = _copy_of(folder)
            kept = _kept(store._copy) if is_new else ()
            if store.merge(kept):
                log.warning("%d exemplars of the user's were read back from %s.", len(kept), store._copy)
            elif not store._copy.exists() and store.list(origin="user"):
                store._keep()
            store._probe()
            store._is_owner = True
            store._reflect()
        return store

    @classmethod
    def _salvaged(cls, folder: Path, embedder: Embeds) -> tuple[Exemplar, ...]:
        """The user's exemplars of a damaged folder, where its table can still be read."""
        try:
            _forget_client()
            store = cls(_folder_client(folder), embedder)
            users = store.list(origin="user")
            store.close()
        except Exception:  # noqa: BLE001  (the folder is known to be damaged; it is kept as it is)
            return ()
        return users

    def close(self) -> None:
        """Let go of the folder's files or the server's connection."""
        self._client.close()

    def nearest(self, vector: Vector, k: int) -> tuple[Neighbour, ...]:
        """At most `k` exemplars by falling cosine similarity, ties by id."""
        mirror = self._shared.mirror
        if mirror is not None:
            return mirror.nearest(vector, max(1, k))
        found = self._collection.query(
            query_embeddings=[vector.tolist()], n_results=max(1, k), include=["metadatas", "distances"]
        )
        labels = [label_of(meta) for meta in found["metadatas"][0]]
        return by_score(found["ids"][0], [1.0 - distance for distance in found["distances"][0]], labels, k)

    def add(self, exemplars: Sequence[Exemplar]) -> int:
        """Add exemplars as the user's own, replacing the user's of the same id; the number written.

        Raises BadQuestion for an id that belongs to a shipped exemplar; nothing is written then.
        """
        mine = {exemplar.id: exemplar.model_copy(update={"origin": "user"}) for exemplar in exemplars}
        with self._shared.write:
            taken = self._ids(list(mine), origin="shipped")
            if taken:
                raise BadQuestion(phrase("stored.shipped_id", id=repr(min(taken))), param="id")
            self._changed(added=self._upsert(list(mine.values())))
            self._keep()
        return len(mine)

    def merge(self, exemplars: Sequence[Exemplar]) -> int:
        """As `add`, passing over those that are shipped exemplars already, unchanged; the number written."""
        there = self._get([exemplar.id for exemplar in exemplars])
        new = [e for e in exemplars if there.get(e.id) != e.model_copy(update={"origin": "shipped"})]
        return self.add(new) if new else 0

    def list(
        self, *, origin: Origin | None = None, domain: Domain | None = None, language: Language | None = None
    ) -> tuple[Exemplar, ...]:
        """All exemplars, or those of one origin, domain or language, by id."""
        found: list[Exemplar] = []
        where = _where(origin, domain, language)
        for offset in range(0, self.count() + BATCH, BATCH):
            page = self._collection.get(where=where, limit=BATCH, offset=offset, include=["metadatas", "documents"])
            found.extend(_read(page))
            if len(page["ids"]) < BATCH:
                break
        return tuple(sorted(found, key=lambda exemplar: exemplar.id))

    def page(
        self,
        limit: int,
        offset: int = 0,
        *,
        origin: Origin | None = None,
        domain: Domain | None = None,
        language: Language | None = None,
    ) -> tuple[int, tuple[Exemplar, ...]]:
        """How many `list` would give, and those of one page of it."""
        ids = sorted(self._collection.get(where=_where(origin, domain, language), include=[])["ids"])
        there = self._get(ids[offset : offset + limit])
        return len(ids), tuple(there[identifier] for identifier in sorted(there))

    def remove(self, ids: Iterable[str]) -> int:
        """Remove exemplars by id; how many there were. Shipped ones come back when the store is opened anew."""
        with self._shared.write:
            present = sorted(self._ids(list(dict.fromkeys(ids))))
            for start in range(0, len(present), BATCH):
                self._collection.delete(ids=present[start : start + BATCH])
            if present:
                self._changed(removed=present)
                self._keep()
        return len(present)

    def count(self) -> int:
        """How many exemplars there are."""
        return int(self._collection.count())

    def _changed(self, *, added: Mirror | None = None, removed: Sequence[str] = ()) -> None:
        """Bring the mirror up to date by what was written alone: to read all takes a quarter of a second."""
        mirror = self._shared.mirror
        if mirror is None or self.count() > MIRRORED:
            self._reflect()
            return
        mirror = mirror.without(removed)
        self._shared.mirror = mirror.with_rows(added) if added is not None else mirror

    def _reflect(self) -> None:
        """Read anew what a mirror is asked for in the store's place; none of a store that others write to."""
        if not self._is_owner or self.count() > MIRRORED:
            self._shared.mirror = None
            return
        ids: list[str] = []
        labels: list[Label] = []
        vectors: list[Any] = []
        for offset in range(0, self.count() + BATCH, BATCH):
            page = self._collection.get(limit=BATCH, offset=offset, include=["metadatas", "embeddings"])
            ids.extend(page["ids"])
            labels.extend(map(label_of, page["metadatas"]))
            vectors.extend(page["embeddings"])
        self._shared.mirror = Mirror.of(ids, labels, vectors)

    def _keep(self) -> None:
        """Write the user's exemplars down beside the folder, whole or not at all."""
        if self._copy is None:
            return
        draft = self._copy.with_name(self._copy.name + ".new")
        try:
            write_jsonl(self.list(origin="user"), draft)
            draft.replace(self._copy)
        except (StoreError, OSError) as error:
            # They are in the store; what is missing is the second copy.
            log.warning("The user's exemplars could not be copied to %s: %s.", self._copy, type(error).__name__)

    def _synchronise(self, shipped: Sequence[Exemplar]) -> None:
        """Replace the shipped part when it, or the embedder, is not what the collection was filled with."""
        version = content_version(shipped, self._embedder.version)
        meta = dict(self._collection.metadata or {})
        if meta.get("shipped_version") == version:
            return
        with self._shared.write:
            users = self.list(origin="user")
            if users and meta.get("embedder_version") != self._embedder.version:
                self._upsert(users)
            self._collection.delete(where={"origin": "shipped"})
            kept = {exemplar.id for exemplar in users}
            self._upsert([exemplar for exemplar in shipped if exemplar.id not in kept])
            # Last, so that an interrupted start is done again.
            self._collection.modify(
                metadata={**meta, "shipped_version": version, "embedder_version": self._embedder.version}
            )

    def _probe(self) -> None:
        """Ask table and index for the same rows; damaged files raise, or one knows fewer rows than the other."""
        page = self._collection.get(limit=1, include=["embeddings"])
        if not page["ids"]:
            return
        expected = min(20, self.count())
        found = self._collection.query(query_embeddings=[page["embeddings"][0]], n_results=expected, include=[])
        if len(found["ids"][0]) < expected:
            raise StoreError(phrase("stored.index"))

    def _upsert(self, exemplars: Sequence[Exemplar]) -> Mirror:
        """Write them; what of them a mirror holds."""
        vectors: list[Any] = []
        for start in range(0, len(exemplars), BATCH):
            part = exemplars[start : start + BATCH]
            rows = self._embedder.embed_many([exemplar.content for exemplar in part])
            self._collection.upsert(
                ids=[exemplar.id for exemplar in part],
                embeddings=rows,
                documents=[exemplar.content for exemplar in part],
                metadatas=[exemplar.model_dump(exclude={"id", "content"}) for exemplar in part],
            )
            vectors.extend(rows)
        return Mirror.of([e.id for e in exemplars], [(e.domain, e.complexity) for e in exemplars], vectors)

    def _get(self, ids: Sequence[str]) -> dict[str, Exemplar]:
        """Those of these ids that there are, by id."""
        found: dict[str, Exemplar] = {}
        for start in range(0, len(ids), BATCH):
            page = self._collection.get(ids=[*ids[start : start + BATCH]], include=["metadatas", "documents"])
            found.update((exemplar.id, exemplar) for exemplar in _read(page))
        return found

    def _ids(self, ids: Sequence[str], *, origin: str | None = None) -> set[str]:
        present: set[str] = set()
        where = {"origin": origin} if origin else None
        for start in range(0, len(ids), BATCH):
            page = self._collection.get(ids=ids[start : start + BATCH], where=where, include=[])
            present.update(page["ids"])
        return present


def _where(origin: Origin | None, domain: Domain | None, language: Language | None) -> dict[str, Any] | None:
    """Chroma's condition for those of one origin, domain or language; None for all."""
    given = {"origin": origin, "domain": domain, "language": language}
    wishes = [{name: value} for name, value in given.items() if value]
    return {"$and": wishes} if len(wishes) > 1 else next(iter(wishes), None)


def _read(page: Any) -> Iterator[Exemplar]:
    """The exemplars of what Chroma's `get` gave."""
    for identifier, meta, content in zip(page["ids"], page["metadatas"], page["documents"], strict=True):
        yield Exemplar.model_validate({**meta, "id": identifier, "content": content})


def _folder_client(folder: Path) -> Any:
    chromadb = _chromadb()
    return chromadb.PersistentClient(path=str(folder), settings=chromadb.Settings(anonymized_telemetry=False))


def _server_client(url: str) -> Any:
    chromadb = _chromadb()
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return chromadb.HttpClient(
        host=parts.hostname or "",
        port=parts.port or (443 if secure else 8000),
        ssl=secure,
        settings=chromadb.Settings(anonymized_telemetry=False),
    )


def _chromadb() -> Any:
    import chromadb  # noqa: PLC0415  (half a second and 50 MB that `capibara --help` must not pay)

    return chromadb


def _collection(client: Any) -> Any:
    return client.get_or_create_collection(COLLECTION, embedding_function=None, configuration={"hnsw": HNSW})


def _forget_client() -> None:
    """Make Chroma open a folder anew: it keeps the engine of a folder that failed and would hand it out again."""
    from chromadb.api.shared_system_client import SharedSystemClient  # noqa: PLC0415

    SharedSystemClient.clear_system_cache()


def _set_aside(damaged: Path) -> Path:
    """Rename a folder or a file to the first free `NAME.damaged-N`."""
    for number in range(1, 10_000):
        aside = damaged.with_name(f"{damaged.name}.damaged-{number}")
        if not aside.exists():
            try:
                return damaged.rename(aside)
            except OSError as error:
                raise StoreError(phrase("stored.not_moved", file=str(damaged), error=reason(error))) from error
    raise StoreError(phrase("stored.many_damaged", file=str(damaged)))


def _copy_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.user.jsonl")


def _kept(copy: Path) -> tuple[Exemplar, ...]:
    """The user's exemplars as they were written down; of a copy that cannot be read, nothing but a warning."""
    if not copy.exists():
        return ()
    try:
        return read_jsonl(copy)
    except StoreError as error:
        log.warning("The user's exemplars cannot be read back: %s Now at %s.", error.message, _set_aside(copy))
        return ()
