"""Figures of replayed votes as tables of words, the same for the terminal and for the report. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from capibara_agents.evaluation.consensus import PanelFigures
from capibara_agents.evaluation.tables import NOTHING, Sheet
from capibara_agents.texts import sentence
from capibara_agents.types import Language


def panels_sheet(measured: Sequence[PanelFigures], language: Language) -> Sheet:
    """For each panel, a column: the best of its models alone, the majority, ours, and what that cost."""
    rows = {
        "eval.rows": [str(one.n) for one in measured],
        "eval.best_single": [f"{one.best_single:.1f}" for one in measured],
        "eval.majority": [f"{one.majority:.1f}" for one in measured],
        "eval.ours": [_between(f"{one.ours:.1f}", one.ours_interval) for one in measured],
        "eval.gain": [_between(f"{one.gain:+.1f}", one.gain_interval, sign="+") for one in measured],
        "eval.oracle": [f"{one.oracle:.1f}" for one in measured],
        "eval.calls": [f"{one.calls:.2f}" for one in measured],
        "eval.asking_all": [f"{one.asking_all:.1f}" for one in measured],
        "eval.surest_half": [f"{one.surest_half:.1f}" for one in measured],
        "eval.tool_verified": [f"{one.tool_verified:.1f}" for one in measured],
        "eval.ece": [f"{one.ece:.3f}" for one in measured],
        "eval.ece_of_perfect": [f"{one.ece_of_perfect:.3f}" for one in measured],
    }
    return Sheet(
        sentence("eval.consensus.panels", language),
        (sentence("eval.measure", language), *(one.panel for one in measured)),
        tuple((sentence(code, language), *cells) for code, cells in rows.items()),
    )


def by_voters_sheet(measured: Sequence[PanelFigures], language: Language) -> Sheet:
    """What the first voter, the first two, … reach without early stop."""
    most = max(len(one.after) for one in measured)
    names = [sentence("eval.voter", language)]
    names += [sentence("eval.voters", language, count=count) for count in range(2, most + 1)]
    rows = tuple(
        (one.panel, *(f"{held:.1f}" for held in one.after), *[NOTHING] * (most - len(one.after))) for one in measured
    )
    return Sheet(sentence("eval.consensus.voters", language), (sentence("eval.panel", language), *names), rows)


def calibration_sheet(one: PanelFigures, language: Language) -> Sheet:
    """How often the ballot was right, by its confidence."""
    head = ("eval.interval_of_confidence", "eval.rows", "eval.confidence", "eval.accuracy")
    return Sheet(
        sentence("eval.consensus.bins", language, set=one.set, panel=one.panel),
        tuple(sentence(code, language) for code in head),
        tuple(
            (f"{held.low:.1f}–{held.high:.1f}", str(held.n), f"{held.confidence:.3f}", f"{held.accuracy:.3f}")
            for held in one.bins
        ),
    )


def _between(value: str, interval: tuple[float, float], sign: str = "") -> str:
    return f"{value} [{interval[0]:{sign}.1f}, {interval[1]:{sign}.1f}]"
