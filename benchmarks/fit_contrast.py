"""Fit the projection of `capibara_agents/contrast.py` anew and write its numbers and their provenance.

    OPENBLAS_NUM_THREADS=1 python benchmarks/fit_contrast.py --outcomes FILE [--without FILE …] [--out DIR]

FILE of `--outcomes` holds rows of MMLU-Pro: {prompt, options, category, src, answers: [{model, correct}]}. Questions
that a file of `--without` asks too are left out, so that it can measure what was fitted.

Two ridge regressions on signatures: of what subject a question is (one column for each source and category, the best
24 directions of what it foretells), and of its first 4 principal components over the models' outcomes (what they all
find hard comes first). `--without` compares the beginnings of questions, letter case and spaces aside.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capibara_agents.contrast import DIFFICULTY, SUBJECT, columns
from capibara_agents.embedder import DIMENSIONS, Embedder, Vector
from capibara_agents.evaluation.replay import score_of, signatures_of

Matrix = npt.NDArray[np.floating[Any]]

OUT = Path(__file__).parents[1] / "capibara_agents" / "head_data"
BEGINNING_CHARS = 60
# Of a source with fewer questions nothing is learned.
SEEN = 8
SUBJECT_PENALTY, DIFFICULTY_PENALTY = 300.0, 3000.0
SUBJECT_SOURCES = ("ori_mmlu", "stemez")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, required=True)
    parser.add_argument("--without", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    asked = {beginning(row["prompt"]) for file in arguments.without for row in read(file)}
    rows = [row for row in read(arguments.outcomes) if beginning(row["prompt"]) not in asked]
    embedder = Embedder()
    numbers = fit(rows, signatures_of(rows, embedder.embed_many))
    arguments.out.mkdir(exist_ok=True)
    np.savez_compressed(arguments.out / "contrast.npz", **numbers)
    told = {**provenance(rows), "embedder": embedder.version}
    (arguments.out / "CONTRAST.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(f"{len(rows)} rows, {numbers['weights'].size} weights -> {arguments.out}")


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def beginning(prompt: str) -> str:
    """What two askings of one question have in common, options left out."""
    return " ".join(prompt.split("\nA. ", maxsplit=1)[0].split()).lower()[:BEGINNING_CHARS]


def fit(rows: Sequence[dict[str, Any]], signatures: Vector) -> dict[str, Vector]:
    """The numbers that ship."""
    form = signatures[:, DIMENSIONS:]
    centre, scale = form.mean(0), np.maximum(form.std(0), 0.05)
    table = columns(signatures, centre, scale).astype(np.float64)
    # What a question is about is told by its meaning alone.
    meaning = table.copy()
    meaning[:, DIMENSIONS:] = 0
    subject, subject_offset = ridge(meaning, subjects(rows), SUBJECT_PENALTY)
    found = meaning @ subject + subject_offset
    turn = np.linalg.svd(found - found.mean(0), full_matrices=False)[2][:SUBJECT].T
    weights = np.hstack([subject @ turn, ridge(table, latents(rows), DIFFICULTY_PENALTY)[0]])
    values = table @ weights
    values -= values.mean(0)
    length = np.sqrt((values[:, :SUBJECT] ** 2).sum(1).mean())
    weights = weights / np.concatenate([np.full(SUBJECT, length), values[:, SUBJECT:].std(0) * DIFFICULTY**0.5])
    weights = weights.astype(np.float16).astype(np.float64)
    return {
        "centre": centre.astype(np.float32),
        "scale": scale.astype(np.float32),
        "weights": weights.astype(np.float16),
        "offset": -(table.mean(0) @ weights).astype(np.float32),
    }


def ridge(table: Matrix, wanted: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    """Weights and offset."""
    mean, aim = table.mean(0), wanted.mean(0)
    centred = table - mean
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(table.shape[1]), centred.T @ (wanted - aim))
    return weights, aim - mean @ weights


def subjects(rows: Sequence[dict[str, Any]]) -> Matrix:
    """A column for each source, and for each category, that occurs often enough; rare ones weigh as much as others."""
    labels = [
        (
            row["src"] if row["src"].startswith(SUBJECT_SOURCES) else f"{row['src'].split('-')[0]} {row['category']}",
            row["category"],
        )
        for row in rows
    ]
    seen = Counter(label for both in labels for label in both)
    names = [label for label, count in seen.items() if count >= SEEN]
    share = np.sqrt([seen[name] / len(rows) for name in names])
    return np.array([[float(name in both) for name in names] for both in labels]) / share


def latents(rows: Sequence[dict[str, Any]]) -> Matrix:
    """The first principal components of the models' outcomes; a missing answer counts as wrong."""
    models = sorted({answer["model"] for row in rows for answer in row["answers"]})
    scores = np.nan_to_num(np.array([[score_of(row, model) for model in models] for row in rows]))
    left, sizes, _ = np.linalg.svd(scores - scores.mean(0), full_matrices=False)
    components: Matrix = left[:, :DIFFICULTY] * sizes[:DIFFICULTY]
    return components


def provenance(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the numbers were made of, for the file beside them."""
    return {
        "what": "Two ridge regressions on signatures: subjects of questions; components of which models were right.",
        "command": "OPENBLAS_NUM_THREADS=1 python benchmarks/fit_contrast.py --outcomes mmlu_pro_preds.jsonl "
        "--without routellm/mmlu.jsonl",
        "rows": dict(sorted(Counter(row["src"].split("-")[0] for row in rows).items())),
        "models": sorted({answer["model"] for row in rows for answer in row["answers"]}),
        "source": "TIGER-AI-Lab/MMLU-Pro @f418b116, questions and eval_results",
        "licence": "Apache-2.0",
        "penalties": [SUBJECT_PENALTY, DIFFICULTY_PENALTY],
    }


if __name__ == "__main__":
    main()
