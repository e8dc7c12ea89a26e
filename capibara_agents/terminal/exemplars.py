"""`capibara exemplars`: in the store of the data folder, through the service while one runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import typer
from langchain_core.messages import HumanMessage
from rich.table import Table

from capibara_agents import curation
from capibara_agents.assembly import House
from capibara_agents.curation import AT_ONCE, Draft, Wish
from capibara_agents.errors import BadQuestion
from capibara_agents.exemplars import Exemplar, read_jsonl, write_jsonl
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.given import given
from capibara_agents.terminal.paper import paper
from capibara_agents.terminal.service import Service, owner
from capibara_agents.texts import phrase


class Shelf(Protocol):
    """Where exemplars are kept: here, or in a running service."""

    def listed(self, wish: Wish) -> dict[str, Any]: ...
    def added(self, drafts: Sequence[Draft]) -> dict[str, Any]: ...
    def removed(self, ids: Sequence[str]) -> dict[str, Any]: ...


class _Here:
    def __init__(self, house: House) -> None:
        self._house = house

    def listed(self, wish: Wish) -> dict[str, Any]:
        return curation.listed(self._house.exemplars, wish)

    def added(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        house = self._house
        return curation.added(house.exemplars, lambda text: house.classifier.classify([HumanMessage(text)]), drafts)

    def removed(self, ids: Sequence[str]) -> dict[str, Any]:
        return curation.removed(self._house.exemplars, ids)


class _There:
    def __init__(self, service: Service) -> None:
        self._service = service

    def listed(self, wish: Wish) -> dict[str, Any]:
        return self._service.call("GET", "/v1/exemplars", query=wish.model_dump(exclude_none=True))

    def added(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        body = {"exemplars": [draft.model_dump(exclude_none=True) for draft in drafts]}
        return self._service.call("POST", "/v1/exemplars", body=body)

    def removed(self, ids: Sequence[str]) -> dict[str, Any]:
        return self._service.call("DELETE", "/v1/exemplars", body={"ids": list(ids)})


@contextmanager
def _shelf(settings: Settings, terminal: Terminal) -> Iterator[Shelf]:
    """A Chroma server has room for several; the folder of an embedded store has one owner."""
    if settings.routing.exemplar_store is not None:
        with House(settings) as house:
            yield _Here(house)
        return
    with owner(settings, terminal) as service:
        if service is not None:
            yield _There(service)
            return
        with House(settings) as house:
            yield _Here(house)


def add(settings: Settings, values: dict[str, Any], terminal: Terminal, *, as_json: bool) -> None:
    """Adds one exemplar; `-` reads its text from standard input."""
    if values["content"] == "-":
        values = {**values, "content": sys.stdin.read()}
    draft = given(Draft, values)
    if not draft.content.strip():
        raise BadQuestion(phrase("stored.blank_exemplar"), param="content")
    with _shelf(settings, terminal) as shelf:
        done = shelf.added([draft])
    if as_json:
        terminal.print_json(done)
        return
    made = done["exemplars"][0]
    terminal.say("exemplars.added", **{key: made[key] for key in ("id", "domain", "language", "complexity")})


def show(settings: Settings, values: dict[str, Any], terminal: Terminal, *, as_json: bool) -> None:
    """Lists a page."""
    wish = given(Wish, {name: value for name, value in values.items() if value is not None})
    with _shelf(settings, terminal) as shelf:
        found = shelf.listed(wish)
    if as_json:
        terminal.print_json(found)
        return
    t = terminal.text
    table = Table(box=None, pad_edge=False)
    for code in ("exemplars.id", "exemplars.language", "exemplars.domain", "exemplars.complexity"):
        table.add_column(t(code), no_wrap=True)
    table.add_column(t("exemplars.content"), overflow="fold")
    for exemplar in found["data"]:
        domain, complexity = t(f"domain.{exemplar['domain']}"), f"{exemplar['complexity']:.2f}"
        table.add_row(exemplar["id"], exemplar["language"], domain, complexity, _line(exemplar["content"]))
    paper().print(table)
    first, last = found["offset"] + bool(found["data"]), found["offset"] + len(found["data"])
    terminal.say("exemplars.shown", first=first, last=last, total=found["total"])


def remove(settings: Settings, ids: Sequence[str], terminal: Terminal, *, as_json: bool) -> None:
    """Removes exemplars by id."""
    with _shelf(settings, terminal) as shelf:
        done = shelf.removed(ids)
    terminal.print_json(done) if as_json else terminal.say("exemplars.removed", count=done["removed"])


def export_to(settings: Settings, file: Path, origin: str | None, terminal: Terminal, *, as_json: bool) -> None:
    """Writes exemplars as JSONL; `-` is standard output."""
    found: list[Exemplar] = []
    with _shelf(settings, terminal) as shelf:
        while True:
            wish = given(Wish, {"limit": AT_ONCE, "offset": len(found), "origin": origin})
            page = shelf.listed(wish)
            found.extend(Exemplar.model_validate(values) for values in page["data"])
            if len(found) >= page["total"] or not page["data"]:
                break
    if str(file) == "-":
        for exemplar in found:
            typer.echo(exemplar.model_dump_json())
        return
    write_jsonl(found, file)
    done = {"exported": len(found), "file": str(file)}
    terminal.print_json(done) if as_json else terminal.say("exemplars.exported", count=len(found), file=str(file))


def import_from(settings: Settings, file: Path, terminal: Terminal, *, as_json: bool) -> None:
    """Adds the exemplars of a JSONL file; a wrong line is named and nothing is added."""
    drafts = [given(Draft, exemplar.model_dump()) for exemplar in read_jsonl(file)]
    count = 0
    with _shelf(settings, terminal) as shelf:
        for start in range(0, len(drafts), AT_ONCE):
            count += int(shelf.added(drafts[start : start + AT_ONCE])["added"])
    done = {"added": count, "read": len(drafts)}
    terminal.print_json(done) if as_json else terminal.say("exemplars.imported", added=count, read=len(drafts))


def _line(content: str, limit: int = 100) -> str:
    line = " ".join(content.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
