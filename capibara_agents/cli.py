"""The terminal. What takes seconds to import (LangGraph, LiteLLM, Chroma) is imported by the command that needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from capibara_agents.errors import BadQuestion, CapibaraError, ConfigError
from capibara_agents.terminal import Terminal
from capibara_agents.texts import sentence

if TYPE_CHECKING:
    from capibara_agents.settings import Settings
    from capibara_agents.types import Language

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `capibara`. Exit status 0 done, 1 failed, 2 wrong use."""
    arguments = sys.argv[1:] if arguments is None else arguments
    language = _language(arguments)
    try:
        build(language)(args=arguments, prog_name="capibara")
    except (ConfigError, BadQuestion) as error:
        _fail(error, language, EXIT_USAGE)
    except CapibaraError as error:
        _fail(error, language, EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _fail(error: CapibaraError, language: Language, status: int) -> NoReturn:
    typer.echo(sentence("error", language, text=error.message), err=True)
    sys.exit(status)


def _language(arguments: list[str]) -> Language:
    """--lang, wherever it stands, else LANG: help texts need it before anything is parsed."""
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        chosen = value if flag == "--lang" else flag.removeprefix("--lang=") if flag.startswith("--lang=") else ""
        if chosen in ("es", "en"):
            return "es" if chosen == "es" else "en"
    from capibara_agents.config import environment_language  # noqa: PLC0415

    return environment_language()


def build(language: Language) -> typer.Typer:
    """The command line in one language."""
    terminal = Terminal(language)
    t = terminal.text
    app = typer.Typer(
        help=t("cli.about"),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", help=t("cli.opt.version"), is_eager=True, callback=_version),
        lang: str | None = typer.Option(None, help=t("cli.opt.lang")),
    ) -> None:
        if lang not in (None, "es", "en"):
            raise typer.BadParameter(f"{lang}: es | en", param_hint="--lang")

    _add_questions(app, terminal)
    _add_service(app, terminal)
    _add_models(app, terminal)
    _add_fleet(app, terminal)
    _add_engine(app, terminal)
    _add_evaluation(app, terminal)
    _add_exemplars(app, terminal)
    _add_learning(app, terminal)
    _add_inspection(app, terminal)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from capibara_agents import __version__  # noqa: PLC0415

        typer.echo(f"capibara {__version__}")
        raise typer.Exit


def _add_questions(app: typer.Typer, terminal: Terminal) -> None:
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


def _add_service(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text

    @app.command(help=t("cli.serve"))
    def serve(
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
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
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import doctor as terminal_doctor  # noqa: PLC0415

        terminal_doctor.run(terminal.load(config, fleet=fleet).settings, terminal, as_json=as_json)


def _add_models(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text
    models = typer.Typer(help=t("cli.models"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(models, name="models")

    @models.command("list", help=t("cli.models.list"))
    def list_models(
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import models as terminal_models  # noqa: PLC0415

        terminal_models.show(terminal.load(config, fleet=fleet).settings, terminal, as_json=as_json)

    def add(name: str, help_code: str) -> None:
        @models.command(name, help=t(help_code))
        def act(
            names: list[str] = typer.Argument(None, help=t("cli.arg.models")),
            config: Path | None = typer.Option(None, help=t("cli.opt.config")),
            fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        ) -> None:
            from capibara_agents.terminal import models as terminal_models  # noqa: PLC0415

            settings = terminal.load(config, fleet=fleet).settings
            specs = [settings.spec(given) for given in names] if names else list(settings.models)
            getattr(terminal_models, name)(settings, specs, terminal)

    add("pull", "cli.models.pull")
    add("verify", "cli.models.verify")
    add("remove", "cli.models.remove")


def _add_fleet(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text
    fleet_app = typer.Typer(help=t("cli.fleet"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(fleet_app, name="fleet")

    def settings(config: Path | None, host: str | None, port: int | None) -> Settings:
        return terminal.load(config, server={"host": host, "port": port}).settings

    @fleet_app.command("status", help=t("cli.fleet.status"))
    def status(
        watch: bool = typer.Option(False, "--watch", help=t("cli.opt.watch")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        host: str | None = typer.Option(None, help=t("cli.opt.service_host")),
        port: int | None = typer.Option(None, help=t("cli.opt.service_port")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import fleet as terminal_fleet  # noqa: PLC0415

        terminal_fleet.status(settings(config, host, port), terminal, watch=watch, as_json=as_json)

    def add(name: str, help_code: str) -> None:
        @fleet_app.command(name, help=t(help_code))
        def act(
            model: str = typer.Argument(help=t("cli.arg.model")),
            config: Path | None = typer.Option(None, help=t("cli.opt.config")),
            host: str | None = typer.Option(None, help=t("cli.opt.service_host")),
            port: int | None = typer.Option(None, help=t("cli.opt.service_port")),
        ) -> None:
            from capibara_agents.terminal import fleet as terminal_fleet  # noqa: PLC0415

            getattr(terminal_fleet, name)(settings(config, host, port), model, terminal)

    add("load", "cli.fleet.load")
    add("unload", "cli.fleet.unload")

    @fleet_app.command("logs", help=t("cli.fleet.logs"))
    def logs(
        model: str = typer.Argument(help=t("cli.arg.model")),
        lines: int = typer.Option(100, min=1, max=10_000, help=t("cli.opt.lines")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        host: str | None = typer.Option(None, help=t("cli.opt.service_host")),
        port: int | None = typer.Option(None, help=t("cli.opt.service_port")),
    ) -> None:
        from capibara_agents.terminal import fleet as terminal_fleet  # noqa: PLC0415

        terminal_fleet.logs(settings(config, host, port), model, lines, terminal)


def _add_engine(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text
    engine = typer.Typer(help=t("cli.engine"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(engine, name="engine")

    @engine.command("show", help=t("cli.engine.show"))
    def show(
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import engine as terminal_engine  # noqa: PLC0415

        terminal_engine.show(terminal.load(config, fleet=fleet).settings, terminal, as_json=as_json)

    @engine.command("check", help=t("cli.engine.check"))
    def check(
        names: list[str] = typer.Argument(None, help=t("cli.arg.models")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import engine as terminal_engine  # noqa: PLC0415

        settings = terminal.load(config, fleet=fleet).settings
        terminal_engine.check(settings, names or (), terminal, as_json=as_json)

    @engine.command("bench", help=t("cli.engine.bench"))
    def bench(
        names: list[str] = typer.Argument(None, help=t("cli.arg.models")),
        minutes: float = typer.Option(10.0, min=0.1, help=t("cli.opt.minutes")),
        quick: bool = typer.Option(False, "--quick", help=t("cli.opt.quick")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import engine as terminal_engine  # noqa: PLC0415

        settings = terminal.load(config, fleet=fleet).settings
        terminal_engine.bench(settings, names or (), terminal, minutes=minutes, quick=quick, as_json=as_json)


def _add_evaluation(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text
    evaluation = typer.Typer(help=t("cli.eval"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(evaluation, name="eval")

    @evaluation.command("routing", help=t("cli.eval.routing"))
    def routing(
        file: Path = typer.Argument(help=t("cli.arg.rows")),
        limit: int | None = typer.Option(None, min=1, help=t("cli.opt.limit")),
        robustness: bool = typer.Option(False, "--robustness", help=t("cli.opt.robustness")),
        seed: int = typer.Option(0, help=t("cli.opt.seed")),
        report: Path | None = typer.Option(None, help=t("cli.opt.report")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        settings = terminal.load(config, fleet=fleet).settings
        from capibara_agents.terminal import evaluate  # noqa: PLC0415

        run = evaluate.RoutingRun(file=file, limit=limit, robustness=robustness, seed=seed, report=report)
        evaluate.show_routing(settings, run, terminal, as_json=as_json)

    _add_replay(evaluation, terminal)


def _add_replay(evaluation: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text

    @evaluation.command("replay", help=t("cli.eval.replay"))
    def replay(
        file: Path = typer.Argument(help=t("cli.arg.outcomes")),
        strong: str = typer.Option(..., help=t("cli.opt.strong")),
        weak: str = typer.Option(..., help=t("cli.opt.weak")),
        labels: int | None = typer.Option(None, min=1, help=t("cli.opt.labels")),
        folds: int = typer.Option(5, min=2, help=t("cli.opt.folds")),
        seed: int = typer.Option(0, min=0, help=t("cli.opt.seed")),
        report: Path | None = typer.Option(None, help=t("cli.opt.report")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        settings = terminal.load(config).settings
        from capibara_agents.terminal import evaluate  # noqa: PLC0415

        run = evaluate.ReplayRun(
            file=file, strong=strong, weak=weak, labels=labels, folds=folds, seed=seed, report=report
        )
        evaluate.show_replay(settings, run, terminal, as_json=as_json)


def _add_exemplars(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text
    exemplars = typer.Typer(help=t("cli.exemplars"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(exemplars, name="exemplars")

    @exemplars.command("add", help=t("cli.exemplars.add"))
    def add(
        content: str = typer.Argument(help=t("cli.arg.content")),
        domain: str = typer.Option(help=t("cli.opt.domain")),
        language: str | None = typer.Option(None, help=t("cli.opt.exemplar_language")),
        complexity: float | None = typer.Option(None, help=t("cli.opt.complexity")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        values = {"content": content, "domain": domain, "language": language, "complexity": complexity}
        terminal_exemplars.add(terminal.load(config).settings, values, terminal, as_json=as_json)

    @exemplars.command("list", help=t("cli.exemplars.list"))
    def list_exemplars(
        domain: str | None = typer.Option(None, help=t("cli.opt.domain")),
        language: str | None = typer.Option(None, help=t("cli.opt.exemplar_language")),
        origin: str | None = typer.Option(None, help=t("cli.opt.origin")),
        limit: int = typer.Option(20, min=0, max=1000, help=t("cli.opt.most")),
        offset: int = typer.Option(0, min=0, help=t("cli.opt.offset")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        wish = {"domain": domain, "language": language, "origin": origin, "limit": limit, "offset": offset}
        terminal_exemplars.show(terminal.load(config).settings, wish, terminal, as_json=as_json)

    @exemplars.command("remove", help=t("cli.exemplars.remove"))
    def remove(
        ids: list[str] = typer.Argument(help=t("cli.arg.ids")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        terminal_exemplars.remove(terminal.load(config).settings, ids, terminal, as_json=as_json)

    @exemplars.command("export", help=t("cli.exemplars.export"))
    def export_to(
        file: Path = typer.Argument(help=t("cli.arg.to_file")),
        origin: str | None = typer.Option(None, help=t("cli.opt.origin")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        terminal_exemplars.export_to(terminal.load(config).settings, file, origin, terminal, as_json=as_json)

    @exemplars.command("import", help=t("cli.exemplars.import"))
    def import_from(
        file: Path = typer.Argument(help=t("cli.arg.from_file")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import exemplars as terminal_exemplars  # noqa: PLC0415

        terminal_exemplars.import_from(terminal.load(config).settings, file, terminal, as_json=as_json)


def _add_learning(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text
    learning = typer.Typer(help=t("cli.learning"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(learning, name="learning")

    @learning.command("list", help=t("cli.learning.list"))
    def list_updates(
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import learning as terminal_learning  # noqa: PLC0415

        terminal_learning.show(terminal.load(config).settings, terminal, as_json=as_json)

    @learning.command("undo", help=t("cli.learning.undo"))
    def undo(
        update: int = typer.Argument(help=t("cli.arg.update")),
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        as_json: bool = typer.Option(False, "--json", help=t("cli.opt.json")),
    ) -> None:
        from capibara_agents.terminal import learning as terminal_learning  # noqa: PLC0415

        terminal_learning.undo(terminal.load(config).settings, update, terminal, as_json=as_json)


def _add_inspection(app: typer.Typer, terminal: Terminal) -> None:
    t = terminal.text
    config_app = typer.Typer(help=t("cli.config"), no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(config_app, name="config")

    @config_app.command("show", help=t("cli.config.show"))
    def show(
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        # A key is shown as present, never as what it is: this output is pasted into bug reports.
        values = loaded.settings.model_dump(mode="json")
        values["server"]["api_keys"] = ["***" for _ in loaded.settings.server.api_keys]
        terminal.print_json({"layers": list(loaded.layers), "settings": values})

    @config_app.command("check", help=t("cli.config.check"))
    def check(
        config: Path | None = typer.Option(None, help=t("cli.opt.config")),
        fleet: str | None = typer.Option(None, help=t("cli.opt.fleet")),
    ) -> None:
        loaded = terminal.load(config, fleet=fleet)
        terminal.say("config.good", layers=", ".join(loaded.layers) or t("config.defaults"))

    @config_app.command("schema", help=t("cli.config.schema"))
    def schema() -> None:
        from capibara_agents.settings import settings_schema  # noqa: PLC0415

        terminal.print_json(settings_schema())

    @app.command(help=t("cli.graph"))
    def graph(
        as_ascii: bool = typer.Option(False, "--ascii", help=t("cli.opt.ascii")),
        as_mermaid: bool = typer.Option(False, "--mermaid", help=t("cli.opt.mermaid")),
    ) -> None:
        from capibara_agents.graphs.capibara import drawing  # noqa: PLC0415

        typer.echo(drawing(as_ascii=as_ascii and not as_mermaid))
