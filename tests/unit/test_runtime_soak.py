"""A soak of the fleet with fake children: kills, freezes and slow loads at random, under clients.

CAPIBARA_TEST_SOAK_ROUNDS sets the number of blows (40 by default; 1000 is the full soak, some minutes).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable

import httpx
import psutil
import pytest
from runtime_room import WAIT_S, Room, is_running

from capibara_agents.errors import ModelUnavailable
from capibara_agents.runtime import scheduler
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.types import ServerState

ROUNDS = int(os.environ.get("CAPIBARA_TEST_SOAK_ROUNDS", "40"))
SEED = int(os.environ.get("CAPIBARA_TEST_SOAK_SEED", "7"))
MODELS = ("a", "b", "c", "d")
CLIENTS = 6


class Soak:
    """What is done to a fleet, and what is counted."""

    def __init__(self, room: Room, fleet: LlamaFleet, chance: random.Random) -> None:
        self.room, self.fleet, self.chance = room, fleet, chance
        self.over = False
        self.counts: Counter[str] = Counter()

    async def client(self) -> None:
        """Asks one model after the other; a broken answer and a refusal are part of the soak, a hang is not."""
        while not self.over:
            await self.ask(self.chance.choice(MODELS))

    async def ask(self, model_id: str) -> None:
        try:
            async with asyncio.timeout(2 * WAIT_S), self.fleet.claim(model_id, WAIT_S) as endpoint:
                headers = {"Authorization": f"Bearer {endpoint.api_key}", "Connection": "close"}
                async with httpx.AsyncClient(trust_env=False, timeout=4) as http:
                    response = await http.post(f"{endpoint.url}/v1/x", json={}, headers=headers)
                assert response.status_code == 200
                self.counts["answered"] += 1
        except httpx.HTTPError:
            self.counts["broken"] += 1
        except ModelUnavailable:
            self.counts["refused"] += 1
            await asyncio.sleep(0.05)

    def strike(self) -> None:
        """A kill or a freeze of one child that lives, mostly of one that serves."""
        living = [model for model in self.fleet.snapshot().models if model.pid]
        serving = [model for model in living if model.state is ServerState.ready]
        pids = [model.pid for model in (serving if self.chance.random() < 0.8 else living) if model.pid]
        if not pids:
            return
        number = signal.SIGKILL if self.chance.random() < 0.8 else signal.SIGSTOP
        try:
            os.kill(self.chance.choice(pids), number)
            self.counts[number.name] += 1
        except ProcessLookupError:
            pass

    def check(self) -> None:
        """Never over the budget, never two living processes of one model."""
        snapshot = self.fleet.snapshot()
        assert (snapshot.used_bytes or 0) <= (snapshot.budget_bytes or 0)
        lines = [line.split() for line in self.room.starts_file.read_text().splitlines()]
        alive = Counter(model for pid, model in lines[-4 * len(MODELS) :] if is_running_double(int(pid)))
        assert not [model for model, count in alive.items() if count > 1], alive

    def pids(self) -> list[int]:
        return [int(line.split()[0]) for line in self.room.starts_file.read_text().splitlines()]


def is_running_double(pid: int) -> bool:
    """Whether the number still belongs to one of our children."""
    try:
        return is_running(pid) and any("runtime_double" in part for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


@pytest.mark.timeout(1800)
async def test_soak(room: Room, run: Callable[..., LlamaFleet], monkeypatch: pytest.MonkeyPatch) -> None:
    """No deadlock, no double load, no orphan, the budget never exceeded, and all models answer in the end."""
    # The pauses after repeated crashes have their own tests; here they would only make the soak wait.
    monkeypatch.setattr(scheduler, "restart_delay_s", lambda failures: 0.02 * failures)
    chance = random.Random(SEED)
    delays = ("0", "0.05", "0.3", "0")
    specs = [
        room.spec(model, "--double-load-s", delay, timeout_s=1, load_timeout_s=2, threads=1, slots=2)
        for model, delay in zip(MODELS, delays, strict=True)
    ]
    fleet = run(*specs, memory_budget_bytes=int(2.5 * room.need_bytes(room.settings(*specs))))
    soak = Soak(room, fleet, chance)
    clients = [asyncio.create_task(soak.client()) for _ in range(CLIENTS)]
    async with asyncio.timeout(WAIT_S):
        while not soak.counts["answered"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for _ in range(ROUNDS):
        soak.strike()
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        soak.check()
    soak.over = True
    await asyncio.wait_for(asyncio.gather(*clients), 4 * WAIT_S)
    for model in MODELS:
        before = soak.counts["answered"]
        for _ in range(3):
            await soak.ask(model)
        assert soak.counts["answered"] > before, (model, fleet.snapshot().get(model))
    await asyncio.to_thread(fleet.close)
    assert not [pid for pid in soak.pids() if is_running_double(pid)]
    print(SEED, dict(soak.counts), "starts", len(soak.pids()))
