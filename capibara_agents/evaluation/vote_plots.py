"""Figures of replayed votes as pictures; imports matplotlib (`capibara[eval]`). Returns PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from capibara_agents.evaluation.consensus import PanelFigures
from capibara_agents.evaluation.plots import COLOUR, OTHER_COLOUR, png
from capibara_agents.texts import sentence
from capibara_agents.types import Language


def panels_png(measured: Sequence[PanelFigures], language: Language) -> bytes:
    """For each panel: best single, majority, ours with its interval, and what any of them knew."""
    figure = Figure(figsize=(7.5, 1.6 + 0.55 * len(measured)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(measured))
    for y, one in enumerate(measured):
        axes.plot(one.ours_interval, (y, y), color=COLOUR, linewidth=2, alpha=0.6)
    for name, marker, colour in (
        ("best_single", "s", "k"),
        ("majority", "^", OTHER_COLOUR),
        ("ours", "o", COLOUR),
        ("oracle", "|", "0.5"),
    ):
        held = [getattr(one, name) for one in measured]
        axes.plot(held, places, marker, color=colour, label=sentence(f"eval.{name}", language))
    axes.set_yticks(places, [f"{one.panel} ({one.n})" for one in measured])
    axes.set_ylim(len(measured) - 0.5, -0.5)
    axes.set_xlabel(sentence("eval.right_percent", language))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return png(figure)


def voters_png(measured: Sequence[PanelFigures], language: Language) -> bytes:
    """What is right after so many voters, in points over the best single model; a star where ours stops asking."""
    figure = Figure(figsize=(6.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color="k", linewidth=1, linestyle="--", label=sentence("eval.best_single", language))
    for one in measured:
        gains = [held - one.best_single for held in one.after]
        (line,) = axes.plot(range(1, len(gains) + 1), gains, "o-", markersize=4, label=one.panel)
        axes.plot([one.calls], [one.ours - one.best_single], "*", markersize=13, color=line.get_color())
    axes.plot([], [], "*", color="0.4", markersize=11, label=sentence("eval.early_stop", language))
    axes.set_xticks(range(1, 1 + max(len(one.after) for one in measured)))
    axes.set_xlabel(sentence("eval.voters_asked", language))
    axes.set_ylabel(sentence("eval.gain", language))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return png(figure)


def confidence_png(measured: Sequence[PanelFigures], language: Language) -> bytes:
    """How often the ballot was right over its confidence; a dot is as large as its bin is full."""
    figure = Figure(figsize=(5.2, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="k", linewidth=1, linestyle="--")
    for one in measured:
        sizes = [10 + 300 * held.n / one.n for held in one.bins]
        across, up = [held.confidence for held in one.bins], [held.accuracy for held in one.bins]
        axes.scatter(across, up, s=sizes, alpha=0.6, label=f"{one.panel} (ECE {one.ece:.3f})")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(sentence("eval.confidence", language))
    axes.set_ylabel(sentence("eval.accuracy", language))
    axes.set_title(sentence("eval.reliability_of_votes", language))
    axes.legend(fontsize=8, loc="upper left")
    return png(figure)
