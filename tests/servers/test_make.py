"""The Makefile, read by make itself and not run: targets, variables, and what .ci/run asks of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from service_process import CHECKOUT, environment

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=CHECKOUT,
        env=environment(LANG="C.UTF-8"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_target_and_variable() -> None:
    """`make` alone and `make help` say the same: the targets of the README with their explanation."""
    done = make("help")
    assert done.returncode == 0
    for target in ("setup", "run", "ask", "test", "check"):
        assert f"make {target}" in done.stdout
    assert all(variable in done.stdout for variable in ("PORT=", "FLEET=", "Q="))
    assert make().stdout == done.stdout


def test_run_passes_port_and_fleet_on() -> None:
    """`make run PORT=… FLEET=…` reaches capibara serve, and the weights of that fleet are fetched first."""
    steps = make("-n", "run", "PORT=8123", "FLEET=five").stdout
    assert 'serve --fleet "five" --port "8123"' in steps
    assert 'models pull --fleet "five"' in steps
    assert steps.index("models pull") < steps.index("serve")


def test_run_has_the_promised_defaults() -> None:
    """Port 8000 and the tiny fleet."""
    assert 'serve --fleet "tiny" --port "8000"' in make("-n", "run").stdout


def test_ask_passes_the_question_on() -> None:
    """A question with blanks, accents and an asterisk stays one argument."""
    steps = make("-n", "ask", "Q=¿Cuánto es 12*7?").stdout
    assert 'ask --fleet "tiny" "¿Cuánto es 12*7?"' in steps


def test_test_runs_everything_after_fetching_the_tiny_weights() -> None:
    """Pytest without a filter: tests against real servers are part of `make test`."""
    steps = make("-n", "test").stdout
    assert "models pull --fleet tiny" in steps
    tests = [step for step in steps.splitlines() if ".venv/bin/pytest" in step]
    assert tests
    assert not [step for step in tests if "-m " in step or "-k " in step]


def test_check_runs_all_four_checkers() -> None:
    """ruff (twice), mypy and import-linter."""
    steps = make("-n", "check").stdout
    assert all(tool in steps for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports"))


def test_ci_runs_check_and_test() -> None:
    """.ci/run is executable and does what a developer would."""
    script = CHECKOUT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    text = script.read_text(encoding="utf-8")
    assert "make check" in text
    assert "make test" in text
