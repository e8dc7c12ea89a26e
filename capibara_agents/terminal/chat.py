"""`capibara chat`: a conversation, with commands that begin with a slash.

    Conversation   what was said, and the figures of it (pure)
    Chat           reads a line, does what it says, shows what came of it

Nothing of it is written to disk. From a pipe each line is a question: answers and what commands show go to standard
output, the rest to standard error, and the exit status is 1 when a line got no answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from rich.console import Console

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.ask import note_stand_ins
from capibara_agents.terminal.consensus import show_vote
from capibara_agents.terminal.decision import note_weaknesses, one_line, show, show_route, titled_rows
from capibara_agents.terminal.given import request_of
from capibara_agents.terminal.respondent import Respondent, Said, Turn, respondent, tokens_per_second
from capibara_agents.terminal.streaming import MarkdownStream, PlainStream
from capibara_agents.terminal.waiting import waiting
from capibara_agents.types import VIRTUAL_MODELS, Request

COMMANDS = ("model", "route", "vote", "stats", "history", "clear", "help", "exit")
FAREWELLS = ("exit", "quit", "salir")


@dataclass
class Conversation:
    """What was said, and what it took."""

    turns: list[Turn] = field(default_factory=list)
    answers: list[Said] = field(default_factory=list)

    def asked(self, question: str) -> list[Turn]:
        """The conversation with one more question; it belongs to it only once it is answered."""
        return [*self.turns, {"role": "user", "content": question}]

    def answered(self, question: str, said: Said) -> None:
        self.turns = [*self.asked(question), {"role": "assistant", "content": said.content}]
        self.answers.append(said)

    @property
    def last_question(self) -> str | None:
        return next((turn["content"] for turn in reversed(self.turns) if turn["role"] == "user"), None)

    def before_last(self) -> list[Turn]:
        """The conversation as it was when the last question was asked."""
        return self.turns[:-2]

    def clear(self) -> None:
        """Begin anew; the figures remain."""
        self.turns = []


def run(settings: Settings, model: str, max_tokens: int | None, terminal: Terminal, *, as_json: bool) -> None:
    """Talk until the end of the input. CapibaraError when a question from a pipe got no answer."""
    request = _request(settings, model, max_tokens)
    note_stand_ins(settings, terminal)
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    with respondent(settings, terminal) as one:
        with waiting(terminal):
            # Not at the first question: Ctrl-C would leave half of it imported, and the chat goes on.
            one.prepare()
        chat = Chat(settings, one, request, terminal, interactive=interactive, as_json=as_json)
        chat.run(_typed(terminal) if interactive else _piped())
    if chat.failures and not interactive:
        raise CapibaraError(terminal.text("talk.unanswered", count=chat.failures))


def _request(settings: Settings, model: str, max_tokens: int | None) -> Request:
    if model not in VIRTUAL_MODELS:
        model = settings.spec(model).id
    return request_of({"model": model, "sampling": {"max_tokens": max_tokens}})


def _piped() -> Iterator[str]:
    yield from sys.stdin


def _typed(terminal: Terminal) -> Iterator[str]:
    """Lines with editing and the arrow keys; Ctrl-C gives up a line, Ctrl-D ends."""
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415  (input() uses it once it is imported)
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print(file=sys.stderr)  # noqa: T201
            terminal.note("talk.leave")
        except EOFError:
            return


class Chat:
    """One conversation at a terminal."""

    def __init__(
        self,
        settings: Settings,
        one: Respondent,
        request: Request,
        terminal: Terminal,
        *,
        interactive: bool,
        as_json: bool = False,
        console: Console | None = None,
    ) -> None:
        self._settings, self._one, self._request, self._terminal = settings, one, request, terminal
        self._interactive, self._as_json = interactive, as_json
        self._console = console or Console()
        self.conversation = Conversation()
        self.failures = 0

    def run(self, lines: Iterator[str]) -> None:
        """One line after the other, until the last or /exit."""
        if self._interactive:
            self._say("talk.welcome", model=self._request.model)
        for line in lines:
            text = line.strip()
            if text in (f"/{word}" for word in FAREWELLS):
                return
            if text:
                self._heard(text)

    def _heard(self, text: str) -> None:
        try:
            if text.startswith("/"):
                self._command(text)
            else:
                self._answer(text)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._say("talk.given_up")
        except CapibaraError as error:
            self.failures += 1
            self._terminal.note("error", text=error.told(self._terminal.language))

    def _command(self, text: str) -> None:
        name, _, rest = text[1:].partition(" ")
        if name not in COMMANDS:
            raise BadQuestion(self._terminal.text("talk.unknown", command=f"/{name}"))
        getattr(self, f"_{name}")(rest.strip())

    # ------------------------------------------------------------ questions

    def _answer(self, question: str) -> None:
        turns = self.conversation.asked(question)
        if self._as_json:
            said = self._one.ask(turns, self._request)
            self._terminal.print_line({"question": question, **said.shown()})
        else:
            with self._stream() as stream:
                said = self._one.ask(turns, self._request, on_text=stream, on_progress=stream.waiting)
            Console(stderr=True).print(
                one_line(said, self._terminal), style="dim", markup=False, highlight=False, soft_wrap=True
            )
            note_weaknesses(said, self._terminal)
        self.conversation.answered(question, said)

    def _stream(self) -> MarkdownStream | PlainStream:
        return MarkdownStream(self._console) if self._interactive else PlainStream()

    def _vote(self, rest: str) -> None:
        """The question, or the last one again, to several models."""
        question, turns = self._question(rest)
        wanted = self._request.model_copy(update={"model": "capibara-consensus"})
        with waiting(self._terminal) as told:
            said = self._one.ask(turns, wanted, on_progress=told)
        if self._as_json:
            self._terminal.print_line({"question": question, **said.shown()})
        else:
            with self._stream() as stream:
                stream(said.content)
            show_vote(said, self._terminal)
        if not rest:
            self.conversation.turns = self.conversation.before_last()
        self.conversation.answered(question, said)

    def _route(self, rest: str) -> None:
        """What would be done with the question, or was with the last one."""
        _, turns = self._question(rest)
        decided = self._one.route(turns, self._request)
        self._terminal.print_line(decided) if self._as_json else show_route(decided, self._terminal)

    def _question(self, given: str) -> tuple[str, list[Turn]]:
        if given:
            return given, self.conversation.asked(given)
        last = self.conversation.last_question
        if last is None:
            raise BadQuestion(self._terminal.text("talk.no_question"))
        return last, [*self.conversation.before_last(), {"role": "user", "content": last}]

    # ------------------------------------------------------------ the chat itself

    def _model(self, rest: str) -> None:
        """Who is asked from now on."""
        if rest:
            self._request = _request(self._settings, rest, self._request.sampling.max_tokens)
        self._say("talk.model", model=self._request.model)
        if not rest:
            names = (*VIRTUAL_MODELS, *(spec.id for spec in self._settings.models))
            self._say("talk.models", models=", ".join(names))

    def _stats(self, rest: str) -> None:
        rows = figures(self.conversation.answers, self._terminal)
        show(titled_rows(self._terminal.text("talk.stats"), rows)) if rows else self._say("talk.no_question")

    def _history(self, rest: str) -> None:
        for turn in self.conversation.turns:
            self._console.print(f"[{self._terminal.text('talk.role.' + turn['role'])}]", style="bold", markup=False)
            self._console.print(turn["content"], markup=False, highlight=False)

    def _clear(self, rest: str) -> None:
        self.conversation.clear()
        self._say("talk.cleared")

    def _help(self, rest: str) -> None:
        rows = [
            (self._terminal.text(f"talk.use.{name}"), self._terminal.text(f"talk.help.{name}")) for name in COMMANDS
        ]
        show(titled_rows(self._terminal.text("talk.commands"), rows))

    def _say(self, code: str, **values: object) -> None:
        self._terminal.note(code, **values)


def figures(answers: list[Said], terminal: Terminal) -> list[tuple[str, str]]:
    """What the answers so far took; nothing for none. Pure."""
    if not answers:
        return []
    t = terminal.text
    candidates = [said.candidate for said in answers]
    first = [c["timings"]["ttft_ms"] for c in candidates if c["timings"]["ttft_ms"] is not None]
    speeds = [speed for c in candidates if (speed := tokens_per_second(c)) is not None]
    prompt = sum(c["usage"]["prompt_tokens"] for c in candidates)
    written = sum(c["usage"]["completion_tokens"] for c in candidates)
    models = dict.fromkeys(said.model for said in answers)
    counted = ", ".join(f"{model} {sum(said.model == model for said in answers)}" for model in models)
    rows = [
        (t("talk.stats.answers"), f"{len(answers)} ({counted})"),
        (t("ask.tokens"), f"{prompt} + {written}"),
    ]
    if first:
        rows.append((t("talk.stats.ttft"), f"{sum(first) / len(first):.0f} ms"))
    if speeds:
        rows.append((t("talk.stats.speed"), f"{sum(speeds) / len(speeds):.1f}"))
    passed = sum(said.accepted for said in answers)
    rows.append((t("ask.checks"), t("talk.stats.passed", passed=passed, count=len(answers))))
    return rows
