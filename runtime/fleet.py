"""The fleet: a server for each model, loaded when claimed, unloaded to make room, restarted after a crash.

It has a thread and an event loop of its own, and all its state is touched there only. Callers come from any thread
and any loop: a claim travels to the fleet's loop as a `Ticket`, its grant comes back as a future, and what is given
up by a caller (a cancelled wait, a held claim) goes back by the same way, in order; so a grant that crosses a
cancellation is always returned. `snapshot()` reads a finished value that the loop has published.

Every event (a claim, a release, a change of a server, a timer) ends in `_schedule()`, one synchronous pass over
all models that decides from the state alone who is granted, started, or unloaded.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import httpx

from capibara_agents.errors import ModelUnavailable, WeightsError
from capibara_agents.runtime.cpu import CpuFacts, read_cpu
from capibara_agents.runtime.engine import Engine, find_engine
from capibara_agents.runtime.exits import Exit
from capibara_agents.runtime.gguf import read_gguf
from capibara_agents.runtime.memory import default_budget_bytes, machine_bytes, predict, resident_bytes
from capibara_agents.runtime.model import ClaimState, Model, Prepared, Ticket
from capibara_agents.runtime.ownership import DataFolder
from capibara_agents.runtime.policy import choose_victims, restart_delay_s
from capibara_agents.runtime.profiles import Command, build_command, threads_for
from capibara_agents.runtime.server import Server, tail
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings
from capibara_agents.types import Endpoint, FleetSnapshot, ModelStatus, ServerState

log = logging.getLogger(__name__)

TICK_S = 1.0
# A model waits so long for others to become idle before the busy ones are no longer given new work.
PATIENCE_S = 3.0
CLOSE_TIMEOUT_S = 6.0
OnEvent = Callable[[ModelStatus], None]


class LlamaFleet:
    """`on_event` is called on the fleet's thread with the new status of a model after each change; it must be quick."""

    def __init__(self, settings: Settings, *, on_event: OnEvent | None = None) -> None:
        self._settings = settings
        self._on_event = on_event
        self._store = WeightStore(settings.weights_dir)
        self._folder = DataFolder(settings.data_dir)
        self._models = {spec.id: Model(spec) for spec in settings.models}
        self._budget_bytes = settings.runtime.memory_budget_bytes or default_budget_bytes(machine_bytes())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._door = threading.Lock()
        self._engine: Engine
        self._cpu: CpuFacts
        self._http: httpx.AsyncClient
        self._snapshot = self._make_snapshot()

    # ------------------------------------------------------------ life, called by the owner

    def start(self) -> LlamaFleet:
        """Checks the engine, takes the data folder, starts the thread; no model is loaded yet.

        Raises EngineError without a usable llama-server, ConfigError when another Capibara has the folder.
        """
        if self._thread is not None:
            return self
        self._engine, self._cpu = find_engine(self._settings), read_cpu()
        self._folder.__enter__()
        self._closing = False
        left = self._folder.end_leftovers()
        if left:
            log.warning("ended %d servers that an earlier run had left behind", left)
        started = threading.Event()
        self._thread = threading.Thread(target=self._run_loop, args=(started,), name="capibara-fleet", daemon=True)
        self._thread.start()
        started.wait()
        return self

    def close(self) -> None:
        """Ends all servers and the thread; waiting claims get ModelUnavailable. May be called again."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return
        self._closing = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop)
        thread.join(CLOSE_TIMEOUT_S)
        self._folder.__exit__(None, None, None)

    def __enter__(self) -> LlamaFleet:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ use, from any thread and any loop

    def snapshot(self) -> FleetSnapshot:
        """The state of every model, without waiting for anything."""
        return self._snapshot

    @asynccontextmanager
    async def claim(self, model_id: str, deadline_s: float) -> AsyncIterator[Endpoint]:
        """Load the model if need be and hold it: it is neither unloaded nor stopped while claimed.

        Raises ModelLoading (with retry_after_s) when it is still loading after `deadline_s`, ModelUnavailable when
        it cannot be had, KeyError for a model that is not of this fleet.
        """
        ticket = Ticket(self._models[model_id], deadline_s)
        if not self._post(self._enqueue, ticket):
            raise ModelUnavailable("The fleet is not running.", model_id=model_id)
        served = False
        try:
            yield await asyncio.wrap_future(ticket.future)
            served = True
        finally:
            # Whatever state the ticket is in over there (waiting, granted a moment ago, held), it ends here.
            self._post(self._release, ticket, served)

    def load(self, model_id: str) -> Future[ModelStatus]:
        """Starts the model's server, also after a permanent failure; done when it is ready. KeyError if unknown."""
        return self._request(self._load, self._models[model_id])

    def unload(self, model_id: str) -> Future[ModelStatus]:
        """Ends the model's server once its claims are given back; done when it is gone. KeyError if unknown."""
        return self._request(self._unload, self._models[model_id])

    def report_ok(self, model_id: str) -> None:
        """A real token has come from this model: its failures are forgotten."""
        self._post(self._models[model_id].has_worked)

    def logs(self, model_id: str, lines: int = 100) -> list[str]:
        """The last lines of the model's log; empty when there is none. KeyError if unknown."""
        model = self._models[model_id]
        return tail(self._folder.log_file(model.id), lines * 400).splitlines()[-lines:] if lines > 0 else []

    def _post(self, function: Callable[..., object], *arguments: object) -> bool:
        """Runs a function on the fleet's loop soon; False when there is no fleet any more."""
        with self._door:
            if self._loop is None:
                return False
            self._loop.call_soon_threadsafe(function, *arguments)
            return True

    def _request(self, function: Callable[[Model, Future[ModelStatus]], None], model: Model) -> Future[ModelStatus]:
        future: Future[ModelStatus] = Future()
        if not self._post(function, model, future):
            future.set_exception(ModelUnavailable("The fleet is not running.", model_id=model.id))
        return future

    # ------------------------------------------------------------ from here on: the fleet's loop only

    def _run_loop(self, started: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop = loop
        self._http = httpx.AsyncClient(trust_env=False)
        loop.call_soon(self._tick)
        loop.call_soon(started.set)
        try:
            loop.run_forever()
        finally:
            with self._door:
                self._loop = None
            # What came through the door before it was shut still gets its answer.
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    async def _shut_down(self) -> None:
        for model in self._models.values():
            model.fail_waiters(ModelUnavailable("Capibara is stopping.", model_id=model.id))
            if model.server is not None:
                model.server.stop()
        self._publish()
        tasks = [model.task for model in self._models.values() if model.task is not None]
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S - 1.0)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._http.aclose()
        self._publish()
        asyncio.get_running_loop().stop()

    def _tick(self) -> None:
        """Once a second: memory in use, idle models, waits that time alone ends."""
        if self._closing:
            return
        now = time.monotonic()
        for model in self._models.values():
            if model.server is not None and model.server.pid is not None:
                model.rss_bytes = resident_bytes(model.server.pid)
            if model.is_idle_since(now):
                model.stop_server()
            self._look_for_weights(model)
        asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._schedule()

    def _look_for_weights(self, model: Model) -> None:
        """Says at once which models cannot be had for want of their files, and takes it back after a pull."""
        if model.server is not None or model.task is not None:
            return
        absence = self._store.absence(model.spec)
        if absence and not model.error:
            model.error, model.missing = absence, True
        elif model.missing and not absence:
            model.forgive()

    # ------------------------------------------------------------ claims

    def _enqueue(self, ticket: Ticket) -> None:
        model = ticket.model
        if ticket.state is not ClaimState.waiting:
            return
        if self._closing or (model.permanent and model.error):
            sentence = "Capibara is stopping." if self._closing else str(model.error)
            ticket.refuse(ModelUnavailable(sentence, model_id=model.id))
            self._publish()
            return
        loop = asyncio.get_running_loop()
        ticket.timer = loop.call_later(max(0.0, ticket.deadline_s), self._expire, ticket)
        model.queue.append(ticket)
        self._schedule()
        limit = self._settings.runtime.queue_limit
        if ticket.state is ClaimState.waiting and len(model.queue) > limit:
            model.queue.remove(ticket)
            ticket.refuse(model.too_late(f"{limit} requests wait for {model.id} already; try again later."))
            self._publish()

    def _expire(self, ticket: Ticket) -> None:
        if ticket.state is ClaimState.waiting:
            model = ticket.model
            model.queue.remove(ticket)
            ticket.refuse(model.too_late(f"{model.id} was not ready within {ticket.deadline_s:g} s; try again later."))
            self._schedule()

    def _release(self, ticket: Ticket, served: bool) -> None:
        model = ticket.model
        if ticket.state is ClaimState.waiting and ticket in model.queue:
            model.queue.remove(ticket)
        if ticket.state is ClaimState.granted:
            model.give_back(ticket, served=served)
        ticket.finish()
        self._schedule()

    # ------------------------------------------------------------ load and unload

    def _load(self, model: Model, future: Future[ModelStatus]) -> None:
        model.forgive()
        model.wanted.append(future)
        self._schedule()

    def _unload(self, model: Model, future: Future[ModelStatus]) -> None:
        model.unwanted.append(future)
        if model.server is None and model.task is None:
            model.tell(model.unwanted)
        self._schedule()

    # ------------------------------------------------------------ the one place of decisions

    def _schedule(self) -> None:
        """Grants, starts and unloads whatever the state allows; then publishes. Never waits, never re-enters."""
        if self._closing:
            return
        now = time.monotonic()
        reserved_bytes = 0
        for model in self._models.values():
            # Taking turns is decided anew each time: whoever asked for room may have gone away.
            model.draining = bool(model.unwanted)
        for model in sorted(self._models.values(), key=Model.waiting_since):
            if model.draining and not model.active and model.state is ServerState.ready:
                model.stop_server()
            model.grant()
            if model.needs_start and self._may_start(model, now):
                if model.prepared is None:
                    self._run(model, self._prepare(model))
                elif self._make_room(model, now, reserved_bytes):
                    # Charged in this very pass: the next model of it must see what is left.
                    model.charge_bytes = model.prepared.need_bytes
                    self._run(model, self._serve(model, model.prepared))
                elif model.prepared is not None:
                    # Still in want of room, not refused: what it waits for is not for others.
                    reserved_bytes += model.prepared.need_bytes
        self._publish()

    def _run(self, model: Model, work: Coroutine[Any, Any, None]) -> None:
        """The one task of a model; a mistake in it fails the model aloud instead of leaving it stuck."""

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("the fleet stumbled over %s", model.id, exc_info=error)
                model.server_gone()
                model.fail(f"The fleet stumbled over {model.id} ({type(error).__name__}); its log says more.")
                self._schedule()

        model.task = asyncio.ensure_future(work)
        model.task.add_done_callback(done)

    def _may_start(self, model: Model, now: float) -> bool:
        """False during the pause after repeated crashes; whom that pause outlasts is told so at once."""
        pause_s = model.not_before - now
        if pause_s <= 0:
            return True
        hopeless = [t for t in model.queue if t.enqueued_at + t.deadline_s < model.not_before]
        for ticket in hopeless:
            model.queue.remove(ticket)
            ticket.refuse(
                ModelUnavailable(model.error or "", model_id=model.id, retry_after_s=max(1.0, round(pause_s)))
            )
        return False

    def _make_room(self, model: Model, now: float, reserved_bytes: int) -> bool:
        """True when the model fits now. Otherwise idle ones are asked to go, and the next pass looks again."""
        assert model.prepared is not None
        need = model.prepared.need_bytes
        others = [m for m in self._models.values() if m is not model]
        pinned = sum(m.charge_bytes for m in others if m.spec.pinned)
        if need > self._budget_bytes - pinned:
            model.fail(
                f"{model.id} needs {need / 1e9:.1f} GB and the budget leaves it "
                f"{max(0, self._budget_bytes - pinned) / 1e9:.1f} GB; raise runtime.memory_budget_bytes, "
                "or lower its context_tokens or slots.",
                permanent=need > self._budget_bytes,
            )
            return False
        leaving = sum(m.charge_bytes for m in others if m.state is ServerState.stopping)
        used = sum(m.charge_bytes for m in others)
        free = self._budget_bytes - used - reserved_bytes
        if free >= need:
            return True
        if free + leaving < need:
            victims = choose_victims([m.as_resident(now) for m in others], need, free + leaving)
            for victim in victims or ():
                self._models[victim].stop_server()
            if victims is None and now - model.waiting_since() > PATIENCE_S:
                self._take_turns(model, others)
        return False

    def _take_turns(self, model: Model, others: list[Model]) -> None:
        """Busy models whose own queue is younger than this wait are given no new work, so that they become idle."""
        for other in others:
            is_younger = other.waiting_since() > model.waiting_since()
            if other.state is ServerState.ready and not other.spec.pinned and is_younger:
                other.draining = True

    # ------------------------------------------------------------ one start of one server

    async def _prepare(self, model: Model) -> None:
        """Finds and checks the files and predicts the memory, in a thread: it may mean reading 16 GB."""
        problem: str | None = None
        try:
            model.prepared = await asyncio.to_thread(self._inspect, model)
        except WeightsError as error:
            problem = error.message
        model.task = None
        if problem:
            # Not permanent: a pull mends it, and the next claim looks again.
            model.fail(problem)
        self._schedule()

    def _inspect(self, model: Model) -> Prepared:
        files = self._store.require(model.spec)
        gguf = read_gguf(files.weights)
        mmproj_bytes = files.mmproj.stat().st_size if files.mmproj else 0
        need = predict(model.spec, gguf, mmproj_bytes)
        return Prepared(files, need.total_bytes, threads_for(model.spec, self._cpu, gguf.size_bytes))

    async def _serve(self, model: Model, prepared: Prepared) -> None:
        model.generation += 1
        model.api_key = secrets.token_urlsafe(24)
        model.error = None
        server = model.server = Server(
            self._command(model, prepared),
            self._folder.log_file(model.id),
            http=self._http,
            on_change=lambda: self._server_changed(model),
            load_timeout_s=model.spec.load_timeout_s,
            weights_bytes=prepared.files.weights.stat().st_size,
        )
        end: Exit | None = None
        try:
            end = await server.run()
        finally:
            self._folder.forget(model.id)
            model.load_s = server.load_s or model.load_s
            model.server_gone()
            if end is not None and end.kind != "asked":
                self._crashed(model, end)
            model.tell(model.unwanted)
            self._schedule()

    def _crashed(self, model: Model, end: Exit) -> None:
        model.failures += 1
        model.restarts += 1
        model.error = end.sentence
        log.warning("%s", end.sentence)
        if end.permanent:
            model.fail(end.sentence, permanent=True)
            return
        pause_s = restart_delay_s(model.failures)
        model.not_before = time.monotonic() + pause_s
        if pause_s:
            asyncio.get_running_loop().call_later(pause_s, self._schedule)
            model.fail_wanted(ModelUnavailable(end.sentence, model_id=model.id, retry_after_s=pause_s))

    def _command(self, model: Model, prepared: Prepared) -> Command:
        busy_threads = sum(m.prepared.threads if m.prepared else 1 for m in self._models.values())
        return build_command(
            model.spec,
            binary=self._engine.binary,
            flags=self._engine.flags,
            threads=prepared.threads,
            model_file=prepared.files.weights,
            mmproj_file=prepared.files.mmproj,
            api_key=model.api_key,
            crowded=busy_threads > self._cpu.cores,
        )

    def _server_changed(self, model: Model) -> None:
        server = model.server
        if server is None:
            return
        if server.state is ServerState.starting and server.pid is not None and model.noted_pid != server.pid:
            model.noted_pid = server.pid
            self._folder.note(model.id, server.pid)
        if server.state is ServerState.ready:
            model.tell(model.wanted)
            model.last_used = time.monotonic()
            self._schedule()
        else:
            self._publish()

    # ------------------------------------------------------------ what others see

    def _make_snapshot(self) -> FleetSnapshot:
        return FleetSnapshot(
            models=tuple(model.status() for model in self._models.values()),
            budget_bytes=self._budget_bytes,
            used_bytes=sum(model.charge_bytes for model in self._models.values()),
        )

    def _publish(self) -> None:
        before, self._snapshot = self._snapshot, self._make_snapshot()
        for model in self._models.values():
            outbox, model.outbox = model.outbox, []
            for deliver in outbox:
                deliver()
        if self._on_event is None:
            return
        for old, new in zip(before.models, self._snapshot.models, strict=True):
            if old != new:
                try:
                    self._on_event(new)
                except Exception:  # a listener's mistake must not stop the fleet; it is logged
                    log.exception("a listener of fleet events failed")
