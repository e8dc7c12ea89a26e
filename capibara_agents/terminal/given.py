"""What was given on the command line, checked: what is wrong is told with the name of the option that it stands at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from capibara_agents.errors import BadQuestion
from capibara_agents.texts import phrase
from capibara_agents.types import Request
from capibara_agents.wishes import wish_of

Model = TypeVar("Model", bound=BaseModel)

# Fields that are called otherwise on the command line; the others are --name.
CALLED = {"sampling.max_tokens": "--max-tokens", "voters": "--voter", "content": "content"}


def given(kind: type[Model], values: Mapping[str, Any]) -> Model:
    """The values as one of `kind`. BadQuestion names the first option that is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        option = CALLED.get(path) or f"--{path.replace('_', '-')}"
        raise BadQuestion(phrase("wrong.option", option=option, wish=wish_of(first)), param=path) from None


def request_of(values: Mapping[str, Any]) -> Request:
    """A request of the terminal's; BadQuestion as above."""
    return given(Request, values)
