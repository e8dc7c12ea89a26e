"""Errors that people read: each is a phrase, which can be told in both languages; as a string it is English."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest

from capibara_agents import cli, exemplars, kept
from capibara_agents.config import load
from capibara_agents.errors import BadQuestion, CapibaraError, ConfigError, StoreError
from capibara_agents.terminal.ask import check
from capibara_agents.texts import catalogue, phrase
from capibara_agents.types import Language

ROOT = Path(__file__).parents[2]
KINDS = frozenset({"ConfigError", "EngineError", "WeightsError"})


def made() -> Iterator[tuple[str, ast.expr]]:
    """Where such an error is made, and what it is made of."""
    for folder in ("capibara_agents", "graphs", "runtime"):
        for file in (ROOT / folder).rglob("*.py"):
            if any(part.is_symlink() for part in file.parents):
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node.args[0]


def test_every_error_of_configuration_is_a_phrase() -> None:
    """None is a sentence of one language."""
    places = dict(made())
    assert len(places) > 50, "the search finds them at all"
    for place, given in places.items():
        assert not isinstance(given, ast.Constant | ast.JoinedStr | ast.BinOp), place


def test_every_phrase_in_the_source_has_its_texts() -> None:
    """With just the values that its texts name."""
    found = 0
    for folder in ("capibara_agents", "graphs", "runtime"):
        for file in (ROOT / folder).rglob("*.py"):
            if any(part.is_symlink() for part in file.parents):
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "phrase"):
                    continue
                code = node.args[0]
                codes = (
                    [code]
                    if isinstance(code, ast.Constant)
                    else [part for part in ast.walk(code) if isinstance(part, ast.Constant) and "." in str(part.value)]
                )
                for constant in codes:
                    if str(constant.value).endswith((".", "missing")) and not isinstance(code, ast.Constant):
                        continue
                    found += 1
                    place = f"{file.name}:{node.lineno}"
                    assert constant.value in catalogue("es"), place
                    if all(keyword.arg for keyword in node.keywords):
                        given = {keyword.arg for keyword in node.keywords}
                        assert given == set(Template(catalogue("en")[str(constant.value)]).get_identifiers()), place
    assert found > 60


def test_a_phrase_is_told_in_each_language_down_to_its_values() -> None:
    """A value that is a phrase is told in the same one."""
    where = phrase("wrong.where.variable", variable="CAPIBARA_X")
    error = ConfigError(phrase("wrong.unknown_key", key="x", where=where))
    assert str(error) == error.message == error.told("en")
    assert "in the variable CAPIBARA_X is not a key" in str(error)
    assert "de la variable CAPIBARA_X" in error.told("es")
    assert CapibaraError("As it is.").told("es") == "As it is."
    assert CapibaraError().told("es") == "internal_error"


@pytest.mark.parametrize(
    ("variable", "value", "english", "spanish"),
    [
        ("CAPIBARA_SERVER__PORT", "99999", "it should be less than or equal to 65535", "debe ser como máximo 65535"),
        ("CAPIBARA_SERVER__PORT", "ocho", "it should be a valid integer", "debe ser un número entero"),
        ("CAPIBARA_FLEET", "mine", "choose tiny or five", "elige tiny o five"),
        ("CAPIBARA_SERVER__API_KEYS", "['']", "a key must not be empty", "una clave no puede estar vacía"),
        ("CAPIBARA_NADA", "1", "is not a key Capibara knows", "Capibara no conoce la clave"),
        ("CAPIBARA_LANGUAGE", "fr", "'es' or 'en'", "'es' o 'en'"),
    ],
)
def test_what_is_wrong_with_a_value_is_told_in_both(
    tmp_path: Path, variable: str, value: str, english: str, spanish: str
) -> None:
    """Pydantic's words too; the name of the variable stands in both."""
    with pytest.raises(ConfigError) as caught:
        load(environ={variable: value}, cwd=tmp_path)
    for told, wish in ((str(caught.value), english), (caught.value.told("es"), spanish)):
        assert wish in told
        assert variable in told


def test_the_terminal_tells_it_in_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By LANG and by --lang."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAPIBARA_LANGUAGE", raising=False)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        return int(end.value.code or 0)

    assert run("--lang", "es", "config", "check", "--config", "nada.yaml") == 2
    assert capsys.readouterr().err.startswith("Error: No existe el archivo de configuración nada.yaml")
    monkeypatch.setenv("LC_ALL", "es_ES.UTF-8")
    assert run("config", "check", "--config", "nada.yaml") == 2
    assert "No existe el archivo" in capsys.readouterr().err
    assert run("--lang", "en", "config", "check", "--config", "nada.yaml") == 2
    assert "There is no configuration file nada.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("language", ["es", "en"])
def test_a_file_that_is_not_there_is_told_without_its_number(tmp_path: Path, language: Language) -> None:
    """The file once, and what is wrong with it; not Python's own line."""
    missing = tmp_path / "nada" / "x.jsonl"
    for use in (lambda: exemplars.read_jsonl(missing), lambda: exemplars.write_jsonl([], missing)):
        with pytest.raises(StoreError) as found:
            use()
        told = found.value.told(language)
        assert told.count(str(missing)) == 1
        assert "Errno" not in told
        assert told.startswith("No se puede" if language == "es" else str(missing))


@pytest.mark.parametrize("words", ["", "  \n"])
def test_a_question_without_words_is_refused_in_the_terminal(words: str) -> None:
    """Nothing is started for it."""
    with pytest.raises(BadQuestion) as found:
        check(words)
    assert found.value.told("es").startswith("Falta la pregunta")


def test_what_is_not_kept_is_told_in_spanish() -> None:
    """With what there is to choose from."""
    with pytest.raises(BadQuestion) as found:
        kept.checked(["nada"])
    assert found.value.told("es").startswith("'nada' no se guarda")
    assert kept.KINDS[0] in found.value.told("es")
