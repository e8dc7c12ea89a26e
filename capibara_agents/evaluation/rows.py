"""Files of questions with known labels, one JSON object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capibara_agents.errors import ConfigError
from capibara_agents.texts import Phrase, phrase
from capibara_agents.types import Domain, Language, Tier
from capibara_agents.wishes import wish_of

# Two lists that number their sentences do not make translations: such pairs are of another meaning each.
_NEVER_PAIRED_BY_ID = ("translation",)
_VERSION = re.compile(r"(?P<set>[^:]+):(?P<language>en|es|English|Spanish)-(?P<item>.+)", re.DOTALL)
_MARKS = {"en": "en", "English": "en", "es": "es", "Spanish": "es"}


class Row(BaseModel):
    """A question and what is known of it; other keys of a line are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    id: str
    prompt: str
    language: Language
    domain: Domain | None = None
    tier: Tier | None = None
    source: str | None = None
    label_source: str | None = None
    templated: bool | None = None
    pair: str | None = Field(None, description="The same for the versions of one question in several languages.")

    @property
    def is_clean(self) -> bool:
        """Whether its domain is a label of the source, about the question and not about its length."""
        return (
            self.domain not in (None, "long_context")
            and self.label_source != "regex"
            and self.source != "instruction_other"
        )

    @property
    def pair_key(self) -> str | None:
        """What the versions of one question share: `pair`, else the id without its language (`set:es-7` -> `set:7`).

        An id counts only where its language is the row's, and not for translations, whose lists are numbered apart.
        """
        if self.pair is not None:
            return f"pair {self.pair}"
        found = _VERSION.fullmatch(self.id)
        if found is None or self.domain in _NEVER_PAIRED_BY_ID or _MARKS[found["language"]] != self.language:
            return None
        return f"{found['set']}:{found['item']}"


def read_rows(path: Path, limit: int | None = None) -> tuple[Row, ...]:
    """The rows of a JSONL file, or its first `limit`. ConfigError names the file, the line and what is wrong."""
    rows: list[Row] = []
    for number, values in read_objects(path):
        if limit is not None and len(rows) >= limit:
            break
        try:
            rows.append(Row.model_validate(values))
        except ValidationError as error:
            raise ConfigError(_reason(path, number, error)) from error
    return tuple(rows)


def read_outcomes(path: Path, models: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """The rows of a file of recorded outcomes, as `replay.replay` takes them.

    A row has a `prompt`, and says of a model whether it was right: `{model: true}`, or
    `{answers: [{model, correct}]}`. ConfigError names the line that is wrong, and the models that the file knows when
    it has nothing on one of `models`.
    """
    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    for number, values in read_objects(path):
        if not isinstance(values.get("prompt"), str):
            raise ConfigError(phrase("rows.prompt", path=path, line=number))
        # Null stands for an outcome that was not recorded.
        row = {key: value for key, value in values.items() if key not in models or value is not None}
        for model in models:
            if not 0 <= _number(row.get(model, 0)) <= 1:
                raise ConfigError(phrase("rows.score", path=path, line=number, model=model))
        known |= {key for key, value in row.items() if isinstance(value, bool) or key in models}
        known |= {str(answer.get("model")) for answer in row.get("answers") or () if isinstance(answer, dict)}
        rows.append(row)
    for model in models:
        if model not in known:
            names = ", ".join(sorted(known)) or phrase("rows.nobody")
            raise ConfigError(phrase("rows.unknown", path=path, model=repr(model), known=names))
    return tuple(rows)


def _number(value: object) -> float:
    return float(value) if isinstance(value, bool | int | float) else -1.0


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers. ConfigError when it cannot be read, or has none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(phrase("wrong.unreadable", file=path, error=error.strerror)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(phrase("rows.not_utf8", path=path, byte=error.start)) from error
    empty = True
    # Not splitlines: a JSON string may hold U+2028 as it is.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                phrase("rows.not_json", path=path, line=number, error=error.msg, column=error.colno)
            ) from error
        if not isinstance(values, dict):
            raise ConfigError(phrase("rows.no_object", path=path, line=number))
        empty = False
        yield number, values
    if empty:
        raise ConfigError(phrase("rows.empty", path=path))


def _reason(path: Path, line: int, error: ValidationError) -> Phrase:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    values: dict[str, Any] = {"path": path, "line": line, "key": key, "wish": wish_of(first)}
    # A label may be shown, a prompt never.
    if first["type"] == "literal_error":
        return phrase("rows.wrong_label", **values, found=repr(str(first["input"])[:40]))
    return phrase("rows.wrong", **values)
