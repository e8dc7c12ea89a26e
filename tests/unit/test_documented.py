"""What docs/ says there is, there is, and the other way round: paths, options of a request, commands, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from capibara_agents.cli.program import build
from capibara_agents.http.app import build_app
from capibara_agents.settings import ModelSpec, RoutingSettings, RuntimeSettings, ServerSettings, Settings
from capibara_agents.types import Request
from tests.fakes import FakeHouse

ROOT = Path(__file__).resolve().parents[2]
HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
TERMINAL = (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8")
READMES = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.es.md")]


def first_cells(text: str) -> str:
    """The first column of every table."""
    return "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| "))


def templates(app: Any) -> list[str]:
    """All paths, those of the pages too, with every variable as {}."""
    paths = [*app.openapi()["paths"], "/docs", "/openapi.json"]
    return [re.sub(r"\{[^}]*\}", "{}", path) for path in paths if "/capibara/c/" not in path]


def test_every_path_is_in_a_table_of_the_document(house: FakeHouse) -> None:
    """By itself, or by what it ends with where a row has several; what is refused is told in the text."""
    cells = re.sub(r"\{[^}]*\}", "{}", first_cells(HTTP))
    for path in templates(build_app(house)):
        end = path.rstrip("/").split("/")[-1]
        if path != "/v1/responses/compact":
            assert path in cells or end in cells, path
    assert "/v1/responses/compact" in HTTP


def test_every_path_that_is_named_exists(house: FakeHouse) -> None:
    """In the tables and in the READMEs."""
    known = templates(build_app(house))
    for text in (first_cells(HTTP), *READMES):
        named = re.findall(
            r"(?<![\w.…:\]/(-])/[a-z0-9_.]*[a-z0-9_](?:/[a-z0-9_{}.]*[a-z0-9_{}])*", re.sub(r"\{[^}]*\}", "{}", text)
        )
        for path in named:
            whole = path.rstrip("/")
            begins = [one for one in known if one.rstrip("/") == whole or one.startswith(whole + "/")]
            assert begins or path in CHAT_COMMANDS, path


CHAT_COMMANDS = ("/model", "/vote", "/stats", "/help", "/capibara/c/{}")


def test_every_option_of_a_request_is_in_its_table() -> None:
    """And nothing that is none."""
    table = HTTP.partition("## The body's object `capibara`")[2].partition("\n## ")[0]
    named = {name for cell in first_cells(table).splitlines() for name in cell.strip().split(", ")} - {"key"}
    ours = set(Request.model_fields)
    assert named <= ours | {"fallback", "voters"}
    for name in ("samples", "synthesis", "judge", "stream", "tests", "deadline_s", "template", "quality"):
        assert name in named


def leaves(one: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of every command that does something."""
    below = getattr(one, "commands", {})
    if not below:
        yield path
    for name, command in below.items():
        yield from leaves(command, *path, name)


def test_every_command_is_in_the_table_of_the_terminal() -> None:
    """With the commands below it."""
    table = first_cells(TERMINAL.partition("\n## ")[0])
    rows = {cell.split()[0]: cell for cell in table.splitlines()}
    for words in leaves(typer.main.get_command(build("en"))):
        assert words[0] in rows, words
        assert all(word in rows[words[0]] for word in words), words


@pytest.mark.parametrize("section", [Settings, ServerSettings, RuntimeSettings, RoutingSettings, ModelSpec])
def test_every_key_of_the_configuration_says_what_it_is(section: type[Settings]) -> None:
    """In the schema that `capibara config schema` prints; the example file has each too, as another test sees to."""
    silent = [name for name, field in section.model_fields.items() if not field.description]
    assert not silent
