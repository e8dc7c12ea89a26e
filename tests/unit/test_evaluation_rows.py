"""Files of labelled questions: what is read, what is paired, and one clear sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.errors import ConfigError
from capibara_agents.evaluation.rows import Row, read_outcomes, read_rows

GOOD: dict[str, Any] = {"id": "a:1", "prompt": "¿Qué hora es?", "language": "es", "domain": "chitchat"}


def row(**changes: Any) -> Row:
    return Row.model_validate({**GOOD, **changes})


def written(folder: Path, *lines: str) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_rows_are_read_with_what_they_say_and_no_more(tmp_path: Path) -> None:
    """Unknown keys and empty lines are passed over; what is null is unknown; a line separator is a character."""
    other = {**GOOD, "prompt": "a\u2028b", "domain": None, "answer": "x"}
    file = written(tmp_path, json.dumps(GOOD), "", json.dumps(other, ensure_ascii=False), "")
    rows = read_rows(file)
    assert [r.domain for r in rows] == ["chitchat", None]
    assert rows[1].prompt == "a\u2028b"
    assert len(read_rows(file, limit=1)) == 1


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((json.dumps(GOOD), "{"), "line 2 is not JSON"),
        (('["a"]',), "line 1 is not a JSON object"),
        ((json.dumps({**GOOD, "domain": "maths"}),), "line 1: domain: .*'math'.*found 'maths'"),
        ((json.dumps({**GOOD, "language": "fr"}),), "line 1: language: .*found 'fr'"),
        ((json.dumps({**GOOD, "tier": "large"}),), "line 1: tier: .*fast_response.*found 'large'"),
        ((json.dumps(GOOD), "", json.dumps({"id": "x", "language": "en"})), "line 3: prompt: it is missing"),
        (("",), "has no rows"),
    ],
)
def test_a_wrong_file_is_said_with_its_line(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    """File, line, key and what was found there."""
    file = written(tmp_path, *lines)
    with pytest.raises(ConfigError, match=told) as caught:
        read_rows(file)
    assert "rows.jsonl" in caught.value.message


def test_a_prompt_is_never_quoted_in_an_error(tmp_path: Path) -> None:
    """It may be anybody's text."""
    with pytest.raises(ConfigError) as caught:
        read_rows(written(tmp_path, json.dumps({**GOOD, "prompt": ["secreto"]})))
    assert "prompt" in caught.value.message
    assert "secreto" not in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, or other bytes than text."""
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "missing.jsonl", tmp_path, binary):
        with pytest.raises(ConfigError, match=file.name):
            read_rows(file)


@pytest.mark.parametrize(
    ("changes", "clean"),
    [
        ({}, True),
        ({"domain": None}, False),
        ({"domain": "long_context"}, False),
        ({"label_source": "regex"}, False),
        ({"label_source": "source"}, True),
        ({"source": "instruction_other"}, False),
    ],
)
def test_clean_labels(changes: dict[str, Any], clean: bool) -> None:
    """Given by the source, and about the question."""
    assert row(**changes).is_clean is clean


def test_versions_of_a_question_are_paired_by_id() -> None:
    """The id without its language; the language must be the row's own."""
    assert row(id="set:es-12", language="es").pair_key == row(id="set:en-12", language="en").pair_key == "set:12"
    assert row(id="set:Spanish-go/33").pair_key == row(id="set:English-go/33", language="en").pair_key
    assert row(id="set:es-12").pair_key != row(id="set:es-1").pair_key
    assert row(id="one:es-12").pair_key != row(id="two:es-12").pair_key
    assert row(id="set:en-12", language="es").pair_key is None
    assert row(id="set:12").pair_key is None
    assert row(id="set:es_12").pair_key is None


def test_translations_are_paired_only_where_the_file_says_so() -> None:
    """Their numbers in two languages are not the same sentence; a `pair` counts for every row."""
    assert row(id="set:es-12", domain="translation").pair_key is None
    assert row(id="x", domain="translation", pair="7").pair_key == row(id="y", language="en", pair="7").pair_key
    assert row(id="set:es-12", pair="7").pair_key == "pair 7"


# ---------------------------------------------------------------- recorded outcomes


def test_outcomes_of_both_shapes_are_read(tmp_path: Path) -> None:
    """A model as a key, or in a list of answers; what is null was not recorded."""
    lines = (
        json.dumps({"prompt": "a", "big": True, "small": None}),
        json.dumps({"prompt": "b", "answers": [{"model": "small", "correct": True}]}),
    )
    rows = read_outcomes(written(tmp_path, *lines), ("big", "small"))
    assert [row["prompt"] for row in rows] == ["a", "b"]
    assert rows[0]["big"] is True
    assert "small" not in rows[0]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (('{"big": true, "small": true}',), "line 1: prompt"),
        (('{"prompt": "a", "big": true, "small": "yes"}',), "line 1: small"),
        (('{"prompt": "a", "big": 7, "small": true}',), "line 1: big"),
        (('{"prompt": "a", "big": true, "tiny": false}',), "no outcome of 'small'; it knows big, tiny"),
        (('{"prompt": "a", "category": "x"}',), "no outcome of 'big'; it knows no model"),
    ],
)
def test_wrong_outcomes_are_said(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    """The line, or the models that there are."""
    with pytest.raises(ConfigError, match=told):
        read_outcomes(written(tmp_path, *lines), ("big", "small"))
