"""What tables and answers look like at a terminal and in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from capibara_agents.terminal import Terminal, fleet, paper
from capibara_agents.types import Language
from tests.fakes import GPT, MISTRAL, PHI, QWEN


def test_a_pipe_gets_whole_lines_and_the_answer_as_it_was_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is not broken at 80 columns, and Markdown is not drawn."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    drawn = Table(box=None)
    drawn.add_column("model")
    drawn.add_column("what")
    drawn.add_row("a-model-with-a-long-name", "word " * 60)
    paper.paper().print(drawn)
    assert len(capsys.readouterr().out.splitlines()) == 2
    written = "# Title\n\n" + "word " * 60 + "\n\n    code"
    paper.answer(written)
    assert capsys.readouterr().out == written + "\n"


def test_names_of_models_are_whole_at_80_columns() -> None:
    """They are typed into the next command."""
    names = [PHI, QWEN, MISTRAL, GPT]
    model = {
        "state": "stopped", "load_progress": None, "error": None, "rss_bytes": 300_000_000, "active": 0, "slots": 2,
        "queue": 0, "tokens_per_second": 38.8, "restarts": 0,
    }  # fmt: skip
    state = {"used_bytes": 1, "budget_bytes": 2, "models": [{**model, "id": name} for name in names]}
    languages: tuple[Language, ...] = ("es", "en")
    for language in languages:
        file = io.StringIO()
        Console(file=file, width=80).print(fleet.table(state, Terminal(language)))
        shown = file.getvalue().splitlines()
        assert all(any(line.startswith(f"{name} ") for line in shown) for name in names)
        assert not any("…" in line for line in shown)
