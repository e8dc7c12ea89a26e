"""What a vote of 3 and of 5 models gains over the best of them, by how far the best is ahead of the second.

    .venv/bin/python benchmarks/panels.py FILE [--draws 60] [--voters 3 5] [--folds 5] [--seed 0] [--json]

FILE is what `capibara eval consensus` reads. Panels are drawn from the models that answered at least nine rows in ten
and were right on at least three rows in ten; each is replayed by cross-validation as that command does it. The best
single model is the best over all rows, so it is chosen with knowledge that the vote does not have. "calibration" is
ECE over all panels of a size together: where one panel has a handful of ballots in a bin, these have hundreds, though
of the same questions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from capibara_agents.calibration import Bin, calibration_error
from capibara_agents.evaluation.consensus import PanelFigures, Row, read_rows, replay

ANSWERED, RIGHT = 0.9, 0.3
GAPS = (2.0, 5.0, 10.0, 20.0, 100.0)
"""Upper ends of the groups, in points between the best voter and the second."""


def accuracies(rows: Sequence[Row]) -> dict[str, float]:
    """In percent, of the models that may be drawn."""
    given: dict[str, list[bool]] = {}
    for row in rows:
        for answer in row.answers:
            given.setdefault(answer.model, []).append(answer.correct)
    shares = {m: 100 * sum(hits) / len(rows) for m, hits in given.items() if len(hits) >= ANSWERED * len(rows)}
    return {model: value for model, value in sorted(shares.items()) if value >= 100 * RIGHT}


def drawn(known: dict[str, float], size: int, draws: int, seed: int) -> list[tuple[str, ...]]:
    """Panels of `size`, the same number in each group of gaps as far as chance gives them."""
    draw, found = random.Random(seed), dict[float, set[tuple[str, ...]]]()
    for _ in range(200 * draws):
        panel = tuple(sorted(draw.sample(list(known), size)))
        held = found.setdefault(group(gap(known, panel)), set())
        if len(held) < draws // len(GAPS) + 1:
            held.add(panel)
    return [panel for held in found.values() for panel in sorted(held)]


def gap(known: dict[str, float], panel: Sequence[str]) -> float:
    first, second = sorted((known[model] for model in panel), reverse=True)[:2]
    return first - second


def group(points: float) -> float:
    return next(end for end in GAPS if points < end)


def summary(measured: Sequence[tuple[float, PanelFigures]]) -> dict[str, Any]:
    """Of the panels of one group, in points; the mean, and the worst of ours."""
    figures = [one for _, one in measured]
    return {
        "panels": len(figures),
        "majority": round(mean(one.majority - one.best_single for one in figures), 2),
        "ours": round(mean(one.gain for one in figures), 2),
        "worst of majority": round(min(one.majority - one.best_single for one in figures), 2),
        "worst of ours": round(min(one.gain for one in figures), 2),
        "calls": round(mean(one.calls for one in figures), 2),
    }


def together(figures: Sequence[PanelFigures]) -> list[Bin]:
    """The bins of all panels as one."""
    held: dict[float, list[Bin]] = {}
    for one in figures:
        for found in one.bins:
            held.setdefault(found.low, []).append(found)
    merged = []
    for low, bins in sorted(held.items()):
        n = sum(found.n for found in bins)
        confidence = sum(found.n * found.confidence for found in bins) / n
        accuracy = sum(found.n * found.accuracy for found in bins) / n
        merged.append(Bin(low=low, high=bins[0].high, n=n, confidence=confidence, accuracy=accuracy))
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--voters", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = read_rows(options.file)
    known = accuracies(rows)
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "set": options.file.stem,
        "rows": len(rows),
        "models": len(known),
    }
    for size in options.voters:
        measured: list[tuple[float, PanelFigures]] = []
        for panel in drawn(known, size, options.draws, options.seed):
            figures = replay(rows, of_set=options.file.stem, panel="drawn", models=panel, folds=options.folds)
            measured.append((gap(known, panel), figures))
            print(f"{size} voters: {len(measured)} panels", file=sys.stderr, end="\r")
        report[f"{size} voters"] = {
            f"gap under {end:g}": summary(held)
            for end in GAPS
            if (held := [one for one in measured if group(one[0]) == end])
        }
        bins = together([figures for _, figures in measured])
        report[f"{size} voters"]["calibration"] = {
            "ballots": sum(held.n for held in bins),
            "ece": round(calibration_error(bins) or 0.0, 4),
            "mean ece of one panel": round(mean(figures.ece for _, figures in measured), 4),
            "by chance, of one panel": round(mean(figures.ece_of_perfect for _, figures in measured), 4),
        }
    print(json.dumps(report, indent=None if options.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
