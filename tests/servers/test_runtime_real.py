"""The fleet with the real llama-server and the tiny fleet's weights."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from service_process import until

from capibara_agents.config import load
from capibara_agents.errors import EngineError, ModelUnavailable
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings
from capibara_agents.types import Endpoint, ServerState

pytestmark = pytest.mark.servers
MODEL = "phi-4-mini"


def settings(data_dir: Path, **keys: object) -> Settings:
    """The tiny fleet, in a data folder of the test; skips where its engine or its weights are absent."""
    found = load(flags={"fleet": "tiny", "runtime": {"data_dir": data_dir}, "models": {MODEL: keys}}).settings
    try:
        find_engine(found)
    except EngineError as error:
        pytest.skip(error.message)
    if absence := WeightStore(found.weights_dir).absence(found.spec(MODEL)):
        pytest.skip(absence)
    return found


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LlamaFleet]:
    with LlamaFleet(settings(tmp_path)) as running:
        yield running


async def chat(endpoint: Endpoint) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        response = await client.post(
            f"{endpoint.url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            json={"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "seed": 1},
        )
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


async def endless(endpoint: Endpoint) -> None:
    """An answer that does not end by itself within the test."""
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
        await client.post(
            f"{endpoint.url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            json={"messages": [{"role": "user", "content": "Count."}], "max_tokens": 3000, "ignore_eos": True},
        )


async def test_claim_loads_and_serves(fleet: LlamaFleet) -> None:
    """A claim on a cold fleet ends in real tokens; without the key the server refuses; closing leaves no process."""
    async with fleet.claim(MODEL, 60) as endpoint:
        assert await chat(endpoint)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{endpoint.url}/v1/models")).status_code == 401
    status = fleet.snapshot().get(MODEL)
    assert status.state is ServerState.ready
    assert status.stand_in
    assert status.pid
    assert any("listening" in line for line in fleet.logs(MODEL, 1000))
    await asyncio.to_thread(fleet.close)
    assert not psutil.pid_exists(status.pid)


async def test_kill_under_load_moves_on(fleet: LlamaFleet) -> None:
    """A server killed while it answers breaks that answer only; the next claim is served by a new process."""
    async with fleet.claim(MODEL, 60) as endpoint:
        answer = asyncio.create_task(endless(endpoint))
        await asyncio.to_thread(until, lambda: fleet.snapshot().get(MODEL).tokens_per_second, 60)
        os.kill(fleet.snapshot().get(MODEL).pid or 0, signal.SIGKILL)
        with pytest.raises(httpx.HTTPError):
            await answer
    async with fleet.claim(MODEL, 60) as endpoint:
        assert await chat(endpoint)
        assert endpoint.generation == 2


async def test_two_models_share_the_weights(fleet: LlamaFleet) -> None:
    """Two roles on one file run side by side in two processes."""

    async def ask(model_id: str) -> str:
        async with fleet.claim(model_id, 60) as endpoint:
            return await chat(endpoint)

    assert all(await asyncio.gather(ask(MODEL), ask("gpt-oss-20b")))
    pids = {fleet.snapshot().get(m).pid for m in (MODEL, "gpt-oss-20b")}
    assert len(pids) == 2
    await asyncio.wait_for(asyncio.wrap_future(fleet.unload(MODEL)), 20)
    assert fleet.snapshot().get(MODEL).state is ServerState.stopped


async def test_bad_flag_is_permanent(tmp_path: Path) -> None:
    """The real binary's refusal of a flag is recognised, once, with its own words."""
    with LlamaFleet(settings(tmp_path, extra_args=["--frobnicate"])) as fleet:
        with pytest.raises(ModelUnavailable, match="--frobnicate"):
            async with fleet.claim(MODEL, 60):
                pass
        assert fleet.snapshot().get(MODEL).permanent


async def test_truncated_file_is_permanent(tmp_path: Path) -> None:
    """A model file cut in its middle has a good header; llama-server's refusal is told as a bad file."""
    whole = settings(tmp_path)
    cut = tmp_path / "cut.gguf"
    with WeightStore(whole.weights_dir).path(whole.spec(MODEL).weights).open("rb") as stream:
        cut.write_bytes(stream.read(20 * 2**20))
    source = {"source": f"file://{cut}", "sha256": None, "size_bytes": cut.stat().st_size}
    overrides = {"fleet": "tiny", "runtime": {"data_dir": tmp_path}}
    loaded = load(flags=overrides).settings
    spec = loaded.spec(MODEL).model_copy(update={"weights": type(loaded.spec(MODEL).weights).model_validate(source)})
    with LlamaFleet(loaded.model_copy(update={"models": (spec,)})) as fleet:
        with pytest.raises(ModelUnavailable, match="cannot load the weights"):
            async with fleet.claim(MODEL, 60):
                pass
        assert fleet.snapshot().get(MODEL).permanent
