"""Figures as pictures; the only importer of matplotlib, which is an extra (`capibara[eval]`). Returns PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from capibara_agents.calibration import Bin
from capibara_agents.evaluation.replay import ReplayResult
from capibara_agents.evaluation.routing import Figures, Group
from capibara_agents.evaluation.tables import labels_of
from capibara_agents.texts import sentence
from capibara_agents.types import Language

DOTS_PER_INCH = 130
COLOUR, OTHER_COLOUR = "#8a5a2b", "#2b6f8a"


def confusion_png(table: Mapping[str, Mapping[str, int]], language: Language) -> bytes:
    """The confusion matrix, shaded by the share of its row."""
    labels = labels_of(table)
    counts = [[table.get(truth, {}).get(said, 0) for said in labels] for truth in labels]
    figure = Figure(figsize=(1.5 + 0.62 * len(labels), 1.2 + 0.55 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow([[n / max(1, sum(row)) for n in row] for row in counts], cmap="YlOrBr", vmin=0, vmax=1)
    for y, row in enumerate(counts):
        for x, n in enumerate(row):
            if n:
                axes.text(
                    x, y, str(n), ha="center", va="center", fontsize=8, color="white" if n > sum(row) / 2 else "k"
                )
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel(sentence("eval.said", language))
    axes.set_ylabel(sentence("eval.truth", language))
    axes.set_title(sentence("eval.confusion", language))
    return png(figure)


def reliability_png(bins: Sequence[Bin], ece: float | None, language: Language) -> bytes:
    """How often the domain was right, by how sure the classifier was, over how many rows each bin holds."""
    figure = Figure(figsize=(5.2, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middles = [(held.low + held.high) / 2 for held in bins]
    width = 0.9 * (bins[0].high - bins[0].low) if bins else 0.1
    upper.bar(middles, [held.accuracy for held in bins], width=width, color=COLOUR, alpha=0.75)
    upper.plot([0, 1], [0, 1], color="k", linewidth=1, linestyle="--")
    upper.plot([held.confidence for held in bins], [held.accuracy for held in bins], "o", color=OTHER_COLOUR)
    upper.set_ylabel(sentence("eval.accuracy", language))
    upper.set_ylim(0, 1.02)
    upper.set_title(f"{sentence('eval.reliability', language)} (ECE {ece or 0:.3f})")
    lower.bar(middles, [held.n for held in bins], width=width, color=OTHER_COLOUR, alpha=0.75)
    lower.set_yscale("symlog")
    lower.set_xlim(0, 1)
    lower.set_ylabel(sentence("eval.rows", language))
    lower.set_xlabel(sentence("eval.confidence", language))
    return png(figure)


def accuracy_png(measured: Figures, language: Language) -> bytes:
    """Domain accuracy with its intervals, by language and by source."""
    by = {name: _with_domain(measured.by[name]) for name in ("language", "source")}
    heights = [max(1, len(groups)) for groups in by.values()]
    figure = Figure(figsize=(7.5, 1.8 + 0.34 * sum(heights)), layout="constrained")
    both = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    for axes, (name, groups) in zip(both, by.items(), strict=True):
        _intervals(axes, groups)
        axes.set_title(sentence(f"eval.by.{name}", language), fontsize=10)
    both[-1].set_xlabel(f"{sentence('eval.domain', language)}, %")
    return png(figure)


def gain_png(result: ReplayResult, language: Language) -> bytes:
    """Performance gap recovered over the share of calls to the strong model, beside choosing by chance."""
    figure = Figure(figsize=(5.8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color="k", linewidth=1, linestyle="--", label=sentence("eval.chance", language))
    gap = result.strong_accuracy - result.weak_accuracy
    calls = [100 * point.strong_share for point in result.curve]
    recovered = [100 * (point.accuracy - result.weak_accuracy) / gap for point in result.curve]
    axes.plot(calls, recovered, color=COLOUR, linewidth=2, label=f"Capibara (APGR {result.apgr.value:.3f})")
    for share_of_calls, level in ((result.cpt50.value, 50), (result.cpt80.value, 80)):
        axes.plot([100 * share_of_calls], [level], "o", color=OTHER_COLOUR)
        axes.annotate(f"CPT {level} %: {100 * share_of_calls:.0f} %", (100 * share_of_calls + 2, level - 4), fontsize=8)
    axes.set_xlabel(sentence("eval.strong_calls", language))
    axes.set_ylabel(sentence("eval.gap_recovered", language))
    axes.legend()
    axes.grid(alpha=0.3)
    return png(figure)


def _with_domain(groups: Mapping[str, Group]) -> dict[str, Group]:
    return {name: group for name, group in groups.items() if group.domain.n}


def _intervals(axes: Axes, groups: Mapping[str, Group]) -> None:
    """One dot a group with its interval, the first on top."""
    for y, group in enumerate(groups.values()):
        middle, interval = group.domain.percent, group.domain.interval
        if middle is not None and interval is not None:
            axes.plot(interval, (y, y), color=COLOUR, linewidth=2, alpha=0.6)
            axes.plot([middle], [y], "o", color=COLOUR)
    axes.set_yticks(range(len(groups)), [f"{name} ({group.domain.n})" for name, group in groups.items()])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No date and no version inside: the same figures give the same file.
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
