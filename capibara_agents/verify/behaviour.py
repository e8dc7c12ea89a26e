"""What an answer's Python is held against, and what its run says: pure on both sides of a sandbox.

program = trial(content, question, request.tests)     # None: nothing to run
check = behaves(sandbox.run(program))                 # the caller's effect, in a thread
"""

from __future__ import annotations

import re
from typing import Protocol

from capibara_agents.answers.structured import python_source
from capibara_agents.types import Check
from capibara_agents.verify.examples import find_examples
from capibara_agents.verify.sandbox import Limits, Program, RunResult

_DEFINED = re.compile(r"(?m)^\s*(?:async )?def\s+([A-Za-z_]\w*)\s*\(")


class Runner(Protocol):
    """Whatever runs a program where it can do no harm."""

    def run(self, program: Program, limits: Limits | None = None) -> RunResult:
        """Runs it and says how that went. Blocks; never raises."""
        ...

    def evaluate(self, source: str, expression: str = "", limits: Limits | None = None) -> RunResult:
        """Runs the code of a question as a program. Blocks; never raises."""
        ...


def trial(content: str, question: str, tests: str | None) -> Program | None:
    """The program of an answer with the caller's tests or the question's examples; None without code, or both."""
    source = python_source(content)
    if source is None:
        return None
    examples = find_examples(question)
    if not (tests or examples):
        return None
    asked = _DEFINED.findall(question[:50_000])
    own = _DEFINED.findall(source)
    entry = next((name for name in asked if name in own), own[-1] if own else None)
    return Program(source=source, tests=tests or "", examples=examples, entry_point=entry)


def without_code() -> Check:
    """The check of an answer that has no code to run, though the caller sent tests for it."""
    return Check(name="runs", passed=False, reason="verify.no_code")


def behaves(result: RunResult) -> Check:
    """A run as a check: what could not be run or decided fails nobody, and says so."""
    details: dict[str, str | int | float] = {"outcome": result.outcome, "examples": result.examples_passed}
    if result.detail:
        details["detail"] = result.detail[:200]
    return Check(name="runs", passed=result.outcome != "failed", reason=result.text_code, details=details)
