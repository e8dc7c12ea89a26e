"""How honest the ballot's confidence is when voters of a panel are missing: dead, not silent.

    .venv/bin/python benchmarks/missing_voters.py FILE --panels PANELS [--folds 5] [--json]

FILE and PANELS are those of `capibara eval consensus`. Each fold is voted on with weights from the others, where
everybody was asked; then some are taken away. "shared": one set of weights for all ballots; "own": those without the
first voter have weights of their own, as Capibara does it. Accuracy in percent, ECE in ten bins.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capibara_agents.calibration import calibration_error, reliability
from capibara_agents.evaluation.consensus import dealt, read_panels, read_rows, round_of_row
from capibara_agents.evaluation.metrics import share
from capibara_agents.vote import Round, VoteWeights, learn


def left(order: Sequence[str]) -> dict[str, frozenset[str]]:
    """Who is still there, by what is missing."""
    everybody = frozenset(order)
    return {
        "nobody missing": everybody,
        "first": everybody - {order[0]},
        "second": everybody - {order[1]},
        "last": everybody - {order[-1]},
        "first two": everybody - set(order[:2]),
        "all but second": frozenset(order[1:2]),
    }


def ballot(played: Round, there: frozenset[str], weights: VoteWeights) -> tuple[float, bool]:
    """The confidence in the winner, and whether it is right."""
    truth: Mapping[str, bool] = {
        voter: right
        for cluster, right in zip(played.tally.clusters, played.right, strict=True)
        for voter in cluster.voters
    }
    tally = played.tally.among(there)
    chances = weights.chances(tally)
    if not chances:
        return 0.0, False
    best = max(range(len(chances)), key=lambda k: (chances[k], -k))
    return chances[best], truth[tally.clusters[best].voters[0]]


def measure(rounds: Sequence[Round], models: Sequence[str], folds: int) -> dict[str, Any]:
    """For each way of weighing and each absence."""
    found: dict[str, dict[str, list[tuple[float, bool]]]] = {"shared": {}, "own": {}}
    fold = dealt(len(rounds), folds)
    for number in range(folds):
        own = learn([one for one, at in zip(rounds, fold, strict=True) if at != number], models)
        for way, weights in (("shared", own.model_copy(update={"gaps": {}})), ("own", own)):
            for missing, there in left(weights.order).items():
                held = (one for one, at in zip(rounds, fold, strict=True) if at == number)
                found[way].setdefault(missing, []).extend(ballot(one, there, weights) for one in held)
    return {way: {missing: figures(pairs) for missing, pairs in by.items()} for way, by in found.items()}


def figures(pairs: Sequence[tuple[float, bool]]) -> dict[str, float]:
    confidences, rights = [confidence for confidence, _ in pairs], [right for _, right in pairs]
    return {
        "right": round(share(rights).percent or 0.0, 1),
        "ece": round(calibration_error(reliability(confidences, rights)) or 0.0, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--panels", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = read_rows(options.file)
    report: dict[str, Any] = {"set": options.file.stem, "rows": len(rows)}
    for panel, models in read_panels(options.panels)[options.file.stem].items():
        report[panel] = measure([round_of_row(row, models) for row in rows], models, options.folds)
    print(json.dumps(report, indent=None if options.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
