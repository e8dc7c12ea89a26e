"""The fleet's life with a real, tiny child process: claims, races, crashes, room, orphans."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import httpx
import psutil
import pytest
from runtime_room import WAIT_S, Room, ask, is_running, until

from capibara_agents.errors import ConfigError, ModelLoading, ModelUnavailable
from capibara_agents.runtime import scheduler
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.runtime.ownership import DataFolder
from capibara_agents.types import Endpoint, FleetSnapshot, ModelStatus, ServerState

# ---------------------------------------------------------------- claims


async def test_burst_of_claims_starts_one_process(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Twelve claims for a model that is not loaded load it once, and all are answered."""
    fleet = run(room.spec("m", "--double-load-s", "0.3"))
    endpoints = await asyncio.gather(*(ask(fleet) for _ in range(12)))
    assert room.starts() == ["m"]
    assert {e.generation for e in endpoints} == {1}


async def test_claims_are_granted_in_order_up_to_the_slots(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Never more claims than slots are held, and those who wait get their turn first come first served."""
    fleet = run(room.spec("m", slots=2))
    order: list[int] = []
    most = 0

    async def take(number: int) -> None:
        nonlocal most
        async with fleet.claim("m", WAIT_S):
            order.append(number)
            most = max(most, fleet.snapshot().get("m").active)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(take(number))
            await until(lambda n=number: fleet.snapshot().get("m").queue + len(order) > n)
    assert order == sorted(order)
    assert most == 2
    await until(lambda: fleet.snapshot().get("m").active == 0)


async def test_cancel_at_the_moment_of_the_grant_gives_the_claim_back(
    room: Room, run: Callable[..., LlamaFleet]
) -> None:
    """A caller cancelled after the grant was made, before it could hear of it, leaves no claim behind."""
    fleet = run(room.spec("m", slots=1))
    await ask(fleet)
    await until(lambda: fleet.snapshot().get("m").active == 0)
    task = asyncio.create_task(ask(fleet))
    await asyncio.sleep(0)
    # This loop stands still while the fleet's own loop grants: the grant is on its way, unseen.
    while fleet.snapshot().get("m").active == 0:
        time.sleep(0.001)  # noqa: ASYNC251  (on purpose)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: fleet.snapshot().get("m").active == 0)
    assert (await ask(fleet)).generation == 1


async def test_cancelled_wait_leaves_the_queue(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A caller who gives up while waiting takes no place in the queue any more."""
    fleet = run(room.spec("m", slots=1))
    async with fleet.claim("m", WAIT_S):
        task = asyncio.create_task(ask(fleet))
        await until(lambda: fleet.snapshot().get("m").queue == 1)
        task.cancel()
        await until(lambda: fleet.snapshot().get("m").queue == 0)
    await until(lambda: fleet.snapshot().get("m").active == 0)


async def test_claims_work_from_any_thread_and_loop(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Four threads with an event loop each share one server."""
    fleet = run(room.spec("m"))
    found: list[Endpoint] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(ask(fleet)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, WAIT_S)
    assert len(found) == 4
    assert room.starts() == ["m"]


async def test_a_full_queue_refuses(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """One claim more than queue_limit waiting is told so, with a time to come back."""
    fleet = run(room.spec("m", slots=1), queue_limit=1)
    async with fleet.claim("m", WAIT_S):
        waiting = asyncio.create_task(ask(fleet))
        await until(lambda: fleet.snapshot().get("m").queue == 1)
        with pytest.raises(ModelUnavailable) as caught:
            await ask(fleet)
        assert not isinstance(caught.value, ModelLoading)
        assert caught.value.retry_after_s
    await waiting


async def test_deadline_while_loading_is_not_a_failure(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Who cannot wait for the load gets ModelLoading; the load goes on for the next one."""
    fleet = run(room.spec("m", "--double-load-s", "1"))
    with pytest.raises(ModelLoading) as caught:
        async with fleet.claim("m", 0.5):
            pass
    assert caught.value.retry_after_s
    assert (await ask(fleet)).generation == 1


async def test_unknown_model_and_closed_fleet(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """KeyError for a stranger; ModelUnavailable from a fleet that was closed."""
    fleet = run(room.spec("m"))
    with pytest.raises(KeyError):
        async with fleet.claim("x", 1):
            pass
    fleet.close()
    with pytest.raises(ModelUnavailable):
        await ask(fleet)


# ---------------------------------------------------------------- failures


async def test_killed_while_claimed_next_claim_is_a_new_generation(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """After SIGKILL of a claimed server the next claim starts another at once; the old claim's end disturbs nothing."""
    fleet = run(room.spec("m"))
    async with fleet.claim("m", WAIT_S) as first:
        pid = fleet.snapshot().get("m").pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: fleet.snapshot().get("m").state is ServerState.failed)
        assert "SIGKILL" in (fleet.snapshot().get("m").error or "")
        async with fleet.claim("m", WAIT_S) as second:
            assert second.generation == first.generation + 1
            assert fleet.snapshot().get("m").active == 1
    await until(lambda: fleet.snapshot().get("m").active == 0)
    assert fleet.snapshot().get("m").restarts == 1


async def test_repeated_crashes_pause_and_say_for_how_long(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """The second crash in a row is followed by ten seconds in which claims are refused with that time."""
    fleet = run(room.spec("m", "--double-exit", "3"))
    with pytest.raises(ModelUnavailable) as caught:
        async with fleet.claim("m", 9):
            pass
    assert room.starts() == ["m", "m"]
    assert 5 < (caught.value.retry_after_s or 0) <= 10
    assert "exit code 3" in caught.value.message


async def kill(fleet: LlamaFleet) -> None:
    os.kill(fleet.snapshot().get("m").pid or 0, signal.SIGKILL)
    await until(lambda: fleet.snapshot().get("m").state is ServerState.failed)


async def test_an_answer_forgets_failures(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Crashes with answers between them are each a first crash: no pause."""
    fleet = run(room.spec("m"))
    for generation in (1, 2, 3):
        # Less than the shortest pause.
        async with asyncio.timeout(9):
            assert (await ask(fleet)).generation == generation
        await until(lambda: fleet.snapshot().get("m").active == 0)
        await kill(fleet)


async def test_a_token_forgets_failures_though_the_answer_was_given_up(
    room: Room, run: Callable[..., LlamaFleet]
) -> None:
    """The server's own count of tokens is enough: the caller need not have waited for the end."""
    fleet = run(room.spec("m"))
    for generation in (1, 2, 3):
        with pytest.raises(GaveUp):
            await take_a_token(fleet, generation)
        await kill(fleet)


class GaveUp(Exception):
    """The caller has seen enough."""


async def take_a_token(fleet: LlamaFleet, generation: int) -> None:
    """Gets a token, waits until the fleet has seen it at the server, and does not end the claim well."""
    async with fleet.claim("m", 9) as endpoint:
        assert endpoint.generation == generation
        headers = {"Authorization": f"Bearer {endpoint.api_key}"}
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(f"{endpoint.url}/v1/chat/completions", json={}, headers=headers)
        watch = fleet._scheduler.models["m"].watch
        await until(lambda: watch.last is not None and watch.last.decoded > 0)
        raise GaveUp


async def test_a_claim_without_a_token_forgets_nothing(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A server that is claimed and gives nothing before it crashes is crashing again: the next start is put off."""
    fleet = run(room.spec("m"))
    for _ in range(2):
        with pytest.raises(RuntimeError):
            async with fleet.claim("m", 9):
                raise RuntimeError("no token")
        await kill(fleet)
    with pytest.raises(ModelUnavailable) as caught:
        await ask_within(fleet, 1)
    assert (caught.value.retry_after_s or 0) > 5


async def ask_within(fleet: LlamaFleet, deadline_s: float) -> None:
    async with fleet.claim("m", deadline_s):
        pass


async def test_a_claim_given_back_is_counted_at_once(
    room: Room, run: Callable[..., LlamaFleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims that end, fail, are cancelled or never granted, of a server that is killed now and then.

    What the fleet does after the last of them has ended sees none held, and it never counts more than its slots.
    """
    # The pauses after repeated crashes have their own tests.
    monkeypatch.setattr(scheduler, "restart_delay_s", lambda failures: 0.0)
    fleet = run(room.spec("m", slots=3), queue_limit=1000)
    chance, held, wrong = random.Random(3), list[int](), list[int]()

    def look(snapshot: FleetSnapshot) -> None:
        if not 0 <= snapshot.get("m").active <= 3:
            wrong.append(snapshot.get("m").active)

    async def caller() -> None:
        for _ in range(25):
            with contextlib.suppress(TimeoutError, ModelUnavailable, ZeroDivisionError):
                async with asyncio.timeout(chance.choice((0.001, 0.01, 0.05, WAIT_S))):
                    async with fleet.claim("m", chance.choice((0.01, WAIT_S))):
                        held.append(1)
                        await asyncio.sleep(chance.uniform(0, 0.01))
                        1 // chance.choice((0, 1, 1))

    async def strike() -> None:
        for _ in range(5):
            await asyncio.sleep(0.1)
            if pid := fleet.snapshot().get("m").pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    await ask(fleet)
    fleet.listen(look)
    chaos = asyncio.create_task(strike())
    await asyncio.gather(chaos, *(caller() for _ in range(12)))
    # No waiting and no polling: what is asked of the fleet now is done after what was given back before.
    assert (await asyncio.to_thread(seen_by, fleet)).active == 0
    assert wrong == []
    # A sixth of them has all the time it wants.
    assert len(held) > 20


def seen_by(fleet: LlamaFleet) -> ModelStatus:
    """The model as the fleet's own loop has it now."""
    found: Future[ModelStatus] = Future()
    assert fleet._post(lambda: found.set_result(fleet._scheduler.models["m"].status()))
    return found.result(WAIT_S)


async def test_permanent_failure_is_not_tried_again_until_asked(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A refused flag ends all tries; only an explicit load tries again."""
    fleet = run(room.spec("m", "--double-exit", "1", "--double-say", "error: invalid argument: --frobnicate"))
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="refuses its arguments"):
            await ask(fleet)
    assert room.starts() == ["m"]
    assert fleet.snapshot().get("m").permanent
    with pytest.raises(ModelUnavailable):
        await asyncio.wait_for(asyncio.wrap_future(fleet.load("m")), WAIT_S)
    assert room.starts() == ["m", "m"]


async def test_missing_weights_name_the_command(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Nothing is downloaded behind a claim's back: it says how to fetch the file, and so does the snapshot."""
    source = {"source": "https://example.invalid/a.gguf"}
    fleet = run(room.spec("m", weights=source))
    with pytest.raises(ModelUnavailable, match="capibara models pull m"):
        await ask(fleet)
    assert "models pull" in (fleet.snapshot().get("m").error or "")
    assert room.starts() == []


async def test_rubbish_as_weights_is_refused_before_a_start(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A file that is not GGUF never reaches a server."""
    room.weights.write_bytes(b"not a model")
    fleet = run(room.spec("m"))
    with pytest.raises(ModelUnavailable, match="GGUF"):
        await ask(fleet)
    assert room.starts() == []


# ---------------------------------------------------------------- room


async def test_loading_or_claimed_model_is_never_evicted(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """Where one model fits, the second waits until the first has loaded and its claim was given back."""
    slow = "--double-load-s", "0.4"
    specs = room.spec("a", *slow), room.spec("b", *slow)
    fleet = run(*specs, memory_budget_bytes=int(1.5 * room.need_bytes(room.settings(*specs))))
    first = asyncio.create_task(ask(fleet, "a", hold_s=0.3))
    await until(lambda: fleet.snapshot().get("a").state is ServerState.starting)
    second = asyncio.create_task(ask(fleet, "b"))
    await until(lambda: fleet.snapshot().get("a").active == 1)
    assert fleet.snapshot().get("b").state is ServerState.stopped
    await first
    await second
    assert room.starts() == ["a", "b"]
    assert fleet.snapshot().get("a").state is ServerState.stopped
    assert (fleet.snapshot().used_bytes or 0) <= (fleet.snapshot().budget_bytes or 0)


async def test_pinned_model_stays(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A pinned model is not unloaded; who does not fit beside it is told the numbers."""
    specs = room.spec("a", pinned=True), room.spec("b")
    fleet = run(*specs, memory_budget_bytes=int(1.5 * room.need_bytes(room.settings(*specs))))
    await ask(fleet, "a")
    with pytest.raises(ModelUnavailable, match="GB"):
        await ask(fleet, "b")
    assert fleet.snapshot().get("a").state is ServerState.ready


async def test_busy_model_gives_its_turn_away(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """A model under endless load is unloaded after a while for one that has waited longer than its queue."""
    specs = room.spec("a", slots=1), room.spec("b", slots=1)
    fleet = run(*specs, memory_budget_bytes=int(1.5 * room.need_bytes(room.settings(*specs))))
    await ask(fleet, "a")
    over = asyncio.Event()

    async def press() -> None:
        while not over.is_set():
            await ask(fleet, "a", hold_s=0.01)

    pressing = [asyncio.create_task(press()) for _ in range(3)]
    await ask(fleet, "b")
    over.set()
    await asyncio.gather(*pressing)
    assert room.starts()[:2] == ["a", "b"]


async def test_model_larger_than_the_budget_is_refused(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """What can never fit is refused for good, with both numbers."""
    fleet = run(room.spec("m"), memory_budget_bytes=1000)
    with pytest.raises(ModelUnavailable, match=r"needs 0\.\d GB and the budget leaves it 0\.0 GB"):
        await ask(fleet)
    assert fleet.snapshot().get("m").permanent


async def test_unload_waits_for_the_claim_and_load_brings_it_back(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """An unload takes effect when the last claim is given back; new claims meanwhile wait for the next start."""
    fleet = run(room.spec("m"))
    async with fleet.claim("m", WAIT_S):
        unloading = fleet.unload("m")
        late = asyncio.create_task(ask(fleet))
        await until(lambda: fleet.snapshot().get("m").queue == 1)
        assert not unloading.done()
        assert fleet.snapshot().get("m").state is ServerState.ready
    await asyncio.wait_for(asyncio.wrap_future(unloading), WAIT_S)
    assert (await late).generation == 2
    await asyncio.wait_for(asyncio.wrap_future(fleet.unload("m")), WAIT_S)
    status = await asyncio.wait_for(asyncio.wrap_future(fleet.load("m")), WAIT_S)
    assert status.state is ServerState.ready
    assert room.starts() == ["m", "m", "m"]


async def test_what_a_start_took_is_told_from_then_on(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """The policy weighs loading by it; nothing is made up before."""
    fleet = run(room.spec("m"))
    assert fleet.snapshot().get("m").load_s is None
    await ask(fleet)
    took_s = fleet.snapshot().get("m").load_s
    assert took_s
    await asyncio.wait_for(asyncio.wrap_future(fleet.unload("m")), WAIT_S)
    assert fleet.snapshot().get("m").load_s == took_s


async def test_idle_model_is_unloaded(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """After idle_unload_s without use the process is gone."""
    fleet = run(room.spec("m", idle_unload_s=0.2))
    await ask(fleet)
    pid = fleet.snapshot().get("m").pid
    await until(lambda: fleet.snapshot().get("m").state is ServerState.stopped)
    assert pid
    assert not is_running(pid)


# ---------------------------------------------------------------- ends


async def test_close_ends_loading_deaf_and_serving_children(room: Room) -> None:
    """Closing leaves no process, also of a child that ignores SIGTERM and its stdin, and frees who waits."""
    specs = room.spec("slow", "--double-load-s", "60"), room.spec("deaf", "--double-deaf"), room.spec("good")
    with LlamaFleet(room.settings(*specs)) as fleet:
        waiting = asyncio.create_task(ask(fleet, "slow"))
        await asyncio.gather(ask(fleet, "deaf"), ask(fleet, "good"))
        await until(lambda: fleet.snapshot().get("slow").pid is not None)
        pids = [m.pid for m in fleet.snapshot().models]
        await asyncio.to_thread(fleet.close)
    with pytest.raises(ModelUnavailable):
        await waiting
    assert len(pids) == 3
    assert not any(is_running(pid) for pid in pids if pid)


@pytest.mark.parametrize("knobs", [(), ("--double-deaf",)], ids=["hears stdin", "deaf"])
async def test_no_orphan_when_the_parent_is_killed(room: Room, knobs: tuple[str, ...]) -> None:
    """SIGKILL of the parent ends the child, whether it reads its stdin or not."""
    settings = room.settings(room.spec("m", *knobs)).model_dump_json()
    program = textwrap.dedent("""
        import sys, time
        from capibara_agents.settings import Settings
        from capibara_agents.runtime.fleet import LlamaFleet
        with LlamaFleet(Settings.model_validate_json(sys.argv[1])) as fleet:
            sys.stdout.write(f"{fleet.load('m').result(20).pid}\\n")
            sys.stdout.flush()
            time.sleep(60)
    """)
    command = [sys.executable, "-c", program, settings]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220  (a moment)
    assert parent.stdout
    try:
        child = int(await asyncio.to_thread(parent.stdout.readline))
        assert is_running(child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    await until(lambda: not is_running(child))


def test_two_fleets_on_one_folder_are_an_error(room: Room, run: Callable[..., LlamaFleet]) -> None:
    """The second names the folder and the process that has it."""
    run(room.spec("m"))
    with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        LlamaFleet(room.settings(room.spec("m"))).start()


def test_leftovers_are_ended_and_strangers_are_not(tmp_path: Path) -> None:
    """A noted process is killed at the next start; one that merely has the noted number is left alone."""
    mine, stranger = (
        subprocess.Popen(["sleep", "60"], start_new_session=True),
        subprocess.Popen(["sleep", "60"], start_new_session=True),
    )
    try:
        with DataFolder(tmp_path) as folder:
            folder.note("mine", mine.pid)
            note = {"pid": stranger.pid, "started": psutil.Process(stranger.pid).create_time() - 100}
            (tmp_path / "run" / "stranger.json").write_text(json.dumps(note))
            (tmp_path / "run" / "torn.json").write_text("{")
        with DataFolder(tmp_path) as folder:
            assert folder.end_leftovers() == 1
        assert not is_running(mine.pid)
        assert stranger.poll() is None
        assert list((tmp_path / "run").iterdir()) == []
    finally:
        for process in (mine, stranger):
            process.kill()
            process.wait()


async def test_a_failing_listener_does_not_stop_the_fleet(room: Room) -> None:
    """Events are told to a listener; what it raises changes nothing."""
    seen: list[str] = []

    def listen(snapshot: FleetSnapshot) -> None:
        seen.append(snapshot.get("m").state)
        raise RuntimeError("listener")

    with LlamaFleet(room.settings(room.spec("m"))) as fleet:
        fleet.listen(listen)
        await ask(fleet)
        assert fleet.logs("m", 5)
    assert {"starting", "ready", "stopping", "stopped"} <= set(seen)
