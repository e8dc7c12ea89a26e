"""Whether two canonical answers say the same: exactly, as numbers, as mathematics, or as words."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction

from capibara_agents.answers.evaluation import approximate, exact, same_meaning
from capibara_agents.answers.notation import read
from capibara_agents.answers.numbers import measured_in
from capibara_agents.answers.words import plain_text
from capibara_agents.types import AnswerKind, Canonical

MAX_CHARS = 100_000
"""Beyond this, only the same characters are the same answer."""
ROUNDED_DIGITS = 3
ROUNDED_DECIMALS = 2
"""A decimal of at least so many digits, so many of them decimals, may be another number, rounded."""

_MATHEMATICAL = (AnswerKind.number, AnswerKind.expression)
_WORDS = (AnswerKind.name, AnswerKind.text)


def same(a: Canonical, b: Canonical) -> bool:
    """Two answers that a careful reader would call the same. Symmetric, bounded in time, never raises.

    Not transitive where a unit is missing or a number is rounded: 50 and 0.5 both are the same as 50 %.
    """
    if a.kind == b.kind and a.value == b.value:
        return _units_agree(a, b)
    if max(len(a.value), len(b.value)) > MAX_CHARS:
        return False
    if a.kind in _MATHEMATICAL and b.kind in _MATHEMATICAL:
        return _same_amount(a, b)
    if {a.kind, b.kind} == {AnswerKind.number, AnswerKind.date}:
        return a.value == b.value
    if a.kind in _WORDS and b.kind in _WORDS:
        return plain_text(a.value) == plain_text(b.value)
    return False


def _units_agree(a: Canonical, b: Canonical) -> bool:
    return a.unit == b.unit or not a.unit or not b.unit or measured_in(a.unit) is None or measured_in(b.unit) is None


def _same_amount(a: Canonical, b: Canonical) -> bool:
    x, y = _fraction(a), _fraction(b)
    if x is not None and y is not None:
        return any(_same_number(v, w, a.value, b.value) for v, w in _in_one_unit(x, y, a.unit, b.unit))
    left, right = read(a.value), read(b.value)
    if left is None or right is None:
        return "".join(a.value.split()) == "".join(b.value.split())
    return same_meaning(left, right) or _rounded_to(a, b) or _rounded_to(b, a)


def _fraction(answer: Canonical) -> Fraction | None:
    if answer.kind is AnswerKind.number:
        try:
            return Fraction(answer.value)
        except (ValueError, ZeroDivisionError):
            return None
    node = read(answer.value)
    return exact(node) if node is not None else None


def _in_one_unit(x: Fraction, y: Fraction, unit: str, other: str) -> list[tuple[Fraction, Fraction]]:
    """The pairs to compare: percentages against their fractions too, lengths in one unit."""
    if unit == other or (not unit and other != "%") or (not other and unit != "%"):
        return [(x, y)]
    if unit == "%":
        return [(x, y), (x / 100, y)] if not other else []
    if other == "%":
        return [(x, y), (x, y / 100)] if not unit else []
    one, two = measured_in(unit), measured_in(other)
    if one is None or two is None:
        return [(x, y)]
    return [(x * one[1], y * two[1])] if one[0] == two[0] else []


def _same_number(x: Fraction, y: Fraction, written_x: str, written_y: str) -> bool:
    if x == y:
        return True
    return _rounds(y, written_x) or _rounds(x, written_y)


def _rounds(value: Fraction, written: str) -> bool:
    """Whether `written`, a decimal of some precision, is `value` rounded or cut off there."""
    digits = written.lstrip("-").replace(".", "").lstrip("0")
    decimals = len(written.partition(".")[2])
    if "/" in written or len(digits) < ROUNDED_DIGITS or decimals < ROUNDED_DECIMALS:
        return False
    exactly = Decimal(value.numerator) / Decimal(value.denominator)
    place = Decimal(1).scaleb(-decimals)
    try:
        return any(
            exactly.quantize(place, rounding) == Decimal(written)
            for rounding in (ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_DOWN)
        )
    except ArithmeticError:
        return False


def _rounded_to(number: Canonical, expression: Canonical) -> bool:
    """A decimal that is an irrational value, rounded."""
    if number.kind is not AnswerKind.number:
        return False
    node = read(expression.value)
    value = approximate(node) if node is not None else None
    return value is not None and _rounds(Fraction(value), number.value)
