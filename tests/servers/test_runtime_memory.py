"""Predicted memory against what the real llama-server holds, on random weights in the shapes of the five."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from runtime_models import SHAPES, write

from capibara_agents.config import load
from capibara_agents.errors import EngineError
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.runtime.gguf import read_gguf
from capibara_agents.runtime.memory import predict, resident_bytes
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings

pytestmark = pytest.mark.servers
# Nearly the whole context: only then are caches and compute buffers really held.
PROMPT = "number " * 900
TOLERANCE = 0.10


@pytest.fixture
def stand_in() -> Path:
    """The stand-in's file; skips where it or the engine is absent."""
    tiny = load(flags={"fleet": "tiny"}).settings
    store, spec = WeightStore(tiny.weights_dir), tiny.models[0]
    try:
        find_engine(tiny)
    except EngineError as error:
        pytest.skip(error.message)
    if absence := store.absence(spec):
        pytest.skip(absence)
    return store.path(spec.weights)


@pytest.mark.parametrize("flash_attention", ["auto", "off"])
@pytest.mark.parametrize("name", ["stand-in", *SHAPES])
async def test_prediction_is_within_a_tenth(name: str, flash_attention: str, stand_in: Path, tmp_path: Path) -> None:
    """What was predicted before the start and what is held after a full micro-batch differ by 10 % at most."""
    file = stand_in if name == "stand-in" else write(tmp_path / "m.gguf", SHAPES[name], stand_in)
    spec = {
        "id": "m", "tier": "general", "max_tokens": 9, "timeout_s": 120, "slots": 2, "context_tokens": 1024,
        "weights": {"source": f"file://{file}"}, "flash_attention": flash_attention,
        # The cache of finished prompts fills with use, up to its bound: it is left out on both sides.
        "extra_args": ["--cache-ram", "0"],
    }  # fmt: skip
    runtime = {"data_dir": tmp_path / "data", "weights_dir": tmp_path / "weights"}
    settings = Settings.model_validate({"models": [spec], "runtime": runtime})
    predicted = predict(settings.models[0], read_gguf(file)).total_bytes
    with LlamaFleet(settings) as fleet:
        async with fleet.claim("m", 120) as endpoint, httpx.AsyncClient(trust_env=False, timeout=120) as client:
            headers = {"Authorization": f"Bearer {endpoint.api_key}"}
            asked = [{"prompt": f"{slot} {PROMPT}", "n_predict": 2, "id_slot": slot} for slot in (0, 1)]
            for body in asked:
                answer = await client.post(f"{endpoint.url}/completion", json=body, headers=headers)
                assert answer.status_code == 200, answer.text
            held = resident_bytes(fleet.snapshot().get("m").pid or 0)
    assert held
    print(f"{name} {flash_attention}: predicted {predicted / 1e6:.0f} MB, held {held / 1e6:.0f} MB")
    assert predicted == pytest.approx(held, rel=TOLERANCE)
