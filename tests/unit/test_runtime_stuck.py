"""The fleet's named races, stuck children, new configurations and draining, with real, tiny child processes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from runtime_room import WAIT_S, Room, ask, is_running, until

from capibara_agents.errors import ModelUnavailable
from capibara_agents.runtime import scheduler
from capibara_agents.runtime.cpu import read_cpu
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.types import FleetSnapshot, ServerState


async def test_race_scheduler_stuck_while_health_stays_green(
    room: Room, run: Callable[..., LlamaFleet], tmp_path: Path
) -> None:
    """A server that accepts a question, stays healthy and computes nothing is replaced; its queue moves on."""
    hang = tmp_path / "hang"
    fleet = run(room.spec("m", "--double-hang", str(hang), slots=1, timeout_s=1))
    await ask(fleet)
    pid = fleet.snapshot().get("m").pid
    hang.touch()
    stuck = asyncio.create_task(ask(fleet))
    await until(lambda: fleet.snapshot().get("m").active == 1)
    waiting = asyncio.create_task(ask(fleet))
    await until(lambda: fleet.snapshot().get("m").pid != pid)
    hang.unlink()
    with pytest.raises(httpx.HTTPError):
        await asyncio.wait_for(stuck, WAIT_S)
    assert (await asyncio.wait_for(waiting, WAIT_S)).generation == 2
    assert fleet.snapshot().get("m").restarts == 1


async def test_race_watchdog_and_a_stopped_child(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A child that answers nothing at all, not even its probes, is replaced, and others are served meanwhile."""
    fleet = run(room.spec("m", slots=1, timeout_s=1, threads=1), room.spec("other", threads=1))
    await asyncio.gather(ask(fleet), ask(fleet, "other"))
    os.kill(fleet.snapshot().get("m").pid or 0, signal.SIGSTOP)
    stuck = asyncio.create_task(ask(fleet))
    await until(lambda: fleet.snapshot().get("m").active == 1)
    served = 0
    while fleet.snapshot().get("m").restarts == 0:
        await asyncio.wait_for(ask(fleet, "other"), WAIT_S)
        served += 1
    assert served
    with pytest.raises(httpx.HTTPError):
        await stuck
    assert (await ask(fleet)).generation == 2


async def test_race_watchdog_and_a_mute_health_probe(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A loading child whose /health takes the connection and never answers holds up neither others nor the close."""
    fleet = run(room.spec("mute", "--double-mute", threads=1), room.spec("m", threads=1))
    waiting = asyncio.create_task(ask(fleet, "mute"))
    await until(lambda: fleet.snapshot().get("mute").pid is not None)
    pid = fleet.snapshot().get("mute").pid
    await asyncio.wait_for(ask(fleet), WAIT_S)
    assert fleet.snapshot().get("mute").state is ServerState.starting
    await asyncio.to_thread(fleet.close)
    with pytest.raises(ModelUnavailable):
        await waiting
    assert pid
    assert not is_running(pid)


async def test_load_without_progress_is_given_up(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A load that does not move for its limit ends with that sentence, not with a wait for ever."""
    fleet = run(room.spec("m", "--double-mute", load_timeout_s=1))
    loading = fleet.load("m")
    with pytest.raises(ModelUnavailable, match="no progress in loading"):
        await asyncio.wait_for(asyncio.wrap_future(loading), WAIT_S)


async def test_race_burst_never_loads_twice(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Claims and explicit loads from everywhere at the same moment make one process."""
    fleet = run(room.spec("m", "--double-load-s", "0.2"))
    loads = [fleet.load("m") for _ in range(5)]
    await asyncio.gather(*(ask(fleet) for _ in range(10)), *(asyncio.wrap_future(wish) for wish in loads))
    assert room.starts() == ["m"]


async def test_race_eviction_of_the_just_claimed(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Two models that do not fit together are claimed over and over: no claim ever sees its server go."""
    specs = room.spec("a", threads=1), room.spec("b", threads=1)
    fleet = run(*specs, memory_budget_bytes=int(1.5 * room.need_bytes(room.settings(*specs))))

    async def press(model_id: str) -> None:
        for _ in range(4):
            await ask(fleet, model_id, hold_s=0.02)

    await asyncio.gather(press("a"), press("b"))
    assert [fleet.snapshot().get(m).restarts for m in "ab"] == [0, 0]
    assert (fleet.snapshot().used_bytes or 0) <= (fleet.snapshot().budget_bytes or 0)


# ---------------------------------------------------------------- cores


async def test_busy_threads_never_exceed_the_cores(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A second model that wants every core waits until the first has answered."""
    fleet = run(room.spec("a", threads=1000), room.spec("b", threads=1000))
    await asyncio.gather(*(asyncio.wrap_future(fleet.load(m)) for m in "ab"))
    async with fleet.claim("a", WAIT_S):
        second = asyncio.create_task(ask(fleet, "b"))
        await until(lambda: fleet.snapshot().get("b").queue == 1)
        await ask(fleet, "a")
        assert not second.done()
        assert fleet.snapshot().get("b").active == 0
    await second


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine wherever the test runs."""
    cpu = dataclasses.replace(read_cpu(), cores=4, core_ids=())
    monkeypatch.setattr("capibara_agents.runtime.fleet.read_cpu", lambda: cpu)


THREADS = {"a": 1, "b": 2, "c": 3, "d": 99}


@pytest.mark.usefixtures("four_cores")
async def test_busy_threads_never_exceed_the_cores_under_load(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Whatever is asked of models of any number of threads, those that answer at any moment fit the four cores."""
    fleet = run(*(room.spec(m, threads=count) for m, count in THREADS.items()))
    most: list[int] = []

    def look(snapshot: FleetSnapshot) -> None:
        most.append(sum(min(4, THREADS[m.id]) for m in snapshot.models if m.active))

    fleet.listen(look)
    chance = random.Random(5)
    async with asyncio.TaskGroup() as group:
        for model_id in 12 * list(THREADS):
            group.create_task(ask(fleet, model_id, hold_s=chance.uniform(0, 0.05)))
    assert max(most) == 4


@pytest.mark.usefixtures("four_cores")
async def test_a_model_is_not_starved_of_cores(
    room: Room, run: Callable[..., LlamaFleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small models under endless load, never all at rest at once, make way for one that wants every core."""
    monkeypatch.setattr(scheduler, "PATIENCE_S", 0.2)
    small, over = ("a", "b", "c"), asyncio.Event()
    fleet = run(*(room.spec(m, threads=1, slots=4) for m in small), room.spec("big", threads=4))
    await asyncio.gather(*(asyncio.wrap_future(fleet.load(m)) for m in (*small, "big")))

    async def press(model_id: str) -> None:
        while not over.is_set():
            await ask(fleet, model_id, hold_s=0.02)

    pressing = [asyncio.create_task(press(m)) for m in 3 * small]
    await until(lambda: all(fleet.snapshot().get(m).active for m in small))
    await asyncio.wait_for(ask(fleet, "big"), WAIT_S)
    assert not any(task.done() for task in pressing)
    over.set()
    await asyncio.gather(*pressing)


@pytest.mark.usefixtures("four_cores")
async def test_whoever_gets_no_cores_in_time_is_told(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A claim behind one long answer ends at its own limit, with a time to come back; the answer is not disturbed."""
    fleet = run(room.spec("a", threads=4), room.spec("b", threads=4))
    await asyncio.wrap_future(fleet.load("b"))
    async with fleet.claim("a", WAIT_S):
        with pytest.raises(ModelUnavailable, match="no cores") as caught:
            async with fleet.claim("b", 0.3):
                pass
        assert caught.value.retry_after_s
        assert fleet.snapshot().get("a").active == 1


# ---------------------------------------------------------------- new configuration, end


async def test_new_configuration_cuts_no_answer(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A changed model serves its claim to the end on the old server; the next claim has the new one."""
    fleet = run(room.spec("m", slots=1), room.spec("gone"))
    await ask(fleet, "gone")
    async with fleet.claim("m", WAIT_S) as endpoint:
        new = room.settings(room.spec("m", slots=3), room.spec("added"))
        change = await asyncio.wrap_future(fleet.apply(new))
        assert (change.added, change.removed, change.restarted) == (("added",), ("gone",), ("m",))
        late = asyncio.create_task(ask(fleet))
        headers = {"Authorization": f"Bearer {endpoint.api_key}"}
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"{endpoint.url}/x", json={}, headers=headers)).status_code == 200
    assert (await late).generation == 2
    assert fleet.snapshot().get("m").slots == 3
    assert (await ask(fleet, "added")).generation == 1
    with pytest.raises(ModelUnavailable):
        await ask(fleet, "gone")
    assert [m.id for m in fleet.snapshot().models] == ["m", "added"]


async def test_close_lets_running_answers_finish(room: Room, run: Callable[..., LlamaFleet], tmp_path: Path) -> None:
    """Draining refuses who waits and keeps the server for who is being answered."""
    hang = tmp_path / "hang"
    fleet = run(room.spec("m", "--double-hang", str(hang), slots=1, timeout_s=60))
    hang.touch()
    running = asyncio.create_task(ask(fleet))
    await until(lambda: fleet.snapshot().get("m").active == 1)
    waiting = asyncio.create_task(ask(fleet))
    await until(lambda: fleet.snapshot().get("m").queue == 1)
    closing = asyncio.create_task(asyncio.to_thread(fleet.close, WAIT_S))
    with pytest.raises(ModelUnavailable):
        await waiting
    hang.unlink()
    assert (await running).generation == 1
    await closing


async def test_weights_deleted_while_running(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """The running server goes on; the next start says that the file is gone, and a returned file mends it."""
    fleet = run(room.spec("m"))
    await ask(fleet)
    data = room.weights.read_bytes()
    room.weights.unlink()
    assert (await ask(fleet)).generation == 1
    os.kill(fleet.snapshot().get("m").pid or 0, signal.SIGKILL)
    await until(lambda: fleet.snapshot().get("m").state is ServerState.failed)
    with pytest.raises(ModelUnavailable, match="not at"):
        await ask(fleet)
    room.weights.write_bytes(data)
    assert (await ask(fleet)).generation == 2


async def test_measured_memory_is_reserved(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """What a server holds is seen, kept in the data folder, and counted in the budget."""
    fleet = run(room.spec("m"))
    await ask(fleet)
    await until(lambda: bool(fleet.snapshot().get("m").rss_bytes))
    status = fleet.snapshot().get("m")
    assert status.reserved_bytes >= (status.rss_bytes or 0) > 0
    assert fleet.snapshot().used_bytes == status.reserved_bytes
    assert "ready_bytes" in (room.folder / "data" / "memory.json").read_text()


def test_close_is_quick_with_a_stopped_child(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A child that is stopped by a signal cannot end by itself: it is killed."""
    fleet = run(room.spec("m"))
    pid = fleet.load("m").result(WAIT_S).pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    fleet.close()
    end = time.monotonic() + WAIT_S
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(pid)
