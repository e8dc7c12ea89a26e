"""`capibara eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from capibara_agents.cli.options import Options

if TYPE_CHECKING:
    from capibara_agents.terminal import Terminal


def add_evaluation(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    evaluation = typer.Typer(help=t("cli.eval"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(evaluation, name="eval")

    @evaluation.command("routing", help=t("cli.eval.routing"))
    def routing(
        file: Path = typer.Argument(help=t("cli.arg.rows")),
        limit: int | None = typer.Option(None, min=1, help=t("cli.opt.limit")),
        robustness: bool = typer.Option(False, "--robustness", help=t("cli.opt.robustness")),
        seed: int = typer.Option(0, help=t("cli.opt.seed")),
        report: Path | None = o.report,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        settings = terminal.load(config, fleet=fleet).settings
        from capibara_agents.terminal import evaluate  # noqa: PLC0415

        run = evaluate.RoutingRun(file=file, limit=limit, robustness=robustness, seed=seed, report=report)
        evaluate.show_routing(settings, run, terminal, as_json=as_json)

    _add_replay(evaluation, terminal)
    _add_consensus(evaluation, terminal)


def _add_replay(evaluation: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)

    @evaluation.command("replay", help=t("cli.eval.replay"))
    def replay(
        file: Path = typer.Argument(help=t("cli.arg.outcomes")),
        strong: str = typer.Option(..., help=t("cli.opt.strong")),
        weak: str = typer.Option(..., help=t("cli.opt.weak")),
        labels: int | None = typer.Option(None, min=1, help=t("cli.opt.labels")),
        folds: int = o.folds,
        seed: int = typer.Option(0, min=0, help=t("cli.opt.seed")),
        report: Path | None = o.report,
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        settings = terminal.load(config).settings
        from capibara_agents.terminal import evaluate  # noqa: PLC0415

        run = evaluate.ReplayRun(
            file=file, strong=strong, weak=weak, labels=labels, folds=folds, seed=seed, report=report
        )
        evaluate.show_replay(settings, run, terminal, as_json=as_json)


def _add_consensus(evaluation: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)

    @evaluation.command("consensus", help=t("cli.eval.consensus"))
    def consensus(
        file: Path = typer.Argument(help=t("cli.arg.answers")),
        panels: Path = typer.Option(..., help=t("cli.opt.panels")),
        folds: int = o.folds,
        report: Path | None = o.report,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import evaluate_votes  # noqa: PLC0415

        run = evaluate_votes.ConsensusRun(file=file, panels=panels, folds=folds, report=report)
        evaluate_votes.show_consensus(run, terminal, as_json=as_json)
