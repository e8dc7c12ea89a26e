"""`capibara data`: what is kept of people's questions, and forgetting it; through the service while one runs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.table import Table

from capibara_agents import kept
from capibara_agents.assembly import House
from capibara_agents.errors import BadQuestion
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.paper import paper
from capibara_agents.terminal.service import Service, owner
from capibara_agents.terminal.waiting import waiting

EVERYTHING = "all"
DAY_S = 86_400


class Archive(Protocol):
    """Where it is kept: here, or in a running service."""

    def listed(self) -> dict[str, Any]: ...
    def deleted(self, kind: str) -> dict[str, Any]: ...


class _Here:
    def __init__(self, house: House, runner: asyncio.Runner) -> None:
        self._house, self._runner = house, runner

    def listed(self) -> dict[str, Any]:
        return self._runner.run(kept.listed(self._house))

    def deleted(self, kind: str) -> dict[str, Any]:
        return self._runner.run(kept.deleted(self._house, kind))


class _There:
    def __init__(self, service: Service) -> None:
        self._service = service

    def listed(self) -> dict[str, Any]:
        return self._service.call("GET", "/v1/data")

    def deleted(self, kind: str) -> dict[str, Any]:
        return self._service.call("DELETE", f"/v1/data/{kind}")


@contextmanager
def _archive(settings: Settings, terminal: Terminal) -> Iterator[Archive]:
    with owner(settings, terminal) as service:
        if service is not None:
            yield _There(service)
            return
        with House(settings) as house, asyncio.Runner() as runner:
            yield _Here(house, runner)
            # Its loop ends before the house does.
            if "threads" in vars(house):
                runner.run(house.threads.close())


def show(settings: Settings, terminal: Terminal, *, as_json: bool) -> None:
    """Lists what is kept."""
    with waiting(terminal), _archive(settings, terminal) as archive:
        found = archive.listed()
    if as_json:
        terminal.print_json(found)
        return
    paper().print(table(found["data"], terminal, now_s=time.time()))
    terminal.say("data.folder", folder=found["data_dir"], days=f"{settings.server.keep_days:g}")


def delete(settings: Settings, kinds: Sequence[str], terminal: Terminal, *, yes: bool, as_json: bool) -> None:
    """Forgets these kinds, once somebody has said yes. BadQuestion where nobody can be asked."""
    chosen = kept.KINDS if EVERYTHING in kinds else tuple(dict.fromkeys(kept.checked(kinds)))
    if not yes and not sys.stdin.isatty():
        raise BadQuestion(terminal.text("data.say_yes"))
    with _archive(settings, terminal) as archive:
        if not yes:
            rows = [row for row in archive.listed()["data"] if row["kind"] in chosen]
            Console(stderr=True).print(table(rows, terminal, now_s=time.time()))
            if not _agreed(terminal):
                terminal.note("data.nothing_done")
                raise typer.Exit(1)
        done = [archive.deleted(kind) for kind in chosen]
    if as_json:
        terminal.print_json({"deleted": {row["kind"]: row["deleted"] for row in done}})
        return
    for row in done:
        terminal.say("data.deleted", kind=row["kind"], count=row["deleted"])


def _agreed(terminal: Terminal) -> bool:
    answer = input(terminal.text("data.sure") + " ")
    return answer.strip().lower() in terminal.text("data.yes").split()


def table(rows: Sequence[dict[str, Any]], terminal: Terminal, *, now_s: float) -> Table:
    """For people: kinds with counts, sizes and ages."""
    t = terminal.text
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column(t("data.kind"), no_wrap=True)
    for code in ("data.count", "table.size", "data.oldest", "data.newest"):
        drawn.add_column(t(code), justify="right", no_wrap=True)
    drawn.add_column(t("data.what"), overflow="fold")
    for row in rows:
        times = [_age(row[key], now_s) for key in ("oldest_s", "newest_s")]
        drawn.add_row(row["kind"], str(row["count"]), _size(row["size_bytes"]), *times, t(f"data.what.{row['kind']}"))
    return drawn


def _age(at_s: float | None, now_s: float) -> str:
    """A date, and how long ago that is where it is days."""
    if at_s is None:
        return ""
    moment = datetime.fromtimestamp(at_s).astimezone()
    days = int((now_s - at_s) // DAY_S)
    return f"{moment:%Y-%m-%d %H:%M}" if days < 1 else f"{moment:%Y-%m-%d} ({days} d)"


def _size(size_bytes: int) -> str:
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B" if size_bytes else ""
