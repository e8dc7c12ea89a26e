"""Fleets of doubles in a temporary folder: what the tests of the machine room share."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.runtime.gguf import read_gguf
from capibara_agents.runtime.memory import predict
from capibara_agents.settings import Settings
from capibara_agents.types import Endpoint

DOUBLE = Path(__file__).with_name("runtime_double.py")
WAIT_S = 20.0


def write_gguf(file: Path) -> Path:
    """A file whose header is all there is."""
    key, value = b"general.architecture", b"llama"
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    file.write_bytes(header + struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value)
    return file


class Room:
    """Settings for fleets of doubles in one temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts_file = folder / "starts"
        self.weights = write_gguf(folder / "model.gguf")
        self.binary = folder / "llama-server"
        self.binary.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {DOUBLE} "$@"\n')
        self.binary.chmod(0o755)

    def spec(self, model_id: str, *knobs: str, **keys: Any) -> dict[str, Any]:
        keys = {"slots": 2, "extra_args": ["--double-log", str(self.starts_file), *knobs], **keys}
        source = {"source": f"file://{self.weights}"}
        return {"id": model_id, "tier": "general", "max_tokens": 9, "timeout_s": 9, "weights": source, **keys}

    def settings(self, *specs: dict[str, Any], **runtime: Any) -> Settings:
        runtime = {"data_dir": self.folder / "data", "weights_dir": self.folder / "w", **runtime}
        return Settings.model_validate({"models": specs, "runtime": {"llama_server": self.binary, **runtime}})

    def starts(self) -> list[str]:
        """The model ids that were started, in order."""
        return (
            [line.split()[1] for line in self.starts_file.read_text().splitlines()] if self.starts_file.exists() else []
        )

    def need_bytes(self, settings: Settings) -> int:
        return predict(settings.models[0], read_gguf(self.weights)).total_bytes


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.fixture
def run(room: Room) -> Iterator[Callable[..., LlamaFleet]]:
    """Starts fleets and closes them, whatever the test does."""
    fleets: list[LlamaFleet] = []

    def start(*specs: dict[str, Any], **runtime: Any) -> LlamaFleet:
        fleets.append(LlamaFleet(room.settings(*specs, **runtime)).start())
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, at most WAIT_S seconds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  (what is waited for happens in other threads and processes)
            await asyncio.sleep(0.01)


async def ask(fleet: LlamaFleet, model_id: str = "m", hold_s: float = 0.0) -> Endpoint:
    """Claims, gets one answer from the server, gives back."""
    async with fleet.claim(model_id, WAIT_S) as endpoint:
        headers = {"Authorization": f"Bearer {endpoint.api_key}"}
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.post(f"{endpoint.url}/v1/chat/completions", json={}, headers=headers)
        assert response.status_code == 200
        await asyncio.sleep(hold_s)
        return endpoint


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
