"""`capibara ask` and `capibara route`: a question, its answer and why it was decided so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import typer
from langchain_core.messages import HumanMessage
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from capibara_agents.assembly import House
from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.outcome import Answer
from capibara_agents.runnable import read_request
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.service import owner
from capibara_agents.types import Request

SERVICE_LIMIT_S = 0.5


@dataclass(frozen=True)
class Asked:
    """A question from the terminal."""

    question: str
    model: str
    mode: str
    max_tokens: int | None = None

    def request(self) -> Request:
        return read_request({"model": self.model, "mode": self.mode, "sampling": {"max_tokens": self.max_tokens}})


def run(settings: Settings, asked: Asked, terminal: Terminal, *, as_json: bool) -> None:
    """Ask the service that is running here, or start what the question needs and stop it after."""
    request = asked.request()
    if note := terminal.stand_ins(settings):
        typer.echo(note, err=True)
    url = _running_service(settings)
    if url is not None:
        content, trace = _ask_service(url, settings, asked)
    else:
        with _house(settings) as house, _waiting(terminal):
            # Before the clock runs: what Python imports is no part of a model's time.
            house.warm()
            answer = asyncio.run(house.capibara.answer([HumanMessage(asked.question)], request))
        content, trace = answer.candidate.content, _whole(answer)
    if as_json:
        terminal.print_json({"content": content, "capibara": trace})
        return
    Console().print(Markdown(content))
    _show_decision(trace, terminal)


def show_route(settings: Settings, asked: Asked, terminal: Terminal, *, as_json: bool) -> None:
    """The decision alone."""
    request = asked.request()
    with owner(settings, terminal) as service:
        if service is not None:
            body = {"input": asked.question, "model": asked.model, "capibara": {"mode": asked.mode}}
            decided = service.call("POST", "/v1/route", body=body)
    if service is None:
        # The lock is free again: the house takes it itself.
        with _house(settings) as house:
            started = time.perf_counter()
            decided = house.explain([HumanMessage(asked.question)], request, terminal.language)
            decided["timings_ms"] = {"total": round(1000 * (time.perf_counter() - started), 3)}
    if as_json:
        terminal.print_json(decided)
        return
    _show_route(decided, terminal)


def _show_route(decided: dict[str, Any], terminal: Terminal) -> None:
    t = terminal.text
    level = t(f"level.{decided['complexity_level']}")
    rows = [
        (t("ask.why"), decided["reason"]),
        (t("ask.mode"), t(f"ask.mode.{decided['mode']}")),
        (t("ask.models"), ", ".join(decided["models"])),
        (t("ask.confidence"), f"{100 * decided['confidence']:.0f} %"),
        (t("ask.complexity"), f"{decided['complexity']:.2f} ({level})"),
    ]
    rows += [(t("ask.signals"), f"{s['weight']:+.1f}  {_signal(s, t)}") for s in decided["signals"]]
    if (other := decided["without_strongest"]) is not None:
        rows.append((t("ask.without"), other["reason"]))
    rows += [
        (t("ask.nearest"), f"{n['score']:.3f}  {n['id']} ({t('domain.' + n['domain'])})")
        for n in decided["neighbours"][:5]
    ]
    _print_rows(t("ask.decision"), rows)


def _signal(signal: dict[str, Any], t: Callable[..., str]) -> str:
    return t(f"signal.{signal['name']}", domain=signal["domain"])


@contextmanager
def _house(settings: Settings) -> Iterator[House]:
    with House(settings) as house:
        yield house


@contextmanager
def _waiting(terminal: Terminal) -> Iterator[None]:
    """A spinner on standard error while models load and think."""
    console = Console(stderr=True)
    with console.status(terminal.text("serve.loading")) if console.is_terminal else _nothing():
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _running_service(settings: Settings) -> str | None:
    """The URL of the service that listens where the settings say, if it is a Capibara."""
    server = settings.server
    if server.port == 0:
        return None
    host = f"[{server.host}]" if ":" in server.host else server.host
    url = f"http://{host}:{server.port}"
    try:
        known = httpx.get(f"{url}/v1/models", headers=_key(settings), timeout=SERVICE_LIMIT_S, trust_env=False).json()
        served = {model["id"]: model.get("stand_in", False) for model in known["data"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    # Another fleet than the one asked for would answer under the same names.
    ours = {spec.id: spec.stand_in for spec in settings.models}
    return url if "capibara" in served and ours.items() <= served.items() else None


def _key(settings: Settings) -> dict[str, str]:
    keys = settings.server.api_keys
    return {"authorization": f"Bearer {keys[0]}"} if keys else {}


def _ask_service(url: str, settings: Settings, asked: Asked) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "model": asked.model,
        "messages": [{"role": "user", "content": asked.question}],
        "capibara": {"mode": asked.mode},
    }
    if asked.max_tokens:
        body["max_tokens"] = asked.max_tokens
    headers = {"x-capibara-trace": "1", **_key(settings)}
    try:
        response = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=None, trust_env=False)
        answer = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise CapibaraError(f"The service at {url} broke off: {type(error).__name__}.") from error
    if response.is_error:
        said = str(answer.get("error", {}).get("message", response.status_code))
        raise BadQuestion(said) if response.status_code in (400, 404) else CapibaraError(said)
    trace = {**answer["capibara"], "answered_by": answer["model"], "usage": answer["usage"]}
    return answer["choices"][0]["message"]["content"] or "", trace


def _whole(answer: Answer) -> dict[str, Any]:
    used = answer.candidate.usage
    return {
        **answer.trace(),
        "answered_by": answer.candidate.model,
        "usage": {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens},
    }


def _show_decision(trace: dict[str, Any], terminal: Terminal) -> None:
    t = terminal.text
    plan, ballot, verdict = trace["plan"], trace["ballot"], trace["verdict"]
    reasons = [t(check["reason"]) for check in verdict["checks"] if not check["passed"]]
    candidate = next(c for c in trace["candidates"] if f"{c['attempt']}:{c['model']}" == verdict["candidate"])
    times = t(
        "ask.times.values",
        classify=f"{trace['timings_ms'].get('classify', 0):.0f}",
        wait=f"{candidate['timings']['wait_ms']:.0f}",
        ttft=f"{candidate['timings']['ttft_ms'] or 0:.0f}",
        total=f"{candidate['timings']['total_ms']:.0f}",
    )
    rows = [
        (t("ask.why"), t(plan["reason"]["code"], **plan["reason"]["values"])),
        (t("ask.mode"), t(f"ask.mode.{plan['mode']}")),
        (t("ask.models"), ", ".join(dict.fromkeys(c["model"] for c in trace["candidates"]))),
        (t("ask.answered"), trace["answered_by"]),
        (t("ask.checks"), t("ask.failed", reasons="; ".join(reasons)) if reasons else t("ask.passed")),
        (t("ask.tokens"), f"{trace['usage']['prompt_tokens']} + {trace['usage']['completion_tokens']}"),
        (t("ask.times"), times),
    ]
    if plan["mode"] == "consensus":
        rows.insert(4, (t("ask.agreement"), f"{100 * ballot['agreement']:.0f} %"))
    _print_rows(t("ask.decision"), rows)
    if verdict["degraded"]:
        terminal.note("ask.degraded")
    if not verdict["accepted"]:
        terminal.note("ask.unverified")


def _print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console = Console()
    console.print()
    console.print(table)
