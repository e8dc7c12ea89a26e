"""Fit the head of the classifier anew and write its numbers and their provenance.

    OPENBLAS_NUM_THREADS=1 python benchmarks/fit_head.py --data DIR [--dry-run]

DIR holds `train.jsonl`, lines of {prompt, language, domain, source}. Only rows of the sources in PERMISSIVE are read;
all exemplars of the package are fitted with them, the sentences of `head_sentences.jsonl` (our own too, so plain that
they are of little use as neighbours), and the instructions of `head_frames.txt` put around exemplars. Every row is
also fitted with one typing error. `--dry-run` fits without each source in turn and tells how well the head alone does
on the source left out; nothing is written.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capibara_agents.classify import DOMAINS
from capibara_agents.embedder import Embedder
from capibara_agents.evaluation.perturbation import typo
from capibara_agents.exemplars import content_version, shipped_exemplars
from capibara_agents.features import SURFACE, Features, domain_evidence, structure, surface
from capibara_agents.head import columns

Matrix = npt.NDArray[np.float32]

OUT = Path(__file__).parents[1] / "capibara_agents" / "head_data"
# Source -> licence and the family that is left out together. LogiQA (non-commercial) and sources whose texts belong
# to their authors (XSum, NQ-open, NarrativeQA, the translation set) are not fitted on.
PERMISSIVE = {
    "chatterbot_corpus": ("BSD-3-Clause", "chatterbot"),
    "chatterbot_corpus_coding": ("BSD-3-Clause", "chatterbot"),
    "cruxeval": ("MIT", "cruxeval"),
    "defog_sql_eval": ("Apache-2.0", "defog"),
    "gsm8k": ("MIT", "gsm8k"),
    "humaneval": ("MIT", "humaneval"),
    "humaneval_xl": ("Apache-2.0", "humaneval"),
    "humaneval_xl_description": ("Apache-2.0", "humaneval"),
    "math_level5": ("MIT", "math"),
    "truthfulqa_multi": ("Apache-2.0", "truthfulqa"),
}
OWN = "own exemplars"
MORE = "own sentences"
SENTENCES_FILE = Path(__file__).with_name("head_sentences.jsonl")
FRAMED = "own frames"
FRAMES = Path(__file__).with_name("head_frames.txt")
FILLINGS = 8
FRAME_WEIGHT = 0.4
# So many sentences stand in a text that is to be shortened, and in one that is to be translated or corrected.
SENTENCES = {"summarization": (2, 6), "translation": (1, 2), "other": (1, 1)}
SEED = 0
PENALTY = 1e-3
STEPS = 200
# A source in one domain and language weighs as much as so many exemplars, however many rows it has.
SOURCE_WEIGHT = 200.0
TYPO_WEIGHT = 0.5


@dataclass(frozen=True)
class Row:
    """A labelled text and what it counts in the fit."""

    text: str
    domain: str
    weight: float
    family: str


def rows_of(data: Path) -> list[Row]:
    """All rows to fit on: exemplars, balanced public rows, and each of them once more with a typing error."""
    lines = (json.loads(line) for line in (data / "train.jsonl").read_text(encoding="utf-8").splitlines())
    public = [line for line in lines if line["source"] in PERMISSIVE and line["domain"] in DOMAINS]
    sizes = Counter((line["source"], line["domain"], line["language"]) for line in public)
    rows = [Row(exemplar.content, exemplar.domain, 1.0, OWN) for exemplar in shipped_exemplars()]
    for line in SENTENCES_FILE.read_text(encoding="utf-8").splitlines():
        sentence = json.loads(line)
        rows.append(Row(sentence["content"], sentence["domain"], 1.0, MORE))
    for line in public:
        weight = min(1.0, SOURCE_WEIGHT / sizes[line["source"], line["domain"], line["language"]])
        rows.append(Row(line["prompt"], line["domain"], weight, PERMISSIVE[line["source"]][1]))
    chance = random.Random(SEED)
    rows += framed(chance)
    return rows + [Row(typo(row.text, chance), row.domain, TYPO_WEIGHT * row.weight, row.family) for row in rows]


def framed(chance: random.Random) -> list[Row]:
    """Instructions around exemplars of any domain: what is asked is the instruction's, not the text's."""
    texts = {language: [e.content for e in shipped_exemplars() if e.language == language] for language in ("es", "en")}
    rows = []
    for line in FRAMES.read_text(encoding="utf-8").splitlines():
        domain, language, frame = line.split("|", 2)
        for _ in range(FILLINGS):
            filling = " ".join(chance.sample(texts[language], chance.randint(*SENTENCES[domain])))
            rows.append(Row(frame.replace("\\n", "\n").replace("{}", filling), domain, FRAME_WEIGHT, FRAMED))
    return rows


def matrix_of(rows: list[Row]) -> tuple[Matrix, Matrix, Matrix]:
    """Columns (n, COLUMNS), one-hot domains (n, 12) and weights (n,) that sum to 1."""
    vectors = []
    for row in rows:
        features = Features(
            evidence=domain_evidence(row.text),
            structure=structure(row.text),
            surface=surface(row.text),
            prompt_tokens=0,
        )
        vectors.append(columns(EMBEDDER.embed(row.text), features))
    wanted = np.eye(len(DOMAINS), dtype=np.float32)[[DOMAINS.index(row.domain) for row in rows]]
    weights = np.array([row.weight for row in rows], dtype=np.float32)
    return np.stack(vectors), wanted, weights / weights.sum()


def fit(table: Matrix, wanted: Matrix, weights: Matrix) -> Matrix:
    """Weighted multinomial logistic regression with an L2 penalty on all but the constant, by Nesterov's method.

    Accelerated gradient descent with restarts: O'Donoghue and Candes, Found. Comput. Math. 15 (2015).
    """
    penalty = np.full((table.shape[1], 1), PENALTY, dtype=np.float32)
    penalty[-1] = 1e-6
    step = 1 / (0.5 * _largest_eigenvalue(table, weights) * 1.05 + PENALTY)
    at = np.zeros((table.shape[1], wanted.shape[1]), dtype=np.float32)
    ahead, speed = at.copy(), 1.0
    for _ in range(STEPS):
        slope = table.T @ (weights[:, None] * (probabilities(table, ahead) - wanted)) + penalty * ahead
        following = ahead - step * slope
        if float(((ahead - following) * (following - at)).sum()) > 0:
            speed = 1.0
        faster = (1 + (1 + 4 * speed * speed) ** 0.5) / 2
        ahead = following + np.float32((speed - 1) / faster) * (following - at)
        at, speed = following, faster
    return at


def probabilities(table: Matrix, weights: Matrix) -> Matrix:
    """Shape (n, 12), rows summing to 1."""
    odds = table @ weights
    powers = np.exp(odds - odds.max(axis=1, keepdims=True))
    shares: Matrix = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _largest_eigenvalue(table: Matrix, weights: Matrix) -> float:
    direction = np.random.default_rng(SEED).normal(size=table.shape[1]).astype(np.float32)
    size = 1.0
    for _ in range(30):
        direction = table.T @ (weights * (table @ direction))
        size = float(np.linalg.norm(direction))
        direction /= size
    return size


def left_out(rows: list[Row], table: Matrix, wanted: Matrix, weights: Matrix) -> None:
    """Print, for each family of sources, the accuracy of a head fitted without it."""
    families = np.array([row.family for row in rows])
    for family in sorted(set(families) - {OWN, MORE, FRAMED}):
        out = families == family
        fitted = fit(table[~out], wanted[~out], weights[~out] / weights[~out].sum())
        right = probabilities(table[out], fitted).argmax(axis=1) == wanted[out].argmax(axis=1)
        print(f"{family:12} {out.sum():6} rows  {100 * right.mean():6.2f} %")


def provenance(rows: list[Row]) -> dict[str, object]:
    """What the numbers were made of, for the file beside them."""
    half = rows[: len(rows) // 2]
    return {
        "what": "Multinomial logistic regression: sentence vector, word evidence and surface of a question -> domain.",
        "command": "OPENBLAS_NUM_THREADS=1 python benchmarks/fit_head.py --data DIR",
        "exemplars_version": content_version(shipped_exemplars(), EMBEDDER.version),
        "rows": dict(sorted(Counter(row.family for row in half).items())),
        "typing_errors": f"every row once more with one typing error, at {TYPO_WEIGHT} of its weight",
        "licences": {source: licence for source, (licence, _) in PERMISSIVE.items()},
        "embedder": EMBEDDER.version,
        "seed": SEED,
        "penalty": PENALTY,
        "steps": STEPS,
        "source_weight": SOURCE_WEIGHT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl")
    parser.add_argument("--dry-run", action="store_true", help="leave each source out in turn; write nothing")
    arguments = parser.parse_args()
    rows = rows_of(arguments.data)
    table, wanted, weights = matrix_of(rows)
    if arguments.dry_run:
        left_out(rows, table, wanted, weights)
        return
    fitted = fit(table, wanted, weights)
    OUT.mkdir(exist_ok=True)
    np.savez_compressed(
        OUT / "head.npz", weights=fitted.astype(np.float16), domains=np.array(DOMAINS), surface=np.array(SURFACE)
    )
    (OUT / "PROVENANCE.json").write_text(json.dumps(provenance(rows), indent=2) + "\n", encoding="utf-8")
    print(f"{len(rows)} rows, {fitted.size} weights -> {OUT}")


EMBEDDER = Embedder()

if __name__ == "__main__":
    main()
