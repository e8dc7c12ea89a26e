"""`capibara bench`: time to first token and tokens per second of each model, through Capibara and directly.

A short honest measurement: one question at a time, streamed, at temperature 0, after one that is not counted and loads
the model. Both ways take turns, each question differs from the others in its first words, so that no way finds it
cached by the other. Directly means: the model's own llama-server, which only who started it may ask. A service that
runs already is therefore measured through its front door alone. Everything shares this machine's cores, this program
included; figures of one run compare with each other, and with nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import uvicorn
from rich.table import Table

from capibara_agents.assembly import House, create_app
from capibara_agents.errors import CapibaraError
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.ask import note_stand_ins
from capibara_agents.terminal.paper import paper
from capibara_agents.terminal.respondent import service_url
from capibara_agents.terminal.service import key_of
from capibara_agents.terminal.waiting import waiting
from capibara_agents.texts import phrase

START_S = 60.0
# A model may have to be loaded, and an answer to be waited for, but not for ever.
ANSWER_S = 600.0
Told = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """One streamed answer. Seconds from the request; `tokens` as the server counted them."""

    first_s: float
    last_s: float
    tokens: int

    @property
    def tokens_per_second(self) -> float | None:
        """After the first token; None for a single one."""
        writing_s = self.last_s - self.first_s
        return (self.tokens - 1) / writing_s if self.tokens > 1 and writing_s > 0 else None


@dataclass(frozen=True)
class Figures:
    """What the samples of one model on one way come to. p99 of fewer than 100 samples is the worst of them."""

    model: str
    way: str
    samples: int
    ttft_ms_p50: float
    ttft_ms_p99: float
    tokens_per_second_p50: float | None
    tokens: int


def run(
    settings: Settings, names: Sequence[str], terminal: Terminal, *, calls: int, tokens: int, as_json: bool
) -> None:
    """Measure the named models, or all; CapibaraError when one of them fails."""
    specs = [settings.spec(name) for name in names] if names else list(settings.models)
    note_stand_ins(settings, terminal)
    with _doors(settings, terminal) as doors, waiting(terminal, lines=True) as told:
        if not doors.own:
            told(terminal.text("bench.no_direct", url=doors.url))
        work = Work(calls, tokens, terminal.text("bench.question"))
        found = [figures for spec in specs for figures in _measured(doors, spec, work, told, terminal)]
    facts = {"machine": machine(), "calls": calls, "max_tokens": tokens, "service": "own" if doors.own else doors.url}
    if as_json:
        terminal.print_json({**facts, "results": [asdict(figures) for figures in found]})
        return
    paper().print(table(found, terminal))
    terminal.say("bench.facts", machine=facts["machine"], calls=calls, tokens=tokens)


def machine() -> str:
    """What the figures hold for."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} CPU, load {load}, Python {platform.python_version()}"


# ---------------------------------------------------------------- pure


def figures_of(model: str, way: str, samples: Sequence[Sample]) -> Figures:
    """Percentiles of the samples, by the nearest rank."""
    first = sorted(1000 * sample.first_s for sample in samples)
    speeds = sorted(speed for sample in samples if (speed := sample.tokens_per_second) is not None)
    return Figures(
        model=model,
        way=way,
        samples=len(samples),
        ttft_ms_p50=round(rank(first, 0.5), 1),
        ttft_ms_p99=round(rank(first, 0.99), 1),
        tokens_per_second_p50=round(rank(speeds, 0.5), 2) if speeds else None,
        tokens=sum(sample.tokens for sample in samples),
    )


def rank(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in ascending order."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(found: Sequence[Figures], terminal: Terminal) -> Table:
    """For people."""
    t = terminal.text
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column(t("table.model"), no_wrap=True)
    drawn.add_column(t("bench.way"))
    for code in ("bench.ttft_p50", "bench.ttft_p99", "fleet.speed", "bench.calls"):
        drawn.add_column(t(code), justify="right")
    for row in found:
        speed = f"{row.tokens_per_second_p50:.1f}" if row.tokens_per_second_p50 is not None else ""
        way = t(f"bench.way.{row.way}")
        drawn.add_row(row.model, way, f"{row.ttft_ms_p50:.0f}", f"{row.ttft_ms_p99:.0f}", speed, str(row.samples))
    return drawn


# ---------------------------------------------------------------- the edge


@dataclass(frozen=True)
class Work:
    """What is asked of each model on each way."""

    calls: int
    max_tokens: int
    question: str


@dataclass(frozen=True)
class Doors:
    """Where to ask: the front door; and the house behind it, where it is one's own."""

    url: str
    headers: dict[str, str]
    own: House | None = None


@contextmanager
def _doors(settings: Settings, terminal: Terminal) -> Iterator[Doors]:
    headers = key_of(settings)
    url = service_url(settings, terminal)
    if url is not None:
        yield Doors(url, headers)
        return
    with House(settings) as house, _served(house) as own_url:
        yield Doors(own_url, headers, house)


@contextmanager
def _served(house: House) -> Iterator[str]:
    """The HTTP service of a house on a free port of this machine, in a thread."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(house=house), log_level="critical", access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + START_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise CapibaraError(phrase("bench.not_started"))
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_S)
        listener.close()


def _measured(doors: Doors, spec: ModelSpec, work: Work, told: Told, terminal: Terminal) -> list[Figures]:
    """The figures of one model on each way."""
    numbers = itertools.count(time.monotonic_ns() % 1_000_000)
    samples: dict[str, list[Sample]] = {"capibara": []}
    with httpx.Client(trust_env=False, timeout=ANSWER_S) as client, asyncio.Runner() as runner:

        def ask(url: str, headers: dict[str, str]) -> Sample:
            body = body_of(spec.id, f"{next(numbers)}. {work.question}", work.max_tokens)
            return streamed(client, url, headers, body)

        told(terminal.text("bench.loading", model=spec.id))
        ask(doors.url, doors.headers)
        direct = _direct(doors, spec, runner)
        if direct is not None:
            samples = {"direct": [], "capibara": []}
        for number in range(1, work.calls + 1):
            told(terminal.text("bench.measuring", model=spec.id, number=number, count=work.calls))
            if direct is not None:
                samples["direct"].append(ask(*direct))
            samples["capibara"].append(ask(doors.url, doors.headers))
    return [figures_of(spec.id, way, found) for way, found in samples.items()]


def _direct(doors: Doors, spec: ModelSpec, runner: asyncio.Runner) -> tuple[str, dict[str, str]] | None:
    """The model's own server and its key; it has just answered, and is not held while it is measured."""
    if doors.own is None:
        return None
    house = doors.own

    async def endpoint() -> tuple[str, dict[str, str]]:
        async with house.fleet.claim(spec.id, house.settings.runtime.load_wait_s) as claimed:
            return claimed.url, {"authorization": f"Bearer {claimed.api_key}"}

    return runner.run(endpoint())


def body_of(model: str, question: str, max_tokens: int) -> dict[str, Any]:
    """A streamed chat completion with its usage."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": max_tokens,
        "temperature": 0,
    }


def streamed(client: httpx.Client, url: str, headers: dict[str, str], body: dict[str, Any]) -> Sample:
    """One streamed chat completion. CapibaraError when it fails or gives no text."""
    model = body["model"]
    started = time.perf_counter()
    first = last = None
    count = 0
    try:
        with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as response:
            if response.is_error:
                response.read()
                raise CapibaraError(phrase("bench.failed", model=model, error=f"HTTP {response.status_code}"))
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise CapibaraError(phrase("bench.failed", model=model, error=_said(chunk["error"])))
                if chunk.get("usage"):
                    count = int(chunk["usage"]["completion_tokens"])
                if chunk["choices"] and _says_something(chunk["choices"][0]["delta"]):
                    last = time.perf_counter() - started
                    first = last if first is None else first
    except (httpx.HTTPError, ValueError) as error:
        raise CapibaraError(phrase("bench.failed", model=model, error=type(error).__name__)) from error
    if first is None or last is None:
        raise CapibaraError(phrase("bench.no_text", model=model))
    return Sample(first, last, count)


def _said(error: dict[str, Any]) -> str:
    """The service's own words, without the stop that the sentence around them has."""
    return str(error.get("message", error.get("code", "error"))).removesuffix(".")


def _says_something(delta: dict[str, Any]) -> bool:
    return bool(delta.get("content") or delta.get("reasoning_content"))
