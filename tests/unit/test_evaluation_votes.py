"""Votes replayed on recorded answers: the figures, what is settled by running code, and the command."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from capibara_agents import cli
from capibara_agents.errors import ConfigError
from capibara_agents.evaluation import consensus
from capibara_agents.evaluation.vote_tables import by_voters_sheet, panels_sheet
from capibara_agents.terminal import evaluate_votes
from capibara_agents.verify.prints import same_answer, settle_print_question
from capibara_agents.vote import VoteWeights

PANEL = ("one", "two", "three")


def written_rows(n: int, good: dict[str, float], seed: int = 0) -> list[dict[str, Any]]:
    """Questions whose answer is their number; each model errs on its own, and in its own way."""
    draw = random.Random(seed)
    rows = []
    for number in range(n):
        answers = []
        for k, (model, p) in enumerate(good.items()):
            right = draw.random() < p
            said = str(number) if right else str(1000 * (k + 1) + draw.randrange(3))
            answers.append({"model": model, "extracted": said, "correct": right})
        rows.append({"id": f"r{number}", "prompt": f"Number {number}?", "reference": str(number), "answers": answers})
    return rows


def read(rows: list[dict[str, Any]]) -> list[consensus.Row]:
    return [consensus.Row.model_validate(row) for row in rows]


def replayed(rows: list[dict[str, Any]], models: tuple[str, ...] = PANEL, **rest: Any) -> consensus.PanelFigures:
    return consensus.replay(read(rows), of_set="s", panel="p", models=models, folds=5, **rest)


def test_near_equals_gain_and_a_strong_one_loses_nothing() -> None:
    """Three that err apart do better than any; beside a far stronger one the others change nothing."""
    near = replayed(written_rows(400, dict.fromkeys(PANEL, 0.7)))
    assert near.gain > 5
    assert near.best_single < near.ours <= near.oracle
    assert near.gain_interval[0] < near.gain < near.gain_interval[1]
    strong = replayed(written_rows(400, {"one": 0.95, "two": 0.4, "three": 0.4}))
    assert strong.gain >= -0.5
    assert strong.calls < 2


def test_a_missing_answer_is_wrong_and_silence_is_no_vote() -> None:
    """For the best single model too; nobody answering is nobody right."""
    rows = written_rows(100, {"one": 1.0, "two": 1.0, "three": 1.0})
    for row in rows[:10]:
        row["answers"] = []
    for row in rows[10:20]:
        row["answers"][0]["extracted"], row["answers"][0]["correct"] = None, False
    measured = replayed(rows)
    assert measured.best_single == 90
    assert measured.oracle == 90
    assert measured.ours == 90


def test_the_scored_rows_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fold's weights come from all rows but its own."""
    taught: list[int] = []

    def learn(rounds: Any, voters: Any) -> Any:
        taught.append(len(rounds))
        seen.append({played.tally.domain for played in rounds})
        return VoteWeights()

    seen: list[set[str]] = []
    monkeypatch.setattr(consensus, "learn", learn)
    rows = written_rows(50, dict.fromkeys(PANEL, 0.7))
    for row in rows:
        row["category"] = row["id"]
    replayed(rows)
    assert taught == [40] * 5
    held = [{row["id"] for row in rows} - names for names in seen]
    assert set().union(*held) == {row["id"] for row in rows}, "and every row is scored once"


CODE = "What does this print?\n```python\nprint({a} + {b})\n```"


def test_code_that_can_be_run_is_not_voted_on() -> None:
    """One call, and the truth; what running does not settle is voted on."""
    rows = written_rows(60, dict.fromkeys(PANEL, 0.2))
    for number, row in enumerate(rows[:30]):
        row["prompt"], row["reference"] = CODE.format(a=number, b=number), str(2 * number)
    found = consensus.settle_all(read(rows), lambda question: "0" if "print" in question else None, same_answer)
    settled = dict(one for one in found if one is not None)
    assert len(settled) == 30
    assert settled["r0"] is True
    assert settled["r1"] is False, "what running gives is compared with the truth"
    measured = replayed(rows, settled=dict.fromkeys(settled, True))
    assert measured.tool_verified == 50
    assert measured.ours > 50


# ---------------------------------------------------------------- the command


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Recorded answers and their panels."""
    rows = written_rows(80, dict.fromkeys(PANEL, 0.7))
    file, panels = tmp_path / "some.jsonl", tmp_path / "panels.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    panels.write_text(json.dumps({"some": {"three": PANEL, "pair": PANEL[:2]}, "other": {"x": ["y"]}}))
    return file, panels


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(["eval", "consensus", *map(str, arguments)])
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


def test_json_is_one_object_with_the_promised_keys(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """In percent; progress goes to standard error."""
    status, out, err = run(capsys, files[0], "--panels", files[1], "--folds", "4", "--json")
    assert status == 0, err
    panels = json.loads(out)["panels"]
    assert [(one["set"], one["panel"], one["n"]) for one in panels] == [("some", "three", 80), ("some", "pair", 80)]
    for one in panels:
        assert {"best_single", "majority", "ours", "oracle", "calls", "ece"} <= one.keys()
        assert one["best_single"] > 50, "percent"
        assert one["ours_interval"][0] <= one["ours"] <= one["ours_interval"][1]
        assert 1 <= one["calls"] <= 3
    assert "100 %" in err


def test_without_a_sandbox_code_is_voted_on_and_that_is_said(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reason, on standard error."""
    rows = written_rows(80, dict.fromkeys(PANEL, 0.7))
    for row in rows:
        row["prompt"] = CODE.format(a=1, b=2)
    files[0].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(evaluate_votes, "available", lambda: (False, "no_linux"))
    status, out, err = run(capsys, files[0], "--panels", files[1], "--json")
    assert status == 0
    assert "80 questions" in err
    assert "Linux" in err
    assert [one["tool_verified"] for one in json.loads(out)["panels"]] == [0, 0]


def test_a_report_has_tables_and_pictures(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Spanish, with the command that made it."""
    pytest.importorskip("matplotlib", reason="reports need the extra `eval`")
    folder = tmp_path / "out"
    with pytest.raises(SystemExit):
        cli.main(
            ["--lang", "es", "eval", "consensus", str(files[0]), "--panels", str(files[1]), "--report", str(folder)]
        )
    assert "mayoría" in capsys.readouterr().out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "capibara eval consensus" in page
    assert "llamadas por pregunta" in page
    for name in ("panels", "voters", "confidence"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("panels", "told"),
    [
        ('{"else": {"a": ["one"]}}', "no panel for some; it has some for else"),
        ('{"some": {"a": ["one", "one"]}}', "names no model, or one twice"),
        ('{"some": {"a": ["nobody"]}}', "nobody recorded an answer of nobody"),
        ("[]", "holds no panels"),
    ],
)
def test_wrong_panels_are_wrong_use(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], panels: str, told: str
) -> None:
    """One sentence that says what is wrong; nothing on standard output."""
    files[1].write_text(panels)
    status, out, err = run(capsys, files[0], "--panels", files[1], "--json")
    assert (status, out) == (2, "")
    assert told in err


def test_more_folds_than_rows_are_refused(tmp_path: Path) -> None:
    """Beforehand."""
    rows = read(written_rows(3, dict.fromkeys(PANEL, 0.7)))
    with pytest.raises(ConfigError, match="5 folds of 3 rows"):
        consensus.check(rows, of_set="s", panels={"p": PANEL}, folds=5)


def test_tables_name_every_panel(files: tuple[Path, Path]) -> None:
    """A column each in the one, a row each in the other, whatever their sizes."""
    rows, panels = consensus.read_rows(files[0]), consensus.read_panels(files[1])["some"]
    measured = list(consensus.replay_all(rows, of_set="some", panels=panels, folds=5))
    assert panels_sheet(measured, "en").head[1:] == ("three", "pair")
    assert [row[0] for row in by_voters_sheet(measured, "es").rows] == ["three", "pair"]


def test_code_of_questions_is_run_for_real() -> None:
    """The command's own way to settle."""
    from capibara_agents.verify.sandbox import available

    able, why = available()
    if not able:
        pytest.skip(f"no code is run here: {why}")
    assert settle_print_question(CODE.format(a=2, b=5)) == "7"
