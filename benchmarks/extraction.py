"""How often the option that Capibara reads from an answer is the letter that the recorded set gives for it.

    .venv/bin/python benchmarks/extraction.py FILE [--shown N] [--json]

FILE is JSONL: {prompt, answers: [{model, text, extracted}]}; `extracted` null: the source gave no letter, not counted.

Three figures. "given" counts every given letter. "stated" leaves out the answers in which the given letter does not
stand on its own anywhere: MMLU-Pro's evaluation drew a letter where it found none, and no reader can find that one.
"read by the source" counts the answers whose first "answer is (X)" has the given letter: those that its evaluation
surely read and did not draw. Where a text corrects itself it keeps the first statement, and Capibara the last.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from capibara_agents.answers import canonical
from capibara_agents.evaluation.metrics import share
from capibara_agents.types import AnswerKind

SOURCE = re.compile(r"answer is \(?([A-J])\)?")


def read_letter(text: str, prompt: str) -> tuple[str | None, float]:
    """The letter that is read, or None, and how sure that is."""
    found = canonical(text, question=prompt, domain="other", wants_json=False)
    return (found.value if found.kind is AnswerKind.option else None), found.confidence


def measure(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Shares in percent with their 95 % interval; and what differed."""
    given: list[bool] = []
    stated: list[bool] = []
    by_source: list[bool] = []
    sure: Counter[tuple[float, bool]] = Counter()
    by_model: dict[str, list[bool]] = {}
    differing: list[str] = []
    took = 0.0
    for row in rows:
        for answer in row["answers"]:
            letter, text = answer["extracted"], answer["text"]
            if letter is None:
                continue
            began = time.perf_counter()
            found, confidence = read_letter(text, row["prompt"])
            took += time.perf_counter() - began
            hit = found == letter
            given.append(hit)
            sure[confidence, hit] += 1
            by_model.setdefault(answer["model"], []).append(hit)
            first = SOURCE.search(text)
            if re.search(rf"(?<!\w){letter}(?![\w'’])", text):
                stated.append(hit)
            if first and first[1] == letter:
                by_source.append(hit)
            if not hit:
                differing.append(f"{row['id']} {answer['model']}: given {letter}, read {found}: …{text[-120:]!r}")
    measured = {"given": share(given), "stated": share(stated), "read by the source": share(by_source)}
    return {
        **{
            name: {
                "n": one.n,
                "percent": round(one.percent or 0, 2),
                "interval": [round(end, 2) for end in one.interval or ()],
            }
            for name, one in measured.items()
        },
        "by confidence": {
            str(level): {"n": sure[level, True] + sure[level, False], "right": sure[level, True]}
            for level in sorted({level for level, _ in sure}, reverse=True)
        },
        "by model": {name: round(share(hits).percent or 0, 2) for name, hits in sorted(by_model.items())},
        "ms each": round(1000 * took / max(1, len(given)), 3),
    }, differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--shown", type=int, default=0, help="show so many of the answers that differ")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.file.read_text(encoding="utf-8").split("\n") if line.strip()]
    measured, differing = measure(rows)
    print(json.dumps(measured, indent=None if options.json else 2, ensure_ascii=False))
    for line in differing[: options.shown]:
        print(line)


if __name__ == "__main__":
    main()
