"""`capibara test`: one model, the router, a vote, all models side by side, their health, the list; by menu or by name.

Everything is asked of real models and told as it is; a trial that got no answer is failed, and the exit status says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal import models as weights
from capibara_agents.terminal.ask import Asked, note_stand_ins
from capibara_agents.terminal.compare import Row, compared
from capibara_agents.terminal.compare import show as show_compared
from capibara_agents.terminal.consensus import Election, show_vote
from capibara_agents.terminal.decision import clipped, show_decision
from capibara_agents.terminal.given import request_of
from capibara_agents.terminal.paper import answer, paper
from capibara_agents.terminal.respondent import Respondent, respondent
from capibara_agents.terminal.waiting import waiting
from capibara_agents.types import Request

TRIALS = ("model", "router", "consensus", "compare", "health", "list")
ALL = "all"
# A question of each kind, in the texts of the language.
ROUTED = ("chitchat", "coding", "translation", "math", "summarization")
HEALTH_TOKENS = 4


@dataclass(frozen=True)
class Result:
    """What a trial came to; `value` is its JSON."""

    name: str
    ok: bool
    value: Any


@dataclass(frozen=True)
class Wanted:
    """What is to be tried; without a name there is a menu."""

    name: str | None = None
    question: str | None = None
    model: str | None = None
    max_tokens: int | None = None


def run(settings: Settings, wanted: Wanted, terminal: Terminal, *, as_json: bool) -> None:
    """One trial, all of them, or a menu. Exit status 1 when a trial failed."""
    what, model = wanted.name, wanted.model
    if what is not None and what not in (*TRIALS, ALL):
        raise BadQuestion(terminal.text("test.unknown", name=what[:100], trials=", ".join((*TRIALS, ALL))))
    if what is None and as_json:
        raise BadQuestion(terminal.text("test.name_one", trials=", ".join((*TRIALS, ALL))))
    request_of({"sampling": {"max_tokens": wanted.max_tokens}})
    if model is not None:
        settings.spec(model)
    if what == "list":
        weights.show(settings, terminal, as_json=as_json)
        return
    note_stand_ins(settings, terminal)
    with respondent(settings, terminal) as one:
        trials = Trials(settings, one, terminal, wanted.max_tokens, shown=not as_json)
        if what is None:
            trials.menu(_lines(terminal))
            return
        names = TRIALS if what == ALL else (what,)
        results = [trials.trial(name, wanted.question, model) for name in names]
    if as_json:
        terminal.print_json({result.name: {"ok": result.ok, "result": result.value} for result in results})
    if failed := [result.name for result in results if not result.ok]:
        raise CapibaraError(terminal.text("test.failed", trials=", ".join(failed)))


def _lines(terminal: Terminal) -> Iterator[str]:
    """What is typed, or comes from a pipe; the prompt of each line is printed by who asks."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            return


class Trials:
    """The trials over one respondent."""

    def __init__(
        self, settings: Settings, one: Respondent, terminal: Terminal, max_tokens: int | None, *, shown: bool
    ) -> None:
        self._settings, self._one, self._terminal, self._shown = settings, one, terminal, shown
        self._max_tokens = max_tokens

    def menu(self, lines: Iterator[str]) -> None:
        """Offers the trials until 0 or the end of the input."""
        while True:
            self._offer()
            line = next(lines, None)
            if line is None or line.strip() == "0":
                return
            choice = line.strip()
            if not (choice.isdecimal() and 1 <= int(choice) <= len(TRIALS)):
                self._terminal.note("test.choose", count=len(TRIALS))
                continue
            name = TRIALS[int(choice) - 1]
            try:
                model = self._which(lines) if name == "model" else None
                question = self._what(lines, name) if name in ("model", "router", "consensus", "compare") else None
                self.trial(name, question, model)
            except CapibaraError as error:
                self._terminal.note("error", text=error.told(self._terminal.language))

    def _offer(self) -> None:
        self._terminal.say("test.menu")
        for number, name in enumerate(TRIALS, start=1):
            typer.echo(f"  {number}  {self._terminal.text('test.trial.' + name)}")
        typer.echo(f"  0  {self._terminal.text('test.leave')}")

    def _which(self, lines: Iterator[str]) -> str:
        """A model by its number or name; the first where nothing is said."""
        for number, spec in enumerate(self._settings.models, start=1):
            typer.echo(f"  {number}  {spec.id} ({spec.tier})")
        self._terminal.say("test.which")
        said = _next(lines) or "1"
        if said.isdecimal() and 1 <= int(said) <= len(self._settings.models):
            return self._settings.models[int(said) - 1].id
        return self._settings.spec(said).id

    def _what(self, lines: Iterator[str], name: str) -> str | None:
        self._terminal.say(
            "test.what", example=self._terminal.text("test.examples" if name == "router" else "serve.example")
        )
        return _next(lines) or None

    def trial(self, name: str, question: str | None, model: str | None) -> Result:
        """One trial. Raises what a question raises that gets no answer."""
        t = self._terminal.text
        asked = question or t("serve.example")
        if name == "model":
            return self._model(asked, model or self._settings.models[0].id)
        if name == "router":
            return self._router([question] if question else [t(f"test.example.{domain}") for domain in ROUTED])
        if name == "list":
            if self._shown:
                weights.show(self._settings, self._terminal, as_json=False)
            return Result(name, True, self._one.fleet()["models"])
        trial: Callable[[str], Result] = getattr(self, f"_{name}")
        return trial(asked)

    def _model(self, question: str, model: str) -> Result:
        request = self._request(model=model)
        with waiting(self._terminal) as told:
            said = self._one.ask([{"role": "user", "content": question}], request, on_progress=told)
        if self._shown:
            answer(said.content)
            show_decision(said, self._terminal)
        return Result("model", True, said.shown())

    def _router(self, questions: Sequence[str]) -> Result:
        with waiting(self._terminal):
            rows = [self._one.route([{"role": "user", "content": question}], Request()) for question in questions]
        if self._shown:
            paper().print(self._routes(questions, rows))
        keys = ("model", "tier", "mode", "domain", "complexity", "confidence", "language", "reason")
        value = [
            {"question": question, **{key: row[key] for key in keys}}
            for question, row in zip(questions, rows, strict=True)
        ]
        return Result("router", True, value)

    def _routes(self, questions: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
        t = self._terminal.text
        drawn = Table(box=None, pad_edge=False)
        for code in ("exemplars.content", "exemplars.domain", "table.model", "ask.confidence", "ask.why"):
            drawn.add_column(t(code), overflow="fold")
        for question, row in zip(questions, rows, strict=True):
            sure = f"{100 * row['confidence']:.0f} %"
            drawn.add_row(Text(clipped(question)), t(f"domain.{row['domain']}"), row["model"], sure, row["reason"])
        return drawn

    def _consensus(self, question: str) -> Result:
        request = Election(question, max_tokens=self._max_tokens).request(self._settings)
        with waiting(self._terminal) as told:
            said = self._one.ask([{"role": "user", "content": question}], request, on_progress=told)
        if self._shown:
            answer(said.content)
            show_vote(said, self._terminal)
        return Result("consensus", True, said.shown())

    def _compare(self, question: str) -> Result:
        with waiting(self._terminal, lines=True) as told:
            rows = self._compared(question, self._max_tokens, told)
        if self._shown:
            show_compared(rows, self._terminal)
        return Result("compare", not any(row["error"] for row in rows), rows)

    def _health(self, question: str) -> Result:
        """Every model has to give some tokens, and is loaded for it."""
        with waiting(self._terminal, lines=True) as told:
            rows = self._compared(question, HEALTH_TOKENS, told)
        states = {model["id"]: model["state"] for model in self._one.fleet()["models"]}
        keys = ("id", "tier", "stand_in", "wait_ms", "ttft_ms", "error")
        healthy = [
            {**{key: row[key] for key in keys}, "ok": bool(row["completion_tokens"]), "state": states.get(row["id"])}
            for row in rows
        ]
        if self._shown:
            for row in healthy:
                mark = self._terminal.text("doctor.ok" if row["ok"] else "doctor.bad")
                told_of = row["error"] or self._terminal.text("talk.ttft", ms=f"{row['ttft_ms'] or 0:.0f}")
                typer.echo(f"[{mark}] {row['id']}: {told_of}")
        return Result("health", all(row["ok"] for row in healthy), healthy)

    def _compared(self, question: str, max_tokens: int | None, told: Callable[[str], None]) -> list[Row]:
        asked = Asked(question, "capibara", "auto", max_tokens)
        return compared(self._one, self._settings.models, asked, told, self._terminal)

    def _request(self, model: str) -> Request:
        return request_of({"model": model, "sampling": {"max_tokens": self._max_tokens}})


def _next(lines: Iterator[str]) -> str:
    """The next line without its ends; empty at the end of the input."""
    return next(lines, "").strip()
