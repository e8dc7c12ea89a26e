"""`capibara compare`: the same question to every model by itself, one after the other, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table
from rich.text import Text

from capibara_agents.errors import CapibaraError
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.ask import Asked, check, note_stand_ins
from capibara_agents.terminal.decision import checks_of
from capibara_agents.terminal.paper import paper
from capibara_agents.terminal.respondent import Respondent, Said, respondent, tokens_per_second
from capibara_agents.terminal.waiting import waiting

Row = dict[str, Any]


def run(
    settings: Settings,
    question: str,
    names: Sequence[str],
    terminal: Terminal,
    *,
    max_tokens: int | None,
    as_json: bool,
) -> None:
    """Ask all models, or those named. CapibaraError when none of them answered."""
    specs = [settings.spec(name) for name in names] if names else list(settings.models)
    asked = Asked(question, "capibara", "auto", max_tokens)
    check(question)
    asked.request()
    note_stand_ins(settings, terminal)
    with respondent(settings, terminal) as one, waiting(terminal, lines=True) as told:
        rows = compared(one, specs, asked, told, terminal)
    if as_json:
        terminal.print_json({"question": question, "models": rows})
    else:
        show(rows, terminal)
    if all(row["error"] for row in rows):
        raise CapibaraError(terminal.text("compare.nobody"))


def compared(
    one: Respondent, specs: Sequence[ModelSpec], asked: Asked, told: Callable[[str], None], terminal: Terminal
) -> list[Row]:
    """One row for each model. One after the other: side by side they would share the cores and tell nothing.

    A model that fails is a row with its error.
    """
    rows = []
    for number, spec in enumerate(specs, start=1):
        told(terminal.text("compare.asking", model=spec.id, number=number, count=len(specs)))
        question = replace(asked, model=spec.id, mode="auto")
        try:
            said = one.ask(question.turns(), question.request())
            rows.append(_answered(spec, said, terminal))
        except CapibaraError as error:
            rows.append(_row(spec, error=error.told(terminal.language)))
    return rows


def _answered(spec: ModelSpec, said: Said, terminal: Terminal) -> Row:
    candidate = said.candidate
    timings, usage = candidate["timings"], candidate["usage"]
    speed = tokens_per_second(candidate)
    return _row(
        spec,
        content=said.content,
        wait_ms=timings["wait_ms"],
        ttft_ms=timings["ttft_ms"],
        tokens_per_second=None if speed is None else round(speed, 2),
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        verified=said.accepted,
        checks=checks_of(said, terminal),
    )


def _row(spec: ModelSpec, **known: Any) -> Row:
    keys = (
        "content", "wait_ms", "ttft_ms", "tokens_per_second", "prompt_tokens", "completion_tokens", "verified",
        "checks", "error",
    )  # fmt: skip
    return {"id": spec.id, "tier": spec.tier, "stand_in": spec.stand_in, **dict.fromkeys(keys), **known}


def show(rows: Sequence[Row], terminal: Terminal) -> None:
    """For people: the figures of all, then what each said."""
    console = paper()
    console.print(figures(rows, terminal))
    for row in rows:
        console.print()
        console.print(Text(row["id"], style="bold"))
        console.print(_words(row, terminal))


def figures(rows: Sequence[Row], terminal: Terminal) -> Table:
    """Waiting, first token, speed, tokens and checks of each model."""
    t = terminal.text
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column(t("table.model"), no_wrap=True)
    for code in ("compare.wait", "compare.ttft", "fleet.speed", "ask.tokens"):
        drawn.add_column(t(code), justify="right")
    drawn.add_column(t("ask.checks"), overflow="fold")
    for row in rows:
        if row["error"]:
            drawn.add_row(row["id"], "", "", "", "", t("compare.failed"))
            continue
        speed = row["tokens_per_second"]
        drawn.add_row(
            row["id"],
            f"{row['wait_ms'] / 1000:.1f} s",
            f"{row['ttft_ms']:.0f} ms" if row["ttft_ms"] is not None else "",
            f"{speed:.1f}" if speed is not None else "",
            str(row["completion_tokens"]),
            row["checks"],
        )
    return drawn


def _words(row: Row, terminal: Terminal) -> Text:
    # Models write what they like: their words are never read as markup.
    if row["error"]:
        return Text(terminal.text("error", text=row["error"]), style="red")
    return Text(row["content"].strip())
