"""The checks of an answer. Each has a name, a verdict and a reason; none edits the answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema

from capibara_agents.language import detect
from capibara_agents.types import Candidate, Check, Classification, Request

# Below so many words a language detector guesses.
LANGUAGE_MIN_WORDS = 4
LANGUAGE_MIN_CONFIDENCE = 0.8
# A text that repeats itself this often has fallen into a loop: the same line, or the same eight words.
LOOP_LINES = 5
LOOP_WORDS = 8
LOOP_TIMES = 6

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)


def examine(candidate: Candidate, classification: Classification, request: Request) -> tuple[Check, ...]:
    """All checks that apply, in the order of cost; after an empty answer there is nothing more to check."""
    return tuple(_checks(candidate, classification, request))


def _checks(candidate: Candidate, classification: Classification, request: Request) -> Iterator[Check]:
    filled = not_empty(candidate)
    yield filled
    if not filled.passed or candidate.tool_calls:
        return
    yield no_loop(candidate.content)
    response_format = request.sampling.response_format
    if response_format and response_format.get("type") in ("json_object", "json_schema"):
        yield valid_json(candidate.content, response_format)
    elif classification.reply_language is not None:
        yield reply_language(candidate.content, classification.reply_language)


def not_empty(candidate: Candidate) -> Check:
    """There is a text, or a tool call."""
    return Check(name="not_empty", passed=candidate.has_answer, reason="" if candidate.has_answer else "verify.empty")


def no_loop(content: str) -> Check:
    """The text does not say the same thing over and over."""
    lines = Counter(line.strip() for line in content.splitlines() if len(line.strip()) > 3)
    looping = any(times >= LOOP_LINES and times * 2 >= lines.total() for times in lines.values())
    words = content.split()
    runs = Counter(tuple(words[i : i + LOOP_WORDS]) for i in range(len(words) - LOOP_WORDS + 1))
    looping = looping or any(times >= LOOP_TIMES for times in runs.values())
    return Check(name="no_loop", passed=not looping, reason="verify.loop" if looping else "")


def reply_language(content: str, wanted: str) -> Check:
    """The prose is in the language asked for; texts too short to tell pass."""
    prose = _CODE.sub(" ", content)
    words = [word for word in prose.split() if any(c.isalpha() for c in word)]
    if len(words) < LANGUAGE_MIN_WORDS:
        return Check(name="reply_language", passed=True, reason="verify.too_short_to_tell")
    found, confidence = detect(prose[:2000])
    wrong = found != wanted and confidence >= LANGUAGE_MIN_CONFIDENCE
    return Check(name="reply_language", passed=not wrong, reason=f"verify.not_in_{wanted}" if wrong else "")


def valid_json(content: str, response_format: dict[str, Any]) -> Check:
    """The text is JSON, and of the schema when one was given."""
    try:
        value = json.loads(content)
    except ValueError:
        return Check(name="json", passed=False, reason="verify.not_json")
    if response_format["type"] == "json_object":
        passed = isinstance(value, dict)
        return Check(name="json", passed=passed, reason="" if passed else "verify.not_json_object")
    schema = response_format.get("json_schema", {}).get("schema", {})
    try:
        jsonschema.validate(value, schema)
    except jsonschema.ValidationError:
        return Check(name="json", passed=False, reason="verify.schema")
    except jsonschema.SchemaError:
        # The model's server has accepted the schema as a grammar; that much it keeps.
        return Check(name="json", passed=True, reason="verify.schema_not_checked")
    return Check(name="json", passed=True)
