"""A text as it is compared: without case, accents, ¿ and ¡, so that how it was typed does not change what it is."""

from __future__ import annotations

import unicodedata


def _table() -> dict[int, str | None]:
    """Latin letters with marks to their base letters; marks that stand alone vanish; Spanish opening signs are gaps."""
    table: dict[int, str | None] = dict.fromkeys(range(0x300, 0x370))
    for code in range(0xC0, 0x250):
        base = unicodedata.normalize("NFD", chr(code))[0]
        if base.isascii():
            table[code] = base.lower()
    table |= {ord(sign): " " for sign in "¿¡\u00a0"}
    table |= {ord(sign): "'" for sign in "‘’´"} | {ord(sign): '"' for sign in "“”«»"}
    return table


_TABLE = _table()


def fold(text: str) -> str:
    """Lower case, no accents (ñ included), no ¿ and ¡, straight quotation marks. Line breaks stay."""
    lower = text.lower()
    # Nothing in the table is ASCII.
    return lower if lower.isascii() else lower.translate(_TABLE)
