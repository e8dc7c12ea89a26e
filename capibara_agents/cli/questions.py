"""Commands that ask: `ask`, `chat`, `route`, `consensus`, `compare`, `test`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from capibara_agents.cli.options import Options

if TYPE_CHECKING:
    from capibara_agents.terminal import Terminal


def add_questions(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)

    @app.command(help=t("cli.ask"))
    def ask(
        question: str = o.question,
        model: str = o.model,
        mode: str = o.mode,
        max_tokens: int | None = o.max_tokens,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        from capibara_agents.terminal import ask as terminal_ask  # noqa: PLC0415

        asked = terminal_ask.Asked(question=question, model=model, mode=mode, max_tokens=max_tokens)
        terminal_ask.run(loaded.settings, asked, terminal, as_json=as_json)

    @app.command(help=t("cli.route"))
    def route(
        question: str = o.question,
        model: str = o.model,
        mode: str = o.mode,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        from capibara_agents.terminal import ask as terminal_ask  # noqa: PLC0415

        asked = terminal_ask.Asked(question=question, model=model, mode=mode)
        terminal_ask.show_route(loaded.settings, asked, terminal, as_json=as_json)

    _add_chat(app, terminal)
    _add_several(app, terminal)
    _add_test(app, terminal)


def _add_chat(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)

    @app.command(help=t("cli.chat"))
    def chat(
        model: str = o.model,
        max_tokens: int | None = o.max_tokens,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json_lines")),
    ) -> None:
        settings = terminal.load(config, fleet=fleet).settings
        from capibara_agents.terminal import chat as terminal_chat  # noqa: PLC0415

        terminal_chat.run(settings, model, max_tokens, terminal, as_json=as_json)


def _add_several(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)

    @app.command(help=t("cli.consensus"))
    def consensus(
        question: str = o.question,
        voter: list[str] = typer.Option([], help=t("cli.opt.voter")),
        voting: str = typer.Option("weighted", help=t("cli.opt.voting")),
        max_voters: int = typer.Option(3, help=t("cli.opt.max_voters")),
        samples: int = typer.Option(1, help=t("cli.opt.samples")),
        max_tokens: int | None = o.max_tokens,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        settings = terminal.load(config, fleet=fleet).settings
        from capibara_agents.terminal import consensus as terminal_consensus  # noqa: PLC0415

        election = terminal_consensus.Election(question, voter, voting, max_voters, samples, max_tokens)
        terminal_consensus.run(settings, election, terminal, as_json=as_json)

    @app.command(help=t("cli.compare"))
    def compare(
        question: str = o.question,
        model: list[str] = typer.Option([], help=t("cli.opt.models_only")),
        max_tokens: int | None = o.max_tokens,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        settings = terminal.load(config, fleet=fleet).settings
        from capibara_agents.terminal import compare as terminal_compare  # noqa: PLC0415

        terminal_compare.run(settings, question, model, terminal, max_tokens=max_tokens, as_json=as_json)


def _add_test(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)

    @app.command(help=t("cli.test"))
    def test(
        what: str | None = typer.Argument(None, help=t("cli.arg.trial")),
        question: str | None = o.question_or_none,
        model: str | None = typer.Option(None, help=t("cli.opt.trial_model")),
        max_tokens: int | None = o.max_tokens,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        settings = terminal.load(config, fleet=fleet).settings
        from capibara_agents.terminal import trials  # noqa: PLC0415

        trials.run(settings, trials.Wanted(what, question, model, max_tokens), terminal, as_json=as_json)
