"""`capibara eval`: how good the decisions are on files with known answers. No model is started."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from capibara_agents import __version__
from capibara_agents.assembly import House
from capibara_agents.errors import ConfigError
from capibara_agents.evaluation import report, robustness, routing
from capibara_agents.evaluation.replay import ReplayResult, replay
from capibara_agents.evaluation.rows import Row, read_outcomes, read_rows
from capibara_agents.evaluation.tables import Sheet, confusion_sheet, replay_sheet, robustness_sheet, routing_sheets
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.paper import paper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capibara_agents.evaluation.routing import Figures
    from capibara_agents.types import Language

Item = TypeVar("Item")
# What the terminal shows of the report: the headline, robustness, by language, by source; and so many rows of each.
SHOWN, SHOWN_ROWS = 3, 25


@dataclass(frozen=True)
class RoutingRun:
    """What `capibara eval routing` was asked to do."""

    file: Path
    limit: int | None = None
    robustness: bool = False
    seed: int = 0
    report: Path | None = None

    @property
    def command(self) -> str:
        words = ["capibara", "eval", "routing", str(self.file)]
        words += ["--limit", str(self.limit)] if self.limit is not None else []
        words += ["--robustness", "--seed", str(self.seed)] if self.robustness else []
        words += ["--report", str(self.report)] if self.report else []
        return shlex.join(words)


@dataclass(frozen=True)
class RoutingMeasured:
    """Figures of all rows and of those with clean labels, what was wrong, the trials, and how it was all measured."""

    every: Figures
    clean: Figures
    mistakes: list[dict[str, Any]]
    tried: tuple[robustness.Trial, ...]
    facts: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        values = routing.as_json(self.every) | {"clean": routing.as_json(self.clean)}
        if self.tried:
            values["robustness"] = robustness.as_json(self.tried)
        return values | {"mistakes": self.mistakes, "run": self.facts}

    def sheets(self, language: Language) -> list[Sheet]:
        headline, *groups = routing_sheets(self.every, self.clean, language)
        return [headline, *([robustness_sheet(self.tried, language)] if self.tried else []), *groups]


def show_routing(settings: Settings, run: RoutingRun, terminal: Terminal, *, as_json: bool) -> None:
    """Measure classification and routing on a file; ConfigError for a file that cannot be used."""
    rows = read_rows(run.file, run.limit)
    prepare(run.report, terminal)
    with House(settings) as house:
        measured = _measure_routing(house, rows, run, terminal)
    if as_json:
        terminal.print_json(measured.as_json())
    else:
        print_sheets(measured.sheets(terminal.language)[: SHOWN + bool(measured.tried)], terminal)
    if run.report:
        _report_routing(run.report, measured, terminal)


def _measure_routing(house: House, rows: Sequence[Row], run: RoutingRun, terminal: Terminal) -> RoutingMeasured:
    decide = routing.decider(house.classifier, house.settings, house.learning.expect)
    # The first question pays for loading the vectors.
    decide("hola")
    decided = routing.decide_all(rows, decide)
    outcomes = list(followed(decided, len(rows), terminal.text("eval.deciding"), terminal))
    tried: list[robustness.Trial] = []
    if run.robustness:
        each = robustness.trials(outcomes, decide, run.seed)
        for trials in followed(each, len(rows), terminal.text("eval.changing"), terminal):
            tried.extend(trials)
    return RoutingMeasured(
        every=routing.figures(outcomes),
        clean=routing.figures([outcome for outcome in outcomes if outcome.row.is_clean]),
        mistakes=routing.mistakes(outcomes),
        tried=tuple(tried),
        facts=facts_of(run.command, len(rows))
        | {"fleet": house.settings.fleet, "exemplars": str(house.exemplars.count())},
    )


def _report_routing(folder: Path, measured: RoutingMeasured, terminal: Terminal) -> None:
    from capibara_agents.evaluation import plots  # noqa: PLC0415  (an extra, and half a second)

    language, every = terminal.language, measured.every
    sheets, pictures = measured.sheets(language), {}
    if every.confusion:
        sheets.append(confusion_sheet(every.confusion, language))
        pictures = {
            "confusion": plots.confusion_png(every.confusion, language),
            "reliability": plots.reliability_png(every.bins, every.ece, language),
            "accuracy": plots.accuracy_png(every, language),
        }
    page = report.page(terminal.text("eval.routing.title"), named(measured.facts, terminal), sheets, pictures, language)
    terminal.note("eval.written", file=report.write(folder, page, pictures))


# ---------------------------------------------------------------- recorded outcomes


@dataclass(frozen=True)
class ReplayRun:
    """What `capibara eval replay` was asked to do."""

    file: Path
    strong: str
    weak: str
    labels: int | None = None
    folds: int = 5
    seed: int = 0
    report: Path | None = None

    @property
    def command(self) -> str:
        words = ["capibara", "eval", "replay", str(self.file), "--strong", self.strong, "--weak", self.weak]
        words += ["--labels", str(self.labels)] if self.labels is not None else []
        words += ["--folds", str(self.folds), "--seed", str(self.seed)]
        words += ["--report", str(self.report)] if self.report else []
        return shlex.join(words)


def show_replay(settings: Settings, run: ReplayRun, terminal: Terminal, *, as_json: bool) -> None:
    """Choose between two models from recorded outcomes; ConfigError for a file that cannot be used."""
    rows = read_outcomes(run.file, (run.strong, run.weak))
    prepare(run.report, terminal)
    facts = facts_of(run.command, len(rows))
    terminal.note("eval.learning", count=len(rows))
    with House(settings) as house:
        result = replay(
            rows,
            strong=run.strong,
            weak=run.weak,
            embed_many=house.embedder.embed_many,
            labels=run.labels,
            folds=run.folds,
            seed=run.seed,
        )
    if as_json:
        terminal.print_json(_replay_json(result) | {"run": facts})
    else:
        print_sheets([replay_sheet(result, terminal.language)], terminal)
    if run.report:
        _report_replay(run.report, result, facts, terminal)


def _replay_json(result: ReplayResult) -> dict[str, Any]:
    """`apgr`, `cpt50`, `cpt80` and shares of calls in [0, 1], accuracies in percent."""
    values: dict[str, Any] = {"n": result.n}
    for name, held in (("apgr", result.apgr), ("cpt50", result.cpt50), ("cpt80", result.cpt80)):
        values |= {name: round(held.value, 4), f"{name}_interval": [round(held.low, 4), round(held.high, 4)]}
    return values | {
        "labels": result.labels,
        "folds": result.folds,
        "strong_accuracy": round(100 * result.strong_accuracy, 2),
        "weak_accuracy": round(100 * result.weak_accuracy, 2),
        "curve": [[round(point.strong_share, 4), round(100 * point.accuracy, 2)] for point in result.curve],
    }


def _report_replay(folder: Path, result: ReplayResult, facts: dict[str, str], terminal: Terminal) -> None:
    from capibara_agents.evaluation import plots  # noqa: PLC0415  (an extra, and half a second)

    pictures = {"gain": plots.gain_png(result, terminal.language)}
    sheets = [replay_sheet(result, terminal.language)]
    page = report.page(terminal.text("eval.replay.title"), named(facts, terminal), sheets, pictures, terminal.language)
    terminal.note("eval.written", file=report.write(folder, page, pictures))


# ---------------------------------------------------------------- shared by the evaluations


def prepare(folder: Path | None, terminal: Terminal) -> None:
    """Says before the work what would stop its report after it."""
    if folder is None:
        return
    if find_spec("matplotlib") is None:
        raise ConfigError(terminal.text("eval.no_plots"))
    report.make_folder(folder)


def facts_of(command: str, rows: int) -> dict[str, str]:
    """What a figure needs to be believed: how, with what and where it was measured."""
    return {
        "command": command,
        "rows": str(rows),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        # Times mean little without it.
        "load": f"{os.getloadavg()[0]:.1f}",
        "version": __version__,
    }


def named(facts: dict[str, str], terminal: Terminal) -> dict[str, str]:
    return {terminal.text(f"eval.fact.{name}"): value for name, value in facts.items()}


def followed(items: Iterable[Item], total: int, what: str, terminal: Terminal) -> Iterator[Item]:
    """The items as they come, with their progress on standard error: a bar, or a line at each tenth."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, description=what, total=total, console=console, transient=True)
        return
    for number, item in enumerate(items, 1):
        if 10 * number // total > 10 * (number - 1) // total:
            typer.echo(f"{what}: {100 * number // total} %", err=True)
        yield item


def print_sheets(sheets: Sequence[Sheet], terminal: Terminal) -> None:
    console = paper()
    for sheet in sheets:
        table = Table(title=sheet.title, title_justify="left", box=None, pad_edge=False)
        for position, name in enumerate(sheet.head):
            table.add_column(name, justify="right" if position else "left", overflow="fold")
        for row in sheet.rows[:SHOWN_ROWS]:
            table.add_row(*row)
        console.print(table)
        if len(sheet.rows) > SHOWN_ROWS:
            console.print(terminal.text("eval.more", count=len(sheet.rows) - SHOWN_ROWS))
        console.print()
