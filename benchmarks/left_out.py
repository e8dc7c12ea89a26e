"""How well domains are told on sources of which nothing was fitted: each source left out in turn.

    OPENBLAS_NUM_THREADS=1 python benchmarks/left_out.py --data DIR

DIR holds `train.jsonl` and `dev.jsonl`, lines of {prompt, language, domain, source, label_source}. For every family of
sources the head is fitted anew without it; exemplars and features, which hold no public text, decide with it as in the
service. Counted are all rows of the family with a clean label, in percent.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from fit_head import EMBEDDER, PERMISSIVE, fit, matrix_of, rows_of

from capibara_agents.classify import decide
from capibara_agents.exemplars import shipped_exemplars
from capibara_agents.features import Features, asks_to_be_thorough, domain_evidence, estimate_tokens, structure, surface
from capibara_agents.head import Head
from capibara_agents.spelling import Spelling
from capibara_agents.steering import without_steering
from capibara_agents.types import Neighbour

NEIGHBOURS = 15
EXEMPLARS = shipped_exemplars()


def clean(data: Path) -> list[dict[str, Any]]:
    """The rows that are counted."""
    lines = [line for name in ("train", "dev") for line in (data / f"{name}.jsonl").read_text("utf-8").splitlines()]
    rows = (json.loads(line) for line in lines)
    return [
        row
        for row in rows
        if row["label_source"] != "regex" and row["source"] != "instruction_other" and row["domain"] != "long_context"
    ]


def family_of(source: str) -> str:
    """What is left out together."""
    return PERMISSIVE[source][1] if source in PERMISSIVE else source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    fitted = rows_of(data)
    table, wanted, weights = matrix_of(fitted)
    families = np.array([row.family for row in fitted])
    spelling = Spelling((exemplar.content for exemplar in EXEMPLARS), lambda: EMBEDDER.words)
    vectors = np.stack([EMBEDDER.embed(exemplar.content) for exemplar in EXEMPLARS])
    heads: dict[str, Head] = {}
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in clean(data):
        family = family_of(row["source"])
        if family not in heads:
            kept = families != family
            heads[family] = Head(fit(table[kept], wanted[kept], weights[kept] / weights[kept].sum()))
        text = spelling.corrected(without_steering(row["prompt"]))
        vector = EMBEDDER.embed(text)
        scores = vectors @ vector
        neighbours = [
            Neighbour(id=one.id, score=float(scores[at]), domain=one.domain, complexity=one.complexity)
            for at, one in ((at, EXEMPLARS[at]) for at in np.argsort(-scores)[:NEIGHBOURS])
        ]
        features = Features(
            evidence=domain_evidence(text),
            structure=structure(text),
            surface=surface(text),
            thorough=asks_to_be_thorough(text),
            prompt_tokens=estimate_tokens(text),
        )
        found = decide(neighbours, features, heads[family](vector, features)).domain
        for group in ((family, row["language"]), ("all", row["language"]), ("all", "all")):
            right[group].append(found == row["domain"])
    for (family, language), held in sorted(right.items()):
        print(f"{family:24} {language:4} {len(held):6} rows  {100 * float(np.mean(held)):6.2f} %")


if __name__ == "__main__":
    main()
