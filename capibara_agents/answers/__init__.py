"""Reduces an answer to the part that can be compared with another's, and compares it.

Pure; Spanish and English. What the question asks decides the kind: an option, a number or expression, yes or no, a
date, a name, JSON, a literal, code, SQL; else it is free text. The confidence is high for an answer that the text
itself marks as final, lower for one that was merely the last thing that fitted; praise does not raise it.
"""

from __future__ import annotations

from collections.abc import Callable

from capibara_agents.answers.amounts import number_answer
from capibara_agents.answers.asked import Asked, asked
from capibara_agents.answers.dates import date_answer
from capibara_agents.answers.equality import same
from capibara_agents.answers.numbers import parse_number
from capibara_agents.answers.options import option_answer, options
from capibara_agents.answers.statement import WHOLE, readable
from capibara_agents.answers.structured import code_answer, json_answer, literal_answer, sql_answer
from capibara_agents.answers.words import name_answer, plain_text, yes_no_answer
from capibara_agents.types import AnswerKind, Canonical, Domain

__all__ = [
    "asked",
    "canonical",
    "code_answer",
    "date_answer",
    "json_answer",
    "literal_answer",
    "name_answer",
    "number_answer",
    "option_answer",
    "options",
    "parse_number",
    "plain_text",
    "same",
    "sql_answer",
    "yes_no_answer",
]

TEXT_CHARS = 20_000


def canonical(content: str, *, question: str, domain: Domain, wants_json: bool) -> Canonical:
    """The canonical answer of a non-empty text. Never raises: in doubt it is the normalised text itself."""
    wanted = asked(question, domain, wants_json)
    text = readable(content)
    for kind in wanted.kinds:
        extract = _EXTRACTORS.get(kind)
        found = extract(content if kind in _WHOLE_TEXT else text, question, wanted) if extract else None
        if found is not None:
            return found
    return Canonical(kind=AnswerKind.text, value=plain_text(content[:TEXT_CHARS]), confidence=WHOLE)


Extractor = Callable[[str, str, Asked], Canonical | None]

# A program or a document does not end where its text happens to hold "Question:".
_WHOLE_TEXT = frozenset({AnswerKind.json, AnswerKind.code, AnswerKind.sql})
_EXTRACTORS: dict[AnswerKind, Extractor] = {
    AnswerKind.json: lambda text, question, wanted: json_answer(text),
    AnswerKind.option: lambda text, question, wanted: option_answer(text, options(question)),
    AnswerKind.literal: lambda text, question, wanted: literal_answer(text),
    AnswerKind.code: lambda text, question, wanted: code_answer(text),
    AnswerKind.sql: lambda text, question, wanted: sql_answer(text),
    AnswerKind.yes_no: lambda text, question, wanted: yes_no_answer(text),
    AnswerKind.date: lambda text, question, wanted: date_answer(
        text, day_first=wanted.spanish, year_only=wanted.year_only
    ),
    AnswerKind.number: lambda text, question, wanted: number_answer(
        text, noun=wanted.noun, decimal_comma=wanted.spanish
    ),
    AnswerKind.name: lambda text, question, wanted: name_answer(text),
}
