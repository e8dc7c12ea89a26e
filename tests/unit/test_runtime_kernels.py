"""Which kernels a log proves, and what a build must have on which CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from capibara_agents.errors import EngineError
from capibara_agents.runtime.engine import Engine, machine_of
from capibara_agents.runtime.exits import Exit
from capibara_agents.runtime.kernels import (
    Kernels,
    ModelCheck,
    ask_build,
    expected_formats,
    missing_kernels,
    read_kernels,
)
from tests.unit.cpuinfo import facts

MIB = 2**20
STAMP = "0.00.007.103 I cmn  common_param: "
ARM_LOG = (
    "load_backend: loaded CPU backend from /opt/engine/libggml-cpu-armv8.6_2.so\n"
    f"{STAMP}system_info: n_threads = 16 (n_threads_batch = 16) / 32 | CPU : NEON = 1 | ARM_FMA = 1 | FP16_VA = 1 | "
    "MATMUL_INT8 = 1 | SVE = 1 | DOTPROD = 1 | SVE_CNT = 16 | OPENMP = 1 | REPACK = 1 | \n"
    "0.00.469.555 I llama_model_loader: - type  f32:   61 tensors\n"
    "0.00.469.555 I llama_model_loader: - type q4_0:  210 tensors\n"
    "0.00.469.555 I llama_model_loader: - type q8_0:    1 tensors\n"
    "0.00.469.687 I load_tensors:          CPU model buffer size =    28.50 MiB\n"
    "0.00.469.757 I load_tensors:   CPU_REPACK model buffer size =    57.00 MiB\n"
    "0.00.664.785 I llama_kv_cache:        CPU KV buffer size =    11.25 MiB\n"
)
X86_LOG = f"{STAMP}system_info: n_threads = 1 / 2 | CPU : SSE3 = 1 | AVX2 = 1 | F16C = 1 | REPACK = 1 | \n"


def test_an_arm_log() -> None:
    """The chosen library, the build's features, the formats, and where the weights lie; no other buffer counts."""
    kernels = read_kernels(ARM_LOG)
    assert kernels.variant == "armv8.6_2"
    assert kernels.features["MATMUL_INT8"] == 1
    assert kernels.features["SVE_CNT"] == 16
    assert kernels.buffers == {"CPU": 28.5 * MIB, "CPU_REPACK": 57 * MIB}
    assert kernels.rearranged == {"CPU_REPACK": 57 * MIB}
    assert (kernels.main_format, kernels.quantised) == ("q4_0", {"q4_0": 210, "q8_0": 1})


def test_an_x86_log_without_a_model() -> None:
    """A build for one CPU names no variant; without a model there are no buffers."""
    kernels = read_kernels(X86_LOG)
    assert kernels == Kernels(features={"SSE3": 1, "AVX2": 1, "F16C": 1, "REPACK": 1})
    assert kernels.main_format is None


@pytest.mark.parametrize("log", ["", "nothing of interest\n", "system_info: n_threads = 1 | CUDA : X = 1 |"])
def test_a_log_that_says_nothing(log: str) -> None:
    """What is not said is empty, never guessed."""
    assert read_kernels(log) == Kernels()


def test_kleidiai_counts_as_rearranged() -> None:
    """An operator's build with KleidiAI proves it by a buffer of its own."""
    log = ARM_LOG.replace("CPU_REPACK", "CPU_KLEIDIAI")
    assert list(read_kernels(log).rearranged) == ["CPU_KLEIDIAI"]


@pytest.mark.parametrize(
    ("family", "features", "missing"),
    [
        ("neoverse-v2", {"DOTPROD": 1, "MATMUL_INT8": 1}, ()),
        ("neoverse-v2", {"DOTPROD": 1}, ("MATMUL_INT8",)),
        ("neoverse-v2", {"NEON": 1}, ("DOTPROD", "MATMUL_INT8")),
        ("neoverse-v1", {"DOTPROD": 1, "MATMUL_INT8": 0}, ("MATMUL_INT8",)),
        ("neoverse-n1", {"DOTPROD": 1}, ()),
        ("armv8-2", {"NEON": 1}, ("DOTPROD",)),
        ("armv8-0", {"NEON": 1}, ()),
        ("x86-64-v4", {"AVX2": 1, "AVX512": 1, "AVX512_VNNI": 1}, ()),
        ("x86-64-v4", {"AVX2": 1}, ("AVX512", "AVX512_VNNI")),
        ("x86-64-v3", {"AVX2": 1}, ("AVX_VNNI",)),
        ("x86-64-v3", {"SSE3": 1, "AVX_VNNI": 1}, ("AVX2",)),
        ("generic", {"SSE3": 1}, ()),
    ],
)
def test_missing_kernels(family: str, features: dict[str, int], missing: tuple[str, ...]) -> None:
    """A build lacks what the CPU can and it cannot; what the CPU cannot is not asked for."""
    assert missing_kernels(facts(family), Kernels(features=features)) == missing


@pytest.mark.parametrize(
    ("family", "tensors", "expected"),
    [
        ("neoverse-v2", {"f32": 61, "q4_0": 210, "q8_0": 1}, ("q4_0",)),
        ("neoverse-v2", {"f32": 61, "q4_1": 210, "q8_0": 1}, ()),
        ("neoverse-v2", {"f32": 60, "q4_K": 110, "q6_K": 60}, ("q4_K", "q6_K")),
        ("x86-64-v4", {"f32": 60, "q4_K": 110, "q6_K": 60}, ("q4_K",)),
        ("x86-64-v4", {"f32": 60, "q6_K": 110}, ()),
        ("armv8-0", {"f32": 61, "q4_0": 210}, ()),
        ("neoverse-v2", {"f32": 61, "f16": 210}, ()),
    ],
)
def test_expected_formats(family: str, tensors: dict[str, int], expected: tuple[str, ...]) -> None:
    """The formats of most of a model that this CPU has kernels for; one odd matrix does not make a promise."""
    assert expected_formats(facts(family), Kernels(tensors=tensors), 2**30) == expected


def test_a_model_is_good_when_it_keeps_the_promise() -> None:
    """What could be rearranged was; what could not need not; what did not load is not good."""
    used, plain = read_kernels(ARM_LOG), Kernels(buffers={"CPU_Mapped": MIB}, tensors={"q4_0": 210})
    assert ModelCheck(used, ("q4_0",)).good
    assert not ModelCheck(plain, ("q4_0",)).good
    assert ModelCheck(plain).good
    assert not ModelCheck(used, ("q4_0",), exit=Exit("bad_file", 1, "It cannot be read.")).good
    assert ModelCheck(used, weights_bytes=114 * MIB).rearranged_share == pytest.approx(0.5)


# ---------------------------------------------------------------- asking a binary


def engine(tmp_path: Path, script: str, *prefix: str) -> Engine:
    file = tmp_path / "llama-server"
    file.write_text(f"#!{sys.executable}\nimport os, signal, sys\n{script}\n")
    file.chmod(0o755)
    return Engine(file, "1", frozenset(), prefix)


def test_a_build_is_asked_without_a_model(tmp_path: Path) -> None:
    """It prints what it is, then fails for want of a file: that is an answer."""
    built = ask_build(engine(tmp_path, f"sys.stderr.write({X86_LOG!r}); sys.exit(1)"))
    assert built.features["AVX2"] == 1


def test_an_emulator_stands_before_the_binary(tmp_path: Path) -> None:
    """The prefix of a foreign binary is used for asking too."""
    script = "sys.stderr.write('system_info: | CPU : NEON = 1 |' if os.environ.get('EMULATED') else '')"
    assert ask_build(engine(tmp_path, script, "/usr/bin/env", "EMULATED=1")).features == {"NEON": 1}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGILL)", "another CPU"),
        ("sys.stderr.write('error: unknown'); sys.exit(1)", "error: unknown"),
    ],
)
def test_a_build_that_says_nothing(tmp_path: Path, script: str, told: str) -> None:
    """One that dies, or keeps silent about its kernels, is an error with the reason."""
    with pytest.raises(EngineError, match=told):
        ask_build(engine(tmp_path, script))


@pytest.mark.parametrize(("number", "machine"), [(62, "x86_64"), (183, "aarch64"), (9, None)])
def test_machine_of_a_binary(tmp_path: Path, number: int, machine: str | None) -> None:
    """The header of an ELF file names its machine; a script has none."""
    file = tmp_path / "binary"
    file.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + number.to_bytes(2, "little"))
    assert machine_of(file) == machine
    file.write_text("#!/bin/sh\nexec true with many words\n")
    assert machine_of(file) is None
    file.write_bytes(b"")
    assert machine_of(file) is None
