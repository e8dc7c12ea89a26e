"""Yes and no, names and short texts."""

from __future__ import annotations

import re
import unicodedata

from capibara_agents.answers.statement import (
    GUESSED,
    MARKED,
    WHOLE,
    first_sentence,
    last_lines,
    plain,
    statements,
)
from capibara_agents.types import AnswerKind, Canonical

NAME_WORDS = 8
"""A longer text is no name."""

_YES = r"s[ií]|yes|yeah|yep|true|verdader[oa]|cierto|correct|correcto|afirmativo|indeed"
_NO = r"no|nope|false|fals[oa]|incorrect[oa]?|negativo"
# Without its accent `si` is a yes only when nothing follows: "Si llueve, …" is a condition.
_OPENS = re.compile(
    rf"^\W*(?:(?P<yes>sí\b|si\s*(?=[,.!;:]|$)|(?:yes|yeah|yep|true|verdader[oa]|cierto|correcto?|afirmativo)\b)|(?P<no>(?:{_NO})\b))",
    re.IGNORECASE,
)
_STATED = re.compile(rf"^\W*(?:(?P<yes>(?:{_YES})\b)|(?P<no>(?:{_NO})\b))", re.IGNORECASE)
_CLOSES = re.compile(r"[,;:—-]\s*(?:(?P<yes>yes|sí|true|verdadero)|(?P<no>no|false|falso))\W*$", re.IGNORECASE)
_COPULA = re.compile(
    r"^(?:[^.\n]{0,120}?\s)??(?:is|are|was|were|is called|es|son|fue|era|se llama|fueron)\s+(?P<what>[^.\n,;:(]{1,80})",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:the|a|an|el|la|los|las|un|una|unos|unas|called|named|llamad[oa])\s+", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")


def plain_text(content: str) -> str:
    """Lower case, without accents, punctuation and runs of white space: for telling texts equal."""
    decomposed = unicodedata.normalize("NFKD", content.casefold())
    letters = "".join(c if c.isalnum() else " " for c in decomposed if not unicodedata.combining(c))
    return " ".join(letters.split())


def yes_no_answer(content: str) -> Canonical | None:
    """Yes or no: the text opens with it, or states it as its answer. True and false count as yes and no."""
    for statement in statements(content):
        if statement.strong and (match := _STATED.match(statement.text)):
            return _yes_no(match, MARKED)
    if match := _OPENS.match(content):
        return _yes_no(match, MARKED)
    lines = last_lines(plain(content), 1)
    if lines and len(lines[0].split()) <= 3 and (match := _OPENS.match(lines[0])):
        return _yes_no(match, GUESSED)
    match = _CLOSES.search(lines[0][-40:]) if lines else None
    return _yes_no(match, GUESSED) if match else None


def _yes_no(match: re.Match[str], confidence: float) -> Canonical:
    return Canonical(kind=AnswerKind.yes_no, value="yes" if match["yes"] else "no", confidence=confidence)


def name_answer(content: str) -> Canonical | None:
    """A name or a few words: the whole text, what it states, its only bold words, or what its first sentence says."""
    bare = plain(content).strip()
    if "\n" not in bare and len(bare.split()) <= NAME_WORDS and not _COPULA.match(bare):
        return _name(bare, WHOLE)
    for statement in statements(content):
        if statement.strong and (found := _name(first_sentence(statement.text), MARKED)):
            return found
    bold = _BOLD.findall(content[:2000])
    if len(set(bold)) == 1 and (found := _name(bold[0], GUESSED)):
        return found
    match = _COPULA.match(first_sentence(bare[:400]))
    return _name(match["what"], GUESSED) if match else None


def _name(text: str, confidence: float) -> Canonical | None:
    without = _ARTICLE.sub("", text.strip().strip("\"'«»“”.:"))
    value = plain_text(without)
    if not value or len(value.split()) > NAME_WORDS:
        return None
    return Canonical(kind=AnswerKind.name, value=value, confidence=confidence)
