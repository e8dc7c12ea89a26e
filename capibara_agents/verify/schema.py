"""JSON, JSON Schema and regular expressions, where the request asks for them; bounded, and nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonschema
import regex
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from capibara_agents.answers.structured import whole_numbers
from capibara_agents.types import Check

MAX_CHARS = 2_000_000
PATTERN_TIMEOUT_S = 0.05
"""For one search with one of the request's patterns, whose author may have been careless."""
MAX_PATTERN_CHARS = 2_000
MAX_STEPS = 20_000
"""References followed and patterns tried in one validation: schemas can refer to themselves without end."""


class TooMuch(Exception):
    """The schema asks for more work than an answer is worth."""


def valid_json(content: str, response_format: dict[str, Any]) -> Check:
    """The text is JSON, and of the schema when one was given."""
    value = _parsed(content)
    if value is _NOTHING:
        return Check(name="json", passed=False, reason="verify.not_json")
    if response_format["type"] == "json_object":
        passed = isinstance(value, dict)
        return Check(name="json", passed=passed, reason="" if passed else "verify.not_json_object")
    schema = (response_format.get("json_schema") or {}).get("schema") or {}
    try:
        problem = _first_problem(value, schema)
    except (jsonschema.SchemaError, Unresolvable, TooMuch, RecursionError, TypeError, AttributeError, regex.error):
        # The model's server has accepted the schema as a grammar; that much it keeps.
        return Check(name="json", passed=True, reason="verify.schema_not_checked")
    if problem is None:
        return Check(name="json", passed=True)
    details: dict[str, str | int | float] = {"path": problem.json_path[:200], "problem": problem.message[:200]}
    return Check(name="json", passed=False, reason="verify.schema", details=details)


_NOTHING = object()


def _parsed(content: str) -> Any:
    if len(content) > MAX_CHARS:
        return _NOTHING
    try:
        return json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOTHING


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _first_problem(value: Any, schema: Any) -> ValidationError | None:
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    kind.check_schema(schema)
    steps = iter(range(MAX_STEPS))
    # An empty registry: what a schema refers to is in it, or it is not checked. Nothing is fetched.
    validator = _bounded(kind, steps)(schema, registry=Registry())
    return next(iter(validator.iter_errors(value)), None)


def _bounded(kind: Any, steps: Iterator[int]) -> Any:
    """The validator with every reference counted and every pattern given little time."""

    def counted(inner: Any) -> Any:
        def keyword(validator: Any, argument: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            if next(steps, None) is None:
                raise TooMuch
            yield from inner(validator, argument, instance, schema) or ()

        return keyword

    own = {name: counted(inner) for name, inner in kind.VALIDATORS.items()}
    own["pattern"] = _pattern
    own["uniqueItems"] = _unique_items
    own["patternProperties"] = _pattern_properties
    own["additionalProperties"] = counted(_additional)
    return extend(kind, own)  # type: ignore[no-untyped-call]


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not searched(pattern, instance):
        yield ValidationError(f"{instance[:60]!r} does not match {pattern[:60]!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if searched(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _unique_items(validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """jsonschema's own compares every pair."""
    if not wanted or not validator.is_type(instance, "array"):
        return
    seen = {json.dumps(whole_numbers(item), sort_keys=True) for item in instance}
    if len(seen) < len(instance):
        yield ValidationError("items occur twice")


def _additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """jsonschema's own joins the patterns and searches without limit."""
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [name for name in instance if name not in known and not any(searched(p, name) for p in patterns)]
    if validator.is_type(allowed, "object"):
        for name in extras:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and extras:
        yield ValidationError(f"unexpected: {', '.join(extras)[:100]}")


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise TooMuch
    return regex.compile(pattern)


def searched(pattern: str, text: str, *, whole: bool = False) -> bool:
    """Whether the pattern is found in (or matches the whole of) the text. Raises TooMuch when that takes too long."""
    compiled = _compiled(pattern)
    try:
        find = compiled.fullmatch if whole else compiled.search
        return find(text, timeout=PATTERN_TIMEOUT_S) is not None
    except TimeoutError as error:
        raise TooMuch from error


def matches(content: str, pattern: str) -> Check:
    """The whole text matches a regular expression; one that cannot be tried fails nobody."""
    try:
        passed = searched(pattern, content.strip(), whole=True)
    except (TooMuch, regex.error, RecursionError, ValueError):
        return Check(name="regex", passed=True, reason="verify.regex_not_checked")
    return Check(name="regex", passed=passed, reason="" if passed else "verify.regex")
