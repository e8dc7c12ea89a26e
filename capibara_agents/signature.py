"""What a question is remembered by once its text is gone: its sentence vector and the form it was put in. Pure.

    signature = [ meaning: 512 numbers of unit length | form: FORM_SIZE counts and marks ]

Two questions of one subject differ in how hard they are by their form: how long, how many numbers, which options.
No text can be read back from it, so outcomes can be kept without keeping what people asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np

from capibara_agents.embedder import DIMENSIONS, Vector

SCAN_CHARS = 4000
"""Of a long text only so much of its beginning is looked at."""

_OPTION = re.compile(r"^\s*\(?([A-J])[.):]\s+(.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMERIC_OPTION = re.compile(r"^[\W_]*\d")
_QUANTITY = (
    r"\b(?:each|every|per|twice|half|times|remaining|left|total|percent|average|ratio|more than|less than|as many|"
    r"cada|por|doble|mitad|veces|restantes?|quedan?|total|por ?ciento|promedio|raz[oó]n|m[aá]s que|menos que)\b"
)
_LINK = (
    r"\b(?:if|then|and|or|but|after|before|when|because|therefore|"
    r"si|entonces|y|o|pero|despu[eé]s|antes|cuando|porque|por tanto)\b"
)
_MARKS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?:not|except|least|never|incorrect|false|no es|excepto|salvo|nunca|incorrect[ao]|fals[ao])\b",
        r"\b(?:statement|afirmaci[oó]n|enunciado) 1\b",
        r"\b(?:scenario|escenario|situaci[oó]n) 1\b",
        r"\bI{1,3}\b\.? ?(?:only|and|y|solo|s[oó]lo)\b",
        r"_{3}|\.\.\.|…",
        r"\b(?:all|none|todas|ninguna) (?:of|de) (?:the |las )?(?:above|these|anteriores)",
        r"\b(?:if|suppose|let|assume|given|si|sup[oó]n\w*|sea|dad[oa]s?)\b",
        r"\b(?:calculate|compute|find|determine|how many|how much|evaluate|solve|"
        r"calcula\w*|halla|encuentra|determina|cu[aá]nt[oa]s?|eval[uú]a|resuelve)\b",
        r"\b(?:who|when|where|which|qui[eé]n|cu[aá]ndo|d[oó]nde|cu[aá]l(?:es)?)\b",
        r"\b(?:why|explain|best describes|most likely|por qu[eé]|explica|mejor describe|m[aá]s probable)\b",
        r"[\"“‘«]",
        r"=",
        r"\$",
        r"%",
        r"```|\b(?:def|class|return|import|print|assert)\b",
    )
)
_SHOUTED_NO = re.compile(r"\b(?:EXCEPT|NOT|LEAST|EXCEPTO|NO)\b")


def _log(count: float) -> float:
    return math.log1p(count)


def _matches(pattern: str) -> Callable[[str], float]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: _log(len(compiled.findall(text)))


_COUNTS = (
    _matches(_QUANTITY),
    _matches(_LINK),
    _matches(r"[-+*/^<>=×÷]"),
    _matches(r"\\[a-z]+"),
    _matches(r"[?]"),
    _matches(r"[.]"),
    _matches(r"[,]"),
    _matches(r"\n"),
    _matches(r"[^\x00-\x7f]"),
)


def form(text: str) -> Vector:
    """How a question is put, shape (FORM_SIZE,), float32: counts as logarithms, shares and marks in [0, 1]."""
    text = text[:SCAN_CHARS]
    options = [found.group(2).strip() for found in _OPTION.finditer(text)]
    first = _OPTION.search(text)
    question = text[: first.start()] if first and len(options) >= 2 else text
    marks = [float(bool(mark.search(text))) for mark in _MARKS]
    counts = [count(question) for count in _COUNTS]
    values = [*_sizes(question), *_numbers(question), *_options(options if len(options) >= 2 else []), *counts, *marks]
    return np.array([*values, float(bool(_SHOUTED_NO.search(question)))], dtype=np.float32)


def _sizes(question: str) -> list[float]:
    words = question.split()
    lengths = [len(word) for word in words] or [0]
    letters = sum(map(str.isalpha, question))
    return [
        _log(len(question)),
        _log(len(words)),
        float(len(words) > 60),
        float(len(words) > 150),
        sum(lengths) / len(lengths) / 8,
        max(lengths) / 15,
        sum(map(str.isupper, question)) / max(1, letters),
        len({word.lower() for word in words}) / max(1, len(words)),
    ]


def _numbers(question: str) -> list[float]:
    found = _NUMBER.findall(question)
    digits = [sum(map(str.isdigit, number)) for number in found]
    return [
        _log(len(found)),
        len(found) / max(1, len(question.split())),
        _log(sum(digits)),
        max(digits, default=0) / 6,
        float(not found),
    ]


def _options(options: list[str]) -> list[float]:
    if not options:
        return [0.0] * 8
    words = np.array([len(option.split()) for option in options])
    numeric = sum(bool(_NUMERIC_OPTION.match(option)) for option in options) / len(options)
    return [
        1.0,
        len(options) / 10,
        _log(sum(map(len, options))),
        _log(float(words.mean())),
        _log(float(words.max())),
        _log(float(words.std())),
        numeric,
        float(numeric == 1),
    ]


FORM_SIZE = len(form(""))
SIGNATURE_SIZE = DIMENSIONS + FORM_SIZE


def signature(text: str, vector: Vector) -> Vector:
    """The signature of a question, shape (SIGNATURE_SIZE,), from its text and its unit vector."""
    return np.concatenate([vector, form(text)]).astype(np.float32, copy=False)
