"""Which kernels a build of llama.cpp has, and which of them a loaded model really uses: read from its own log.

`system_info` says what was compiled in; with one library for each CPU generation, the `load_backend` line says which
was chosen. Neither proves that a model runs on the fast kernels: only the buffers do in which its weights lie. Those
that were rearranged for a kernel lie in `CPU_REPACK` or `CPU_KLEIDIAI`, all others in `CPU` or `CPU_Mapped`.
All of these lines are printed at --verbosity 4 only.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from capibara_agents.config import child_environment
from capibara_agents.errors import EngineError
from capibara_agents.runtime.cores import Lease
from capibara_agents.runtime.cpu import CpuFacts
from capibara_agents.runtime.engine import Engine
from capibara_agents.runtime.exits import Exit, classify_exit, last_words
from capibara_agents.runtime.profiles import build_command
from capibara_agents.runtime.server import Server
from capibara_agents.runtime.tuning import tuning_for
from capibara_agents.runtime.weights import LocalFiles
from capibara_agents.settings import ModelSpec
from capibara_agents.texts import phrase
from capibara_agents.types import ServerState

MIB = 2**20
VERBOSITY = ("--verbosity", "4")
ASK_TIMEOUT_S = 60.0
# Enough to load and to be read; a probe needs no room for answers.
PROBE_CONTEXT_TOKENS = 512
REARRANGED_BUFFERS = ("CPU_REPACK", "CPU_KLEIDIAI", "AMX")

# (the CPU's word for a feature, the build's name for its kernels): without these a build is not good on such a CPU.
NEEDED = {
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
}
# The short form of VNNI matters where the CPU has not the long one.
NEEDED_WITHOUT_AVX512 = {"avx_vnni": "AVX_VNNI"}
# Formats that llama.cpp keeps beside quantised ones: never rearranged, and nothing is missing.
UNQUANTISED = frozenset({"f32", "f16", "bf16"})

_VARIANT = re.compile(r"load_backend: loaded CPU backend from \S*?libggml-cpu-?([\w.]*?)\.so")
_SYSTEM_INFO = re.compile(r"system_info: .*?\| CPU : (.*)")
_FEATURE = re.compile(r"(\w+) = (\d+)")
_BUFFER = re.compile(r"load_tensors:\s+(\S+) model buffer size =\s+([\d.]+) MiB")
_TENSORS = re.compile(r"llama_model_loader: - type\s+(\w+):\s+(\d+) tensors")


@dataclass(frozen=True)
class Kernels:
    """What one log says. `features`: the build's own names and values (`SVE_CNT` is the vector length in bytes).

    `variant` is the library that was chosen for this CPU, None in a build for one CPU. `buffers` are bytes of weights
    by where they lie, `tensors` counts by format; both are empty before a model is loaded.
    """

    features: Mapping[str, int] = field(default_factory=dict)
    variant: str | None = None
    buffers: Mapping[str, int] = field(default_factory=dict)
    tensors: Mapping[str, int] = field(default_factory=dict)

    @property
    def rearranged(self) -> dict[str, int]:
        """The buffers whose weights were rearranged for a kernel."""
        return {name: size for name, size in self.buffers.items() if name in REARRANGED_BUFFERS}

    @property
    def quantised(self) -> dict[str, int]:
        """The counts of the tensors that are quantised at all."""
        return {name: count for name, count in self.tensors.items() if name.lower() not in UNQUANTISED}

    @property
    def main_format(self) -> str | None:
        """The format of most quantised tensors; None where there is none."""
        return max(self.quantised, key=self.quantised.__getitem__, default=None)


@dataclass(frozen=True)
class ModelCheck:
    """What one model's short start showed. `exit` is set where it did not become ready."""

    kernels: Kernels
    expected: tuple[str, ...] = ()
    """The formats of its tensors that this CPU has kernels for rearranged weights for."""
    able: tuple[str, ...] = ()
    """All formats that this CPU has such kernels for."""
    weights_bytes: int = 0
    exit: Exit | None = None

    @property
    def rearranged_share(self) -> float:
        """Of the bytes of the file, those that were rearranged for a kernel."""
        return sum(self.kernels.rearranged.values()) / self.weights_bytes if self.weights_bytes else 0.0

    @property
    def good(self) -> bool:
        """It loads, and what this CPU can rearrange was rearranged."""
        return self.exit is None and (not self.expected or bool(self.kernels.rearranged))


def read_kernels(log: str) -> Kernels:
    """What a log of llama-server at --verbosity 4 says; empty fields where it says nothing."""
    variant = _VARIANT.search(log)
    info = _SYSTEM_INFO.search(log)
    # A model is loaded once for measuring before it is loaded in earnest: the last line of each kind counts.
    return Kernels(
        features={name: int(value) for name, value in _FEATURE.findall(info[1])} if info else {},
        variant=(variant[1] or None) if variant else None,
        buffers={name: round(float(mib) * MIB) for name, mib in _BUFFER.findall(log)},
        tensors={name: int(count) for name, count in _TENSORS.findall(log)},
    )


def missing_kernels(cpu: CpuFacts, kernels: Kernels) -> tuple[str, ...]:
    """What this CPU can and this build cannot, by the build's names; empty for a good build."""
    needed = NEEDED if "avx512f" in cpu.features else NEEDED | NEEDED_WITHOUT_AVX512
    return tuple(name for word, name in needed.items() if word in cpu.features and not kernels.features.get(name))


def expected_formats(cpu: CpuFacts, kernels: Kernels, weights_bytes: int) -> tuple[str, ...]:
    """The formats among the model's tensors that llama.cpp rearranges on this CPU.

    Only those of most of the tensors that are quantised at all: a single output matrix of another format is often
    left as it is.
    """
    able = {name.lower() for name in tuning_for(cpu, weights_bytes).repacked}
    most = max(kernels.quantised.values(), default=0)
    return tuple(sorted(n for n, count in kernels.quantised.items() if n.lower() in able and 2 * count >= most))


def ask_build(engine: Engine) -> Kernels:
    """The build's kernels, from a start without a model. Raises EngineError when it says nothing about them."""
    # It prints what it is before it finds that there is no such file.
    arguments = [*engine.prefix, str(engine.binary), "--model", "/nonexistent.gguf", "--port", "0", *VERBOSITY]
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_TIMEOUT_S,
            env=child_environment({}),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(phrase("engine.no_kernels_error", binary=engine.binary, error=error)) from error
    log = (done.stdout + done.stderr).decode("utf-8", errors="replace")
    kernels = read_kernels(log)
    if not kernels.features:
        end = classify_exit("no model", done.returncode, log, was_ready=False)
        if end.permanent and end.kind == "illegal_instruction":
            raise EngineError(phrase("engine.other_cpu", binary=engine.binary))
        raise EngineError(phrase("engine.no_kernels", binary=engine.binary, words=last_words(log)))
    return kernels


def check_model(spec: ModelSpec, files: LocalFiles, engine: Engine, cpu: CpuFacts, log_file: Path) -> ModelCheck:
    """Starts the model's server for as long as it takes to load, with little context, and reads its log.

    Blocks; the server is gone when it returns.
    """
    brief = spec.model_copy(
        update={
            "context_tokens": PROBE_CONTEXT_TOKENS,
            "slots": 1,
            "extra_args": (*spec.extra_args, *VERBOSITY, *(("--no-warmup",) if "--no-warmup" in engine.flags else ())),
        }
    )
    command = build_command(
        brief,
        binary=engine.binary,
        flags=engine.flags,
        lease=Lease(min(cpu.cores, spec.threads or cpu.cores)),
        model_file=files.weights,
        mmproj_file=None,
        api_key="",
        crowded=True,
    )
    weights_bytes = files.weights.stat().st_size

    async def start() -> Exit:
        async with httpx.AsyncClient(trust_env=False) as http:

            def changed() -> None:
                if server.state is ServerState.ready:
                    server.stop()

            server = Server(
                command,
                log_file,
                http=http,
                on_change=changed,
                load_timeout_s=spec.load_timeout_s,
                weights_bytes=weights_bytes,
            )
            return await server.run()

    end = asyncio.run(start())
    kernels = read_kernels(log_file.read_text(encoding="utf-8", errors="replace"))
    expected = expected_formats(cpu, kernels, weights_bytes)
    return ModelCheck(
        kernels, expected, tuning_for(cpu, weights_bytes).repacked, weights_bytes, None if end.kind == "asked" else end
    )
