"""How fast each model is here, by thread count and flash attention: llama-bench of the same build, within a time.

One llama-bench process measures one setting (threads, flash attention), and is ended when its share of the time is
up; what it has said until then counts. All settings come with what they are chosen by first, and with the long prompts
afterwards. The setting on which a usual request takes least time becomes the measured profile.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from capibara_agents.config import child_environment
from capibara_agents.errors import EngineError
from capibara_agents.runtime.bandwidth import Bandwidth
from capibara_agents.runtime.cpu import CpuFacts
from capibara_agents.runtime.engine import Engine
from capibara_agents.runtime.exits import last_words
from capibara_agents.runtime.tuning import MeasuredModel, tuning_for
from capibara_agents.texts import phrase

# (prompt lengths, decoded tokens) of each round over all settings.
ROUNDS = (((32, 128, 512), 64), ((2048,), 0))
QUICK_ROUNDS = (((32, 128), 16),)
REPETITIONS, QUICK_REPETITIONS = 2, 1
FLASH = ("off", "on")
THREAD_STEPS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96)
# Settings beyond this many take longer than they tell.
MOST_THREAD_COUNTS = 5
# What a setting is chosen by: a question of this length and an answer of that.
USUAL_PROMPT, USUAL_ANSWER = 512, 128
END_GRACE_S = 5.0


@dataclass(frozen=True)
class Row:
    """One measurement. `prompt_tokens` 0: decoding. `spread` is the standard deviation of `tokens_per_s`."""

    threads: int
    flash_attention: str
    prompt_tokens: int
    tokens_per_s: float
    spread: float


@dataclass(frozen=True)
class Setting:
    """How a model is run."""

    threads: int
    flash_attention: str


@dataclass(frozen=True)
class Job:
    """What one llama-bench process measures: a row for each prompt length, and one for decoding unless 0."""

    setting: Setting
    prompts: tuple[int, ...]
    decoded: int
    repetitions: int

    @property
    def rows(self) -> int:
        return len(self.prompts) + (self.decoded > 0)


@dataclass(frozen=True)
class Report:
    """What came out for one model. `unfinished` are jobs for which the time did not last."""

    rows: tuple[Row, ...]
    unfinished: tuple[Job, ...]
    took_s: float


OnJob = Callable[[int, int, Job], None]


def thread_counts(cores: int, guess: int) -> tuple[int, ...]:
    """The counts worth trying on so many cores, at most MOST_THREAD_COUNTS, those nearest to the guess."""
    able = sorted({*(step for step in THREAD_STEPS if step < cores), cores, min(guess, cores)})
    nearest = sorted(able, key=lambda count: (abs(able.index(count) - able.index(min(guess, cores))), -count))
    return tuple(sorted(nearest[:MOST_THREAD_COUNTS]))


def plan(cpu: CpuFacts, weights_bytes: int, *, quick: bool = False) -> tuple[Job, ...]:
    """All jobs of one model. The profile's own setting comes first, then its neighbours, so that little time tells too.

    `quick`: its thread count alone, short prompts, once.
    """
    tuning = tuning_for(cpu, weights_bytes)
    guess = min(cpu.cores, tuning.threads or cpu.cores)
    counts = (guess,) if quick else thread_counts(cpu.cores, guess)
    flash = sorted(FLASH, key=lambda word: word != tuning.flash_attention)
    settings = [
        Setting(count, word) for count in sorted(counts, key=lambda count: abs(count - guess)) for word in flash
    ]
    rounds, repetitions = (QUICK_ROUNDS, QUICK_REPETITIONS) if quick else (ROUNDS, REPETITIONS)
    return tuple(Job(setting, prompts, decoded, repetitions) for prompts, decoded in rounds for setting in settings)


def run(engine: Engine, weights: Path, jobs: Sequence[Job], limit_s: float, on_job: OnJob | None = None) -> Report:
    """Measures one model for at most about `limit_s`. Raises EngineError where llama-bench is absent or fails."""
    bench = engine.tool("llama-bench")
    if bench is None:
        raise EngineError(phrase("engine.no_bench", binary=engine.binary))
    began, rows, unfinished = time.monotonic(), list[Row](), list[Job]()
    for number, job in enumerate(jobs):
        left_s = limit_s - (time.monotonic() - began)
        if left_s <= 0:
            unfinished.append(job)
            continue
        if on_job:
            on_job(number, len(jobs), job)
        # A slow job may use what the quick ones have left over, but not the time of those to come.
        share_s = left_s / (len(jobs) - number)
        found = list(_measure([*engine.prefix, str(bench)], weights, job, share_s))
        rows += found
        if len(found) < job.rows:
            unfinished.append(job)
    return Report(tuple(rows), tuple(unfinished), time.monotonic() - began)


def choose(rows: Sequence[Row], usual: tuple[int, int] = (USUAL_PROMPT, USUAL_ANSWER)) -> Setting | None:
    """The setting with the shortest time for a usual request; of equal ones that with fewer threads.

    The speed of the prompt is that of the longest measured one up to the usual length. None without a setting
    whose prompt and decoding were both measured.
    """
    best: tuple[float, int, str] | None = None
    for setting in {Setting(row.threads, row.flash_attention) for row in rows}:
        seconds = request_s(rows, setting, usual)
        key = (seconds, setting.threads, setting.flash_attention) if seconds is not None else None
        if key is not None and (best is None or key < best):
            best = key
    return Setting(best[1], best[2]) if best else None


def request_s(rows: Sequence[Row], setting: Setting, usual: tuple[int, int]) -> float | None:
    """Seconds for a request of (prompt, answer) tokens on this setting; None where it was not measured."""
    own = {
        row.prompt_tokens: row.tokens_per_s
        for row in rows
        if (row.threads, row.flash_attention) == (setting.threads, setting.flash_attention) and row.tokens_per_s > 0
    }
    lengths = [length for length in own if 0 < length <= usual[0]]
    # Every setting is judged by the same length, or a setting that was cut short would look quick.
    common = max((row.prompt_tokens for row in rows if row.prompt_tokens <= usual[0]), default=0)
    if 0 not in own or not lengths or max(lengths) != common:
        return None
    return usual[0] / own[common] + usual[1] / own[0]


def decode_limit(bandwidth: Bandwidth, token_bytes: int) -> float:
    """The most tokens a second that memory allows."""
    return bandwidth.bytes_per_s / token_bytes


def best_decode(rows: Sequence[Row]) -> float | None:
    """The fastest decoding that was measured, in tokens a second."""
    return max((row.tokens_per_s for row in rows if row.prompt_tokens == 0), default=None)


def measured_model(rows: Sequence[Row]) -> MeasuredModel | None:
    """The entry of the measured profile; None when too little was measured to choose."""
    best = choose(rows)
    return MeasuredModel(best.threads, best.flash_attention, [asdict(row) for row in rows]) if best else None


# ---------------------------------------------------------------- one llama-bench process


def bench_arguments(weights: Path, job: Job) -> list[str]:
    """What llama-bench is asked; it writes one JSON object a line as each length is done."""
    prompts, setting = ",".join(map(str, job.prompts)), job.setting
    asked = ["--model", str(weights), "--threads", str(setting.threads), "--flash-attn", setting.flash_attention]
    asked += ["--n-prompt", prompts, "--n-gen", str(job.decoded), "--repetitions", str(job.repetitions)]
    return [*asked, "--output", "jsonl"]


def read_row(line: str) -> Row | None:
    """One line of llama-bench's jsonl; None for anything else."""
    try:
        said = json.loads(line)
        return Row(
            threads=int(said["n_threads"]),
            flash_attention="on" if int(said["flash_attn"]) == 1 else "off",
            prompt_tokens=int(said["n_prompt"]),
            tokens_per_s=float(said["avg_ts"]),
            spread=float(said["stddev_ts"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _measure(command: list[str], weights: Path, job: Job, limit_s: float) -> Iterator[Row]:
    """The rows of one process as they come, until it ends or its time is up; it is gone afterwards."""
    try:
        process = subprocess.Popen(
            [*command, *bench_arguments(weights, job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment({}),
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise EngineError(phrase("engine.bench_not_run", binary=command[-1], error=error.strerror)) from error
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threads = [
        threading.Thread(target=_forward, args=(process.stdout, lines.put), daemon=True),
        threading.Thread(target=_forward, args=(process.stderr, lambda line: errors.append(line or "")), daemon=True),
    ]
    for thread in threads:
        thread.start()
    ends_at = time.monotonic() + limit_s
    try:
        while True:
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=max(0.0, ends_at - time.monotonic()))
                if line is None:
                    break
                if row := read_row(line):
                    yield row
                continue
            return
        code = process.wait(END_GRACE_S)
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            thread.join(END_GRACE_S)
    if code != 0:
        raise EngineError(
            phrase(
                "engine.bench_fails",
                binary=command[-1],
                file=weights.name,
                code=code,
                words=last_words("".join(errors)),
            )
        )


def _forward(stream: object, put: Callable[[str | None], object]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        put(line)
    put(None)
