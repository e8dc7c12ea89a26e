"""Small changes of a text that leave its meaning alone. Pure; the same seed gives the same text."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable

_WORD = re.compile(r"[^\W\d_]{4,}")


def typo(text: str, chance: random.Random) -> str:
    """One slip in one word of four letters or more: two letters swapped, one left out, or one doubled."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    word = chance.choice(words)
    at = chance.randrange(word.start() + 1, word.end() - 1)
    slips = (
        text[:at] + text[at + 1] + text[at] + text[at + 2 :],
        text[:at] + text[at + 1 :],
        text[: at + 1] + text[at:],
    )
    return chance.choice([slip for slip in slips if slip != text])


def lower(text: str, _: random.Random) -> str:
    """No capitals."""
    return text.lower()


def upper(text: str, _: random.Random) -> str:
    """Capitals only."""
    return text.upper()


def accents(text: str, _: random.Random) -> str:
    """No accents and no tildes, as on a keyboard without them."""
    bare = (mark for mark in unicodedata.normalize("NFD", text) if unicodedata.category(mark) != "Mn")
    return unicodedata.normalize("NFC", "".join(bare))


def marks(text: str, _: random.Random) -> str:
    """No opening question and exclamation marks."""
    return text.replace("¿", "").replace("¡", "")


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "typo": typo,
    "lower": lower,
    "upper": upper,
    "accents": accents,
    "marks": marks,
}


def perturbed(text: str, kind: str, seed: int, identity: str) -> str | None:
    """The text changed in that way; None where there is nothing to change."""
    changed = KINDS[kind](text, random.Random(f"{seed}:{kind}:{identity}"))
    return None if changed == text else changed
