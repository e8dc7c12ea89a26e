"""The number, or the mathematical expression, that a text gives as its answer."""

from __future__ import annotations

import re
from fractions import Fraction

from capibara_agents.answers.evaluation import exact
from capibara_agents.answers.notation import read
from capibara_agents.answers.numbers import Quantity, first_quantity, number_in_words, quantities
from capibara_agents.answers.statement import (
    CONTESTED,
    GUESSED,
    MARKED,
    WEAK,
    WHOLE,
    Statement,
    first_sentence,
    last_lines,
    plain,
    statements,
)
from capibara_agents.answers.tokens import tidy
from capibara_agents.types import AnswerKind, Canonical

MAX_STATEMENTS = 12
STRICT_WORDS = 4
"""A whole text of more words than this is a sentence, and what it begins with is hardly its answer."""

_MATH_SPAN = re.compile(r"\$\$(.{1,300}?)\$\$|\\\[(.{1,300}?)\\\]|\\\((.{1,300}?)\\\)|\$([^$\n]{1,300}?)\$", re.DOTALL)
_DISPLAY = re.compile(
    r"^\s*(?:\$\$|\\\[|\\begin\{(?:align|equation)\*?\})\s*(.{1,300}?)(?:\$\$|"
    r"\\\]|\\end\{|\Z)",
    re.DOTALL,
)
_PROSE = re.compile(
    r"(?<![\\A-Za-z{])[ \t]+(?!(?:or|and|o|y|in|cup|pi|sqrt|sin|cos|tan|log|ln)\b)(?=[A-Za-zÀ-ÿ]{2,}\b)"
)
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_GOES_ON = re.compile(
    r"^\s*(?:[-+*/^×·÷=±√π!(\\_<>≤≥∪]|,\s?[-\d\\]|;\s*\d|[A-Za-z](?![A-Za-z])(?!\s*[.,;:!?]?\s*$)|"
    r"(?:or|and|o|y)\s+[-\d\\])"
)
_LETTER_ONLY = re.compile(r"^\s?[a-zA-Z](?![A-Za-z])")
_LABEL = re.compile(r"^[A-Za-zÀ-ÿ ]{1,30}:\s*")


def number_answer(content: str, *, noun: str = "", decimal_comma: bool = False) -> Canonical | None:
    """The stated number or expression, else the one of the last line, else the last number.

    `noun` is what is counted ("how many apples"), for texts that state nothing; `decimal_comma` reads "1,5" in
    formulas as one and a half rather than as two numbers.
    """
    found = _stated(content, noun, decimal_comma)
    if found is not None:
        return found
    bare = plain(content).strip()
    if "\n" not in bare and len(bare) <= 200:
        whole = _of_chunk(bare, decimal_comma, WHOLE, strict=True)
        if whole is not None:
            return whole
    return _concluded(content, noun, decimal_comma)


def _stated(content: str, noun: str, decimal_comma: bool) -> Canonical | None:
    """What the last statement says; less sure when another strong one says something else."""
    found: list[Canonical] = []
    for statement in statements(content)[:MAX_STATEMENTS]:
        if found and not statement.strong:
            break
        answer = _of_statement(statement, noun, decimal_comma)
        if answer is not None:
            found.append(answer)
    if not found:
        return None
    contested = any((f.kind, f.value) != (found[0].kind, found[0].value) for f in found[1:])
    return (
        found[0].model_copy(update={"confidence": CONTESTED})
        if contested and found[0].confidence > CONTESTED
        else found[0]
    )


def _of_statement(statement: Statement, noun: str, decimal_comma: bool) -> Canonical | None:
    confidence = MARKED if statement.strong else GUESSED
    display = _DISPLAY.match(statement.text)
    chunk = display[1] if display else first_sentence(statement.text)
    if statement.strong:
        return _of_chunk(chunk, decimal_comma, confidence) or _in_words(chunk, confidence)
    if "=" in chunk or _MATH_SPAN.search(chunk):
        return _of_chunk(chunk, decimal_comma, confidence)
    return _counted(quantities(chunk), chunk, noun, confidence)


def _of_chunk(chunk: str, decimal_comma: bool, confidence: float, *, strict: bool = False) -> Canonical | None:
    """The answer that a piece of a sentence begins with, or ends in after its last sign of equality."""
    chunk = _bare(chunk)
    number = _plain_number(chunk, decimal_comma)
    if number is not None and not (strict and len(chunk.split()) > STRICT_WORDS):
        return _number(number, confidence)
    if chunk.count("$") > 2 and (whole := _expression(chunk, decimal_comma, confidence)):
        return whole
    span = _MATH_SPAN.search(chunk)
    if span is not None and not strict and _expression_in(span, decimal_comma, confidence) is not None:
        last = list(_MATH_SPAN.finditer(chunk))[-1] if "=" in chunk else span
        return _expression_in(last, decimal_comma, confidence) or _expression_in(span, decimal_comma, confidence)
    prefix = _PROSE.split(chunk, maxsplit=1)[0]
    for piece in (chunk,) if strict else (chunk, prefix):
        found = _expression(piece, decimal_comma, confidence)
        if found is not None:
            return found
    after = chunk.rpartition("=")[2] if "=" in chunk else ""
    if after.strip() and not strict:
        return _of_chunk(after, decimal_comma, confidence)
    quantity = None if strict else first_quantity(_prose_of(chunk))
    return _number(quantity, confidence) if quantity is not None else None


def _bare(chunk: str) -> str:
    text = _LABEL.sub("", plain(chunk)).strip().strip("\"'`«»“”").rstrip(".,;: ")
    # "[\boxed{5}]" of a display whose backslashes were lost.
    boxed = re.search(r"\\(?:boxed|fbox)\s*\{(.{1,200})\}\s*[$\])\\]*$", text)
    return boxed[1] if boxed else text


def _expression_in(span: re.Match[str], decimal_comma: bool, confidence: float) -> Canonical | None:
    inside = next(group for group in span.groups() if group is not None)
    number = _plain_number(inside, decimal_comma)
    return _number(number, confidence) if number is not None else _expression(inside, decimal_comma, confidence)


def _prose_of(chunk: str) -> str:
    return tidy(chunk) if "\\" in chunk else chunk


def _plain_number(chunk: str, decimal_comma: bool) -> Quantity | None:
    """The number that a piece begins with, when what follows is prose and not more of a formula."""
    text = _prose_of(chunk) if "\\" in chunk or chunk.count("$") > 1 else chunk
    text = text.strip()
    quantity = first_quantity(text)
    if quantity is None or text[: quantity.start].strip("~≈$€ ("):
        return None
    written, rest = text[quantity.start : quantity.end], text[quantity.end :]
    if not decimal_comma and "\\" in chunk and re.fullmatch(r"-?\d+,\d{1,2}", written.strip()):
        return None
    if _GOES_ON.match(rest) or (_LETTER_ONLY.match(rest) and not quantity.unit):
        return None
    if text[: quantity.start].strip().startswith("(") and "," in rest:
        return None
    return quantity


def _expression(text: str, decimal_comma: bool, confidence: float) -> Canonical | None:
    """A piece that is mathematical notation as a whole."""
    bare = tidy(text.strip().rstrip(".,;: "))
    if not re.search(r"[\d\\√π∞]|^\W*[A-Za-z]\W*$|[=^+*/]", bare) or not bare:
        return None
    if decimal_comma:
        bare = re.sub(r"(?<=\d),(?=\d)", ".", bare)
    node = read(bare)
    if node is None:
        return None
    if node.op == "relation" and node.name == "=" and exact(node.args[0]) is not None:
        return _of_chunk(bare.rpartition("=")[2], decimal_comma, confidence)
    if node.op == "relation" and node.name == "=":
        after = bare.rpartition("=")[2]
        number = _plain_number(after, decimal_comma)
        if number is not None:
            return _number(number, confidence)
    value = exact(node)
    if value is not None:
        return Canonical(kind=AnswerKind.number, value=written(value), confidence=confidence)
    return Canonical(kind=AnswerKind.expression, value=" ".join(bare.split()), confidence=confidence)


def _in_words(chunk: str, confidence: float) -> Canonical | None:
    value = number_in_words(chunk)
    # "una" and "one" are articles before a noun.
    if value is None or (value == 1 and len(chunk.split()) > 2):
        return None
    return Canonical(kind=AnswerKind.number, value=str(value), confidence=confidence)


def _concluded(content: str, noun: str, decimal_comma: bool) -> Canonical | None:
    """From a text without a statement: bold words, an equation or a counted thing at the end, else the last number."""
    lines = last_lines(content)
    for line in lines[:2]:
        for bold in reversed(_BOLD.findall(line)):
            found = _of_chunk(bold, decimal_comma, GUESSED)
            if found is not None:
                return found
    last = plain(lines[0]) if lines else ""
    if "=" in last and (found := _of_chunk(last.rpartition("=")[2], decimal_comma, GUESSED)):
        return found
    text = plain(content)
    spans = list(_MATH_SPAN.finditer(last))
    if spans and (found := _expression_in(spans[-1], decimal_comma, GUESSED)):
        return found
    everything = quantities(_prose_of(text))
    found = _counted(everything, _prose_of(text), noun, GUESSED)
    if found is not None and len({q.value for q in everything}) > 6:
        return found.model_copy(update={"confidence": WEAK})
    return found


def _counted(found: list[Quantity], text: str, noun: str, confidence: float) -> Canonical | None:
    """The last number before the counted noun, else the last number."""
    if not found:
        return None
    if len(noun) >= 3:
        stem = noun.lower()[: max(4, len(noun) - 2)]
        named = [q for q in found if text[q.end :].lstrip().lower().startswith(stem)]
        if named:
            return _number(named[-1], confidence)
    return _number(found[-1], confidence)


def _number(quantity: Quantity, confidence: float) -> Canonical:
    return Canonical(kind=AnswerKind.number, value=written(quantity.value), unit=quantity.unit, confidence=confidence)


def written(value: Fraction) -> str:
    """A rational number as plain decimal digits where these end, else as p/q."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    if below != 1 or value.denominator > 10**30:
        return f"{value.numerator}/{value.denominator}"
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(abs((value * 10**places).numerator)).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"
