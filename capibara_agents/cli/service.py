"""Commands around the running service: `serve`, `doctor`, `bench`, `fleet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from capibara_agents.cli.options import Options

if TYPE_CHECKING:
    from capibara_agents.settings import Settings
    from capibara_agents.terminal import Terminal


def add_service(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)

    @app.command(help=t("cli.serve"))
    def serve(
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        host: str | None = typer.Option(None, help=t("cli.opt.host")),
        port: int | None = typer.Option(None, help=t("cli.opt.port")),
        insecure: bool = typer.Option(False, "--insecure", help=t("cli.opt.insecure")),
    ) -> None:
        flags = {"host": host, "port": port, "insecure": insecure or None}
        loaded = terminal.load(config, fleet=fleet, server=flags)
        from capibara_agents.terminal import serve as terminal_serve  # noqa: PLC0415

        def reread() -> Settings:
            return terminal.load(config, fleet=fleet, server=flags).settings

        terminal_serve.run(loaded.settings, terminal, reread)

    @app.command(help=t("cli.doctor"))
    def doctor(
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import doctor as terminal_doctor  # noqa: PLC0415

        terminal_doctor.run(terminal.load(config, fleet=fleet).settings, terminal, as_json=as_json)

    @app.command(help=t("cli.bench"))
    def bench(
        names: list[str] = o.models,
        calls: int = typer.Option(10, min=1, max=1000, help=t("cli.opt.calls")),
        max_tokens: int = typer.Option(32, min=2, help=t("cli.opt.max_tokens")),
        config: Path | None = o.config,
        fleet: str | None = o.fleet,
        as_json: bool = o.as_json,
    ) -> None:
        settings = terminal.load(config, fleet=fleet).settings
        from capibara_agents.terminal import bench as terminal_bench  # noqa: PLC0415

        terminal_bench.run(settings, names or (), terminal, calls=calls, tokens=max_tokens, as_json=as_json)


def add_fleet(app: typer.Typer, terminal: Terminal) -> None:
    t, o = terminal.text, Options(terminal)
    fleet_app = typer.Typer(help=t("cli.fleet"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(fleet_app, name="fleet")

    def settings(config: Path | None, host: str | None, port: int | None) -> Settings:
        return terminal.load(config, server={"host": host, "port": port}).settings

    @fleet_app.command("status", help=t("cli.fleet.status"))
    def status(
        watch: bool = typer.Option(False, "--watch", help=t("cli.opt.watch")),
        config: Path | None = o.config,
        host: str | None = o.service_host,
        port: int | None = o.service_port,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import fleet as terminal_fleet  # noqa: PLC0415

        terminal_fleet.status(settings(config, host, port), terminal, watch=watch, as_json=as_json)

    def add(name: str, help_code: str) -> None:
        @fleet_app.command(name, help=t(help_code))
        def act(
            model: str = o.one_model,
            config: Path | None = o.config,
            host: str | None = o.service_host,
            port: int | None = o.service_port,
            as_json: bool = o.as_json,
        ) -> None:
            from capibara_agents.terminal import fleet as terminal_fleet  # noqa: PLC0415

            getattr(terminal_fleet, name)(settings(config, host, port), model, terminal, as_json=as_json)

    add("load", "cli.fleet.load")
    add("unload", "cli.fleet.unload")

    @fleet_app.command("logs", help=t("cli.fleet.logs"))
    def logs(
        model: str = o.one_model,
        lines: int = typer.Option(100, min=1, max=10_000, help=t("cli.opt.lines")),
        config: Path | None = o.config,
        host: str | None = o.service_host,
        port: int | None = o.service_port,
        as_json: bool = o.as_json,
    ) -> None:
        from capibara_agents.terminal import fleet as terminal_fleet  # noqa: PLC0415

        terminal_fleet.logs(settings(config, host, port), model, lines, terminal, as_json=as_json)
