"""What several commands take, stated once: options and arguments with their help in the terminal's language."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from capibara_agents.terminal import Terminal


def given_or_piped(question: str | None) -> str | None:
    """The question, or of `-` what standard input holds: a file is too long for an argument, which ends at 128 KiB."""
    return sys.stdin.buffer.read().decode(errors="replace") if question == "-" else question


class Options:
    """Each is the default value of a command's parameter, as typer reads it; hence `Any`."""

    def __init__(self, terminal: Terminal) -> None:
        text = terminal.text
        self.config: Any = typer.Option(None, help=text("cli.opt.config"))
        self.fleet: Any = typer.Option(None, help=text("cli.opt.fleet"))
        self.as_json: Any = typer.Option(False, "--json", help=text("cli.opt.json"))
        self.question: Any = typer.Argument(help=text("cli.arg.question"), callback=given_or_piped)
        self.question_or_none: Any = typer.Argument(None, help=text("cli.arg.question"), callback=given_or_piped)
        self.model: Any = typer.Option("capibara", help=text("cli.opt.model"))
        self.mode: Any = typer.Option("auto", help=text("cli.opt.mode"))
        self.max_tokens: Any = typer.Option(None, help=text("cli.opt.max_tokens"))
        self.one_model: Any = typer.Argument(help=text("cli.arg.model"))
        self.models: Any = typer.Argument(None, help=text("cli.arg.models"))
        self.service_host: Any = typer.Option(None, help=text("cli.opt.service_host"))
        self.service_port: Any = typer.Option(None, help=text("cli.opt.service_port"))
        self.domain: Any = typer.Option(None, help=text("cli.opt.domain"))
        self.origin: Any = typer.Option(None, help=text("cli.opt.origin"))
        self.folds: Any = typer.Option(5, min=2, help=text("cli.opt.folds"))
        self.report: Any = typer.Option(None, help=text("cli.opt.report"))
