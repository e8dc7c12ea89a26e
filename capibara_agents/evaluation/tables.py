"""Figures as tables of words, the same for the terminal and for the report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from capibara_agents.evaluation.metrics import Share
from capibara_agents.evaluation.replay import Interval, ReplayResult
from capibara_agents.evaluation.robustness import Stability, Trial, by_kind, stability
from capibara_agents.evaluation.routing import Figures, Group
from capibara_agents.texts import sentence
from capibara_agents.types import Language

NOTHING = "–"


@dataclass(frozen=True)
class Sheet:
    """A table; the first column names the row, the others are figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def percent(measured: Share) -> str:
    """`97.1 [96.0–98.0]`: percent, with Wilson's 95 % interval."""
    if measured.percent is None or measured.interval is None:
        return NOTHING
    low, high = measured.interval
    return f"{measured.percent:.1f} [{low:.1f}–{high:.1f}]"


def routing_sheets(every: Figures, clean: Figures, language: Language) -> Iterator[Sheet]:
    """The headline, then by language, by source, and whatever else tells rows apart."""
    yield _headline(every, clean, language)
    for name, groups in every.by.items():
        if name == "language" or len(groups) > 1:
            yield _groups_sheet(name, groups, clean.by[name], language)


def _headline(every: Figures, clean: Figures, language: Language) -> Sheet:
    rows: list[tuple[str, str, str, str]] = []

    def add(code: str, one: Share, other: Share) -> None:
        if one.n:
            rows.append((sentence(code, language), str(one.n), percent(one), percent(other)))

    add("eval.domain", every.total.domain, clean.total.domain)
    add("eval.language", every.total.language, clean.total.language)
    add("eval.tier", every.total.tier, clean.total.tier)
    add("eval.pairs_tier", every.pairs_tier, clean.pairs_tier)
    add("eval.pairs_domain", every.pairs_domain, clean.pairs_domain)
    for code, one, other in (
        ("eval.ece", _number(every.ece, 3), _number(clean.ece, 3)),
        ("eval.p50", _number(every.p50_ms, 1), _number(clean.p50_ms, 1)),
        ("eval.p99", _number(every.p99_ms, 1), _number(clean.p99_ms, 1)),
    ):
        rows.append((sentence(code, language), "", one, other))
    if every.refused:
        rows.append((sentence("eval.refused", language), "", str(every.refused), str(clean.refused)))
    columns = ("eval.measure", "eval.rows", "eval.all_rows", "eval.clean_rows")
    return Sheet(sentence("eval.headline", language), tuple(sentence(c, language) for c in columns), tuple(rows))


def _groups_sheet(name: str, groups: Mapping[str, Group], clean: Mapping[str, Group], language: Language) -> Sheet:
    empty = Share(0, 0)
    columns: dict[str, list[str]] = {"eval.rows": [str(group.n) for group in groups.values()]}
    for code, shares in {
        "eval.domain": [group.domain for group in groups.values()],
        "eval.domain_clean": [clean[key].domain if key in clean else empty for key in groups],
        "eval.language": [group.language for group in groups.values()],
        "eval.tier": [group.tier for group in groups.values()],
    }.items():
        if any(held.n for held in shares):
            columns[code] = [percent(held) for held in shares]
    head = ("", *(sentence(code, language) for code in columns))
    return Sheet(sentence(f"eval.by.{name}", language), head, tuple(zip(groups, *columns.values(), strict=True)))


def robustness_sheet(tried: Sequence[Trial], language: Language) -> Sheet:
    """How often the decision stayed, by kind of change."""

    def row(name: str, shares: Stability) -> tuple[str, ...]:
        return name, str(shares.choice.n), percent(shares.choice), percent(shares.domain)

    rows = [row(sentence(f"eval.kind.{kind}", language), shares) for kind, shares in by_kind(tried).items()]
    rows.append(row(sentence("eval.all_rows", language), stability(tried)))
    columns = ("eval.change", "eval.rows", "eval.same_choice", "eval.same_domain")
    return Sheet(sentence("eval.robustness", language), tuple(sentence(c, language) for c in columns), tuple(rows))


def replay_sheet(result: ReplayResult, language: Language) -> Sheet:
    """The gap between the two models and how much of it choosing recovers."""

    def row(code: str, held: Interval) -> tuple[str, ...]:
        return sentence(code, language), f"{held.value:.3f} [{held.low:.3f}–{held.high:.3f}]"

    return Sheet(
        sentence("eval.replay.title", language),
        (sentence("eval.measure", language), sentence("eval.value", language)),
        (
            (sentence("eval.rows", language), str(result.n)),
            (sentence("eval.labels", language), str(result.labels)),
            (sentence("eval.right_of", language, model=result.strong), f"{100 * result.strong_accuracy:.1f} %"),
            (sentence("eval.right_of", language, model=result.weak), f"{100 * result.weak_accuracy:.1f} %"),
            row("eval.apgr", result.apgr),
            row("eval.cpt50", result.cpt50),
            row("eval.cpt80", result.cpt80),
        ),
    )


def confusion_sheet(table: Mapping[str, Mapping[str, int]], language: Language) -> Sheet:
    """What was taken for what; truth in rows."""
    labels = labels_of(table)
    rows = tuple((truth, *(str(said.get(label, "")) for label in labels)) for truth, said in table.items())
    return Sheet(sentence("eval.confusion", language), (sentence("eval.truth", language), *labels), rows)


def labels_of(table: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """All labels of a confusion table, in alphabetical order."""
    return tuple(sorted({*table, *(label for said in table.values() for label in said)}))


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"
