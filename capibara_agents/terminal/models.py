"""`capibara models`: which weights are here, and getting, checking and deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from capibara_agents.errors import WeightsError
from capibara_agents.runtime.weights import Progress as FetchProgress
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.paper import paper

GIB = 2**30


def show(settings: Settings, terminal: Terminal, *, as_json: bool) -> None:
    """The models of the fleet and whether their weights are here."""
    store = WeightStore(settings.weights_dir)
    rows = [
        {
            "id": spec.id,
            "tier": spec.tier,
            "aliases": list(spec.aliases),
            "stand_in": spec.stand_in,
            "weights": spec.weights_name,
            "source": spec.weights.source,
            "size_bytes": spec.weights.size_bytes,
            "present": store.is_present(spec),
        }
        for spec in settings.models
    ]
    if as_json:
        terminal.print_json({"models": rows})
        return
    t = terminal.text
    table = Table(box=None, pad_edge=False)
    for name in ("table.model", "table.tier", "table.weights", "table.size"):
        table.add_column(t(name), overflow="fold")
    for spec, row in zip(settings.models, rows, strict=True):
        stand_in = f" ({t('weights.stand_in')})" if spec.stand_in else ""
        here = t("weights.here" if row["present"] else "weights.missing")
        size = spec.weights.size_bytes
        table.add_row(
            spec.id, spec.tier, f"{spec.weights_name}{stand_in}: {here}", f"{size / GIB:.2f} GiB" if size else "?"
        )
    paper().print(table)


def pull(settings: Settings, specs: Sequence[ModelSpec], terminal: Terminal, *, as_json: bool) -> None:
    """Download what is missing and check it."""
    store = WeightStore(settings.weights_dir)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, int] = {}
        heard: dict[str, int] = {}

        def told(progress: FetchProgress) -> None:
            name = Path(progress.file).name
            if name not in tasks:
                tasks[name] = int(bars.add_task(terminal.text("weights.fetching", file=name)))
            bars.update(tasks[name], completed=progress.done_bytes, total=progress.total_bytes)  # type: ignore[arg-type]
            _plain_progress(console, name, progress, heard)

        for spec in specs:
            store.fetch(spec, told)
    ids = [spec.id for spec in specs]
    terminal.print_json({"here": ids}) if as_json else terminal.say("weights.done", models=", ".join(ids))


def _plain_progress(console: Console, name: str, progress: FetchProgress, heard: dict[str, int]) -> None:
    """Without a terminal: a line at each tenth."""
    if console.is_terminal or not progress.total_bytes:
        return
    tenth = 10 * progress.done_bytes // progress.total_bytes
    if tenth > heard.get(name, 0):
        heard[name] = tenth
        typer.echo(f"{name}: {10 * tenth} %", err=True)


def verify(settings: Settings, specs: Sequence[ModelSpec], terminal: Terminal, *, as_json: bool) -> None:
    """Check the files that are here, byte by byte. WeightsError when one is wrong or missing."""
    store = WeightStore(settings.weights_dir)
    rows: list[dict[str, str | bool | None]] = []
    for spec in specs:
        wrong = _wrong(store, spec, terminal)
        rows.append({"id": spec.id, "ok": wrong is None, "error": wrong})
        if not as_json:
            said = terminal.text("weights.here") if wrong is None else terminal.text("weights.wrong", error=wrong)
            typer.echo(f"{spec.id}: {said}")
    if as_json:
        terminal.print_json({"models": rows})
    if bad := [str(row["id"]) for row in rows if not row["ok"]]:
        raise WeightsError(terminal.text("weights.get", fleet=settings.fleet, models=", ".join(bad)))


def _wrong(store: WeightStore, spec: ModelSpec, terminal: Terminal) -> str | None:
    try:
        store.verify(spec)
    except WeightsError as error:
        return error.told(terminal.language)
    return None


def remove(settings: Settings, specs: Sequence[ModelSpec], terminal: Terminal, *, as_json: bool) -> None:
    """Delete the files of these models."""
    store = WeightStore(settings.weights_dir)
    freed_bytes = sum(store.remove(spec) for spec in specs)
    if as_json:
        terminal.print_json({"removed": [spec.id for spec in specs], "freed_bytes": freed_bytes})
    elif freed_bytes:
        terminal.say("weights.removed", size=f"{freed_bytes / GIB:.2f} GiB")
    else:
        terminal.say("weights.nothing")
