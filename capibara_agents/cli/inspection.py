"""Commands that show how Capibara is set up: `config`, `graph`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from capibara_agents.cli.options import Options

if TYPE_CHECKING:
    from capibara_agents.terminal import Terminal


def add_inspection(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    config_app = typer.Typer(help=t("cli.config"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(config_app, name="config")

    @config_app.command("show", help=t("cli.config.show"))
    def show(
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json_always")),
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        # A key is shown as present, never as what it is: this output is pasted into bug reports.
        values = loaded.settings.model_dump(mode="json")
        values["server"]["api_keys"] = ["***" for _ in loaded.settings.server.api_keys]
        terminal.print_json({"layers": list(loaded.layers), "settings": values})

    @config_app.command("check", help=t("cli.config.check"))
    def check(
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        if as_json:
            terminal.print_json({"ok": True, "layers": list(loaded.layers), "warnings": list(loaded.warnings)})
            return
        terminal.say("checked.good", layers=", ".join(loaded.layers) or t("checked.defaults"))

    @config_app.command("schema", help=t("cli.config.schema"))
    def schema() -> None:
        from capibara_agents.settings import settings_schema  # noqa: PLC0415

        terminal.print_json(settings_schema())

    @app.command(help=t("cli.graph"))
    def graph(
        as_ascii: bool = typer.Option(False, "--ascii", help=t("cli.opt.ascii")),
        as_mermaid: bool = typer.Option(False, "--mermaid", help=t("cli.opt.mermaid")),
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import graph as terminal_graph  # noqa: PLC0415

        terminal_graph.run(terminal, as_ascii=as_ascii and not as_mermaid, as_json=as_json)
