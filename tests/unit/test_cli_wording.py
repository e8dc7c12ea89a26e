"""typer's own words follow the language, too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from capibara_agents.cli import main
from capibara_agents.cli.program import build

ENGLISH = (
    "Usage",
    "Options",
    "Arguments",
    "Commands",
    "Show this message",
    "[required]",
    "[default",
    "No such",
    "Try ",
)


# Words of the library that stand beside the names of options and arguments.
TYPES = re.compile(r"<(?!=|texto>|textos>|entero>|número>|ruta>)[^>]*>|\b(?:INTEGER|TEXT|PATH|FLOAT|RANGE|range)\b")


def commands(one: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    yield path
    for name, below in getattr(one, "commands", {}).items():
        yield from commands(below, *path, name)


ALL = sorted(commands(typer.main.get_command(build("en"))))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit status, and everything that was printed."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out + printed.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["Uso: capibara [OPCIONES] ORDEN [ARGUMENTOS]...", "Opciones:", "Órdenes:", "Muestra esta ayuda"]),
        (
            ["route", "-h"],
            ["Uso: capibara route [OPCIONES] {pregunta}", "Argumentos:", "[obligatorio]", "[por defecto:"],
        ),
        (["models", "--help"], ["Uso: capibara models [OPCIONES]", "Órdenes:"]),
    ],
)
def test_help_is_spanish_all_through(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    """Headings, marks and the help of --help; of every command that has commands, too."""
    status, text = said(capsys, "--lang", "es", *arguments)
    assert status == 0
    assert all(word in text for word in words), text
    assert not [word for word in ENGLISH if word in text]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_help_of_every_command_is_spanish_to_the_last_word(
    capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    """The kinds of values and the names of arguments, too."""
    status, text = said(capsys, "--lang", "es", *path, "--help")
    assert status == 0
    assert text.startswith(" ".join(["Uso: capibara", *path]))
    assert not [word for word in ENGLISH if word in text]
    assert not TYPES.findall(text)
    named = re.findall(r"[{\[]([a-zó]+)[}\]]", text.partition("\n\n")[0])
    assert not {"question", "file", "names", "model", "kinds", "update", "content", "what"} & set(named)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["route", "--nope"], "No existe la opción --nope (Opciones parecidas: --mode, --model)"),
        (["nope"], "No existe la orden 'nope'."),
        (["rout"], "No existe la orden 'rout'."),
        (["route"], "Falta el argumento 'pregunta'."),
        (["route", "a", "b", "c"], "Sobran argumentos: b c"),
        (["serve", "--port", "x"], "Valor no válido para '--port': Tiene que ser un número entero."),
        (["serve", "--port"], "La opción '--port' necesita un valor."),
        (["doctor", "--json=1"], "La opción '--json' no lleva ningún valor."),
        (["learning", "undo", "9" * 5000], "Valor no válido para 'actualización': El número es demasiado grande."),
        (["bench", "--calls", "0"], "Valor no válido para '--calls': Tiene que ser al menos 1"),
        ([], "Falta una orden."),
    ],
)
def test_wrong_use_is_told_in_spanish(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    """Exit status 2, how it is used, where the help is, and what is wrong."""
    status, text = said(capsys, "--lang", "es", *arguments)
    assert status == 2
    assert f"Error: {words}" in text
    if "La opción" not in words:  # (there typer knows no command yet)
        assert text.startswith("Uso: capibara")
        assert "muestra la ayuda." in text
    assert not [word for word in ENGLISH if word in text]


def test_english_stays_as_typer_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Also after Spanish was asked for in the same process."""
    said(capsys, "--lang", "es", "route", "--help")
    status, text = said(capsys, "--lang", "en", "route", "--help")
    assert status == 0
    assert all(word in text for word in ("Usage: capibara route [OPTIONS]", "Options:", "Show this message and exit."))
    status, text = said(capsys, "--lang", "en", "route", "--nope")
    assert (status, "Error: No such option: --nope" in text) == (2, True)
    assert "Try 'capibara route -h' for help." in text
