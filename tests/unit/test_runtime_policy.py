"""The machine room's pure decisions, as tables: restarts, eviction, exits, memory, arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from capibara_agents.runtime.cores import Lease
from capibara_agents.runtime.cpu import CpuFacts, features_of
from capibara_agents.runtime.engine import flags_of, version_of
from capibara_agents.runtime.exits import classify_exit
from capibara_agents.runtime.gguf import Gguf
from capibara_agents.runtime.memory import GIB, default_budget_bytes, predict
from capibara_agents.runtime.policy import (
    Resident,
    choose_victims,
    load_limit_s,
    restart_delay_s,
    retry_after_s,
)
from capibara_agents.runtime.profiles import build_command, threads_for
from capibara_agents.settings import ModelSpec


def spec(**keys: Any) -> ModelSpec:
    base = {"id": "m", "tier": "general", "weights": {"source": "file:///m.gguf"}, "max_tokens": 9, "timeout_s": 9}
    return ModelSpec.model_validate({**base, **keys})


@pytest.mark.parametrize(
    ("failures", "delay_s"), [(0, 0), (1, 0), (2, 10), (3, 20), (4, 40), (6, 160), (7, 300), (5000, 300)]
)
def test_restart_delay(failures: int, delay_s: float) -> None:
    """At once after the first failure, then 10 s doubled each time, five minutes at most."""
    assert restart_delay_s(failures) == delay_s


A = Resident("a", 4, idle=True, idle_s=100)
B = Resident("b", 2, idle=True, idle_s=10)
C = Resident("c", 8, idle=True, idle_s=1)


@pytest.mark.parametrize(
    ("residents", "needed", "free", "victims"),
    [
        ([A, B, C], 3, 3, ()),
        ([A, B, C], 3, 0, ("a",)),
        ([A, B, C], 6, 0, ("a", "b")),
        ([A, B, C], 12, 0, ("a", "c")),
        ([A, B], 7, 0, None),
        ([], 1, 0, None),
        ([Resident("x", 9, idle=False)], 1, 0, None),
        ([Resident("x", 9, idle=True, pinned=True)], 1, 0, None),
        ([Resident("slow", 4, True, idle_s=50, reload_s=60), Resident("quick", 4, True, idle_s=10)], 4, 0, ("quick",)),
        ([Resident("leaving", 0, idle=True)], 1, 0, None),
    ],
    ids=[
        "fits", "longest unused", "two", "only the needed", "not enough", "nobody",
        "loading or claimed", "pinned", "cheapest to reload", "holds nothing",
    ],
)  # fmt: skip
def test_choose_victims(residents: list[Resident], needed: int, free: int, victims: tuple[str, ...] | None) -> None:
    """Only idle and unpinned models go, the cheapest to lose first, and no more of them than needed."""
    assert choose_victims(residents, needed, free) == victims


@pytest.mark.parametrize(
    ("code", "log", "was_ready", "kind", "permanent"),
    [
        (1, "error: invalid argument: --frobnicate", False, "bad_flag", True),
        (1, "E error loading model: data is not within the file bounds\nfailed to load", False, "bad_file", True),
        (1, "E failed to allocate buffer for kv cache\nfailed to load model", False, "memory", False),
        (1, "E start: couldn't bind HTTP server socket", False, "port", False),
        (-4, "", False, "illegal_instruction", True),
        (132, "", False, "illegal_instruction", True),
        (-9, "", False, "crash", False),
        (-9, "failed to load model", True, "crash", False),
        (-6, "GGML_ASSERT(x) failed", True, "crash", False),
        (3, "", False, "crash", False),
    ],
)  # fmt: skip
def test_classify_exit(code: int, log: str, was_ready: bool, kind: str, permanent: bool) -> None:
    """A bad flag, a bad file and a foreign CPU are permanent; everything else may be tried again."""
    end = classify_exit("m", code, log, was_ready=was_ready)
    assert (end.kind, end.permanent) == (kind, permanent)
    assert "m" in end.sentence


def test_exit_of_a_serving_process_quotes_no_request() -> None:
    """What llama-server logs about requests may hold prompt text: only its own collapse is quoted."""
    log = "I srv parse error near 'my secret'\nE srv operator: got exception: my secret\nGGML_ASSERT(n > 0) failed"
    sentence = classify_exit("m", -6, log, was_ready=True).sentence
    assert "GGML_ASSERT" in sentence
    assert "secret" not in sentence


def test_retry_after_follows_progress() -> None:
    """A quarter done in ten seconds leaves thirty; without progress the usual length is the guess."""
    assert retry_after_s(10, 0.25, 500) == 30
    assert retry_after_s(2, None, 12) == 10
    assert retry_after_s(99, None, 12) == 1
    assert load_limit_s(100, 10 * GIB) == 500


def test_budget_leaves_a_reserve() -> None:
    """A tenth of a large machine, two GiB of a small one, half of a tiny one stay free."""
    assert default_budget_bytes(100 * GIB) == 90 * GIB
    assert default_budget_bytes(8 * GIB) == 6 * GIB
    assert default_budget_bytes(2 * GIB) == GIB


GEMMA = Gguf(
    16_546_404_736,
    1,
    {
        "general.architecture": "gemma3",
        "gemma3.block_count": 62,
        "gemma3.embedding_length": 5376,
        "gemma3.feed_forward_length": 21504,
        "gemma3.attention.head_count": 32,
        "gemma3.attention.head_count_kv": 16,
        "gemma3.attention.key_length": 128,
        "gemma3.attention.value_length": 128,
        "gemma3.attention.sliding_window": 1024,
    },
)


def test_sliding_windows_keep_the_cache_small() -> None:
    """Ten of Gemma's 62 layers keep the whole context, the others their window: 6 GB, not 33."""
    need = predict(spec(context_tokens=65536, flash_attention="on"), GEMMA)
    assert 5.5e9 < need.cache_bytes < 6.5e9
    halved = predict(spec(context_tokens=65536, cache_type_k="q8_0", cache_type_v="q8_0"), GEMMA)
    assert halved.cache_bytes == pytest.approx(need.cache_bytes * 8.5 / 16, rel=0.01)


def test_scores_are_counted_without_flash_attention() -> None:
    """Flash attention off keeps the scores of a micro-batch against the whole context: 4.3 GB here."""
    off = predict(spec(context_tokens=65536, flash_attention="off"), GEMMA)
    on = predict(spec(context_tokens=65536, flash_attention="on"), GEMMA)
    assert off.compute_bytes - on.compute_bytes == 32 * 65536 * 512 * 4


@pytest.mark.parametrize(
    ("threads", "cores", "weights_gib", "expected"),
    [(3, 2, 1, 2), (3, 8, 1, 3), (None, 2, 1, 2), (None, 48, 1, 16), (None, 48, 8, 32), (None, 48, 17, 48)],
)
def test_threads(threads: int | None, cores: int, weights_gib: int, expected: int) -> None:
    """The model's own number wins, otherwise as many as its size can use; never more than the cores."""
    cpu = CpuFacts("aarch64", cores, frozenset())
    assert threads_for(spec(threads=threads), cpu, weights_gib * GIB) == expected


def arguments(flags: set[str], *, crowded: bool = False, **keys: Any) -> tuple[list[str], dict[str, str]]:
    command = build_command(
        spec(**keys),
        binary=Path("/bin/llama-server"),
        flags=frozenset(flags),
        lease=Lease(2),
        model_file=Path("/m.gguf"),
        mmproj_file=None,
        api_key="secret",
        crowded=crowded,
    )
    return list(command.arguments), command.environment


def value_of(flag: str, given: list[str]) -> str:
    return given[given.index(flag) + 1]


def test_context_is_multiplied_by_the_slots() -> None:
    """The context of the model is that of one slot; llama-server divides its own among them."""
    given, _ = arguments(set(), context_tokens=1000, slots=3)
    assert value_of("--ctx-size", given) == "3000"
    assert value_of("--parallel", given) == "3"


def test_flags_are_used_only_when_known() -> None:
    """A flag that --help does not define is left out; the default prompt cache of 8 GiB is bounded where it is."""
    assert "--cache-ram" not in arguments(set())[0]
    assert value_of("--cache-ram", arguments({"--cache-ram"})[0]) == "256"


def test_key_stays_out_of_the_arguments_and_the_representation() -> None:
    """Other users of the machine can read a process's arguments, and logs what is printed."""
    given, environment = arguments({"--api-key"})
    assert "secret" not in " ".join(given)
    assert environment["LLAMA_API_KEY"] == "secret"


def test_prefix_comes_first_and_extra_arguments_last() -> None:
    """A command_prefix wraps the binary; extra_args can overrule everything."""
    given, _ = arguments({"--cache-ram"}, command_prefix=["taskset", "-c", "0"], extra_args=["--cache-ram", "0"])
    assert given[:4] == ["taskset", "-c", "0", "/bin/llama-server"]
    assert given[-2:] == ["--cache-ram", "0"]


def test_crowded_fleets_wait_passively() -> None:
    """Idle threads sleep where busy ones may exceed the cores."""
    assert arguments(set(), crowded=True)[1]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in arguments(set())[1]


def test_flags_of_help() -> None:
    """Flags that are defined count, in all their names; those that are only mentioned do not."""
    text = (
        "----- common params -----\n"
        "-m,    --model FNAME                    the file, see --other\n"
        "-kvu,  --kv-unified, -no-kvu, --no-kv-unified\n"
        "                                        use --hidden\n"
        "-fa,   --flash-attn [on|off|auto]       set it\n"
        "--metrics                               on\n"
    )
    expected = {
        "-m",
        "--model",
        "-kvu",
        "--kv-unified",
        "-no-kvu",
        "--no-kv-unified",
        "-fa",
        "--flash-attn",
        "--metrics",
    }
    assert flags_of(text) == expected  # fmt: skip
    assert version_of("noise\nversion: 0.5.0-dev (build 1)\nbuilt") == "0.5.0-dev (build 1)"


def test_cpu_features() -> None:
    """The same reader takes x86's flags and ARM's Features."""
    assert "avx2" in features_of("processor : 0\nflags\t\t: fpu avx2\n")
    assert "i8mm" in features_of("Features\t: fp asimd i8mm\n")
    assert features_of("") == frozenset()
