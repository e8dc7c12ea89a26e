"""What pydantic finds wrong with a value of a file, as a phrase that says what the value should be. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from capibara_agents.texts import Phrase, catalogue, phrase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

# What pydantic tells apart and a reader need not.
SAME = {
    "int_parsing": "int_type",
    "float_parsing": "float_type",
    "bool_parsing": "bool_type",
    "model_type": "dict_type",
    "mapping_type": "dict_type",
    "list_type": "tuple_type",
    "enum": "literal_error",
}


def wish_of(error: ErrorDetails) -> Phrase:
    """The wish; in pydantic's own English where there is no text for it."""
    context: Mapping[str, object] = error.get("ctx", {})
    said = context.get("wish")
    if said is None and isinstance(context.get("error"), ValueError):
        said = next(iter(context["error"].args), None)  # type: ignore[attr-defined]
    if isinstance(said, Phrase):
        return said
    code = f"wish.{SAME.get(error['type'], error['type'])}"
    if code not in catalogue("en"):
        return phrase("wish.other", told=re.sub(r"^(Input|Value|\w+) should ", "it should ", error["msg"]))
    return phrase(code, **{name: _worded(name, value) for name, value in context.items()})


def _worded(name: str, value: object) -> object:
    """Of a choice its members, quoted as pydantic does it; numbers without a needless fraction."""
    if name == "expected":
        *most, last = re.split(r", | or ", str(value))
        return phrase("wrong.either", most=", ".join(most), last=last) if most else last
    return f"{value:g}" if isinstance(value, float) else value
