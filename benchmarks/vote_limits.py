"""What no weighing of these voters could pass by much, measured on the very rows that it is scored on.

    .venv/bin/python benchmarks/vote_limits.py FILE --panels PANELS [--draws 200] [--json]

FILE and PANELS are those of `capibara eval consensus`. Everybody is asked. "seen" are the same weights, fitted with a
look at the truth of each row. "looked_up" is the best that any rule can do which sees only who agrees with whom and who
is silent: for each such pattern, the answer that was right most often in it. Of patterns that occur a few times only it
learns the truth by heart; how much that flatters is measured by drawing truths from the chances of the weights and
looking up in those (a parametric bootstrap of the optimism; Efron, The estimation of prediction error, 2004).
"learnable" is what is left, with one standard deviation of the draws. "oracle" is right whenever any voter is; between
the two lies what only a look into the question itself, or at the answers, could tell.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capibara_agents.evaluation.consensus import read_panels, read_rows, round_of_row
from capibara_agents.vote import Round, VoteWeights, learn

Pattern = frozenset[tuple[str, ...]]


def right(one: Round, chances: tuple[float, ...]) -> bool:
    """Whether the likeliest answer is right."""
    return bool(chances) and one.right[max(range(len(chances)), key=lambda k: (chances[k], -k))]


def bare(one: Round) -> Round:
    """Who agrees with whom, and nothing else."""
    clusters = tuple(cluster.model_copy(update={"traits": {}}) for cluster in one.tally.clusters)
    return Round(tally=one.tally.model_copy(update={"domain": "", "clusters": clusters}), right=one.right)


def pattern(one: Round) -> Pattern:
    """The same for all rows in which the same voters agree and the same are silent."""
    return frozenset(cluster.voters for cluster in one.tally.clusters)


def looked_up(patterns: Sequence[Pattern], winners: Sequence[Sequence[tuple[str, ...]]]) -> int:
    """Rows won by choosing in each pattern the answer that is right most often in it; `winners`: who was right."""
    won: defaultdict[Pattern, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for held, voters in zip(patterns, winners, strict=True):
        won[held].update(voters)
    return sum(max(counted.values(), default=0) for counted in won.values())


def optimism(rounds: Sequence[Round], weights: VoteWeights, draws: int) -> tuple[float, float]:
    """By how many rows looking up flatters, were the chances true: mean and standard deviation."""
    draw = np.random.default_rng(0)
    patterns = [pattern(one) for one in rounds]
    chances = [weights.chances(one.tally) for one in rounds]
    passed = []
    for _ in range(draws):
        winners: list[list[tuple[str, ...]]] = []
        known = 0
        for one, held, at in zip(rounds, chances, draw.random(len(rounds)), strict=True):
            drawn = int(np.searchsorted(np.cumsum(held), at))
            winners.append([one.tally.clusters[drawn].voters] if drawn < len(held) else [])
            known += bool(held) and drawn == int(np.argmax(held))
        passed.append(looked_up(patterns, winners) - known)
    return float(np.mean(passed)), float(np.std(passed))


def limits(rounds: Sequence[Round], models: Sequence[str], draws: int) -> dict[str, float]:
    """In percent of the rows."""
    weights = learn(rounds, models)
    stripped = [bare(one) for one in rounds]
    winners = [
        [c.voters for c, is_right in zip(one.tally.clusters, one.right, strict=True) if is_right] for one in rounds
    ]
    best = looked_up([pattern(one) for one in rounds], winners)
    flattery, spread = optimism(stripped, learn(stripped, models), draws)
    counted = {
        "seen": sum(right(one, weights.chances(one.tally)) for one in rounds),
        "looked_up": best,
        "learnable": best - flattery,
        "learnable_deviation": spread,
        "oracle": sum(any(one.right) for one in rounds),
    }
    return {name: round(100 * count / len(rounds), 2) for name, count in counted.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--panels", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = read_rows(options.file)
    report: dict[str, Any] = {"set": options.file.stem, "rows": len(rows)}
    for panel, models in read_panels(options.panels)[options.file.stem].items():
        report[panel] = limits([round_of_row(row, models) for row in rows], models, options.draws)
    print(json.dumps(report, indent=None if options.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
