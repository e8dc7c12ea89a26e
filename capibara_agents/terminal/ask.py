"""`capibara ask` and `capibara route`: a question, its answer and why it was decided so."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from capibara_agents.errors import BadQuestion
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.decision import show_decision
from capibara_agents.terminal.decision import show_route as print_route
from capibara_agents.terminal.given import request_of
from capibara_agents.terminal.paper import answer
from capibara_agents.terminal.respondent import Turn, respondent
from capibara_agents.terminal.waiting import waiting
from capibara_agents.texts import phrase
from capibara_agents.types import VIRTUAL_MODELS, Request


@dataclass(frozen=True)
class Asked:
    """A question from the terminal."""

    question: str
    model: str
    mode: str
    max_tokens: int | None = None

    def request(self) -> Request:
        """BadQuestion names what is wrong."""
        return request_of({"model": self.model, "mode": self.mode, "sampling": {"max_tokens": self.max_tokens}})

    def turns(self) -> list[Turn]:
        return [{"role": "user", "content": self.question}]


def run(settings: Settings, asked: Asked, terminal: Terminal, *, as_json: bool) -> None:
    """Ask the service that is running here, or start what the question needs and stop it after."""
    check(asked.question)
    request = known(asked.request(), settings)
    note_stand_ins(settings, terminal)
    with respondent(settings, terminal) as one, waiting(terminal) as told:
        said = one.ask(asked.turns(), request, on_progress=told)
    if as_json:
        terminal.print_json(said.shown())
        return
    answer(said.content)
    show_decision(said, terminal)


def check(question: str) -> None:
    """BadQuestion where there is nothing that a model could answer, or bytes that are no text."""
    if not question.strip():
        raise BadQuestion(phrase("wrong.no_question"), param="question")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise BadQuestion(phrase("messages.no_unicode"), param="question") from None


def known(request: Request, settings: Settings) -> Request:
    """The request, if its model exists; else UnknownModel, before anybody is asked."""
    if request.model not in VIRTUAL_MODELS:
        settings.spec(request.model)
    return request


def show_route(settings: Settings, asked: Asked, terminal: Terminal, *, as_json: bool) -> None:
    """The decision alone."""
    check(asked.question)
    request = known(asked.request(), settings)
    with respondent(settings, terminal) as one, waiting(terminal):
        decided = one.route(asked.turns(), request)
    terminal.print_json(decided) if as_json else print_route(decided, terminal)


def note_stand_ins(settings: Settings, terminal: Terminal) -> None:
    """On standard error, where models run on other weights than their names say."""
    if note := terminal.stand_ins(settings):
        typer.echo(note, err=True)
