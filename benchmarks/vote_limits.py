"""What no weighing of these voters could pass by much: weights fitted on the very rows that they are scored on.

    .venv/bin/python benchmarks/vote_limits.py FILE --panels PANELS [--json]

FILE and PANELS are those of `capibara eval consensus`. Everybody is asked. "seen" has looked at the truth of each row,
"oracle" is right whenever any voter is; between the two lies what only a look into the question itself could tell.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from capibara_agents.evaluation.consensus import read_panels, read_rows, round_of_row
from capibara_agents.vote import Round, learn


def right(one: Round, chances: tuple[float, ...]) -> bool:
    """Whether the likeliest answer is right."""
    return bool(chances) and one.right[max(range(len(chances)), key=lambda k: (chances[k], -k))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--panels", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = read_rows(options.file)
    report: dict[str, Any] = {"set": options.file.stem, "rows": len(rows)}
    for panel, models in read_panels(options.panels)[options.file.stem].items():
        rounds = [round_of_row(row, models) for row in rows]
        weights = learn(rounds, models)
        seen = sum(right(one, weights.chances(one.tally)) for one in rounds)
        oracle = sum(any(one.right) for one in rounds)
        report[panel] = {"seen": round(100 * seen / len(rows), 2), "oracle": round(100 * oracle / len(rows), 2)}
    print(json.dumps(report, indent=None if options.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
