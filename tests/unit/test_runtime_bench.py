"""The bench: what is measured in which order, what is read, what is chosen, and that it ends."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

import pytest

from capibara_agents.errors import EngineError, WeightsError
from capibara_agents.runtime import bench
from capibara_agents.runtime.bandwidth import Bandwidth, bytes_per_token, read_bandwidth
from capibara_agents.runtime.bench import Job, Row, Setting, choose, plan, read_row, run, thread_counts
from capibara_agents.runtime.engine import Engine
from capibara_agents.runtime.gguf import tensor_bytes
from tests.unit.cpuinfo import facts

GIB = 2**30


@pytest.mark.parametrize(
    ("cores", "guess", "counts"),
    [
        (1, 1, (1,)),
        (2, 2, (1, 2)),
        (32, 16, (8, 12, 16, 24, 32)),
        (32, 32, (8, 12, 16, 24, 32)),
        (72, 72, (24, 32, 48, 64, 72)),
        (6, 16, (1, 2, 4, 6)),
    ],
)
def test_thread_counts(cores: int, guess: int, counts: tuple[int, ...]) -> None:
    """At most five around the profile's number, never beyond the cores, all cores among them where they are near."""
    assert thread_counts(cores, guess) == counts


def test_the_likeliest_setting_comes_first() -> None:
    """On a Neoverse V2 that is the profile's own: 16 threads, flash attention off; then its opposite, then others."""
    jobs = plan(facts("neoverse-v2"), GIB)
    assert [job.setting for job in jobs[:2]] == [Setting(16, "off"), Setting(16, "on")]
    assert len(jobs) == 20


def test_what_decides_is_measured_first() -> None:
    """Every setting is decoded before any gets to the long prompt; together they cover all lengths."""
    jobs = plan(facts("neoverse-v2"), GIB)
    assert all(job.decoded and 512 in job.prompts for job in jobs[:10])
    assert {length for job in jobs for length in job.prompts} == {32, 128, 512, 2048}


def test_a_quick_plan_is_short() -> None:
    """One thread count, short prompts, once."""
    quick = plan(facts("x86-64-v4", 2), GIB, quick=True)
    assert {job.setting.threads for job in quick} == {2}
    assert max(length for job in quick for length in job.prompts) <= 128
    assert {job.repetitions for job in quick} == {1}


def rows(*values: tuple[int, str, int, float]) -> list[Row]:
    return [Row(threads, flash, prompt, speed, 0.0) for threads, flash, prompt, speed in values]


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        (rows((8, "on", 512, 400), (8, "on", 0, 40), (8, "off", 512, 800), (8, "off", 0, 39)), Setting(8, "off")),
        (rows((8, "on", 512, 400), (8, "on", 0, 40), (16, "on", 512, 401), (16, "on", 0, 20)), Setting(8, "on")),
        (rows((8, "on", 512, 400), (8, "on", 0, 40), (16, "on", 512, 400), (16, "on", 0, 40)), Setting(8, "on")),
        (rows((8, "on", 512, 400), (8, "on", 0, 40), (16, "on", 128, 9000), (16, "on", 0, 90)), Setting(8, "on")),
        (rows((8, "on", 512, 400), (8, "on", 0, 40), (8, "on", 2048, 1), (4, "on", 512, 300)), Setting(8, "on")),
        (rows((8, "on", 512, 400)), None),
        ([], None),
    ],
    ids=["prefill decides", "decode decides", "fewer threads", "cut short", "undecoded", "no decode", "nothing"],
)
def test_choose(measured: list[Row], chosen: Setting | None) -> None:
    """The least time for 512 prompt and 128 answer tokens, among settings that were measured at the same lengths."""
    assert choose(measured) == chosen


def test_rows_of_llama_bench() -> None:
    """Its JSON lines are rows; anything else is not."""
    said = {"n_threads": 2, "flash_attn": 1, "n_prompt": 512, "n_gen": 0, "avg_ts": 99.5, "stddev_ts": 0.5}
    assert read_row(json.dumps(said)) == Row(2, "on", 512, 99.5, 0.5)
    assert read_row(json.dumps({**said, "flash_attn": 0, "n_prompt": 0})) == Row(2, "off", 0, 99.5, 0.5)
    assert [read_row(line) for line in ("", "warning: x", "{}", "[1]")] == [None] * 4


# ---------------------------------------------------------------- a process that stands in for llama-bench


def engine(tmp_path: Path, script: str) -> Engine:
    for name in ("llama-server", "llama-bench"):
        file = tmp_path / name
        file.write_text(f"#!{sys.executable}\nimport json, sys, time\n{script}\n")
        file.chmod(0o755)
    return Engine(tmp_path / "llama-server", "1", frozenset())


SPEAK = """
def value(name): return sys.argv[sys.argv.index(name) + 1]
for prompt in [*map(int, value("--n-prompt").split(",")), 0]:
    print(json.dumps({"n_threads": int(value("--threads")), "flash_attn": value("--flash-attn") == "on",
                      "n_prompt": prompt, "avg_ts": 10.0, "stddev_ts": 0.0}), flush=True)
"""
TODO = tuple(Job(Setting(1, flash), (32, 128), 8, 1) for flash in ("off", "on"))


def test_all_settings_are_measured(tmp_path: Path) -> None:
    """Every setting gives a row for each length and one for decoding, and is announced."""
    announced: list[tuple[int, int, Job]] = []
    report = run(engine(tmp_path, SPEAK), tmp_path / "m.gguf", TODO, 60, lambda *args: announced.append(args))
    assert [(row.flash_attention, row.prompt_tokens) for row in report.rows] == [
        (flash, prompt) for flash in ("off", "on") for prompt in (32, 128, 0)
    ]
    assert report.unfinished == ()
    assert announced == [(0, 2, TODO[0]), (1, 2, TODO[1])]


def test_a_slow_setting_is_ended(tmp_path: Path) -> None:
    """What it said before its time was up counts; the process is gone, and the rest is named as unfinished."""
    report = run(engine(tmp_path, SPEAK + "    time.sleep(600)"), tmp_path / "m.gguf", TODO, 3, None)
    assert [row.prompt_tokens for row in report.rows] == [32, 32]
    assert report.unfinished == TODO


def test_no_time_left(tmp_path: Path) -> None:
    """Without time nothing is started."""
    report = run(engine(tmp_path, "sys.exit(3)"), tmp_path / "m.gguf", TODO, 0.0)
    assert (report.rows, report.unfinished) == ((), TODO)


def test_a_failure_is_told(tmp_path: Path) -> None:
    """llama-bench's own words are in the error; its absence is one too."""
    broken = engine(tmp_path, "sys.stderr.write('error: failed to load model'); sys.exit(1)")
    with pytest.raises(EngineError, match="failed to load model"):
        run(broken, tmp_path / "m.gguf", TODO, 60)
    (tmp_path / "llama-bench").unlink()
    with pytest.raises(EngineError, match="no llama-bench"):
        run(broken, tmp_path / "m.gguf", TODO, 60)


# ---------------------------------------------------------------- the limit of decoding


def gguf_file(tmp_path: Path, tensors: dict[str, int], **numbers: int) -> Path:
    """A file with tensors of so many bytes and the architecture's numbers."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [text("general.architecture") + struct.pack("<I", 8) + text("toy")]
    keys += [text(f"toy.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    keys += [text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")]
    infos, begin = b"", 0
    for name, size in tensors.items():
        infos += text(name) + struct.pack("<IQQIQ", 2, 1, 1, 0, begin)
        begin += size
    file = tmp_path / "toy.gguf"
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + infos
    file.write_bytes(header + bytes(begin))
    return file


def test_sizes_of_tensors(tmp_path: Path) -> None:
    """Each ends where the next one begins; a file cut before its last one is refused."""
    file = gguf_file(tmp_path, {"a": 96, "b": 32, "c": 64})
    assert tensor_bytes(file) == {"a": 96, "b": 32, "c": 64}
    file.write_bytes(file.read_bytes()[:-70])
    with pytest.raises(WeightsError, match="not a whole"):
        tensor_bytes(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WeightsError, match="not a whole"):
        tensor_bytes(file)


def test_what_a_token_reads(tmp_path: Path) -> None:
    """The token table is read only where it is the output matrix as well; of experts only those that are used."""
    dense = {"token_embd.weight": 320, "blk.0.ffn_up.weight": 640}
    assert bytes_per_token(gguf_file(tmp_path, dense)) == 960
    assert bytes_per_token(gguf_file(tmp_path, {**dense, "output.weight": 320})) == 960
    mixture = {"token_embd.weight": 320, "output.weight": 320, "blk.0.ffn_up_exps.weight": 6400}
    numbers = {"expert_count": 32, "expert_used_count": 4}
    assert bytes_per_token(gguf_file(tmp_path, mixture, **numbers)) == 320 + 800


def test_limit_and_best() -> None:
    """A hundred GB/s and a GB a token are a hundred tokens/s; the best decoding is that of any setting."""
    assert bench.decode_limit(Bandwidth(100e9, 2, 1, 1), 10**9) == pytest.approx(100)
    assert bench.best_decode(rows((1, "on", 0, 5), (2, "on", 0, 7), (2, "on", 32, 90))) == 7
    assert bench.best_decode([]) is None


def test_bandwidth_is_measured() -> None:
    """It reads what it says it reads, in about the time that takes, and no faster than memory could be."""
    began = time.monotonic()
    measured = read_bandwidth(2, quick=True)
    assert measured.threads == 2
    assert measured.bytes_each >= 2**20
    assert measured.bytes_per_s < 4e12
    total_bytes = measured.threads * measured.bytes_each * measured.rounds
    assert measured.bytes_per_s >= total_bytes / measured.rounds / (time.monotonic() - began)
