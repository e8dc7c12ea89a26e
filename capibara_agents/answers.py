"""Reduces an answer to the part that can be compared with another's: a number, an option, yes or no, JSON, text.

Pure; Spanish and English. Says how sure it is: 1.0 for an answer that the text itself marks as final,
less for one that was merely the last thing that fitted.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from capibara_agents.types import AnswerKind, Canonical, Domain

MARKED = 0.95
GUESSED = 0.6
WHOLE = 0.9

_MARKER = re.compile(
    r"(?:respuesta(?:\s+final)?(?:\s+correcta)?(?:\s+es)?|resultado(?:\s+es)?|soluci[oó]n(?:\s+es)?|"
    r"(?:final\s+)?answer(?:\s+is)?|result(?:\s+is)?|por\s+(?:lo\s+)?tanto|therefore|####|\\boxed\{)\s*[:=]?\s*",
    re.IGNORECASE,
)
# Blanks join digits in groups of three only: "1, 2" and "2020 100" are two numbers each; in "12-7" there is no sign.
_NUMBER = re.compile(r"(?:(?<![\w)])[-+−])?(?:\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)*)")
_OPTION = re.compile(r"(?:^|[\s(\[*\"'])([A-J])(?=[\s).\]:,*\"']|$)")
# Without its accent `si` is a yes only when nothing follows: "Si llueve, …" is a condition.
_YES_NO = re.compile(r"^\W*(sí\b|si\s*(?=[,.!;:]|$)|yes\b|no\b)", re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
_OPTIONS_ASKED = re.compile(r"(?:^|\n)\s*\(?[A-D][).:]\s+\S", re.MULTILINE)


def canonical(content: str, *, question: str, domain: Domain, wants_json: bool) -> Canonical:
    """The canonical answer of a non-empty text. Never raises: in doubt it is the normalised text itself."""
    for extract in _extractors(question, domain, wants_json):
        found = extract(content)
        if found is not None:
            return found
    return Canonical(kind=AnswerKind.text, value=plain_text(content), confidence=WHOLE)


def _extractors(question: str, domain: Domain, wants_json: bool) -> list[Callable[[str], Canonical | None]]:
    chosen: list[Callable[[str], Canonical | None]] = []
    if wants_json:
        chosen.append(json_answer)
    if len(_OPTIONS_ASKED.findall(question)) >= 2:
        chosen.append(option_answer)
    if domain == "math":
        chosen.append(number_answer)
    if domain in ("factual_qa", "logic_reasoning", "other"):
        chosen.append(yes_no_answer)
    return chosen


def number_answer(content: str) -> Canonical | None:
    """The number after the last marker, else the last number."""
    marked = _after_last_marker(content)
    if marked is not None and (found := _NUMBER.search(marked)) and (value := parse_number(found.group())):
        return Canonical(kind=AnswerKind.number, value=value, confidence=MARKED)
    for match in reversed(list(_NUMBER.finditer(content))):
        if value := parse_number(match.group()):
            return Canonical(kind=AnswerKind.number, value=value, confidence=GUESSED)
    return None


def parse_number(text: str) -> str | None:
    """A number in Spanish or English notation as plain decimal digits; None when it is none.

    One kind of separator followed by exactly three digits groups thousands; otherwise the last one is decimal.
    """
    compact = re.sub(r"\s", "", text).rstrip(".,").replace("−", "-")
    separators = [c for c in compact if c in ".,"]
    if separators:
        last = separators[-1]
        tail = compact.rpartition(last)[2]
        mixed = len(set(separators)) == 2
        if not mixed and len(separators) > 1 and any(len(part) != 3 for part in compact.split(last)[1:]):
            return None  # a version, a date, an address
        groups = not mixed and len(tail) == 3 and not compact.lstrip("+-").startswith("0")
        if groups:
            compact = compact.replace(last, "")
        else:
            whole, _, fraction = compact.rpartition(last)
            compact = f"{re.sub('[.,]', '', whole)}.{fraction}"
    try:
        number = Decimal(compact)
    except InvalidOperation:
        return None
    plain = format(number.normalize(), "f")
    return "0" if plain == "-0" else plain


def option_answer(content: str) -> Canonical | None:
    """The option letter after the last marker, else the only one, else the last."""
    marked = _after_last_marker(content)
    if marked is not None and (found := _OPTION.search(" " + marked[:20])):
        return Canonical(kind=AnswerKind.option, value=found.group(1), confidence=MARKED)
    letters = _OPTION.findall(content)
    if not letters:
        return None
    sure = MARKED if len(content.strip()) <= 3 else GUESSED
    return Canonical(kind=AnswerKind.option, value=letters[-1], confidence=sure)


def yes_no_answer(content: str) -> Canonical | None:
    """Yes or no, when the text opens with it."""
    found = _YES_NO.match(content)
    if found is None:
        return None
    value = "no" if found.group(1).lower() == "no" else "yes"
    return Canonical(kind=AnswerKind.yes_no, value=value, confidence=MARKED)


def json_answer(content: str) -> Canonical | None:
    """The JSON value of the text, keys sorted; None when it holds none."""
    fenced = _FENCE.search(content)
    try:
        value = json.loads(fenced.group(1) if fenced else content)
    except ValueError:
        return None
    return Canonical(kind=AnswerKind.json, value=json.dumps(value, sort_keys=True, ensure_ascii=False), confidence=1.0)


def plain_text(content: str) -> str:
    """Lower case, without accents, punctuation and runs of white space: for telling texts equal."""
    decomposed = unicodedata.normalize("NFKD", content.casefold())
    letters = "".join(c if c.isalnum() else " " for c in decomposed if not unicodedata.combining(c))
    return " ".join(letters.split())


def _after_last_marker(content: str) -> str | None:
    ends = [match.end() for match in _MARKER.finditer(content)]
    return content[ends[-1] :] if ends else None
