"""Commands for what the data folder holds: `exemplars`, `learning`, `data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from capibara_agents.cli.options import Options

if TYPE_CHECKING:
    from capibara_agents.terminal import Terminal


def add_exemplars(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    exemplars = typer.Typer(help=t("cli.exemplars"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(exemplars, name="exemplars")

    @exemplars.command("add", help=t("cli.exemplars.add"))
    def add(
        content: str = typer.Argument(help=t("cli.arg.content")),
        domain: str = typer.Option(help=t("cli.opt.domain")),
        language: str | None = typer.Option(None, help=t("cli.opt.exemplar_language")),
        complexity: float | None = typer.Option(None, help=t("cli.opt.complexity")),
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        values = {"content": content, "domain": domain, "language": language, "complexity": complexity}
        terminal_exemplars.add(terminal.load(config).settings, values, terminal, as_json=as_json)

    @exemplars.command("list", help=t("cli.exemplars.list"))
    def list_exemplars(
        domain: str | None = o.domain,
        language: str | None = typer.Option(None, help=t("cli.opt.only_language")),
        origin: str | None = o.origin,
        limit: int = typer.Option(20, min=0, max=1000, help=t("cli.opt.most")),
        offset: int = typer.Option(0, min=0, help=t("cli.opt.offset")),
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        wish = {"domain": domain, "language": language, "origin": origin, "limit": limit, "offset": offset}
        terminal_exemplars.show(terminal.load(config).settings, wish, terminal, as_json=as_json)

    @exemplars.command("remove", help=t("cli.exemplars.remove"))
    def remove(
        ids: list[str] = typer.Argument(help=t("cli.arg.ids")),
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        terminal_exemplars.remove(terminal.load(config).settings, ids, terminal, as_json=as_json)

    @exemplars.command("export", help=t("cli.exemplars.export"))
    def export_to(
        file: Path = typer.Argument(help=t("cli.arg.to_file")),
        origin: str | None = o.origin,
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        terminal_exemplars.export_to(terminal.load(config).settings, file, origin, terminal, as_json=as_json)

    @exemplars.command("import", help=t("cli.exemplars.import"))
    def import_from(
        file: Path = typer.Argument(help=t("cli.arg.from_file")),
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        terminal_exemplars.import_from(terminal.load(config).settings, file, terminal, as_json=as_json)


def add_learning(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    learning = typer.Typer(help=t("cli.learning"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(learning, name="learning")

    @learning.command("list", help=t("cli.learning.list"))
    def list_updates(
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import learning as terminal_learning  # noqa: PLC0415

        terminal_learning.show(terminal.load(config).settings, terminal, as_json=as_json)

    @learning.command("undo", help=t("cli.learning.undo"))
    def undo(
        update: int = typer.Argument(help=t("cli.arg.update")),
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import learning as terminal_learning  # noqa: PLC0415

        terminal_learning.undo(terminal.load(config).settings, update, terminal, as_json=as_json)


def add_data(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    data = typer.Typer(help=t("cli.data"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(data, name="data")

    @data.command("list", help=t("cli.data.list"))
    def list_data(
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import data as terminal_data  # noqa: PLC0415

        terminal_data.show(terminal.load(config).settings, terminal, as_json=as_json)

    @data.command("delete", help=t("cli.data.delete"))
    def delete(
        kinds: list[str] = typer.Argument(help=t("cli.arg.kinds")),
        yes: bool = typer.Option(False, "--yes", help=t("cli.opt.yes")),
        config: Path | None = o.config,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import data as terminal_data  # noqa: PLC0415

        terminal_data.delete(terminal.load(config).settings, kinds, terminal, yes=yes, as_json=as_json)
