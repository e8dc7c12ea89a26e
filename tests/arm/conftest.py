"""ARM without an ARM machine: the cross-compiled llama-server under an emulator, driven by this very runtime.

`make test-arm` builds what is needed and sets CAPIBARA_TEST_ARM; without it everything here is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from capibara_agents.config import load
from capibara_agents.errors import EngineError
from capibara_agents.runtime.engine import Engine, find_engine
from capibara_agents.runtime.weights import WeightStore

ROOT = Path(__file__).parents[2]
WANTED = "CAPIBARA_TEST_ARM"
EMULATOR = "qemu-aarch64-static"
# Where Debian's cross compiler keeps the libraries of an aarch64 system.
SYSROOT = "/usr/aarch64-linux-gnu"
MODEL = "phi-4-mini"


@dataclass(frozen=True)
class Arm:
    """The two builds, and the stand-in's weights in the format that has kernels everywhere."""

    single: Path
    variants: Path
    weights: Path

    def prefix(self, cpu: str) -> tuple[str, ...]:
        """What runs a binary as on that CPU of the emulator."""
        return (EMULATOR, "-L", SYSROOT, "-cpu", cpu)


def _folders() -> dict[str, Path]:
    """Where deploy/arm-build.sh keeps its results."""
    done = subprocess.run([ROOT / "deploy/arm-build.sh", "where"], capture_output=True, text=True, check=True)
    return {name: Path(folder) for name, _, folder in (line.partition(" ") for line in done.stdout.splitlines())}


def _native() -> tuple[Engine, Path]:
    """The engine of this machine and the weights of `tiny`; skips where one is absent."""
    settings = load(flags={"fleet": "tiny"}, environ={}).settings
    store, spec = WeightStore(settings.weights_dir), settings.spec(MODEL)
    try:
        engine = find_engine(settings)
    except EngineError as error:
        pytest.skip(error.message)
    if absence := store.absence(spec):
        pytest.skip(absence)
    return engine, store.path(spec.weights)


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Arm:
    """Skips, with the reason, whatever is not here."""
    if not os.environ.get(WANTED):
        pytest.skip("emulated ARM takes minutes and a cross compiler: run `make test-arm`")
    if not shutil.which(EMULATOR):
        pytest.skip(f"no {EMULATOR}; on Debian: apt-get install qemu-user-static")
    folders = _folders()
    for name, folder in folders.items():
        if not (folder / "done").is_file():
            pytest.skip(f"no aarch64 build `{name}` yet: run deploy/arm-build.sh")
    engine, weights = _native()
    quantize = engine.tool("llama-quantize")
    if quantize is None:
        pytest.skip(f"no llama-quantize beside {engine.binary}")
    # The stand-in comes as Q4_1, for which no CPU has kernels with rearranged weights.
    q4_0 = tmp_path_factory.mktemp("weights") / "stand-in-q4_0.gguf"
    subprocess.run(
        [quantize, "--allow-requantize", weights, q4_0, "Q4_0"], check=True, capture_output=True, timeout=120
    )
    return Arm(folders["single"] / "bin/llama-server", folders["variants"] / "bin/llama-server", q4_0)
