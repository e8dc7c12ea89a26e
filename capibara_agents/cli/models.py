"""Commands for the models and the engine that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from capibara_agents.cli.options import Options

if TYPE_CHECKING:
    from capibara_agents.terminal import Terminal


def add_models(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    models = typer.Typer(help=t("cli.models"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(models, name="models")

    @models.command("list", help=t("cli.models.list"))
    def list_models(
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import models as terminal_models  # noqa: PLC0415

        terminal_models.show(terminal.load(config, fleet=fleet).settings, terminal, as_json=as_json)

    def add(name: str, help_code: str) -> None:
        @models.command(name, help=t(help_code))
        def act(
            names: list[str] = o.models,
            config: Path | None = o.config,
            fleet: str | None = o.fleet,
            as_json: bool = o.as_json,
        ) -> None:
            from capibara_agents.terminal import models as terminal_models  # noqa: PLC0415

            settings = terminal.load(config, fleet=fleet).settings
            specs = [settings.spec(given) for given in names] if names else list(settings.models)
            getattr(terminal_models, name)(settings, specs, terminal, as_json=as_json)

    add("pull", "cli.models.pull")
    add("verify", "cli.models.verify")
    add("remove", "cli.models.remove")


def add_engine(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    engine = typer.Typer(help=t("cli.engine"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(engine, name="engine")

    @engine.command("show", help=t("cli.engine.show"))
    def show(
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import engine as terminal_engine  # noqa: PLC0415

        terminal_engine.show(terminal.load(config, fleet=fleet).settings, terminal, as_json=as_json)

    @engine.command("check", help=t("cli.engine.check"))
    def check(
        names: list[str] = o.models,
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import engine as terminal_engine  # noqa: PLC0415

        settings = terminal.load(config, fleet=fleet).settings
        terminal_engine.check(settings, names or (), terminal, as_json=as_json)

    @engine.command("bench", help=t("cli.engine.bench"))
    def bench(
        names: list[str] = o.models,
        minutes: float = typer.Option(10.0, min=0.1, help=t("cli.opt.minutes")),
        quick: bool = typer.Option(False, "--quick", help=t("cli.opt.quick")),
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import engine as terminal_engine  # noqa: PLC0415

        settings = terminal.load(config, fleet=fleet).settings
        terminal_engine.bench(settings, names or (), terminal, minutes=minutes, quick=quick, as_json=as_json)
