"""The vectors of the shipped exemplars, computed beforehand: embedding them takes 8 s of a CPU at every first start.

`vectors_data/shipped.npz` holds numbers only: a digest of each text as it is embedded (`bounded`), its vector as
float16, and the version of the embedder. Whatever is not in it, or of another version, is embedded as ever, so the file
may lag behind the exemplars: that costs time and changes nothing.

    python -m capibara_agents.exemplar_vectors      # or `make vectors`: computes the file anew
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from capibara_agents.embedder import DIMENSIONS, Embedder, Vector, bounded
from capibara_agents.exemplars import Embeds, shipped_exemplars
from capibara_agents.npz import UNREADABLE

log = logging.getLogger(__name__)

FILE = resources.files("capibara_agents").joinpath("vectors_data", "shipped.npz")
DIGEST_BYTES = 16


class KnownVectors:
    """An embedder that looks a text up before it embeds it. `known`: from `digest` to unit vectors, shape (512,)."""

    def __init__(self, embedder: Embeds, known: Mapping[bytes, Vector]) -> None:
        self._embedder = embedder
        self._known = known

    @classmethod
    def shipped(cls, embedder: Embeds) -> KnownVectors:
        """Before this embedder, the package's vectors, where they are of its version."""
        return cls(embedder, read(FILE, embedder.version))

    @property
    def version(self) -> str:
        """The embedder's: a known vector is the one that it gives, to float16."""
        return self._embedder.version

    def embed_many(self, texts: Sequence[str]) -> Vector:
        """The unit vectors of several texts, shape (n, 512)."""
        digests = [digest(text) for text in texts]
        missing = [number for number, key in enumerate(digests) if key not in self._known]
        vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        for number, key in enumerate(digests):
            if key in self._known:
                vectors[number] = self._known[key]
        if missing:
            vectors[missing] = self._embedder.embed_many([texts[number] for number in missing])
        return vectors


def digest(text: str) -> bytes:
    """Of what is embedded of a text."""
    return hashlib.sha256(bounded(text).encode("utf-8", "replace")).digest()[:DIGEST_BYTES]


def read(file: Any, version: str) -> dict[bytes, Vector]:
    """The vectors of a file; none, with a warning, when it cannot be read or is of another embedder."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            if str(data["version"]) != version:
                raise ValueError(f"they are of {data['version']}, the embedder is {version}")
            digests, vectors = data["digests"], data["vectors"].astype(np.float32)
            if digests.shape != (len(vectors), DIGEST_BYTES) or vectors.shape != (len(vectors), DIMENSIONS):
                raise ValueError(f"their shapes are {digests.shape} and {vectors.shape}")
    except UNREADABLE as error:
        log.warning("The shipped vectors are not used: %s. Exemplars are embedded, which takes longer.", error)
        return {}
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return {row.tobytes(): vector for row, vector in zip(digests, vectors, strict=True)}


def write(path: Path, texts: Iterable[str], embedder: Embeds) -> int:
    """Embed texts into a file; how many vectors it has. Texts that are embedded alike count once."""
    distinct = {digest(text): text for text in texts}
    keys = sorted(distinct)
    vectors = embedder.embed_many([distinct[key] for key in keys])
    digests = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
    np.savez_compressed(path, version=np.array(embedder.version), digests=digests, vectors=vectors.astype(np.float16))
    return len(keys)


if __name__ == "__main__":
    count = write(Path(str(FILE)), (exemplar.content for exemplar in shipped_exemplars()), Embedder())
    log.warning("%s: %d vectors", FILE, count)
