"""`capibara eval consensus`: what panels of models would have answered together. No model is started."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capibara_agents.errors import ConfigError
from capibara_agents.evaluation import consensus, report
from capibara_agents.evaluation.consensus import PanelFigures, Row
from capibara_agents.evaluation.vote_tables import by_voters_sheet, calibration_sheet, panels_sheet
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.evaluate import facts_of, followed, named, prepare, print_sheets
from capibara_agents.texts import phrase
from capibara_agents.verify.prints import find_print_question, same_answer, settle_print_question
from capibara_agents.verify.sandbox import available


@dataclass(frozen=True)
class ConsensusRun:
    """What `capibara eval consensus` was asked to do."""

    file: Path
    panels: Path
    folds: int = 5
    report: Path | None = None

    @property
    def command(self) -> str:
        words = ["capibara", "eval", "consensus", str(self.file), "--panels", str(self.panels)]
        words += ["--folds", str(self.folds)]
        words += ["--report", str(self.report)] if self.report else []
        return shlex.join(words)


def show_consensus(run: ConsensusRun, terminal: Terminal, *, as_json: bool) -> None:
    """Replay the votes of every panel that is named for the file; ConfigError for files that cannot be used."""
    rows = consensus.read_rows(run.file)
    panels = consensus.read_panels(run.panels)
    of_set = run.file.stem
    if of_set not in panels:
        raise ConfigError(phrase("rows.no_panel_for", path=run.panels, set=of_set, known=", ".join(panels) or "-"))
    prepare(run.report, terminal)
    measured = _measure(rows, of_set, panels[of_set], run.folds, terminal)
    held = facts_of(run.command, len(rows))
    if as_json:
        terminal.print_json(consensus.as_json(measured) | {"run": held})
    else:
        print_sheets([panels_sheet(measured, terminal.language)], terminal)
    if run.report:
        _report(run.report, measured, held, terminal)


def _measure(
    rows: Sequence[Row], of_set: str, panels: Mapping[str, tuple[str, ...]], folds: int, terminal: Terminal
) -> list[PanelFigures]:
    consensus.check(rows, of_set=of_set, panels=panels, folds=folds)
    settled = _settled(rows, terminal)
    what, total = terminal.text("eval.voting"), len(panels)
    replayed = consensus.replay_all(rows, of_set=of_set, panels=panels, folds=folds, settled=settled)
    return list(followed(replayed, total, what, terminal))


def _settled(rows: Sequence[Row], terminal: Terminal) -> dict[str, bool]:
    """Row id -> whether running the code of its question gives the truth, where there is such code."""
    asking = [row for row in rows if find_print_question(row.prompt) is not None]
    if not asking:
        return {}
    able, why = available()
    if not able:
        terminal.note("eval.no_sandbox", count=len(asking), reason=terminal.text(f"verify.sandbox.{why}"))
        return {}
    found = consensus.settle_all(asking, settle_print_question, same_answer)
    told = followed(found, len(asking), terminal.text("eval.running_code"), terminal)
    return dict(one for one in told if one is not None)


def _report(folder: Path, measured: Sequence[PanelFigures], held: dict[str, str], terminal: Terminal) -> None:
    from capibara_agents.evaluation import vote_plots  # noqa: PLC0415  (an extra, and half a second)

    language = terminal.language
    sheets = [
        panels_sheet(measured, language),
        by_voters_sheet(measured, language),
        *(calibration_sheet(one, language) for one in measured),
    ]
    pictures = {
        "panels": vote_plots.panels_png(measured, language),
        "voters": vote_plots.voters_png(measured, language),
        "confidence": vote_plots.confidence_png(measured, language),
    }
    page = report.page(terminal.text("eval.consensus.title"), named(held, terminal), sheets, pictures, language)
    terminal.note("eval.written", file=report.write(folder, page, pictures))
