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
FOLDERS = ("capibara_agents", "graphs", "runtime")

# Where errors are English: nobody reads them at a terminal, or they are another's words.
ENGLISH = {
    "capibara_agents/http": "the API answers in English",
    "capibara_agents/chat_model.py": "a Python program reads it",
    "capibara_agents/threads.py BadQuestion": "LangGraph's API asks for threads, nobody else",
    "capibara_agents/learning.py": "feedback comes over HTTP alone",
    "capibara_agents/models.py": "what one model failed at; the sentence around it is told",
    "capibara_agents/patience.py": "the same",
    "runtime ModelUnavailable": "the same",
    "runtime ModelLoading": "the same",
}


def kinds_of(root: type[CapibaraError]) -> set[str]:
    """Its name, and those of all errors that are made from it."""
    return {root.__name__}.union(*map(kinds_of, root.__subclasses__()))


def sources() -> Iterator[tuple[str, ast.Module]]:
    """The code, each file once."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if not any(part.is_symlink() for part in file.parents):
                yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def made(tree: ast.Module) -> Iterator[tuple[str, int, ast.expr, ast.AST]]:
    """Where an error is made: its kind, its line, what it is made of, and the function around it."""
    kinds = kinds_of(CapibaraError)
    around: dict[ast.AST, ast.AST] = {}
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            around.update(dict.fromkeys(ast.walk(scope), scope))  # the innermost comes last
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds and node.args:
            yield node.func.id, node.lineno, node.args[0], around.get(node, tree)


def can_be_told(said: ast.expr, scope: ast.AST) -> bool:
    """Whether it is no sentence of one language, nor a name for one."""
    match said:
        case ast.Constant() | ast.JoinedStr() | ast.BinOp():
            return False
        case ast.IfExp():
            return can_be_told(said.body, scope) and can_be_told(said.orelse, scope)
        case ast.Call(func=ast.Attribute(value=ast.Constant() | ast.JoinedStr(), attr=method)):
            return method == "join"  # others' words, one after the other
        case ast.Name():
            given = [
                node.value
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign | ast.AnnAssign)
                and node.value is not None
                and any(
                    isinstance(target, ast.Name) and target.id == said.id
                    for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                )
            ]
            return all(can_be_told(value, scope) for value in given)
    return True


def _covers(place: str, file: str, kind: str) -> bool:
    path, _, only = place.partition(" ")
    return (file == path or file.startswith(f"{path}/")) and only in ("", kind)


def stays_english(file: str, kind: str) -> bool:
    return any(_covers(place, file, kind) for place in ENGLISH)


def test_every_error_that_a_terminal_tells_is_a_phrase() -> None:
    """None is a sentence of one language, written where it is made or in a variable before."""
    count = 0
    untold = []
    for file, tree in sources():
        for kind, line, said, scope in made(tree):
            count += 1
            if not stays_english(file, kind) and not can_be_told(said, scope):
                untold.append(f"{file}:{line} {kind}")
    assert count > 200, "the search finds them at all"
    assert not untold


def test_no_exception_of_the_rule_outlives_its_errors() -> None:
    """A place that stays English has errors, and some that could not be told."""
    found = set()
    for file, tree in sources():
        for kind, _, said, scope in made(tree):
            if not can_be_told(said, scope):
                found |= {place for place in ENGLISH if _covers(place, file, kind)}
    assert found == set(ENGLISH)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('raise StoreError("It broke.")', False),
        ('raise StoreError(f"{x} broke.")', False),
        ('raise BadQuestion(f"{x} broke. ".strip())', False),
        ('why = f"{x} broke."\n    raise NoAnswer(why)', False),
        ('raise StoreError("It " + x)', False),
        ('raise CapibaraError(phrase("a") if x else "b")', False),
        ('why = phrase("a")\n    raise BadQuestion(why, param="x")', True),
        ('raise StoreError(phrase("a", x=x))', True),
        ("raise BadQuestion(error.said)", True),
    ],
)
def test_the_search_sees_a_sentence_of_one_language(body: str, told: bool) -> None:
    """In each way that one has been written."""
    [(_, _, said, scope)] = made(ast.parse(f"def one(x):\n    {body}\n"))
    assert can_be_told(said, scope) is told


def test_every_phrase_in_the_source_has_its_texts() -> None:
    """With just the values that its texts name."""
    found = 0
    for file, tree in sources():
        for node in ast.walk(tree):
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
                place = f"{file}:{node.lineno}"
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
