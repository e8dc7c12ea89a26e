"""Whether two notations mean the same: exact on fractions, else by their values at fixed points.

Two expressions that agree at a few points chosen without regard to them are, but for very rare accidents, the same
function (Schwartz, JACM 27, 1980): no rewriting, so no input can make it explode. Numbers beyond MAX_BITS are
computed in floating point, and what overflows there has no value.
"""

from __future__ import annotations

import cmath
import math
import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from capibara_agents.answers.notation import Node

MAX_BITS = 4096
MAX_FACTORIAL = 200
POINTS = 3
TOLERANCE = 1e-9
"""Relative, of a value in floating point."""
MAX_SIGNS = 4
"""Plus-minus signs in one expression; each doubles the values."""

Number = Fraction | complex
Point = Mapping[str, float]


class NoValue(ArithmeticError):
    """Not a number: undefined, too large, or no expression at all."""


def exact(node: Node) -> Fraction | None:
    """The value of an expression without symbols and roots; None when it has no rational value that is surely exact."""
    found = _value_or_none(node, {})
    return found if isinstance(found, Fraction) else None


def approximate(node: Node) -> float | None:
    """The real value of an expression without free symbols; None when it has none."""
    if symbols(node):
        return None
    found = _value_or_none(node, {})
    if found is None:
        return None
    if isinstance(found, Fraction):
        return _float(found)
    return found.real if abs(found.imag) <= TOLERANCE * max(1.0, abs(found)) else None


def same_meaning(a: Node, b: Node) -> bool:
    """Equal expressions, sets, tuples, intervals, unions, equations. Never raises."""
    try:
        return _same(_standard(a), _standard(b)) or (a.op == b.op == "relation" and _same_relation(a, b))
    except (NoValue, RecursionError, OverflowError):
        return a == b


def _same(a: Node, b: Node) -> bool:
    if a.op == b.op == "union":
        return _same_unordered(_members(a), _members(b))
    if "sequence" in (a.op, b.op):
        return _same_sequence(a, b)
    if "relation" in (a.op, b.op):
        return _same_relation(a, b)
    return _same_value(a, b)


def _members(node: Node) -> list[Node]:
    return [member for arg in node.args for member in _members(arg)] if node.op == "union" else [node]


def _same_sequence(a: Node, b: Node) -> bool:
    if a.op != "sequence" or b.op != "sequence":
        return False
    if len(a.args) != len(b.args):
        return False
    loose = "  " in (a.name, b.name)
    if not loose and a.name != b.name:
        return False
    if "{}" in (a.name, b.name) or a.name == b.name == "  ":
        return _same_unordered(a.args, b.args)
    return all(_same(x, y) for x, y in zip(a.args, b.args, strict=True))


def _same_unordered(some: Sequence[Node], others: Sequence[Node]) -> bool:
    if len(some) != len(others) or len(some) > 30:
        return False
    left = list(others)
    for node in some:
        match = next((other for other in left if _same(node, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_relation(a: Node, b: Node) -> bool:
    """Equations with the same solutions: the differences of their sides are multiples of each other."""
    if a.op != "relation" or b.op != "relation" or a.name != b.name:
        return False
    if a.name != "=":
        return all(_same(x, y) for x, y in zip(a.args, b.args, strict=True))
    ratios: list[complex] = []
    for point in _points(a, b):
        below = _difference(b, point)
        if abs(below) < TOLERANCE:
            return False
        ratios.append(_difference(a, point) / below)
    return abs(ratios[0]) > TOLERANCE and all(_close(ratio, ratios[0]) for ratio in ratios)


def _difference(relation: Node, point: Point) -> complex:
    left, right = (complex(_value(arg, point)) for arg in relation.args)
    return left - right


def _same_value(a: Node, b: Node) -> bool:
    return all(_close(_value(a, point), _value(b, point)) for point in _points(a, b))


def _close(a: Number, b: Number) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    x, y = complex(a), complex(b)
    return abs(x - y) <= TOLERANCE * max(abs(x), abs(y), 1e-6)


# ---------------------------------------------------------------- a standard form for what is written in several ways


def _standard(node: Node) -> Node:
    """x = 5 as 5, x in (0, 1) as (0, 1), 0 < x < 1 as an interval, 1 +- 2 as a set, assignments as their values."""
    if node.op == "relation":
        return _standard_relation(node)
    if node.op == "sequence":
        return _standard_sequence(node)
    if node.op == "union":
        return Node("union", tuple(_standard(arg) for arg in node.args))
    signs = _signed_variants(node)
    if len(signs) > 1:
        return Node("sequence", tuple(signs), "{}")
    return signs[0]


def _standard_sequence(node: Node) -> Node:
    items = [_standard(item) for item in node.args]
    # "x = 2 or x = 3" and "1 ± 2, 5" are sets of all their values; "x = 2, y = 3" is a point.
    names = [item.args[0].name for item in node.args if _assigns(item)]
    if node.name == "  " and len(names) == len(node.args) and len(set(names)) > 1:
        order = sorted(range(len(items)), key=lambda i: names[i])
        return Node("sequence", tuple(items[i] for i in order), "()")
    if node.name in ("  ", "{}") and any(item.op == "sequence" and item.name == "{}" for item in items):
        flat = [
            part for item in items for part in (item.args if item.op == "sequence" and item.name == "{}" else (item,))
        ]
        return Node("sequence", tuple(flat), "{}")
    return Node("sequence", tuple(items), node.name)


def _assigns(node: Node) -> bool:
    return node.op == "relation" and node.name == "=" and node.args[0].op == "symbol"


def _standard_relation(node: Node) -> Node:
    left, right = node.args
    if node.name == "in":
        return _standard(right)
    if node.name == "=" and _is_name(left) and not (symbols(left) & symbols(right)):
        return _standard(right)
    if node.name in _DIRECTIONS:
        return _interval(node) or node
    return node


def _is_name(node: Node) -> bool:
    """`x`, `f(x)`: what an answer is called."""
    if node.op == "symbol":
        return True
    return node.op == "*" and all(part.op == "symbol" for part in node.args)


_DIRECTIONS = {"<": 1, "<=": 1, ">": -1, ">=": -1}
_INFINITY = Node("symbol", name="infty")


def _interval(node: Node) -> Node | None:
    """The interval of `a < x <= b` or of `x > a`; None for other inequalities."""
    left, right = node.args
    closed = "=" in node.name
    if left.op == "relation" and left.name in _DIRECTIONS and _DIRECTIONS[left.name] == _DIRECTIONS[node.name]:
        low, middle, high = left.args[0], left.args[1], right
        bounds = ("=" in left.name, closed)
        if _DIRECTIONS[node.name] < 0:
            low, high, bounds = high, low, (bounds[1], bounds[0])
        return _between(low, high, bounds) if middle.op == "symbol" else None
    if left.op == "symbol" and not symbols(right):
        upper = _DIRECTIONS[node.name] > 0
    elif right.op == "symbol" and not symbols(left):
        left, right, upper = right, left, _DIRECTIONS[node.name] < 0
    else:
        return None
    if upper:
        return _between(Node("negative", (_INFINITY,)), right, (False, closed))
    return _between(right, _INFINITY, (closed, False))


def _between(low: Node, high: Node, closed: tuple[bool, bool]) -> Node:
    return Node("sequence", (low, high), ("[" if closed[0] else "(") + ("]" if closed[1] else ")"))


def _signed_variants(node: Node) -> list[Node]:
    """The expression with each plus-minus sign taken both ways."""
    if not _holds_sign(node):
        return [node]
    parts: list[tuple[Node, ...]] = [()]
    for arg in node.args:
        parts = [(*before, variant) for before in parts for variant in _signed_variants(arg)]
        if len(parts) > 2**MAX_SIGNS:
            raise NoValue("too many signs")
    if node.op != "±":
        return [Node(node.op, args, node.name, node.number) for args in parts]
    unary = len(node.args) == 1
    plus = [args[0] if unary else Node("+", args) for args in parts]
    minus = [Node("negative" if unary else "-", args) for args in parts]
    return plus + minus


@lru_cache(maxsize=1024)
def _holds_sign(node: Node) -> bool:
    return node.op == "±" or any(_holds_sign(arg) for arg in node.args)


# ---------------------------------------------------------------- values

_CONSTANTS: dict[str, complex] = {"pi": math.pi, "e": math.e, "i": 1j, "infty": complex(1e300)}


@lru_cache(maxsize=1024)
def symbols(node: Node) -> frozenset[str]:
    """The names that stand for unknown values."""
    own = {node.name} - _CONSTANTS.keys() if node.op == "symbol" else set()
    return frozenset(own).union(*(symbols(arg) for arg in node.args))


def _points(a: Node, b: Node) -> list[Point]:
    names = sorted(symbols(a) | symbols(b))
    return [{name: _coordinate(name, k) for name in names} for k in range(POINTS if names else 1)]


def _coordinate(name: str, k: int) -> float:
    """Between 0.3 and 2.3, the same in every process: roots and logarithms of it are defined."""
    return 0.3 + 2 * (zlib.crc32(f"{name}/{k}".encode()) / 2**32)


def _value_or_none(node: Node, point: Point) -> Number | None:
    try:
        return _value(node, point)
    except (NoValue, RecursionError):
        return None


def _value(node: Node, point: Point) -> Number:
    try:
        found = _computed(node, point)
    except (ArithmeticError, ValueError, KeyError) as error:
        raise NoValue(node.op) from error
    if isinstance(found, Fraction):
        return found
    if cmath.isnan(found) or cmath.isinf(found):
        raise NoValue(node.op)
    return found


def _computed(node: Node, point: Point) -> Number:
    if node.op == "number":
        return node.number
    if node.op == "symbol":
        return _CONSTANTS[node.name] if node.name in _CONSTANTS else complex(point[node.name])
    function = _FUNCTIONS_OF[node.name] if node.op == "call" else _OPERATIONS[node.op]
    found: Number = function(*(_value(arg, point) for arg in node.args))
    return found


def _bounded(apply: Callable[[Any, Any], Number]) -> Callable[[Number, Number], Number]:
    """The operation, in floating point where the exact result would be too long."""

    def bounded(a: Number, b: Number) -> Number:
        if isinstance(a, Fraction) and isinstance(b, Fraction) and _bits(a) + _bits(b) <= MAX_BITS:
            return apply(a, b)
        return apply(complex(a), complex(b))

    return bounded


def _bits(number: Fraction) -> int:
    return number.numerator.bit_length() + number.denominator.bit_length()


def _float(number: Fraction) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1 and abs(exponent.numerator) * _bits(base) <= MAX_BITS:
            power: Fraction = base**exponent.numerator
            return power
        if exponent.denominator % 2 and base < 0 and exponent.denominator > 1:
            return complex((-1) ** (exponent.numerator % 2) * float(-base) ** float(exponent))
    return complex(base) ** complex(exponent)


def _root(inside: Number, degree: Number) -> Number:
    if degree == 0:
        raise NoValue("root")
    return _power(inside, 1 / degree)


def _factorial(number: Number) -> Fraction:
    if not isinstance(number, Fraction) or number.denominator != 1 or not 0 <= number <= MAX_FACTORIAL:
        raise NoValue("factorial")
    return Fraction(math.factorial(number.numerator))


def _square_root(number: Number) -> Number:
    if isinstance(number, Fraction) and number >= 0:
        above, below = math.isqrt(number.numerator), math.isqrt(number.denominator)
        if above**2 == number.numerator and below**2 == number.denominator:
            return Fraction(above, below)
    return cmath.sqrt(complex(number))


def _choose(n: Number, k: Number) -> Fraction:
    return _factorial(n) / (_factorial(k) * _factorial(n - k))


def _rounded(number: Number, function: Any) -> Fraction:
    if isinstance(number, Fraction):
        return Fraction(function(number))
    return Fraction(function(number.real))


_OPERATIONS: dict[str, Callable[..., Number]] = {
    "+": _bounded(operator.add),
    "-": _bounded(operator.sub),
    "*": _bounded(operator.mul),
    "/": _bounded(operator.truediv),
    "negative": operator.neg,
    "^": _power,
    "root": _root,
    "factorial": _factorial,
}
_FUNCTIONS_OF: dict[str, Callable[..., Number]] = {
    "sqrt": _square_root,
    "abs": abs,
    "ln": lambda x: cmath.log(complex(x)),
    "log": lambda x: cmath.log10(complex(x)),
    "exp": lambda x: cmath.exp(complex(x)),
    "sin": lambda x: cmath.sin(complex(x)),
    "cos": lambda x: cmath.cos(complex(x)),
    "tan": lambda x: cmath.tan(complex(x)),
    "cot": lambda x: 1 / cmath.tan(complex(x)),
    "sec": lambda x: 1 / cmath.cos(complex(x)),
    "csc": lambda x: 1 / cmath.sin(complex(x)),
    "arcsin": lambda x: cmath.asin(complex(x)),
    "arccos": lambda x: cmath.acos(complex(x)),
    "arctan": lambda x: cmath.atan(complex(x)),
    "sinh": lambda x: cmath.sinh(complex(x)),
    "cosh": lambda x: cmath.cosh(complex(x)),
    "tanh": lambda x: cmath.tanh(complex(x)),
    "binom": _choose,
    "floor": lambda x: _rounded(x, math.floor),
    "ceil": lambda x: _rounded(x, math.ceil),
}
