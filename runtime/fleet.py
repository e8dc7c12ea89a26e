"""The fleet: a server for each model, loaded when claimed, unloaded to make room, restarted after a crash.

It has a thread and an event loop of its own, and all its state is touched there only (`scheduler.py`). Callers come
from any thread and any loop: a claim travels to the fleet's loop as a `Ticket`, its grant comes back as a future,
and what is given up by a caller (a cancelled wait, a held claim) goes back by the same way, in order; so a grant
that crosses a cancellation is always returned. `snapshot()` reads a finished value that the loop has published.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from types import TracebackType

from capibara_agents.errors import ModelUnavailable
from capibara_agents.runtime.cpu import read_cpu
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.model import Model, Ticket
from capibara_agents.runtime.ownership import DataFolder
from capibara_agents.runtime.reload import Difference
from capibara_agents.runtime.scheduler import END_LIMIT_S, OnChange, Scheduler
from capibara_agents.runtime.server import tail
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings
from capibara_agents.types import Endpoint, FleetSnapshot, ModelStatus

log = logging.getLogger(__name__)

LINE_BYTES = 400


class LlamaFleet:
    """The machine room as its users see it. Its methods may be called from any thread and any event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = DataFolder(settings.data_dir)
        self._scheduler = Scheduler(settings, WeightStore(settings.weights_dir), self._folder)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._door = threading.Lock()

    # ------------------------------------------------------------ life, called by the owner

    def start(self) -> LlamaFleet:
        """Checks the engine, takes the data folder, starts the thread; no model is loaded yet.

        Raises EngineError without a usable llama-server, ConfigError when another Capibara has the folder.
        """
        if self._thread is not None:
            return self
        self._scheduler.engine, self._scheduler.cpu = find_engine(self._settings), read_cpu()
        self._folder.__enter__()
        left = self._folder.end_leftovers()
        if left:
            log.warning("ended %d servers that an earlier run had left behind", left)
        started = threading.Event()
        self._thread = threading.Thread(target=self._run_loop, args=(started,), name="capibara-fleet", daemon=True)
        self._thread.start()
        started.wait()
        return self

    def close(self, drain_s: float = 0.0) -> None:
        """Ends all servers and the thread; waiting claims get ModelUnavailable. May be called again.

        `drain_s`: how long answers that are being given may take to finish.
        """
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return
        asyncio.run_coroutine_threadsafe(self._shut_down(drain_s), self._loop)
        thread.join(drain_s + END_LIMIT_S + 1.0)
        self._folder.__exit__(None, None, None)

    def apply(self, settings: Settings) -> Future[Difference]:
        """Takes over what differs in a new configuration, without cutting a running answer; done at once.

        The future's ConfigError: a key changed that cannot change while servers run, and nothing was taken over.
        Raises EngineError, before anything is changed, when the new configuration's llama-server is not usable.
        """
        engine = find_engine(settings)
        future: Future[Difference] = Future()
        if not self._post(self._scheduler.apply, settings, engine, future):
            future.set_exception(ModelUnavailable("The fleet is not running."))
        return future

    def __enter__(self) -> LlamaFleet:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ use

    def snapshot(self) -> FleetSnapshot:
        """The state of every model, without waiting for anything."""
        return self._scheduler.snapshot

    @asynccontextmanager
    async def claim(self, model_id: str, deadline_s: float) -> AsyncIterator[Endpoint]:
        """Load the model if need be and hold it: it is neither unloaded nor stopped while claimed.

        Raises ModelLoading (with retry_after_s) when it is still loading after `deadline_s`, ModelUnavailable when
        it cannot be had, KeyError for a model that is not of this fleet.
        """
        if model_id in self._scheduler.taken_away:
            raise ModelUnavailable(f"{model_id} was taken away.", model_id=model_id)
        ticket = Ticket(self._scheduler.models[model_id], deadline_s)
        if not self._post(self._scheduler.enqueue, ticket):
            raise ModelUnavailable("The fleet is not running.", model_id=model_id)
        served = False
        try:
            yield await asyncio.wrap_future(ticket.future)
            served = True
        finally:
            # Whatever state the ticket is in over there (waiting, granted a moment ago, held), it ends here.
            self._post(self._scheduler.release, ticket, served)

    def load(self, model_id: str) -> Future[ModelStatus]:
        """Starts the model's server, also after a permanent failure; done when it is ready. KeyError if unknown."""
        return self._request(self._scheduler.load, self._scheduler.models[model_id])

    def unload(self, model_id: str) -> Future[ModelStatus]:
        """Ends the model's server once its claims are given back; done when it is gone. KeyError if unknown."""
        return self._request(self._scheduler.unload, self._scheduler.models[model_id])

    def logs(self, model_id: str, lines: int = 100) -> list[str]:
        """The last lines of the model's log; empty when there is none. KeyError if unknown."""
        model = self._scheduler.models[model_id]
        if lines <= 0:
            return []
        return tail(self._folder.log_file(model.id), lines * LINE_BYTES).splitlines()[-lines:]

    def listen(self, listener: OnChange) -> Callable[[], None]:
        """Calls `listener` with the snapshot now and after each change, on the fleet's thread: it must be quick.

        Returns what ends it. A fleet that does not run calls nobody.
        """
        self._post(self._scheduler.listen, listener)

        def end() -> None:
            self._post(self._scheduler.unlisten, listener)

        return end

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

    # ------------------------------------------------------------ the fleet's thread

    def _run_loop(self, started: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop = loop
        loop.call_soon(self._scheduler.begin)
        loop.call_soon(started.set)
        try:
            loop.run_forever()
        finally:
            with self._door:
                self._loop = None
            # What came through the door before it was shut still gets its answer.
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    async def _shut_down(self, drain_s: float) -> None:
        try:
            await self._scheduler.shut_down(drain_s)
        finally:
            asyncio.get_running_loop().stop()
