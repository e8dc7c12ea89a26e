"""The fleet's loop: all state of all models, and the one place of decisions.

Everything here runs on the fleet's own event loop. Every event (a claim, a release, a change of a server, a timer)
ends in `schedule()`, one synchronous pass over all models that decides from the state alone who is granted,
started, or unloaded. Nothing in it waits; what takes time (files, probes, processes) is a task of its own, so that
no stuck child can hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import httpx

from capibara_agents.errors import CapibaraError, ModelUnavailable, WeightsError
from capibara_agents.runtime.cores import lease, may_work
from capibara_agents.runtime.cpu import CpuFacts
from capibara_agents.runtime.engine import Engine
from capibara_agents.runtime.exits import Exit
from capibara_agents.runtime.fit import size_of
from capibara_agents.runtime.ledger import Ledger
from capibara_agents.runtime.memory import budget_bytes, is_repacked, keeps, resident_bytes
from capibara_agents.runtime.model import ClaimState, Model, Prepared, Ticket
from capibara_agents.runtime.ownership import DataFolder
from capibara_agents.runtime.policy import choose_victims, restart_delay_s
from capibara_agents.runtime.profiles import Command, build_command, threads_for
from capibara_agents.runtime.reload import Difference, difference, waits_for_restart
from capibara_agents.runtime.server import Server
from capibara_agents.runtime.tuning import tuning_for
from capibara_agents.runtime.watch import look
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings
from capibara_agents.types import FleetSnapshot, ModelStatus, ServerState

log = logging.getLogger(__name__)

TICK_S = 1.0
# A model waits so long, for memory or for cores, before the busy ones are given no work that is younger than its own.
PATIENCE_S = 3.0
LOOK_LIMIT_S = 5.0
END_LIMIT_S = 5.0
OnChange = Callable[[FleetSnapshot], None]


class Scheduler:
    """`snapshot` may be read, and `models` looked up, from any thread: both are replaced as a whole."""

    def __init__(self, settings: Settings, store: WeightStore, folder: DataFolder) -> None:
        self.settings = self._started_with = settings
        self.models = {spec.id: Model(spec) for spec in settings.models}
        self.taken_away: frozenset[str] = frozenset()
        """Models of earlier configurations: a question that began with one of them may still ask for it."""
        self.listeners: tuple[OnChange, ...] = ()
        self.engine: Engine
        self.cpu: CpuFacts
        self.http: httpx.AsyncClient
        self._store = store
        self._folder = folder
        self._ledger = Ledger(folder.root)
        self._budget_bytes = budget_bytes(settings)
        self._closing = False
        self.snapshot = self._make_snapshot()

    def begin(self) -> None:
        """Called once on the loop, before anything else."""
        self._closing = False
        self.http = httpx.AsyncClient(trust_env=False)
        self._tick()

    async def shut_down(self, drain_s: float = 0.0) -> None:
        """Refuses who waits, lets running answers finish for `drain_s` seconds, then ends all servers."""
        self._closing = True
        for model in self.models.values():
            model.fail_waiters(ModelUnavailable("Capibara is stopping.", model_id=model.id))
        self._publish()
        end = time.monotonic() + drain_s
        while time.monotonic() < end and any(model.active for model in self.models.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for model in self.models.values():
            model.stop_server()
        tasks = [model.task for model in self.models.values() if model.task is not None]
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=END_LIMIT_S)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self.http.aclose()
        self._publish()

    # ------------------------------------------------------------ once a second

    def _tick(self) -> None:
        """Memory in use, stuck and idle servers, waits that time alone ends."""
        if self._closing:
            return
        now = time.monotonic()
        for model in self.models.values():
            if model.server is not None and model.server.pid is not None:
                self._weigh(model, just_ready=False)
                self._look_after(model)
            if model.is_idle_since(now):
                model.stop_server()
            self._look_for_weights(model)
        self._keep_to_the_budget(now)
        asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self.schedule()

    def _weigh(self, model: Model, *, just_ready: bool) -> None:
        """What the server really holds; more than was reserved is reserved from now on, and remembered."""
        if model.server is None or model.server.pid is None:
            return
        model.rss_bytes = resident_bytes(model.server.pid)
        if model.rss_bytes and model.prepared and model.state is ServerState.ready:
            model.charge_bytes = max(model.charge_bytes, model.rss_bytes)
            self._ledger.note(model.prepared.shape, model.rss_bytes, just_ready=just_ready)

    def _keep_to_the_budget(self, now: float) -> None:
        """Servers that hold more than was predicted may together exceed the budget: then idle ones go."""
        excess = sum(m.charge_bytes for m in self.models.values() if m.state is not ServerState.stopping)
        excess -= self._budget_bytes
        residents = [model.as_resident(now) for model in self.models.values()]
        for victim in choose_victims(residents, excess, 0) or ():
            self.models[victim].stop_server()

    def _look_after(self, model: Model) -> None:
        """Has a server in use, or one that was stuck when last seen, looked at; never two looks at a time."""
        if model.state is not ServerState.ready or model.is_looked_at:
            return
        if model.active or model.watch.is_suspicious:
            model.is_looked_at = True
            task = asyncio.ensure_future(self._look(model))
            model.looks.add(task)
            task.add_done_callback(model.looks.discard)
        else:
            model.watch.rest()

    async def _look(self, model: Model) -> None:
        server, watch, endpoint = model.server, model.watch, model.endpoint()
        try:
            if server is None or server.pid is None or endpoint is None:
                return
            async with asyncio.timeout(LOOK_LIMIT_S):
                pulse = await look(self.http, endpoint, server.pid)
        except TimeoutError:
            return
        finally:
            model.is_looked_at = False
        if model.server is not server:
            return
        if pulse is None:
            watch.rest()
            return
        if pulse.decoded:
            # Also of an answer that its caller did not want to the end.
            model.has_worked()
        if watch.is_hung(time.monotonic(), pulse):
            server.give_up()

    def _look_for_weights(self, model: Model) -> None:
        """Says at once which models cannot be had for want of their files, and takes it back after a pull."""
        if model.server is not None or model.task is not None:
            return
        absence = self._store.absence(model.spec)
        if absence and not model.error:
            model.error, model.missing = str(absence), True
        elif model.missing and not absence:
            model.forgive()

    # ------------------------------------------------------------ claims

    def enqueue(self, ticket: Ticket) -> None:
        model = ticket.model
        if ticket.state is not ClaimState.waiting:
            return
        if self._closing or model.leaving or (model.permanent and model.error):
            sentence = "Capibara is stopping." if self._closing else model.error or f"{model.id} was taken away."
            ticket.refuse(ModelUnavailable(sentence, model_id=model.id))
            self._publish()
            return
        loop = asyncio.get_running_loop()
        ticket.timer = loop.call_later(max(0.0, ticket.deadline_s), self._expire, ticket)
        model.queue.append(ticket)
        self.schedule()
        limit = self.settings.runtime.queue_limit
        if ticket.state is ClaimState.waiting and len(model.queue) > limit:
            model.queue.remove(ticket)
            ticket.refuse(model.too_late(f"{limit} requests wait for {model.id} already; try again later."))
            self._publish()

    def _expire(self, ticket: Ticket) -> None:
        if ticket.state is ClaimState.waiting:
            model = ticket.model
            model.queue.remove(ticket)
            what = "had no place free, or no cores," if model.state is ServerState.ready else "was not ready"
            ticket.refuse(model.too_late(f"{model.id} {what} within {ticket.deadline_s:g} s; try again later."))
            self.schedule()

    def release(self, ticket: Ticket, served: bool) -> None:
        model = ticket.model
        if ticket.state is ClaimState.waiting and ticket in model.queue:
            model.queue.remove(ticket)
        if ticket.state is ClaimState.granted:
            model.give_back(ticket, served=served)
        ticket.finish()
        self.schedule()

    # ------------------------------------------------------------ load and unload

    def load(self, model: Model, future: Future[ModelStatus]) -> None:
        model.forgive()
        model.wanted.append(future)
        self.schedule()

    def unload(self, model: Model, future: Future[ModelStatus]) -> None:
        model.unwanted.append(future)
        if model.server is None and model.task is None:
            model.tell(model.unwanted)
        self.schedule()

    # ------------------------------------------------------------ a new configuration

    def apply(self, settings: Settings, engine: Engine, future: Future[Difference]) -> None:
        """Takes over what differs. No running answer is cut: what must restart is drained first."""
        try:
            change = difference(self.settings, settings)
        except CapibaraError as error:
            future.set_exception(error)
            return
        if waiting := waits_for_restart(self._started_with, settings):
            log.warning("Changed, but in effect only after a restart: %s.", ", ".join(waiting))
        self.settings, self.engine, self._budget_bytes = settings, engine, budget_bytes(settings)
        before = self.models
        models = {spec.id: before.get(spec.id) or Model(spec) for spec in settings.models}
        self.taken_away = (self.taken_away | set(change.removed)) - models.keys()
        self.models = {**models, **{m: before[m] for m in change.removed}}
        for spec in settings.models:
            # One that was taken away and comes back before its server has gone is as good as changed.
            self.models[spec.id].become(spec, restart=spec.id in (*change.restarted, *change.added))
        for model_id in change.removed:
            model = self.models[model_id]
            model.leaving = True
            model.fail_waiters(ModelUnavailable(f"{model_id} was taken away.", model_id=model_id))
            self._drop_if_left(model)
        self.schedule()
        future.set_result(change)

    def _drop_if_left(self, model: Model) -> None:
        """Forgets a model of an earlier configuration once its server is gone."""
        if model.leaving and model.server is None:
            self.models = {m: other for m, other in self.models.items() if other is not model}

    # ------------------------------------------------------------ the one place of decisions

    def schedule(self) -> None:
        """Grants, starts and unloads whatever the state allows; then publishes. Never waits, never re-enters."""
        if self._closing:
            return
        now = time.monotonic()
        reserved_bytes, is_core_turn = 0, False
        for model in self.models.values():
            # Taking turns is decided anew each time: whoever asked for room may have gone away.
            model.draining = bool(model.unwanted) or model.outdated or model.leaving
        for model in sorted(self.models.values(), key=Model.waiting_since):
            if model.draining and not model.active and model.state is ServerState.ready:
                model.stop_server()
            if self._has_cores_for(model) and not is_core_turn:
                model.grant()
            # Longest waiting first: whoever comes after it in this pass would keep it from its cores.
            is_core_turn = is_core_turn or self._is_due(model, now)
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

    def _has_cores_for(self, model: Model) -> bool:
        busy_threads = sum(m.threads for m in self.models.values() if m.active)
        return bool(model.active) or may_work(model.threads, busy_threads, self.cpu.cores)

    def _is_due(self, model: Model, now: float) -> bool:
        """Whether a ready model has waited so long for cores that the next ones to become free are its own."""
        waits_for_cores = bool(model.queue) and not self._has_cores_for(model) and model.can_answer
        return waits_for_cores and now - model.waiting_since() > PATIENCE_S

    def _run(self, model: Model, work: Coroutine[Any, Any, None]) -> None:
        """The one task of a model; a mistake in it fails the model aloud instead of leaving it stuck."""

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("the fleet stumbled over %s", model.id, exc_info=error)
                model.server_gone()
                model.fail(f"The fleet stumbled over {model.id} ({type(error).__name__}); its log says more.")
                self.schedule()

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
        others = [m for m in self.models.values() if m is not model]
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
                self.models[victim].stop_server()
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
        problem, spec = "", model.spec
        try:
            prepared = await asyncio.to_thread(self._inspect, model)
            # A new configuration may have come meanwhile: then this is looked at anew.
            model.prepared = prepared if model.spec is spec else None
        except WeightsError as error:
            problem = error.message
        model.task = None
        if problem:
            # Not permanent: a pull mends it, and the next claim looks again.
            model.fail(problem)
        self.schedule()

    def _inspect(self, model: Model) -> Prepared:
        spec = model.spec
        files = self._store.require(spec)
        size = size_of(spec, files, self._ledger, self.engine.version)
        threads = threads_for(spec, self.cpu, size.gguf.size_bytes)
        rearranged = tuning_for(self.cpu, size.gguf.size_bytes).repacked
        return Prepared(
            files,
            size.need_bytes,
            threads,
            size.shape,
            repacked=is_repacked(size.gguf, rearranged),
            keeps=keeps(spec, size.gguf),
        )

    async def _serve(self, model: Model, prepared: Prepared) -> None:
        model.generation += 1
        model.api_key = secrets.token_urlsafe(24)
        model.error = None
        model.begin_watch()
        cores = self.cpu.core_ids or range(self.cpu.cores)
        model.lease = lease(prepared.threads, cores, [m.lease for m in self.models.values() if m.lease])
        server = model.server = Server(
            self._command(model, prepared),
            self._folder.log_file(model.id),
            http=self.http,
            on_change=lambda: self._server_changed(model),
            on_gone=lambda: self._folder.forget(model.id),
            load_timeout_s=model.spec.load_timeout_s,
            weights_bytes=prepared.files.weights.stat().st_size,
        )
        end: Exit | None = None
        try:
            end = await server.run()
        finally:
            model.load_s = server.load_s or model.load_s
            model.server_gone()
            if end is not None and end.kind != "asked":
                self._crashed(model, end)
            model.tell(model.unwanted)
            self._drop_if_left(model)
            self.schedule()

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
            asyncio.get_running_loop().call_later(pause_s, self.schedule)
            model.fail_wanted(ModelUnavailable(end.sentence, model_id=model.id, retry_after_s=pause_s))

    def _command(self, model: Model, prepared: Prepared) -> Command:
        assert model.lease is not None
        all_threads = sum(m.threads for m in self.models.values())
        return build_command(
            model.spec,
            binary=self.engine.binary,
            flags=self.engine.flags,
            lease=model.lease,
            model_file=prepared.files.weights,
            mmproj_file=prepared.files.mmproj,
            api_key=model.api_key,
            crowded=not model.lease.cores and all_threads > self.cpu.cores,
            repacked=prepared.repacked,
        )

    def _server_changed(self, model: Model) -> None:
        server = model.server
        if server is None:
            return
        if server.state is ServerState.starting and server.pid is not None and model.noted_pid != server.pid:
            model.noted_pid = server.pid
            self._folder.note(model.id, server.pid)
        if server.state is ServerState.ready:
            self._weigh(model, just_ready=True)
            model.tell(model.wanted)
            model.last_used = time.monotonic()
            self.schedule()
        else:
            self._publish()

    # ------------------------------------------------------------ what others see

    def _make_snapshot(self) -> FleetSnapshot:
        return FleetSnapshot(
            models=tuple(model.status() for model in self.models.values() if not model.leaving),
            budget_bytes=self._budget_bytes,
            used_bytes=sum(model.charge_bytes for model in self.models.values()),
        )

    def _publish(self) -> None:
        before, self.snapshot = self.snapshot, self._make_snapshot()
        for model in self.models.values():
            outbox, model.outbox = model.outbox, []
            for deliver in outbox:
                deliver()
        if before == self.snapshot:
            return
        for tell in self.listeners:
            try:
                tell(self.snapshot)
            except Exception:  # a listener's mistake must not stop the fleet; it is logged
                log.exception("a listener of fleet events failed")

    def listen(self, listener: OnChange) -> None:
        """Tells the listener the state as it is, and then after each change."""
        self.listeners = (*self.listeners, listener)
        listener(self.snapshot)

    def unlisten(self, listener: OnChange) -> None:
        self.listeners = tuple(other for other in self.listeners if other is not listener)
