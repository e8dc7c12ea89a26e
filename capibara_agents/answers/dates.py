"""Dates in Spanish and English, as ISO 8601: a day, a month (2024-05) or a year (2024, -0044 for 44 BC)."""

from __future__ import annotations

import datetime
import re

from capibara_agents.answers.statement import GUESSED, MARKED, first_sentence, plain, statements
from capibara_agents.answers.wordlist import listed
from capibara_agents.types import AnswerKind, Canonical

_MONTHS_EN = listed(
    """
    january february march april may june july august september october november december
    """
)
_MONTHS_ES = listed(
    """
    enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
    """
)
_MONTHS = {name: i for names in (_MONTHS_EN, _MONTHS_ES) for i, name in enumerate(names, 1)}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9, "setiembre": 9, "ago": 8, "ene": 1}
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|º|ro)?"
_YEAR = r"(?P<year>\d{3,4})"
_BC = r"(?:\s*(?P<bc>BCE?|B\.C\.(?:E\.)?|a\.?\s?C\.?(?![a-z])|a\.?e\.?c\.?|antes de Cristo))?"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![\d/-])(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})(?![\d/-])",
        rf"(?<!\w){_DAY}\s*(?:de(?:l)?\s+|of\s+|\s)\s*{_MONTH},?\s*(?:de(?:l)?\s+(?:año\s+)?|\s)?\s*{_YEAR}\b{_BC}",
        rf"\b{_MONTH}\s+{_DAY},?\s+{_YEAR}\b{_BC}",
        r"(?<![\d/.-])(?P<first>\d{1,2})[/.-](?P<second>\d{1,2})[/.-](?P<year>\d{4})(?![\d/-])",
        rf"\b{_MONTH},?\s*(?:de(?:l)?\s+|of\s+)?{_YEAR}\b",
        rf"(?<!\w){_DAY}\s+(?:de\s+|of\s+)?{_MONTH}(?!\w)",
        rf"\b{_MONTH}\s+{_DAY}(?!\w)",
        r"(?<![\w.,/-])(?P<year>\d{1,4})\s*(?P<bc>BCE?\b|B\.C\.(?:E\.)?|a\.\s?C\.?|antes de Cristo)",
        r"(?<![\w.,/$€-])(?P<year>1\d{3}|20\d{2}|[3-9]\d{2})(?![\w/%]|[.,]\d|\s*(?:km|m|kg|€|\$|°))",
    )
)


def date_answer(content: str, *, day_first: bool, year_only: bool = False) -> Canonical | None:
    """The date that is stated, else the first of the text; `day_first` reads 1/5/2024 as the first of May."""
    for statement in statements(content):
        if statement.strong and (found := first_date(first_sentence(statement.text), day_first=day_first)):
            return _canonical(found, MARKED, year_only)
    text = plain(content)
    found = first_date(text[:4000], day_first=day_first)
    if found is None:
        return None
    return _canonical(found, MARKED if len(text) <= 80 else GUESSED, year_only)


def _canonical(iso: str, confidence: float, year_only: bool) -> Canonical:
    if year_only and not iso.startswith("--"):
        iso = iso[:5] if iso.startswith("-") else iso[:4]
    return Canonical(kind=AnswerKind.date, value=iso, confidence=confidence)


def first_date(text: str, *, day_first: bool) -> str | None:
    """The first date in the most telling form that occurs; None when there is none, or it is no day of any calendar."""
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            iso = _iso(match.groupdict(), day_first)
            if iso is not None:
                return iso
    return None


def _iso(parts: dict[str, str | None], day_first: bool) -> str | None:
    month, day = _month(parts.get("month")), int(parts.get("day") or 0)
    if parts.get("first") and parts.get("second"):
        first, second = int(str(parts["first"])), int(str(parts["second"]))
        # Where only one reading is a date, that one.
        swap = first > 12 or (day_first and second <= 12)
        day, month = (first, second) if swap else (second, first)
    year = int(parts.get("year") or 0)
    if not _exists(year or 2000, month, day):
        return None
    written = f"{'-' if parts.get('bc') else ''}{year:04d}" if year else "-"
    return written + (f"-{month:02d}" if month else "") + (f"-{day:02d}" if day else "")


def _month(text: str | None) -> int:
    if not text:
        return 0
    return int(text) if text.isdigit() else _MONTHS[text.lower()]


def _exists(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month or 1, day or 1)
    except ValueError:
        return False
    return True
