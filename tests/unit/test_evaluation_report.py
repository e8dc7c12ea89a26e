"""Reports: what they need is said beforehand, and what is in them is text, not markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capibara_agents import cli
from capibara_agents.calibration import reliability
from capibara_agents.evaluation import report
from capibara_agents.evaluation.metrics import Share
from capibara_agents.evaluation.tables import Sheet, percent
from capibara_agents.terminal import evaluate


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPIBARA_RUNTIME__DATA_DIR", str(tmp_path / "data"))
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"id": "1", "prompt": "Hola", "language": "es"}), encoding="utf-8")
    return file


def test_a_report_without_matplotlib_is_refused_before_the_work(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that gets it; no folder is made and no store opened."""
    monkeypatch.setattr(evaluate, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        cli.main(["eval", "routing", str(rows), "--report", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "capibara[eval]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "data").exists()


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands where the folder should be."""
    pytest.importorskip("matplotlib", reason="reports need the extra `eval`")
    with pytest.raises(SystemExit) as end:
        cli.main(["eval", "routing", str(rows), "--report", str(rows)])
    assert end.value.code == 2
    assert "--report" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_what_is_shown_is_escaped() -> None:
    """Names of sources and files come from outside."""
    sheet = Sheet("<t>", ("", "a&b"), (("<script>", "1"),))
    page = report.page("T", {"command": "eval '<x>'"}, [sheet], {"p": b"png"}, "en")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;x&gt;" in page
    assert "data:image/png;base64,cG5n" in page


def test_shares_are_shown_with_their_interval() -> None:
    """And nothing as nothing."""
    assert percent(Share(81, 263)) == "30.8 [25.5–36.6]"
    assert percent(Share(0, 0)) == "–"


def test_the_same_figures_give_the_same_picture() -> None:
    """Byte for byte, so that reports can be compared."""
    plots = pytest.importorskip("capibara_agents.evaluation.plots", reason="reports need the extra `eval`")
    bins = reliability([0.9, 0.9, 0.4], [True, False, True])
    first = plots.reliability_png(bins, 0.1, "es")
    assert first.startswith(b"\x89PNG")
    assert first == plots.reliability_png(bins, 0.1, "es")
    assert first != plots.reliability_png(bins[:1], 0.1, "es")
