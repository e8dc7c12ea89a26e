"""`capibara engine` with the real llama-server and llama-bench of this machine."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
from runtime_models import SHAPES, write
from service_process import run_capibara

from capibara_agents.config import load
from capibara_agents.runtime.weights import WeightStore

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("real_servers")]


@pytest.fixture(scope="module")
def stand_in() -> Path:
    """The weights of the fleet `tiny`."""
    settings = load(flags={"fleet": "tiny"}, environ={}).settings
    return WeightStore(settings.weights_dir).path(settings.models[0].weights)


@pytest.fixture(scope="module")
def rearranged(tmp_path_factory: pytest.TempPathFactory, stand_in: Path) -> Path:
    """The same in Q4_0, which every CPU with AVX2 or dotprod rearranges."""
    folder = tmp_path_factory.mktemp("rearranged")
    shown = json.loads(run_capibara("engine", "show", "--fleet", "tiny", "--json", cwd=folder).stdout)
    quantize = Path(shown["engine"]["binary"]).with_name("llama-quantize")
    if not quantize.exists():
        pytest.skip("no llama-quantize beside llama-server")
    target = folder / "q4_0.gguf"
    asked = [quantize, "--allow-requantize", stand_in, target, "Q4_0"]
    subprocess.run(asked, check=True, capture_output=True, timeout=120)
    return target


def configured(folder: Path, weights: Path) -> Path:
    """A configuration in which two models have these weights."""
    config = folder / "capibara.json"
    config.write_text(
        json.dumps(
            {
                "fleet": "tiny",
                "runtime": {"data_dir": str(folder / "data")},
                "models": {
                    "phi-4-mini": {"weights": {"source": f"file://{weights}"}},
                    "gpt-oss-20b": {"weights": {"source": f"file://{weights}"}, "extra_args": ["--no-repack"]},
                },
            }
        )
    )
    return config


@pytest.fixture
def q4_0(tmp_path: Path, rearranged: Path) -> Path:
    return configured(tmp_path, rearranged)


@pytest.fixture
def small(tmp_path: Path, stand_in: Path) -> Path:
    """With weights of two layers: as many settings are measured, each in little time."""
    shape = dataclasses.replace(SHAPES["mistral"], layers=2)
    return configured(tmp_path, write(tmp_path / "small.gguf", shape, stand_in))


def test_a_native_build_is_good(q4_0: Path) -> None:
    """The build made for this machine lacks nothing, and Q4_0 weights lie where its kernels find them."""
    done = run_capibara("engine", "check", "phi-4-mini", "--config", str(q4_0), "--json", cwd=q4_0.parent)
    said = json.loads(done.stdout)
    assert (done.returncode, said["good"], said["build"]["missing"]) == (0, True, [])
    (model,) = said["models"]
    if not model["expected"]:
        pytest.skip(f"this CPU ({said['cpu']['family']}) has no kernel for rearranged Q4_0")
    assert model["buffers"]["CPU_REPACK"] > 50 * 2**20
    assert 0.5 < model["rearranged_share"] < 0.8


def test_slow_kernels_are_refused(q4_0: Path) -> None:
    """A model kept off the kernels that its CPU has is named in one sentence, with exit status 1."""
    done = run_capibara("engine", "check", "gpt-oss-20b", "--config", str(q4_0), cwd=q4_0.parent)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "gpt-oss-20b" in done.stderr
    assert "--no-repack" in done.stderr


def test_the_bench_measures_and_writes(small: Path) -> None:
    """A bounded run gives rows and a ratio to the memory's limit; what it wrote is what `show` then uses."""
    where = {"cwd": small.parent}
    done = run_capibara("engine", "bench", "phi-4-mini", "--config", str(small), "--minutes", "1", "--json", **where)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (model,) = said["models"]
    assert {row["flash_attention"] for row in model["rows"]} <= {"on", "off"}
    assert all(row["tokens_per_s"] > 0 for row in model["rows"])
    if model["chosen"] is None:
        pytest.skip("this machine is too busy for a minute of measuring to tell anything")
    assert model["ratio"] > 0
    assert Path(said["written"]).is_relative_to(small.parent / "data")
    shown = json.loads(run_capibara("engine", "show", "--config", str(small), "--json", **where).stdout)
    row = next(row for row in shown["models"] if row["id"] == "phi-4-mini")
    assert row["flash_attention"] == model["chosen"]["flash_attention"]
    assert row["from"]["flash_attention"] == "measured"
    assert row["from"]["threads"] == "model"


def test_a_quick_bench_writes_nothing(small: Path) -> None:
    """One setting measured once is no profile."""
    done = run_capibara(
        "engine", "bench", "--config", str(small), "--quick", "--minutes", "0.5", "--json", cwd=small.parent
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["written"] is None
    assert len(said["models"]) == 1
    assert not (small.parent / "data" / "measured.json").exists()
