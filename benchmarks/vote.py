"""Capibara's own time for a vote of five candidates of 500 tokens, from candidates to ballot; no model is asked.

    .venv/bin/python benchmarks/vote.py [--rounds 100] [--json]

number, option  the answer is read from each text, equal ones are gathered, learned weights decide (aim 5 ms, p50)
prose           free text: a bounded part of each is embedded, and the one in their middle wins (aim 100 ms)
code            five programs are run side by side in the sandbox against a test, then counted (aim 130 ms)

Candidates are 380 words (about 500 tokens) of their own in each round, so that nothing is found in a cache; weights
come from 400 made-up votes of the same five voters. Processor time, which other work on the machine changes less, is
that of Capibara's own process; the sandbox's processes are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from capibara_agents.embedder import Embedder
from capibara_agents.types import AnswerKind, Candidate, Canonical, Domain, Timings
from capibara_agents.verify.behaviour import trial
from capibara_agents.verify.sandbox import available, run
from capibara_agents.vote import Matter, Round, VoteWeights, count, learn, tally_of

VOTERS = ("phi-4-mini", "qwen2.5-coder-1.5b", "mistral-7b-instruct-v0.2", "gemma-3-27b-it", "gpt-oss-20b")
LENGTH_WORDS = 380
VOCABULARY = tuple(
    word
    for line in (
        "the a first second then because value total number each group of per week cost price rate sum half twice from",
        "to in with so we have need find given note that this means area length time speed hour day left right more",
    )
    for word in line.split()
)
QUESTIONS: dict[str, tuple[str, Domain]] = {
    "number": ("A shop sells 84 apples a day at 3 for 2 euros. How much does it take in 12 days?", "math"),
    "option": ("Which is a noble gas?\nA. Nitrogen\nB. Oxygen\nC. Argon\nD. Chlorine\nE. Carbon", "factual_qa"),
    "prose": ("Write about a capybara that crosses a river at night.", "creative_writing"),
    "code": ("Write a Python function add(a, b) that returns the sum of two numbers.", "coding"),
}
TESTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"


def filler(draw: random.Random, words: int = LENGTH_WORDS) -> str:
    """Sentences of no meaning, with a number now and then."""
    said = [draw.choice(VOCABULARY) if draw.random() < 0.93 else str(draw.randrange(500)) for _ in range(words)]
    return ". ".join(" ".join(said[i : i + 14]) for i in range(0, words, 14))


def content(kind: str, draw: random.Random) -> str:
    """One candidate's text."""
    match kind:
        case "number":
            return f"{filler(draw)}. So the answer is {draw.choice((672, 672, 670, 84))} euros."
        case "option":
            return f"{filler(draw)}. So the correct answer is ({draw.choice('CCDE')})."
        case "code":
            comment = "\n".join(f"    # {line}" for line in filler(draw, LENGTH_WORDS - 20).split(". "))
            return f"```python\ndef add(a, b):\n{comment}\n    return a {draw.choice('++-')} b\n```"
        case _:
            return filler(draw)


def candidates(kind: str, draw: random.Random) -> list[Candidate]:
    """Five of them."""
    return [Candidate(model=v, content=content(kind, draw), timings=Timings(wait_ms=0, total_ms=1)) for v in VOTERS]


def weights() -> VoteWeights:
    """What 400 made-up votes teach."""
    draw = random.Random(1)
    rounds = []
    for _ in range(400):
        said = {v: str(0 if draw.random() < 0.5 + 0.08 * k else draw.randrange(1, 4)) for k, v in enumerate(VOTERS)}
        answers = {v: Canonical(kind=AnswerKind.number, value=value, confidence=1.0) for v, value in said.items()}
        tally = tally_of(answers, domain="math")
        rounds.append(Round(tally=tally, right=tuple(said[c.voters[0]] == "0" for c in tally.clusters)))
    return learn(rounds, VOTERS)


def voting(kind: str, learned: VoteWeights, embedder: Embedder) -> Callable[[Sequence[Candidate]], object]:
    """What is timed."""
    question, domain = QUESTIONS[kind]
    matter = Matter(question=question, domain=domain)
    pool = ThreadPoolExecutor(len(VOTERS))

    def vote(five: Sequence[Candidate]) -> object:
        def similarity() -> list[list[float]]:
            vectors = embedder.embed_many([c.content for c in five])
            return [[float(x) for x in row] for row in vectors @ vectors.T]

        if kind == "code":
            programs = [trial(c.content, question, TESTS) for c in five]
            list(pool.map(run, [program for program in programs if program]))
        return count(five, matter=matter, method="weighted", weights={}, similarity=similarity, learned=learned)

    return vote


def measure(kind: str, rounds: int, learned: VoteWeights, embedder: Embedder) -> dict[str, float]:
    """Milliseconds of one vote."""
    draw = random.Random(kind)
    vote = voting(kind, learned, embedder)
    vote(candidates(kind, draw))
    took: list[float] = []
    used: list[float] = []
    for _ in range(rounds):
        five = candidates(kind, draw)
        began, worked = time.perf_counter(), time.process_time()
        vote(five)
        took.append(1000 * (time.perf_counter() - began))
        used.append(1000 * (time.process_time() - worked))
    return {
        "p50 ms": round(statistics.median(took), 2),
        "p95 ms": round(statistics.quantiles(took, n=20)[-1], 2),
        "processor time p50 ms": round(statistics.median(used), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    learned, embedder = weights(), Embedder()
    able, why = available()
    kinds = [kind for kind in QUESTIONS if kind != "code" or able]
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": sys.version.split()[0],
        "load": round(os.getloadavg()[0], 1),
        **{kind: measure(kind, options.rounds, learned, embedder) for kind in kinds},
        **({} if able else {"code": f"nothing can be run here: {why}"}),
    }
    print(json.dumps(report, indent=None if options.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
