"""Commands that ask: `ask`, `route`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from capibara_agents.terminal import Terminal


def add_questions(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text

    @app.command(help=t("cli.ask"))
    def ask(
        question: str = typer.Argument(help=t("cli.arg.question")),
        model: str = typer.Option("capibara", help=t("cli.opt.model")),
        mode: str = typer.Option("auto", help=t("cli.opt.mode")),
        max_tokens: int | None = typer.Option(None, help=t("cli.opt.max_tokens")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        from capibara_agents.terminal import ask as terminal_ask  # noqa: PLC0415

        asked = terminal_ask.Asked(question=question, model=model, mode=mode, max_tokens=max_tokens)
        terminal_ask.run(loaded.settings, asked, terminal, as_json=as_json)

    @app.command(help=t("cli.route"))
    def route(
        question: str = typer.Argument(help=t("cli.arg.question")),
        model: str = typer.Option("capibara", help=t("cli.opt.model")),
        mode: str = typer.Option("auto", help=t("cli.opt.mode")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        from capibara_agents.terminal import ask as terminal_ask  # noqa: PLC0415

        asked = terminal_ask.Asked(question=question, model=model, mode=mode)
        terminal_ask.show_route(loaded.settings, asked, terminal, as_json=as_json)
