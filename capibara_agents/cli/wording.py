"""typer's own words (Usage, Options, No such option …) in the language of the command line.

They are English in typer's code. Help goes through a formatter of ours, errors of wrong use through `tell_wrong_use`;
a phrase that is not among the texts stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from capibara_agents.texts import sentence

if TYPE_CHECKING:
    from capibara_agents.types import Language

# typer names BadParameter alone; its base is what every wrong use of a command is raised as.
WrongUse: Any = typer.BadParameter.__bases__[0]

# What typer says -> the code of the text that says it; groups are its values, by name.
_PHRASES = {
    r"Show this message and exit\.": "use.help",
    r"\[required\]": "use.required",
    r"\[default: (?P<value>[^\]]*)\]": "use.default",
    r"<str>": "use.type.str",
    r"<list\[str\]>": "use.type.list",
    r"<int(?: range)?>": "use.type.int",
    r"<float(?: range)?>": "use.type.float",
    r"<(?:path|file|directory)>": "use.type.path",
    r"No such option: (?P<value>\S+)": "use.no_option",
    r"\(Possible options: (?P<value>[^)]*)\)": "use.perhaps",
    r"Did you mean (?P<value>[^?]*)\?": "use.meant",
    r"No such command (?P<value>'[^']*')\.": "use.no_command",
    r"Missing argument (?P<value>'[^']*')\.": "use.no_argument",
    r"Missing option (?P<value>'[^']*')\.": "use.option_needed",
    r"Missing command\.": "use.command_needed",
    r"Invalid value for (?P<value>[^:]*):": "use.invalid",
    r"Got unexpected extra argument(?:s|\(s\))? \((?P<value>[^)]*)\)": "use.too_many",
    r"Option (?P<value>'[^']*') requires an argument\.": "use.value_needed",
    r"Option (?P<value>'[^']*') does not take a value\.": "use.no_value",
    r"Unable to parse input string as an integer, exceeded maximum size": "use.too_large",
    r"Input should be a valid integer.*": "use.no_integer",
    r"Input should be a valid number.*": "use.no_number",
    r"Input should be greater than or equal to (?P<value>\S+)": "use.at_least",
    r"Input should be less than or equal to (?P<value>\S+)": "use.at_most",
}


def worded(text: str, language: Language) -> str:
    """A text of typer's, with the phrases that are known put into the language."""
    if language == "en":
        return text
    for phrase, code in _PHRASES.items():
        text = re.sub(phrase, lambda found, code=code: sentence(code, language, **found.groupdict()), text)  # type: ignore[misc]
    return text


def reword(command: Any, language: Language) -> Any:
    """The command, and all below it, with help in the language."""

    class Formatter(command.context_class.formatter_class):  # type: ignore[misc]
        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            words = {"[OPTIONS]": "use.options", "COMMAND [ARGS]...": "use.command"}
            for theirs, code in words.items():
                args = args.replace(theirs, sentence(code, language))
            super().write_usage(prog, args, prefix or sentence("use.usage", language))

        def section(self, name: str) -> Any:
            return super().section(sentence(f"use.section.{name.lower()}", language))

        def write_dl(self, rows: Sequence[tuple[str, str]], *widths: Any, **more: Any) -> None:
            super().write_dl([(worded(term, language), worded(text, language)) for term, text in rows], *widths, **more)

    class Context(command.context_class):  # type: ignore[misc]
        formatter_class = Formatter

    def put(one: Any) -> None:
        one.context_class = Context
        for parameter in one.params:
            if parameter.param_type_name == "argument" and language != "en":
                parameter.metavar = sentence(f"use.name.{parameter.name}", language)

    _each(command, put)
    return command


def _each(command: Any, do: Callable[[Any], None]) -> None:
    do(command)
    for below in getattr(command, "commands", {}).values():
        _each(below, do)


def tell_wrong_use(error: Any, language: Language) -> int:
    """Print what is wrong with the arguments to standard error; the exit status."""
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
        return int(error.exit_code)
    if context is not None:
        typer.echo(context.get_usage(), err=True)
        typer.echo(sentence("use.try", language, command=context.command_path) + "\n", err=True)
    typer.echo(sentence("error", language, text=worded(error.format_message(), language)), err=True)
    return int(error.exit_code)
