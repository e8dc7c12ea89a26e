"""Who answers the terminal's questions: the service that runs here, or models that are started and stopped for them.

    with respondent(settings, terminal) as one:
        said = one.ask([{"role": "user", "content": "¿Cuánto es 12*7?"}], Request(), on_text=print)

Both tell the same: the text, and the whole decision as `POST /v1/chat/completions` shows it with X-Capibara-Trace.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from langchain_core.messages import BaseMessage

from capibara_agents.assembly import House
from capibara_agents.errors import CapibaraError
from capibara_agents.outcome import Answer
from capibara_agents.runnable import read_messages
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.service import at_its_port, key_of, owner, refused, serves
from capibara_agents.texts import phrase
from capibara_agents.types import VIRTUAL_MODELS, Candidate, FleetSnapshot, Request

# What of a request rides in the body's own object.
OPTIONS = (
    "mode",
    "voters",
    "min_voters",
    "max_voters",
    "samples",
    "voting",
    "template",
    "quality",
    "deadline_s",
    "fallback",
    "synthesis",
    "judge",
)
# A comment among the events of a stream.
_READING = re.compile(r": reading: (\S+) (\d+) of (\d+) tokens")
Turn = dict[str, str]
Told = Callable[[str], None]


@dataclass(frozen=True)
class Said:
    """An answer and how it came about."""

    content: str
    trace: Mapping[str, Any]

    @property
    def candidate(self) -> Mapping[str, Any]:
        """The candidate that was returned."""
        wanted = self.trace["verdict"]["candidate"]
        found: Mapping[str, Any] = next(
            c for c in self.trace["candidates"] if Candidate.model_validate(c).key == wanted
        )
        return found

    @property
    def model(self) -> str:
        return str(self.candidate["model"])

    @property
    def accepted(self) -> bool:
        """It passed every check."""
        return bool(self.trace["verdict"]["accepted"])

    def shown(self) -> dict[str, Any]:
        """For --json."""
        used = self.candidate["usage"]
        usage = {key: used[key] for key in ("prompt_tokens", "completion_tokens")}
        return {"content": self.content, "capibara": {**self.trace, "answered_by": self.model, "usage": usage}}


def tokens_per_second(candidate: Mapping[str, Any]) -> float | None:
    """How fast the answer came after its first token; None for a single token."""
    timings, tokens = candidate["timings"], candidate["usage"]["completion_tokens"]
    if timings["ttft_ms"] is None or tokens < 2:
        return None
    writing_ms = timings["total_ms"] - timings["wait_ms"] - timings["ttft_ms"]
    return float(1000 * (tokens - 1) / writing_ms) if writing_ms > 0 else None


class Respondent(Protocol):
    """What answers."""

    @property
    def where(self) -> str | None:
        """The URL of the service; None for models of one's own."""
        ...

    def prepare(self) -> None:
        """Do now what the first question would do before it is asked; takes seconds, and must not be broken off."""
        ...

    def ask(
        self,
        messages: Sequence[Turn],
        request: Request,
        *,
        on_text: Told | None = None,
        on_progress: Told | None = None,
    ) -> Said:
        """The answer. `on_text` gets its pieces as they come, `on_progress` sentences of what is waited for."""
        ...

    def route(self, messages: Sequence[Turn], request: Request) -> dict[str, Any]:
        """The decision alone, as POST /v1/route tells it."""
        ...

    def fleet(self) -> dict[str, Any]:
        """The models as GET /fleet tells them."""
        ...


@contextmanager
def respondent(settings: Settings, terminal: Terminal) -> Iterator[Respondent]:
    """The service that runs where the settings say, or that owns the data folder; else models of one's own.

    CapibaraError when the folder is in use by a service with another fleet, or one that cannot be asked.
    """
    url = service_url(settings, terminal)
    if url is not None:
        with httpx.Client(base_url=url, headers=key_of(settings), trust_env=False, timeout=None) as client:
            yield There(client, terminal)
        return
    # The folder is free again: the house takes it itself.
    with House(settings) as house, asyncio.Runner() as runner:
        yield Here(house, runner, terminal)


def service_url(settings: Settings, terminal: Terminal) -> str | None:
    """The running service that would answer; None when nothing is in the way of models of one's own."""
    url = at_its_port(settings)
    if url is None:
        with owner(settings, terminal) as service:
            url = service.url if service is not None else None
        if url is not None and not serves(url, settings):
            raise CapibaraError(terminal.text("owner.other_fleet", url=url, fleet=settings.fleet))
    return url


class Here:
    """Models of one's own. All questions run on one event loop."""

    where = None

    def __init__(self, house: House, runner: asyncio.Runner, terminal: Terminal) -> None:
        self._house, self._runner, self._terminal = house, runner, terminal
        self._warm = False

    def prepare(self) -> None:
        self._prepare(lambda: None)

    def _prepare(self, meanwhile: Callable[[], None]) -> None:
        if not self._warm:
            # Before the clock runs: what Python imports is no part of a model's time.
            self._house.warm_deciding()
            meanwhile()
            self._house.warm_answering()
            self._warm = True

    def ask(
        self,
        messages: Sequence[Turn],
        request: Request,
        *,
        on_text: Told | None = None,
        on_progress: Told | None = None,
    ) -> Said:
        """Ctrl-C frees the models and comes out as KeyboardInterrupt."""
        turns = read_messages(list(messages))
        if request.model not in VIRTUAL_MODELS:
            self._house.settings.spec(request.model)  # an unknown one is said before anything is loaded
        # Its server loads while this process imports what asks it.
        self._prepare(lambda: self._house.foresee(turns, request))
        if on_progress is None:
            return self._runner.run(self._watched(turns, request, on_text, lambda _: None))
        end = self._house.fleet.listen(lambda snapshot: self._loading(snapshot, on_progress))
        try:
            return self._runner.run(self._watched(turns, request, on_text, on_progress))
        finally:
            end()

    async def _watched(
        self, messages: list[BaseMessage], request: Request, on_text: Told | None, on_progress: Told
    ) -> Said:
        wanted = request.model_copy(update={"stream": "eager" if on_text else "off"})
        said = False
        async with aclosing(self._house.capibara.watch(messages, wanted)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    if on_text and not said:
                        on_text(event.candidate.content)
                    return Said(event.candidate.content, event.trace())
                if event["event"] == "delta" and on_text and event["content"]:
                    said = True
                    on_text(event["content"])
                elif event["event"] == "plan":
                    on_progress(self._terminal.text("ask.asking", models=", ".join(event["plan"]["models"])))
                elif event["event"] == "reading":
                    on_progress(
                        reading_of(self._terminal, event["model"], event["read_tokens"], event["prompt_tokens"])
                    )
        raise CapibaraError(phrase("ask.no_answer"))

    def _loading(self, snapshot: FleetSnapshot, on_progress: Told) -> None:
        for model in snapshot.models:
            if model.state == "starting" and model.load_progress is not None:
                share = f"{100 * model.load_progress:.0f}"
                on_progress(self._terminal.text("ask.loading", model=model.id, percent=share))

    def route(self, messages: Sequence[Turn], request: Request) -> dict[str, Any]:
        started = time.perf_counter()
        decided = self._house.explain(read_messages(list(messages)), request, self._terminal.language)
        return {**decided, "timings_ms": {"total": round(1000 * (time.perf_counter() - started), 3)}}

    def fleet(self) -> dict[str, Any]:
        return self._house.fleet.snapshot().model_dump(mode="json")


class There:
    """A running service, asked over HTTP."""

    def __init__(self, client: httpx.Client, terminal: Terminal) -> None:
        self._client, self._terminal = client, terminal

    @property
    def where(self) -> str | None:
        return str(self._client.base_url)

    def prepare(self) -> None:
        """The service is."""

    def ask(
        self,
        messages: Sequence[Turn],
        request: Request,
        *,
        on_text: Told | None = None,
        on_progress: Told | None = None,
    ) -> Said:
        """Ctrl-C hangs up, which frees the models."""
        if on_progress:
            on_progress(self._terminal.text("ask.service", url=str(self._client.base_url)))
        body = body_of(messages, request)
        if on_text is None:
            answer = self._call("POST", "/v1/chat/completions", body)
            return Said(answer["choices"][0]["message"]["content"] or "", answer["capibara"])
        pieces: list[str] = []
        for chunk in self._chunks({**body, "stream": True}, on_progress or (lambda _: None)):
            if piece := chunk["choices"][0]["delta"].get("content"):
                pieces.append(piece)
                on_text(piece)
            if chunk["choices"][0]["finish_reason"]:
                return Said("".join(pieces), chunk["capibara"])
        raise self._broke_off("ended too early")

    def route(self, messages: Sequence[Turn], request: Request) -> dict[str, Any]:
        body = body_of(messages, request)
        return self._call("POST", "/v1/route", {key: body[key] for key in ("messages", "model", "capibara")})

    def fleet(self) -> dict[str, Any]:
        return self._call("GET", "/fleet")

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, json=body, headers={"x-capibara-trace": "1"})
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._broke_off(type(error).__name__) from error
        if response.is_error:
            raise refused(answer, response.status_code)
        return answer

    def _chunks(self, body: dict[str, Any], on_progress: Told) -> Iterator[dict[str, Any]]:
        headers = {"x-capibara-trace": "1"}
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
                if response.is_error:
                    response.read()
                    raise refused(response.json(), response.status_code)
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        chunk = json.loads(line.removeprefix("data: "))
                        if "error" in chunk:
                            raise refused(chunk, 0)
                        if chunk["choices"]:
                            yield chunk
                    elif read := _READING.fullmatch(line):
                        on_progress(reading_of(self._terminal, read[1], int(read[2]), int(read[3])))
        except (httpx.HTTPError, ValueError) as error:
            raise self._broke_off(type(error).__name__) from error

    def _broke_off(self, what: str) -> CapibaraError:
        return CapibaraError(self._terminal.text("ask.broke_off", url=str(self._client.base_url), error=what))


def reading_of(terminal: Terminal, model: str, read_tokens: int, prompt_tokens: int) -> str:
    """The sentence that says how far a model has read."""
    return terminal.text("ask.reading", model=model, percent=f"{100 * read_tokens / prompt_tokens:.0f}")


def body_of(messages: Sequence[Turn], request: Request) -> dict[str, Any]:
    """The body of POST /v1/chat/completions for a request."""
    options = request.model_dump(mode="json", include=set(OPTIONS), exclude_defaults=True)
    sampling = request.sampling.model_dump(mode="json", exclude_defaults=True)
    return {"model": request.model, "messages": list(messages), "capibara": options, **sampling}
