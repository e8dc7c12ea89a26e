"""Whether two texts show the same Python value. Pure; standard library only, for it also runs in the sandbox."""

from __future__ import annotations

import ast
import math
from typing import Any

# Longer texts are compared as text: building their values could take long.
MAX_LITERAL_CHARS = 20_000
_NO_VALUE = object()
_WORDS = {"true": True, "false": False, "verdadero": True, "falso": False}


def same_shown(shown: str, wanted: str) -> bool:
    """`shown`, a repr or what was printed, is what `wanted` says.

    White space aside, the same text; or literals of the same value: 1 is not True, a list is not a tuple, a float
    may differ by 1e-9 of itself, and the whole number 4 may be written 4.0. A string may be wanted without quotes.
    """
    shown, wanted = shown.strip(), wanted.strip()
    if shown.split() == wanted.split():
        return True
    left, right = _value(shown), _value(wanted)
    if left is _NO_VALUE or left is Ellipsis:
        return False
    if right is _NO_VALUE:
        return isinstance(left, str) and left == wanted
    return _same(left, right)


def _value(text: str) -> Any:
    if len(text) > MAX_LITERAL_CHARS:
        return _NO_VALUE
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _NO_VALUE


def _same(left: Any, right: Any) -> bool:
    numbers = (int, float, complex)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, numbers) and isinstance(right, numbers):
        return _close(left, right)
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    return bool(left == right)


def _close(left: complex, right: complex) -> bool:
    if (isinstance(left, int) and isinstance(right, int)) or isinstance(left, complex) or isinstance(right, complex):
        return left == right
    try:
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:
        return left == right
