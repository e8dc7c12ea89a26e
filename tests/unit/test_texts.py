"""The texts for people: complete, in step in both languages, and enough for every code in the source."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import get_args

import pytest

from capibara_agents.texts import catalogue, sentence
from capibara_agents.types import Domain, Level, Mode, ServerState

ROOT = Path(__file__).parents[2]
PREFIXES = sorted({code.partition(".")[0] for code in catalogue("en")})
# A quoted word with a dot whose first part is a family of codes.
CODE = re.compile(rf"[\"']((?:{'|'.join(PREFIXES)})\.[a-z_.]+[a-z])[\"']")

# Names of files that look like codes.
FILES = (".lock", ".npz", ".log", ".json", ".jsonl", ".yaml", ".md", ".html", ".py", ".pid", ".sh")


def used_codes() -> set[str]:
    folders = [ROOT / "graphs", ROOT / "runtime", ROOT / "capibara_agents"]
    sources = [file for folder in folders for file in folder.rglob("*.py") if "/." not in str(file)]
    found = {code for file in sources for code in CODE.findall(file.read_text(encoding="utf-8"))}
    return {code for code in found if not code.endswith(FILES)}


def test_both_languages_have_the_same_codes_and_variables() -> None:
    """A sentence that is missing, or that misses a value, in one language is found here."""
    spanish, english = catalogue("es"), catalogue("en")
    assert spanish.keys() == english.keys()
    for code in spanish:
        assert sorted(Template(spanish[code]).get_identifiers()) == sorted(Template(english[code]).get_identifiers()), (
            code
        )


@pytest.mark.parametrize("language", ["es", "en"])
def test_texts_are_text(language: str) -> None:
    """YAML has not read a word as a truth value or a number, and no $ stands alone."""
    for code, text in catalogue(language).items():  # type: ignore[arg-type]
        assert isinstance(text, str), code
        assert text.strip(), code
        assert Template(text).is_valid(), code


def test_every_code_in_the_source_has_a_text() -> None:
    """Literal codes, and those made of a value."""
    made = {f"domain.{d}" for d in get_args(Domain)} | {f"level.{x}" for x in get_args(Level)}
    made |= {f"state.{state}" for state in ServerState} | {f"ask.mode.{mode}" for mode in get_args(Mode)}
    made |= {f"verify.not_in_{language}" for language in ("es", "en")}
    found = used_codes()
    assert {"route.table", "verify.empty", "serve.at"} <= found, "the search finds codes at all"
    assert found | made <= catalogue("es").keys()


def test_values_that_are_codes_are_put_into_words() -> None:
    """A domain becomes its name; other values stay as they are, also with a dollar in them."""
    values = {"model": "a$b", "domain": "sql", "level": "simple"}
    assert "SQL" in sentence("route.table", "es", **values)
    assert "a$b" in sentence("route.table", "en", **values)


def test_an_unknown_code_is_a_mistake() -> None:
    """It is not shown to people as if it were a text."""
    with pytest.raises(KeyError):
        sentence("no.such", "es")
