"""How much is learned from recorded outcomes, on files of them: choosing between two models, among several, over time.

    .venv/bin/python benchmarks/learning.py --outcomes FILE --strong MODEL --weak MODEL [--labels N]
    .venv/bin/python benchmarks/learning.py --outcomes FILE --models A,B,C,… [--questions N] [--runs N]
    .venv/bin/python benchmarks/learning.py --speed

Rows are {id, prompt, options?, MODEL: bool, …} or {id, prompt, options?, answers: [{model, correct}]}. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from capibara_agents.embedder import Embedder
from capibara_agents.evaluation.learning import Stream, best_single, learn, offline, recovered
from capibara_agents.evaluation.replay import replay, score_of, signatures_of, split
from capibara_agents.evaluation.selection import select
from capibara_agents.expectations import Evidence, Fit
from capibara_agents.signature import SIGNATURE_SIZE


def main() -> None:
    """Print the figures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path)
    parser.add_argument("--strong")
    parser.add_argument("--weak")
    parser.add_argument("--models", type=lambda text: text.split(","))
    parser.add_argument("--labels", type=int)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--runs", type=int, default=1, help="of five folds each")
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args()
    if args.speed:
        print(json.dumps(speed(), indent=1))
        return
    with args.outcomes.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    found = two(rows, args) if args.strong else several(rows, args)
    print(json.dumps(found, indent=1))


def two(rows: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """APGR after `labels` labels a fold."""
    embed_many = Embedder().embed_many
    result = replay(rows, strong=args.strong, weak=args.weak, embed_many=embed_many, labels=args.labels)
    return result.model_dump(exclude={"curve"})


def several(rows: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Picking after all labels of the other folds; and learning in guarded batches of 50 questions."""
    embed_many = Embedder().embed_many
    result = select(rows, models=args.models, embed_many=embed_many, labels=args.labels)
    scores = np.array([[score_of(row, model) for model in args.models] for row in rows])
    signatures = signatures_of(rows, embed_many)
    online, full, refused, losses = [], [], 0, []
    for seed in range(args.runs):
        for train, test in split(len(rows), folds=5, labels=None, seed=seed):
            stream = Stream(signatures, scores, train, test)
            single = best_single(stream)
            full.append(offline(stream) - single)
            steps = learn(stream, questions=args.questions, seed=seed)
            online.append(steps[-1].accuracy - single)
            refused += sum(not step.applied for step in steps)
            losses += [step.loss for step in steps]
    learning = {
        "offline_gain": float(np.mean(full)),
        "online_gain": float(np.mean(online)),
        "recovered": recovered(online, full),
        "refused_updates": refused,
        "largest_loss": max(losses),
    }
    return {"picking": result.model_dump(), "learning": learning}


def speed(outcomes: int = 10_000, models: int = 5) -> dict[str, float]:
    """Milliseconds to ask, and seconds to fit, with random outcomes, one thread, in its processor time."""
    threadpool_limits(1)
    rng = np.random.default_rng(0)
    signatures = rng.normal(size=(outcomes, SIGNATURE_SIZE)).astype(np.float32)
    signatures[:, :512] /= np.linalg.norm(signatures[:, :512], axis=1, keepdims=True)
    scores = np.full((outcomes, models), np.nan)
    scores[np.arange(outcomes), rng.integers(0, models, outcomes)] = rng.random(outcomes) < 0.5
    started = time.thread_time()
    expectations = Fit.of(Evidence.complete([str(m) for m in range(models)], signatures, scores)).expectations()
    fit_s = time.thread_time() - started
    asked = []
    for signature in signatures[:3000]:
        started = time.thread_time()
        expectations.expect(signature)
        asked.append(1000 * (time.thread_time() - started))
    return {"fit_s": fit_s, "ask_ms_p50": float(np.median(asked)), "ask_ms_p99": float(np.percentile(asked, 99))}


if __name__ == "__main__":
    main()
