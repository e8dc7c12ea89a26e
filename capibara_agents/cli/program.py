"""The command line, and how it ends. What is slow to import (LangGraph, LiteLLM, Chroma) is imported by its command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from capibara_agents import garbage
from capibara_agents.cli.evaluation import add_evaluation
from capibara_agents.cli.inspection import add_inspection
from capibara_agents.cli.models import add_engine, add_models
from capibara_agents.cli.questions import add_questions
from capibara_agents.cli.service import add_fleet, add_service
from capibara_agents.cli.store import add_data, add_exemplars, add_learning
from capibara_agents.cli.wording import WrongUse, reword, tell_wrong_use
from capibara_agents.errors import BadQuestion, CapibaraError, ConfigError, reason
from capibara_agents.terminal import Terminal
from capibara_agents.texts import phrase, sentence

if TYPE_CHECKING:
    from capibara_agents.types import Language

EXIT_FAILED, EXIT_USAGE = 1, 2


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and leave with its exit status; KeyboardInterrupt is the caller's."""
    if arguments is None:
        garbage.of_a_program()
        arguments = sys.argv[1:]
    language = _language(arguments)
    try:
        command = reword(typer.main.get_command(build(language)), language)
        # Not standalone: typer would tell what is wrong itself, in English.
        status = command.main(_lang_first(arguments), prog_name="capibara", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except WrongUse as error:
        sys.exit(tell_wrong_use(error, language))
    except typer.Abort:
        typer.echo(sentence("use.aborted", language), err=True)
        sys.exit(EXIT_FAILED)
    except (ConfigError, BadQuestion) as error:
        _fail(error, language, EXIT_USAGE)
    except CapibaraError as error:
        _fail(error, language, EXIT_FAILED)
    except OSError as error:  # a full disk, a folder that may not be written: what the system says is the reason
        if sys.flags.dev_mode:
            raise
        _fail(CapibaraError(phrase("error.system", what=reason(error))), language, EXIT_FAILED)
    except Exception as error:  # whatever broke, a person gets one sentence and no traceback
        if sys.flags.dev_mode:  # PYTHONDEVMODE=1 shows where it happened
            raise
        unexpected = CapibaraError(sentence("error.unexpected", language, what=type(error).__name__))
        _fail(unexpected, language, EXIT_FAILED)


def _fail(error: CapibaraError, language: Language, status: int) -> NoReturn:
    typer.echo(sentence("error", language, text=error.told(language)), err=True)
    sys.exit(status)


def _language(arguments: list[str]) -> Language:
    """--lang, wherever it stands, else LANG: help texts need it before anything is parsed."""
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        chosen = value if flag == "--lang" else flag.removeprefix("--lang=") if flag.startswith("--lang=") else ""
        if chosen in ("es", "en"):
            return "es" if chosen == "es" else "en"
    from capibara_agents.config import environment_language  # noqa: PLC0415

    return environment_language()


def _lang_first(arguments: list[str]) -> list[str]:
    """The arguments with --lang where it is declared, before the command; what stands after `--` is no option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, words = arguments[:end], arguments[end:]
    chosen: list[str] = []
    rest: list[str] = []
    while options:
        word = options.pop(0)
        if word == "--lang" and options:
            chosen = [word, options.pop(0)]
        elif word.startswith("--lang="):
            chosen = [word]
        else:
            rest.append(word)
    return [*chosen, *rest, *words]


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

    add_questions(app, terminal)
    add_service(app, terminal)
    add_models(app, terminal)
    add_fleet(app, terminal)
    add_engine(app, terminal)
    add_evaluation(app, terminal)
    add_exemplars(app, terminal)
    add_learning(app, terminal)
    add_data(app, terminal)
    add_inspection(app, terminal)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from capibara_agents import __version__  # noqa: PLC0415

        typer.echo(f"capibara {__version__}")
        raise typer.Exit
