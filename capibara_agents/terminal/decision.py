"""Decisions for people: how an answer came about, how a question would be decided, how a vote went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from capibara_agents.terminal import Terminal
from capibara_agents.terminal.paper import paper
from capibara_agents.terminal.respondent import Said, tokens_per_second
from capibara_agents.types import voter_of

ANSWER_CHARS = 60
Rows = Sequence[tuple[str, str]]


def show_decision(said: Said, terminal: Terminal) -> None:
    """Why, who was asked, who answered, how long it took; what went wrong, on standard error."""
    t, trace = terminal.text, said.trace
    plan, candidate = trace["plan"], said.candidate
    timings, usage = candidate["timings"], candidate["usage"]
    times = t(
        "ask.times.values",
        classify=f"{trace['timings_ms'].get('classify', 0):.0f}",
        wait=f"{timings['wait_ms']:.0f}",
        ttft=f"{timings['ttft_ms'] or 0:.0f}",
        total=f"{timings['total_ms']:.0f}",
    )
    rows = [
        (t("ask.why"), t(plan["reason"]["code"], **plan["reason"]["values"])),
        (t("ask.mode"), t(f"ask.mode.{plan['mode']}")),
        (t("ask.models"), ", ".join(dict.fromkeys(c["model"] for c in trace["candidates"]))),
        (t("ask.answered"), said.model),
        (t("ask.checks"), checks_of(said, terminal)),
        (t("ask.tokens"), f"{usage['prompt_tokens']} + {usage['completion_tokens']}"),
        (t("ask.times"), times),
    ]
    if plan["mode"] == "consensus":
        rows.insert(4, (t("ask.agreement"), percent(trace["ballot"]["agreement"])))
    show(titled_rows(t("ask.decision"), rows))
    note_weaknesses(said, terminal)


def note_weaknesses(said: Said, terminal: Terminal) -> None:
    """What a person must know before relying on the answer."""
    if said.trace["verdict"]["degraded"]:
        terminal.note("ask.degraded")
    if not said.accepted:
        terminal.note("ask.unverified")


def checks_of(said: Said, terminal: Terminal) -> str:
    """Passed, or which checks did not."""
    t = terminal.text
    reasons = [t(check["reason"]) for check in said.trace["verdict"]["checks"] if not check["passed"]]
    return t("ask.failed", reasons="; ".join(reasons)) if reasons else t("ask.passed")


def one_line(said: Said, terminal: Terminal) -> str:
    """The decision in a line: who, how fast, whether it was checked."""
    t, candidate = terminal.text, said.candidate
    parts = [said.model, t("talk.tokens", count=candidate["usage"]["completion_tokens"])]
    if candidate["timings"]["ttft_ms"] is not None:
        parts.append(t("talk.ttft", ms=f"{candidate['timings']['ttft_ms']:.0f}"))
    if (speed := tokens_per_second(candidate)) is not None:
        parts.append(f"{speed:.1f} {t('fleet.speed')}")
    if said.trace["plan"]["mode"] == "consensus":
        parts.append(f"{t('ask.agreement')} {percent(said.trace['ballot']['agreement'])}")
    parts.append(f"{t('ask.checks')} {checks_of(said, terminal)}")
    return " · ".join(parts)


def show_route(decided: Mapping[str, Any], terminal: Terminal) -> None:
    """What would be done with a question, and what spoke for it."""
    t = terminal.text
    level = t(f"level.{decided['complexity_level']}")
    rows = [
        (t("ask.why"), decided["reason"]),
        (t("ask.mode"), t(f"ask.mode.{decided['mode']}")),
        (t("ask.models"), ", ".join(decided["models"])),
        (t("ask.confidence"), percent(decided["confidence"])),
        (t("ask.complexity"), f"{decided['complexity']:.2f} ({level})"),
    ]
    if read := decided.get("read_tokens"):
        told = [t("ask.read.value", model=model, tokens=tokens) for model, tokens in read.items()]
        rows.append((t("ask.read"), ", ".join(told)))
    rows += [(t("ask.signals"), f"{s['weight']:+.1f}  {_signal(s, terminal)}") for s in decided["signals"]]
    if (other := decided["without_strongest"]) is not None:
        rows.append((t("ask.without"), other["reason"]))
    rows += [
        (t("ask.nearest"), f"{n['score']:.3f}  {n['id']} ({t('domain.' + n['domain'])})")
        for n in decided["neighbours"][:5]
    ]
    show(titled_rows(t("ask.decision"), rows))


def _signal(signal: Mapping[str, Any], terminal: Terminal) -> str:
    return terminal.text(f"signal.{signal['name']}", domain=signal["domain"])


def ballot_table(trace: Mapping[str, Any], terminal: Terminal) -> Table:
    """Each voter: its answer as it was understood, its weight, whom it agreed with; those who gave none, and why."""
    t, ballot = terminal.text, trace["ballot"]
    table = Table(box=None, pad_edge=False, title=t("vote.title"), title_justify="left")
    table.add_column(t("vote.voter"), no_wrap=True)
    table.add_column(t("vote.answer"), overflow="fold")
    for code in ("vote.weight", "vote.cluster"):
        table.add_column(t(code), justify="right")
    winner = (ballot["winner"] or "").partition(":")[2]
    for vote in ballot["votes"]:
        marked = f"{vote['model']} *" if vote["model"] == winner else vote["model"]
        # Models write what they like: their words are never read as markup.
        answer = Text(_answer(vote["answer"], terminal))
        table.add_row(marked, answer, f"{vote['weight']:.2f}", str(vote["cluster"] + 1))
    for model, code in ballot["absent"].items():
        table.add_row(model, Text(t("vote.absent", reason=code), style="dim"), "", "")
    return table


def asked_table(trace: Mapping[str, Any], terminal: Terminal) -> Table:
    """Everyone who was asked, in the order of the rounds, and what each said or why it said nothing."""
    t = terminal.text
    table = Table(box=None, pad_edge=False, title=t("vote.asked"), title_justify="left")
    table.add_column(t("vote.round"), justify="right")
    table.add_column(t("vote.voter"), no_wrap=True)
    table.add_column(t("vote.said"), overflow="fold")
    for said in trace["candidates"]:
        text = t("vote.absent", reason=said["error"]) if said["error"] else clipped(said["content"])
        table.add_row(str(said["attempt"]), voter_of(said["model"], said["sample"]), Text(text))
    return table


def ballot_rows(trace: Mapping[str, Any], terminal: Terminal) -> Rows:
    """What the ballot comes to."""
    t, ballot = terminal.text, trace["ballot"]
    surety = t("vote.calibrated" if ballot["calibrated"] else "vote.uncalibrated")
    return [
        (t("vote.method"), t(f"vote.method.{ballot['method']}")),
        (t("ask.agreement"), percent(ballot["agreement"])),
        (t("vote.confidence"), f"{percent(ballot['confidence'])} ({surety})"),
    ]


def _answer(answer: Mapping[str, Any], terminal: Terminal) -> str:
    shown = f"{answer['value']} {answer['unit']}".strip()
    return f"{clipped(shown)} ({terminal.text('vote.kind.' + answer['kind'])})"


def clipped(text: str, limit: int = ANSWER_CHARS) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def titled_rows(title: str, rows: Rows) -> Table:
    """Names and values below a title."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def show(renderable: RenderableType) -> None:
    """Below an empty line, on standard output."""
    console = paper()
    console.print()
    console.print(renderable)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
