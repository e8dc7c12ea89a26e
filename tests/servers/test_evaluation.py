"""`capibara eval` as its user runs it: the real classifier over the shipped exemplars, and no model's server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from service_process import run_capibara

ROWS: list[dict[str, Any]] = [
    {"id": "own:es-1", "prompt": "¿En qué año cayó el muro de Berlín?", "language": "es", "domain": "factual_qa"},
    {"id": "own:en-1", "prompt": "In which year did the Berlin wall fall?", "language": "en", "domain": "factual_qa"},
    {"id": "own:2", "prompt": "Solve 3x + 5 = 20 for x and show each step.", "language": "en", "tier": "complex"},
    {"id": "own:3", "prompt": "Hola, ¿qué tal va todo?", "language": "es", "domain": "chitchat", "source": "mine"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of four questions."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return file


def run(*arguments: str, folder: Path, **variables: str) -> Any:
    """`capibara eval` with a data folder of these tests and without a llama-server."""
    # One for all of them: what takes time is to embed the exemplars into a new one.
    data = folder.parent / "data"
    own = {"CAPIBARA_RUNTIME__DATA_DIR": str(data), "CAPIBARA_RUNTIME__LLAMA_SERVER": "/nowhere"}
    return run_capibara("eval", *arguments, cwd=folder, **(own | variables))


def test_json_is_one_object_and_nothing_else(tmp_path: Path, rows: Path) -> None:
    """With the keys that are promised, in percent; progress goes to standard error."""
    done = run("routing", str(rows), "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["n"] == 4
    assert measured["domain_accuracy"] == 100
    assert measured["tier_accuracy"] == 100
    assert measured["language_accuracy"] == 100
    assert {name: group["n"] for name, group in measured["by_language"].items()} == {"en": 2, "es": 2}
    assert measured["by_source"]["mine"]["domain_accuracy"] == 100
    assert 0 <= measured["ece"] <= 1
    assert 0 < measured["ms"]["p50"] <= measured["ms"]["p99"]
    assert measured["pairs"]["n"] == 1
    assert "100 %" in done.stderr


def test_a_report_has_everything_in_one_page(tmp_path: Path, rows: Path) -> None:
    """In Spanish, with the command, the date and the machine; nothing is fetched from elsewhere."""
    pytest.importorskip("matplotlib", reason="reports need the extra `eval`")
    arguments = ("routing", str(rows), "--robustness", "--report", "out/report")
    done = run(*arguments, folder=tmp_path, LANG="es_ES.UTF-8")
    assert done.returncode == 0, done.stderr
    assert "dominio acertado" in done.stdout
    folder = tmp_path / "out" / "report"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<html lang="es">' in page
    assert "capibara eval routing" in page
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", page)
    assert "una errata" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    for name in ("confusion", "reliability", "accuracy"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_wrong_file_is_wrong_use(tmp_path: Path, rows: Path) -> None:
    """Exit status 2 and one sentence with the line; nothing is measured."""
    rows.write_text(rows.read_text(encoding="utf-8") + '{"id": "x", "prompt": "y", "language": "fr"}\n')
    untouched = {"CAPIBARA_RUNTIME__DATA_DIR": str(tmp_path / "data")}
    done = run("routing", str(rows), "--json", folder=tmp_path, **untouched)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "line 5: language" in done.stderr
    assert run("routing", "missing.jsonl", folder=tmp_path, **untouched).returncode == 2
    assert not (tmp_path / "data").exists()


def test_a_limit_takes_the_first_rows(tmp_path: Path, rows: Path) -> None:
    """And no fewer than one."""
    done = run("routing", str(rows), "--json", "--limit", "2", folder=tmp_path)
    assert json.loads(done.stdout)["n"] == 2
    assert run("routing", str(rows), "--limit", "0", folder=tmp_path).returncode == 2


# ---------------------------------------------------------------- replay


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    """Sixty questions: the weak model can add and cannot tell history."""
    file = tmp_path / "outcomes.jsonl"
    questions = [(f"How much is {n} + {n + 3}?", True) for n in range(30)]
    questions += [(f"Which war was fought in the year {1400 + 7 * n}, and who won it?", False) for n in range(30)]
    lines = [json.dumps({"prompt": prompt, "big": True, "small": weak}) + "\n" for prompt, weak in questions]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def test_replay_learns_whom_to_ask(tmp_path: Path, outcomes: Path) -> None:
    """Far better than chance where the questions tell; one object with the promised keys."""
    done = run("replay", str(outcomes), "--strong", "big", "--weak", "small", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["n"] == 60
    assert measured["apgr"] > 0.7
    assert 0 < measured["cpt50"] <= measured["cpt80"] <= 1
    assert (measured["strong_accuracy"], measured["weak_accuracy"]) == (100, 50)


def test_replay_reports_its_curve(tmp_path: Path, outcomes: Path) -> None:
    """Page and picture, in the language of the terminal."""
    pytest.importorskip("matplotlib", reason="reports need the extra `eval`")
    arguments = ("--strong", "big", "--weak", "small", "--labels", "40", "--folds", "3", "--report", "out")
    done = run("replay", str(outcomes), *arguments, folder=tmp_path, LANG="es_ES.UTF-8")
    assert done.returncode == 0, done.stderr
    assert "APGR" in done.stdout
    assert "diferencia recuperada" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "gain.png").read_bytes().startswith(b"\x89PNG")


def test_replay_of_an_unknown_model_names_those_there_are(tmp_path: Path, outcomes: Path) -> None:
    """Exit status 2."""
    done = run("replay", str(outcomes), "--strong", "huge", "--weak", "small", folder=tmp_path)
    assert done.returncode == 2
    assert "it knows big, small" in done.stderr
