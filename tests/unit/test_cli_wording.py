"""typer's own words follow the language, too."""

from __future__ import annotations

import pytest

from capibara_agents.cli import main

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
            ["Uso: capibara route [OPCIONES] {question}", "Argumentos:", "[obligatorio]", "[por defecto:"],
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["route", "--nope"], "No existe la opción --nope (Opciones parecidas: --mode, --model)"),
        (["nope"], "No existe la orden 'nope'."),
        (["rout"], "No existe la orden 'rout'."),
        (["route"], "Falta el argumento 'question'."),
        (["route", "a", "b", "c"], "Sobran argumentos: b c"),
        (["serve", "--port", "x"], "Valor no válido para '--port': Tiene que ser un número entero."),
        (["serve", "--port"], "La opción '--port' necesita un valor."),
        ([], "Falta una orden."),
    ],
)
def test_wrong_use_is_told_in_spanish(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    """Exit status 2, how it is used, where the help is, and what is wrong."""
    status, text = said(capsys, "--lang", "es", *arguments)
    assert status == 2
    assert f"Error: {words}" in text
    if "necesita un valor" not in words:  # (there typer knows no command yet)
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
