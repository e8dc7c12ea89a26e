"""What pydantic finds wrong, as one plain English sentence that never repeats what the caller wrote. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import ErrorDetails

# Steps into the members of a union, which mean nothing to a caller.
_MEMBER = re.compile(r"(?:str|int|float|bool|dict|list|tuple)(?:\[.*\])?$")

# Pydantic's error types -> what the value must be; the braces are filled from the error's context.
WISHES: dict[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
}
OTHERWISE = "is not valid"


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number, 64.0 too, as JSON Schema has it; where types are strict, no text and no truth value."""


def explain_first(errors: Sequence[ErrorDetails], *, skip: str = "") -> tuple[str, str]:
    """The first wrong field as a dotted path, and a sentence that says what it must be.

    `skip` is a first step of the location that is no part of the path. The path of the whole value is empty.
    """
    located = [(_steps(error["loc"], skip), error) for error in errors]
    top = located[0][0][:1]
    # Of the members of a union the one that was understood best says what is wrong.
    path = max((steps for steps, _ in located if steps[:1] == top), key=len)
    wishes = list(dict.fromkeys(_wish(error) for steps, error in located if steps == path))
    dotted = ".".join(path)
    return dotted, f"{dotted or 'The value'}{_either(wishes)}."


def _steps(location: Sequence[int | str], skip: str) -> tuple[str, ...]:
    steps = [str(step) for step in location]
    if steps and steps[0] == skip:
        del steps[0]
    return tuple(step for step in steps if not _MEMBER.fullmatch(step))


def _wish(error: ErrorDetails) -> str:
    given: dict[str, Any] = error.get("ctx", {})
    context = {name: f"{value:g}" if isinstance(value, float) else value for name, value in given.items()}
    if error["type"] == "value_error":
        return f": {context['error']}" if "error" in context else f" {OTHERWISE}"
    if error["type"] == "too_short" and context.get("min_length") == 1:
        return " must not be empty"
    return " " + WISHES.get(error["type"], OTHERWISE).format_map(context)


def _either(wishes: Sequence[str]) -> str:
    if len(wishes) > 1 and all(wish.startswith(" must be ") for wish in wishes):
        return " must be " + " or ".join(wish.removeprefix(" must be ") for wish in wishes)
    return wishes[0]
