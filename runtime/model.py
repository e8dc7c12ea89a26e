"""One model of the fleet and the claims on it: plain state, changed on the fleet's loop only."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from capibara_agents.errors import ModelLoading, ModelUnavailable
from capibara_agents.runtime.cores import Lease
from capibara_agents.runtime.policy import Resident, retry_after_s
from capibara_agents.runtime.server import Server
from capibara_agents.runtime.watch import Watch
from capibara_agents.runtime.weights import LocalFiles
from capibara_agents.settings import ModelSpec
from capibara_agents.types import Endpoint, Keeps, ModelStatus, ServerState

# How fast weights are read, for the first guess of a load's length; measured loads replace it.
GUESSED_BYTES_PER_S = 500e6


class ClaimState(StrEnum):
    """waiting -> granted -> finished, or waiting -> finished."""

    waiting = "waiting"
    granted = "granted"
    finished = "finished"


@dataclass(eq=False)
class Ticket:
    """One caller's claim on one model. The caller sees `future` only; the rest belongs to the fleet's loop."""

    model: Model
    deadline_s: float
    future: Future[Endpoint] = field(default_factory=Future)
    state: ClaimState = ClaimState.waiting
    enqueued_at: float = field(default_factory=time.monotonic)
    generation: int = 0
    timer: asyncio.TimerHandle | None = None

    def offer(self, endpoint: Endpoint) -> bool:
        """Grants the claim; False when the caller has cancelled already."""
        if not self.future.set_running_or_notify_cancel():
            self.finish()
            return False
        self.state, self.generation = ClaimState.granted, endpoint.generation
        self._stop_timer()
        self.model.outbox.append(lambda: self.future.set_result(endpoint))
        return True

    def refuse(self, error: Exception) -> None:
        """Ends the wait with an error."""
        if self.future.set_running_or_notify_cancel():
            self.model.outbox.append(lambda: self.future.set_exception(error))
        self.finish()

    def finish(self) -> None:
        """No further effect on the model; may be called again."""
        self.state = ClaimState.finished
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(frozen=True)
class Prepared:
    """What is known before a start: files that exist and are right, memory, threads."""

    files: LocalFiles
    need_bytes: int
    threads: int
    shape: str = ""
    """Under which name its memory is remembered."""
    repacked: bool = False
    keeps: Keeps = field(default_factory=Keeps)


@dataclass(eq=False)
class Model:
    """`charge_bytes` counts against the budget from the start of a server until its process is gone.

    `outbox` holds answers to callers until the state they follow from is published, so that who gets an answer
    and then looks at the snapshot never sees an older state.
    """

    spec: ModelSpec
    server: Server | None = None
    task: asyncio.Task[None] | None = None
    prepared: Prepared | None = None
    queue: deque[Ticket] = field(default_factory=deque)
    wanted: list[Future[ModelStatus]] = field(default_factory=list)
    unwanted: list[Future[ModelStatus]] = field(default_factory=list)
    outbox: list[Callable[[], None]] = field(default_factory=list)
    active: int = 0
    draining: bool = False
    """Given no new work, so that it can be stopped."""
    outdated: bool = False
    """Its server runs with an earlier configuration."""
    leaving: bool = False
    """No longer of the configuration; dropped when its server is gone."""
    lease: Lease | None = None
    watch: Watch = field(default_factory=lambda: Watch(math.inf))
    looks: set[asyncio.Task[None]] = field(default_factory=set)
    is_looked_at: bool = False
    generation: int = 0
    api_key: str = ""
    charge_bytes: int = 0
    rss_bytes: int | None = None
    noted_pid: int | None = None
    failures: int = 0
    restarts: int = 0
    not_before: float = 0.0
    error: str | None = None
    permanent: bool = False
    missing: bool = False
    last_used: float = field(default_factory=time.monotonic)
    load_s: float = 0.0
    """What the latest start took until it was ready; 0 before the first."""

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def state(self) -> ServerState:
        if self.server is not None:
            return self.server.state
        return ServerState.failed if self.error else ServerState.stopped

    @property
    def needs_start(self) -> bool:
        asked_for = self.queue or any(not future.cancelled() for future in self.wanted)
        return bool(asked_for and self.server is None and self.task is None and not self.permanent)

    @property
    def can_answer(self) -> bool:
        """Whether its server is up and may be given new work."""
        server = self.server
        is_up = server is not None and server.state is ServerState.ready and not server.is_ending()
        return is_up and not self.draining

    @property
    def threads(self) -> int:
        """Threads it computes with while it answers; a guess before its files were looked at."""
        known = self.lease or self.prepared
        return known.threads if known else self.spec.threads or 1

    def waiting_since(self) -> float:
        """When the oldest waiting claim came; infinity without one, so that such models are looked at last."""
        return self.queue[0].enqueued_at if self.queue else math.inf

    def is_idle_since(self, now: float) -> bool:
        """Whether its time without use is up."""
        limit = self.spec.idle_unload_s
        return limit is not None and self.as_resident(now).idle and now - self.last_used >= limit

    def as_resident(self, now: float) -> Resident:
        """As eviction sees it: only a ready model that nobody holds or waits for is idle."""
        idle = self.state is ServerState.ready and not self.active and not self.queue
        leaving = self.state is ServerState.stopping
        return Resident(
            self.id,
            0 if leaving else self.charge_bytes,
            idle,
            self.spec.pinned,
            now - self.last_used,
            self.expected_load_s,
        )

    @property
    def expected_load_s(self) -> float:
        return self.load_s or 1.0 + (self.spec.weights.size_bytes or 2**30) / GUESSED_BYTES_PER_S

    # ------------------------------------------------------------ changes

    def grant(self) -> None:
        """Gives places to those who wait, first come first served, while the server is ready and has slots free."""
        while (
            self.queue
            and self.can_answer
            and self.active < self.spec.slots
            and (endpoint := self.endpoint()) is not None
        ):
            if self.queue.popleft().offer(endpoint):
                self.active += 1

    def endpoint(self) -> Endpoint | None:
        """Where its server answers; None while it has no address."""
        if self.server is None or not self.server.url:
            return None
        return Endpoint(
            model_id=self.id,
            url=self.server.url,
            api_key=self.api_key,
            generation=self.generation,
            keeps=self.prepared.keeps if self.prepared else Keeps(),
        )

    def become(self, spec: ModelSpec, *, restart: bool) -> None:
        """Takes a new configuration; `restart`: a server that runs has to go, but not before its answers are given."""
        self.spec, self.leaving = spec, False
        self.watch.limit_s = spec.timeout_s
        if restart:
            self.forgive()
            self.outdated = self.server is not None
            self.prepared = self.prepared if self.outdated else None

    def begin_watch(self) -> None:
        """A new server: nothing is known of it yet."""
        self.watch = Watch(self.spec.timeout_s)

    def give_back(self, ticket: Ticket, *, served: bool) -> None:
        """A claim of a server that is gone was forgotten together with it."""
        if ticket.generation != self.generation or self.server is None:
            return
        self.active -= 1
        self.last_used = time.monotonic()
        if served:
            self.has_worked()

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.stop()

    def server_gone(self) -> None:
        """The process has ended: its claims, its memory and what was known before its start are void."""
        self.server = self.task = self.prepared = self.rss_bytes = self.noted_pid = self.lease = None
        self.active = self.charge_bytes = 0
        self.draining = self.outdated = False
        self.watch.rest()

    def fail(self, sentence: str, *, permanent: bool = False) -> None:
        """Everybody who waits is told; the next claim tries again unless it is permanent."""
        self.error, self.permanent, self.prepared = sentence, permanent, None
        self.fail_waiters(ModelUnavailable(sentence, model_id=self.id))

    def fail_waiters(self, error: ModelUnavailable) -> None:
        while self.queue:
            self.queue.popleft().refuse(error)
        self.fail_wanted(error)

    def fail_wanted(self, error: ModelUnavailable) -> None:
        for future in self.wanted:
            if future.set_running_or_notify_cancel():
                self.outbox.append(partial(future.set_exception, error))
        self.wanted.clear()

    def tell(self, futures: list[Future[ModelStatus]]) -> None:
        """Answers those who asked for this state with it, once it is published."""
        for future in futures:
            if future.set_running_or_notify_cancel():
                self.outbox.append(lambda future=future: future.set_result(self.status()))  # type: ignore[misc]
        futures.clear()

    def has_worked(self) -> None:
        """A token came from the server that runs now: earlier failures no longer count."""
        if self.state is ServerState.ready:
            self.failures, self.not_before = 0, 0.0

    def forgive(self) -> None:
        """The next claim may try again at once."""
        self.failures, self.not_before, self.error = 0, 0.0, None
        self.permanent = self.missing = False

    # ------------------------------------------------------------ what others see

    def too_late(self, sentence: str) -> ModelUnavailable:
        """ModelLoading while a start is under way, ModelUnavailable otherwise, each with a guess of the time left."""
        server, now = self.server, time.monotonic()
        if server is not None and server.state is ServerState.starting:
            guess = retry_after_s(now - server.started_at, server.progress, self.expected_load_s)
            sentence = f"{self.id} is being loaded; try again in {guess:.0f} s."
            return ModelLoading(sentence, model_id=self.id, retry_after_s=guess)
        if server is None and self.not_before <= now and not self.error:
            guess = retry_after_s(0.0, None, self.expected_load_s)
            sentence = f"{self.id} waits to be loaded; try again in {guess:.0f} s."
            return ModelLoading(sentence, model_id=self.id, retry_after_s=guess)
        return ModelUnavailable(sentence, model_id=self.id, retry_after_s=max(1.0, self.not_before - now))

    def status(self) -> ModelStatus:
        server = self.server
        return ModelStatus(
            id=self.id,
            state=self.state,
            url=server.url if server else None,
            pid=server.pid if server else None,
            port=server.port if server else None,
            rss_bytes=self.rss_bytes,
            active=self.active,
            queue=len(self.queue),
            slots=self.spec.slots,
            load_progress=server.progress if server else None,
            load_s=(server.load_s if server else 0.0) or self.load_s or None,
            restarts=self.restarts,
            reserved_bytes=self.charge_bytes,
            tokens_per_second=self.watch.tokens_per_second,
            error=self.error,
            permanent=self.permanent,
            stand_in=self.spec.stand_in,
            generation=self.generation,
        )
