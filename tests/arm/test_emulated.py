"""llama-server for aarch64 as on four CPUs: what it says of itself, what it computes, and how it fails.

The emulator's `max` has SVE2 at any vector length, so that what stands for a Neoverse V1 (256 bit) has SVE2 as well,
which a real one has not: there the library `armv8.6_1` is chosen in place of `armv8.6_2`. The kernel for Q4_0
depends on the vector length and on i8mm, which are those of the real one.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import httpx
import pytest

from capibara_agents.config import load
from capibara_agents.errors import EngineError, ModelUnavailable
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.runtime.kernels import Kernels, ask_build, check_model, missing_kernels, read_kernels
from capibara_agents.runtime.weights import LocalFiles
from capibara_agents.settings import ModelSpec, Settings
from tests.arm.conftest import MODEL, Arm
from tests.unit.cpuinfo import facts

pytestmark = pytest.mark.timeout(900)

V2 = "max,sve-default-vector-length=16,sme=off"
V1 = "max,sve-default-vector-length=32,sme=off"
N1, A53 = "neoverse-n1", "cortex-a53"
# What an emulated token may take on a machine that does other work as well.
CLAIM_S, ANSWER_S = 600, 600
QUESTIONS = ("The capital of France is", "¿Cuánto es 12*7?", "def add(a, b):")
NATS = 0.5

# (the emulator's CPU, the recorded CPU it stands for, the library that must be chosen, the vector length in bytes)
CPUS = [
    pytest.param(V2, "neoverse-v2", "armv8.6_2", 16, id="v2"),
    pytest.param(V1, "neoverse-v1", "armv8.6_2", 32, id="v1"),
    pytest.param(N1, "neoverse-n1", "armv8.2_2", None, id="n1"),
    pytest.param(A53, "armv8-0", "armv8.0_1", None, id="a53"),
]


def settings(arm: Arm, data_dir: Path, binary: Path | None, cpu: str | None) -> Settings:
    """One model, the requantised stand-in, on that binary and that CPU; None: this machine's own."""
    weights = {"source": f"file://{arm.weights}", "sha256": None, "size_bytes": arm.weights.stat().st_size}
    runtime = {"data_dir": data_dir, "llama_server": binary}
    loaded = load(flags={"fleet": "tiny", "runtime": runtime}, environ={}).settings
    whole = loaded.spec(MODEL).model_dump()
    changed = {
        **whole,
        "weights": weights,
        "command_prefix": arm.prefix(cpu) if cpu else (),
        "context_tokens": 512,
        "slots": 1,
        "threads": 1,
        "load_timeout_s": 600,
        "extra_args": ("--verbosity", "4", "--no-warmup"),
    }
    return loaded.model_copy(update={"models": (ModelSpec.model_validate(changed),)})


async def first_tokens(fleet: LlamaFleet) -> list[dict[str, float]]:
    """The likeliest first tokens of the answer to each question, and their log-probabilities."""
    found = []
    async with fleet.claim(MODEL, CLAIM_S) as endpoint, httpx.AsyncClient(trust_env=False, timeout=ANSWER_S) as client:
        for question in QUESTIONS:
            response = await client.post(
                f"{endpoint.url}/v1/chat/completions",
                headers={"Authorization": f"Bearer {endpoint.api_key}"},
                json={
                    "messages": [{"role": "user", "content": question}],
                    "max_tokens": 1,
                    "temperature": 0,
                    "logprobs": True,
                    "top_logprobs": 10,
                },
            )
            assert response.status_code == 200, response.text
            tops = response.json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found.append({top["token"]: top["logprob"] for top in tops})
    return found


@pytest.fixture(scope="module")
def native(arm: Arm, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The same weights on this machine's own engine."""
    with LlamaFleet(settings(arm, tmp_path_factory.mktemp("native"), None, None)) as fleet:
        return asyncio.run(first_tokens(fleet))


def agree(emulated: list[dict[str, float]], native: list[dict[str, float]]) -> None:
    """What is likeliest on either side is likely on the other too, and equally so within NATS.

    Which of two near ones is the likeliest may differ, and with it a whole greedy text.
    """
    assert len(emulated) == len(native) == len(QUESTIONS)
    for ours, theirs in zip(emulated, native, strict=True):
        likely = {max(side, key=side.__getitem__) for side in (ours, theirs)} | set(list(theirs)[:3])
        assert likely <= ours.keys() & theirs.keys(), (ours, theirs)
        for token in likely:
            assert math.isclose(ours[token], theirs[token], abs_tol=NATS), (token, ours[token], theirs[token])


def has_fast_kernels(kernels: Kernels, vector_bytes: int | None) -> None:
    """The weights lie where the kernels for rearranged ones find them."""
    assert kernels.rearranged.get("CPU_REPACK", 0) > 50 * 2**20
    assert kernels.features.get("SVE_CNT") == vector_bytes
    assert kernels.features["DOTPROD"] == 1


@pytest.mark.parametrize(("cpu", "family", "variant", "vector_bytes"), CPUS)
async def test_all_variants_build(
    arm: Arm,
    native: list[dict[str, float]],
    tmp_path: Path,
    cpu: str,
    family: str,
    variant: str,
    vector_bytes: int | None,
) -> None:
    """Each CPU gets its own library and kernels, seen in the log of a server of the fleet, and the right answer."""
    with LlamaFleet(settings(arm, tmp_path, arm.variants, cpu)) as fleet:
        emulated = await first_tokens(fleet)
        kernels = read_kernels("\n".join(fleet.logs(MODEL, 2000)))
    assert kernels.variant == variant
    assert missing_kernels(facts(family), kernels) == ()
    if family == "armv8-0":
        assert kernels.rearranged == {}
        assert "DOTPROD" not in kernels.features
    else:
        has_fast_kernels(kernels, vector_bytes)
    assert kernels.features.get("MATMUL_INT8", 0) == (1 if family in ("neoverse-v2", "neoverse-v1") else 0)
    agree(emulated, native)


@pytest.mark.parametrize(("cpu", "family", "variant", "vector_bytes"), CPUS)
def test_engine_check(arm: Arm, tmp_path: Path, cpu: str, family: str, variant: str, vector_bytes: int | None) -> None:
    """What `capibara engine check` finds: a good build, and a model that is on the kernels its CPU has, or has none."""
    chosen = settings(arm, tmp_path, arm.variants, cpu)
    engine, there = find_engine(chosen), facts(family, 1)
    assert ask_build(engine).variant == variant
    result = check_model(chosen.models[0], LocalFiles(arm.weights), engine, there, tmp_path / "check.log")
    assert result.good
    assert result.expected == (() if family == "armv8-0" else ("q4_0",))
    assert (result.rearranged_share > 0.5) == (family != "armv8-0")
    assert result.kernels.features.get("SVE_CNT") == vector_bytes


def test_an_old_build_is_not_good_on_a_new_cpu(arm: Arm, tmp_path: Path) -> None:
    """What is chosen for a Cortex-A53 lacks dotprod and i8mm on a Neoverse V2, and dotprod on an N1."""
    old = ask_build(find_engine(settings(arm, tmp_path, arm.variants, A53)))
    assert missing_kernels(facts("neoverse-v2"), old) == ("DOTPROD", "MATMUL_INT8")
    assert missing_kernels(facts("neoverse-n1"), old) == ("DOTPROD",)


async def test_single_architecture_build(arm: Arm, native: list[dict[str, float]], tmp_path: Path) -> None:
    """The static binary for one architecture runs as on a V2, with no library chosen and the same kernels."""
    with LlamaFleet(settings(arm, tmp_path, arm.single, V2)) as fleet:
        emulated = await first_tokens(fleet)
        kernels = read_kernels("\n".join(fleet.logs(MODEL, 2000)))
    assert kernels.variant is None
    assert kernels.features["MATMUL_INT8"] == 1
    has_fast_kernels(kernels, 16)
    agree(emulated, native)


@pytest.mark.parametrize("cpu", [N1, A53])
def test_an_older_cpu_is_noticed_before_anything_starts(arm: Arm, tmp_path: Path, cpu: str) -> None:
    """Asked for its flags or its kernels, the single-architecture binary dies, and that is said in one sentence."""
    with pytest.raises(EngineError, match="another CPU"):
        ask_build(find_engine(settings(arm, tmp_path, arm.single, cpu)))


@pytest.mark.parametrize("cpu", [N1, A53])
async def test_sigill_is_permanent(arm: Arm, tmp_path: Path, cpu: str) -> None:
    """A server that dies of an illegal instruction while it runs in the fleet is never started again."""
    # The engine is asked as the first model runs it, on a CPU that it fits; the second model has one of its own.
    fitting = settings(arm, tmp_path, arm.single, V2)
    foreign = fitting.models[0].model_copy(update={"id": "foreign", "command_prefix": arm.prefix(cpu), "aliases": ()})
    with LlamaFleet(fitting.model_copy(update={"models": (*fitting.models, foreign)})) as fleet:
        with pytest.raises(ModelUnavailable, match="another CPU"):
            async with fleet.claim("foreign", CLAIM_S):
                pass
        status = fleet.snapshot().get("foreign")
        assert status.permanent
        assert status.restarts == 1
        assert "illegal instruction" in (status.error or "")
