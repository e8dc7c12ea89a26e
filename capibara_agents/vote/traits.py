"""What an answer looks like in the light of its question, before anybody is believed. Pure.

An answer that cannot be an option, the largest of ten numbers, a fraction where things are counted: such traits make
an answer more or less likely whoever gives it. How much is learned from recorded votes (weights.py); with nothing
recorded they count for nothing. Each trait is named `answer.…` and of the size of 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from capibara_agents.answers import parse_number, plain_text
from capibara_agents.types import AnswerKind, Canonical

Traits = Mapping[str, float]

MAX_QUESTION_CHARS = 20_000
MAX_CHOICE_CHARS = 400
HUGE = 1e5
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_RATIO = re.compile(r"-?\d{1,15}/\d{1,15}")
_ALL_OF = re.compile(r"\b(?:all|both|todas?|todos?|ambos|ambas) (?:of |las |los )?", re.IGNORECASE)
_NONE_OF = re.compile(r"\b(?:none|neither|not|ningun[oa]?|no)\b", re.IGNORECASE)


def traits(answer: Canonical, question: str, choices: Sequence[str]) -> dict[str, float]:
    """The traits of one answer; `choices` are the texts of the options, in order, where the question offers any."""
    if answer.kind is AnswerKind.option and choices:
        return _of_option(answer.value, tuple(text[:MAX_CHOICE_CHARS] for text in choices))
    return _of_value(answer, question[:MAX_QUESTION_CHARS])


def _of_value(answer: Canonical, question: str) -> dict[str, float]:
    value = _number(answer.value) if answer.kind is AnswerKind.number else None
    if value is None:
        return {"answer.words": 1.0}
    size = abs(value)
    found = {
        "answer.fraction": value != int(value),
        "answer.negative": value < 0,
        "answer.zero": size == 0,
        "answer.one": size == 1,
        "answer.huge": size > HUGE,
        "answer.tens": size > 0 and size % 10 == 0,
        "answer.in_question": round(value, 6) in _numbers_of(question),
    }
    return {name: 1.0 for name, holds in found.items() if holds} | {"answer.magnitude": math.log10(size + 1) / 2}


def _of_option(letter: str, choices: tuple[str, ...]) -> dict[str, float]:
    place = ord(letter[:1].upper() or " ") - ord("A")
    if not 0 <= place < len(choices):
        return {"answer.no_such_option": 1.0}
    return {f"answer.option.{letter[:1].upper()}": 1.0, **_choice_traits(choices)[place]}


@lru_cache(maxsize=256)
def _choice_traits(choices: tuple[str, ...]) -> tuple[dict[str, float], ...]:
    lengths = [len(text) for text in choices]
    mean_length = sum(lengths) / len(lengths)
    alike = _likeness(choices)
    mean_alike = sum(alike) / len(alike)
    ranks = _ranks(choices)
    found = []
    for place, text in enumerate(choices):
        held = {
            "answer.length": math.log((lengths[place] + 2) / (mean_length + 2)),
            "answer.longest": float(lengths[place] == max(lengths) and lengths.count(max(lengths)) == 1),
            "answer.shortest": float(lengths[place] == min(lengths) and lengths.count(min(lengths)) == 1),
            "answer.all_of": float(_ALL_OF.search(text) is not None),
            "answer.none_of": float(_NONE_OF.search(text) is not None),
            "answer.like_the_others": 10 * (alike[place] - mean_alike),
        }
        if ranks is not None:
            off_middle = ranks[place] - 0.5
            held |= {"answer.extreme": 4 * off_middle * off_middle, "answer.larger": off_middle}
        found.append({name: value for name, value in held.items() if value})
    return tuple(found)


def _likeness(choices: tuple[str, ...]) -> list[float]:
    """How much of its letter triples each shares with the others, mean of Jaccard's index, in [0, 1]."""
    triples = []
    for text in choices:
        padded = f" {plain_text(text)} "
        triples.append({padded[i : i + 3] for i in range(len(padded) - 2)})
    total = [0.0] * len(triples)
    for i, a in enumerate(triples):
        for j in range(i):
            shared = len(a & triples[j])
            index = shared / max(1, len(a) + len(triples[j]) - shared)
            total[i] += index
            total[j] += index
    return [held / max(1, len(triples) - 1) for held in total]


def _ranks(choices: tuple[str, ...]) -> list[float] | None:
    """Where each stands among the others by its size, in [0, 1]; None unless all are numbers."""
    values = [_number(re.sub(r"[^\d.,/-]", "", text).strip("/")) for text in choices]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        return None
    order = sorted(range(len(known)), key=lambda i: known[i])
    ranks = [0.0] * len(known)
    for rank, place in enumerate(order):
        ranks[place] = rank / (len(known) - 1)
    return ranks


@lru_cache(maxsize=64)
def _numbers_of(question: str) -> frozenset[float]:
    found = (_number(text) for text in _NUMBER.findall(question))
    return frozenset(round(value, 6) for value in found if value is not None)


def _number(text: str) -> float | None:
    """A finite number, or None."""
    written = text if _RATIO.fullmatch(text) else parse_number(text)
    if written is None:
        return None
    try:
        value = float(Fraction(written))
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None
