"""One llama-server process as a state machine.

    stopped ──run()──> starting ──ready line or /health 200──> ready
       ^                  │  │                                   │
       │        stop()    │  └──exit, no progress, too long──┐   ├──exit──────────> failed
       │                  v                                  v   │
       └───exit──── stopping <──stop()───────────────────────────┘
                                                          failed ──(a new Server)

A `Server` lives once: after `stopped` or `failed` a new one is made. `run()` owns the process and returns only when
it is gone; `stop()` may be called at any time and any number of times. Everything happens on one event loop.

The child gets its stdin as a pipe that is never written to: when Capibara dies, it reads the end of it and exits.
It reports progress on stdout when LLAMA_SERVER_ROUTER_PORT is set (undocumented, so /health is asked as well), logs
to stderr, which is the model's log file, and chooses its own port, which is read from that log: no port can be
taken between choice and bind. While its stdin is open llama-server does not end on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import httpx
import psutil

from capibara_agents.config import child_environment
from capibara_agents.runtime import launch
from capibara_agents.runtime.exits import Exit, classify_exit
from capibara_agents.runtime.policy import load_limit_s
from capibara_agents.runtime.profiles import Command
from capibara_agents.types import ServerState

LOGS_KEPT = 2
LOG_TAIL_BYTES = 8192
POLL_S = 0.1
PROGRESS_BYTES = 4 * 2**20
HEALTH_EVERY_S = 0.5
HEALTH_LIMIT_S = 2.0
STOP_GRACE_S = 2.0
PF_EXITING = 0x4
KILL_PENDING = 1 << (signal.SIGKILL - 1)
STATE_LINE = b"cmd_child_to_router:state:"
_LISTENING = re.compile(rb"listening on https?://[^\s:]+:(\d+)")


class Server:
    """`on_change` is called after every change of state, port or progress, on the loop."""

    def __init__(
        self,
        command: Command,
        log_file: Path,
        *,
        http: httpx.AsyncClient,
        on_change: Callable[[], None],
        on_gone: Callable[[], None] = lambda: None,
        load_timeout_s: float = 300.0,
        weights_bytes: int = 0,
    ) -> None:
        self.command = command
        self.log_file = log_file
        self.state = ServerState.stopped
        self.pid: int | None = None
        self.port: int | None = None
        self.progress: float | None = None
        self.started_at = 0.0
        self.load_s = 0.0
        self._http = http
        self._on_change = on_change
        self._on_gone = on_gone
        self._no_progress_s = load_timeout_s
        self._load_limit_s = load_limit_s(load_timeout_s, weights_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._said_ready = False
        self._given_up = False
        self._stop_asked = asyncio.Event()
        self._spoke = asyncio.Event()
        self._exited = asyncio.Event()

    @property
    def url(self) -> str | None:
        return f"http://127.0.0.1:{self.port}" if self.port else None

    async def run(self) -> Exit:
        """Starts the process and stays until it is gone; the state is `stopped` or `failed` then."""
        was_ready = hung = False
        try:
            await self._spawn()
        except OSError as error:
            self._become(ServerState.failed)
            return Exit("crash", None, f"The server of {self.command.model_id} cannot be started: {error.strerror}.")
        reader = asyncio.create_task(self._read_stdout())
        try:
            hung = not await self._wait_until_ready()
            if not hung and not self._exited.is_set() and not self._stop_asked.is_set():
                was_ready, self.load_s = True, time.monotonic() - self.started_at
                self._become(ServerState.ready)
                await _first_of(self._exited, self._stop_asked)
        finally:
            # Also on cancellation: no process outlives the task that owns it.
            asked = self._stop_asked.is_set() and not self._exited.is_set()
            await asyncio.shield(self._end_process(gently=was_ready and self.command.wrapped and not self._given_up))
            reader.cancel()
        return self._finish(asked=asked, hung=hung, was_ready=was_ready)

    def stop(self) -> None:
        """Asks the process to end; `run()` returns when it has."""
        if not self._stop_asked.is_set():
            self._stop_asked.set()
            if self.state in (ServerState.starting, ServerState.ready):
                self._become(ServerState.stopping)

    def give_up(self) -> None:
        """The process is stuck: it is killed, and `run()` returns an exit of the kind `hung`."""
        self._given_up = True
        self.stop()

    def is_ending(self) -> bool:
        """Whether the process is dying although its exit is not known yet.

        Giving back the memory of a large model takes the kernel a second, in which its sockets are closed already
        and the exit is not reported: whoever were sent there would fail. Always False where /proc is not Linux's.
        """
        try:
            return is_dying(Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return sys.platform == "linux"

    def log_tail(self, size_bytes: int = LOG_TAIL_BYTES) -> str:
        """The end of the log, at most so many bytes; empty when there is none."""
        return tail(self.log_file, size_bytes)

    # ------------------------------------------------------------ starting

    async def _spawn(self) -> None:
        """In the thread that will wait for the process.

        Files are touched, which must not be done on a loop; and that thread outlives the child, which is to die
        with the thread that made it.
        """
        self.started_at = time.monotonic()
        self._become(ServerState.starting)
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[subprocess.Popen[bytes]] = loop.create_future()
        life = (self._open, loop, opened, self._exited, self._on_gone)
        threading.Thread(target=_live, args=life, name=f"wait-{self.command.model_id}", daemon=True).start()
        try:
            self._process = await asyncio.shield(opened)
        except asyncio.CancelledError:
            self._process = await opened
            self.pid = self._process.pid
            await self._end_process(gently=False)
            raise
        self.pid = self._process.pid
        self._on_change()

    def _open(self) -> subprocess.Popen[bytes]:
        rotate(self.log_file)
        descriptor = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        try:
            return subprocess.Popen(
                [*launcher, *self.command.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
                env=child_environment(self.command.environment),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    async def _wait_until_ready(self) -> bool:
        """True when it is ready, or ended, or is to be stopped; False when it does not get on with loading."""
        marker: tuple[object, ...] = ()
        moved_at = asked_at = self.started_at
        while not (self._exited.is_set() or self._stop_asked.is_set()):
            now = time.monotonic()
            if self.port is None:
                self._find_port()
            if self.port is not None and self._said_ready:
                return True
            if self.port is not None and now - asked_at >= HEALTH_EVERY_S:
                asked_at = now
                if await self._is_healthy():
                    return True
            seen = self._signs_of_progress()
            if seen != marker:
                marker, moved_at = seen, now
            if now - moved_at > self._no_progress_s or now - self.started_at > self._load_limit_s:
                return False
            self._spoke.clear()
            await _first_of(self._exited, self._stop_asked, self._spoke, timeout_s=POLL_S)
        return True

    def _find_port(self) -> None:
        """From the log; from the open sockets once the process says that it is ready, should the words have changed."""
        with contextlib.suppress(OSError):
            found = _LISTENING.search(self.log_file.read_bytes())
            if found:
                self.port = int(found[1])
        if self.port is None and self._said_ready and self.pid is not None:
            with contextlib.suppress(psutil.Error):
                sockets = psutil.Process(self.pid).net_connections(kind="tcp")
                ports = [s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN]
                self.port = ports[0] if ports else None
        if self.port is not None:
            self._on_change()

    def _signs_of_progress(self) -> tuple[object, ...]:
        """Whatever changes while a model is being loaded: reported progress, the log, memory and bytes read."""
        resident = log_size = None
        with contextlib.suppress(OSError):
            log_size = self.log_file.stat().st_size
        if self.pid is not None:
            with contextlib.suppress(psutil.Error):
                # In coarse steps: each of our own probes costs the process a little memory, too.
                resident = psutil.Process(self.pid).memory_info().rss // PROGRESS_BYTES
        return self.progress, log_size, resident

    async def _is_healthy(self) -> bool:
        """503 while loading, and no answer at all, both mean: not yet."""
        try:
            # The limit is on the whole answer: one that comes byte by byte must not hold up the rest.
            async with asyncio.timeout(HEALTH_LIMIT_S):
                return (await self._http.get(f"{self.url}/health", timeout=HEALTH_LIMIT_S)).status_code == 200
        except (httpx.HTTPError, TimeoutError):
            return False

    async def _read_stdout(self) -> None:
        """Progress lines; anything else belongs into the log. Reads on to the end, or the pipe would fill up."""
        assert self._process is not None
        assert self._process.stdout is not None
        stream = asyncio.StreamReader(limit=2**20)
        loop = asyncio.get_running_loop()
        pipe: IO[bytes] = self._process.stdout
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        try:
            while True:
                try:
                    line = await stream.readline()
                except ValueError:  # a line longer than the limit; the reader has dropped it
                    continue
                if not line:
                    return
                self._take_line(line.strip())
        finally:
            transport.close()

    def _take_line(self, line: bytes) -> None:
        if not line.startswith(STATE_LINE):
            if line:
                with contextlib.suppress(OSError), self.log_file.open("ab") as log:
                    log.write(line + b"\n")
            return
        try:
            said = json.loads(line.removeprefix(STATE_LINE))
            state, payload = said.get("state"), said.get("payload") or {}
        except (ValueError, AttributeError):
            return
        if state == "ready":
            self._said_ready = True
            self._spoke.set()
        elif state == "loading" and isinstance(payload.get("value"), (int, float)):
            self.progress = min(1.0, max(0.0, _overall(payload)))
            self._on_change()

    # ------------------------------------------------------------ ending

    async def _end_process(self, *, gently: bool) -> None:
        """A kill: what is stopped gives no answer any more and keeps nothing, and going gently takes it a second.

        `gently`: a command_prefix may have something to tidy up, so it gets SIGTERM and a moment first.
        """
        process = self._process
        assert process is not None
        if process.stdin is not None:
            process.stdin.close()
        if not self._exited.is_set() and gently:
            self._signal(signal.SIGTERM)
            await _first_of(self._exited, timeout_s=STOP_GRACE_S)
        # The group, so that what a command_prefix has started goes too.
        self._signal(signal.SIGKILL)
        await self._exited.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _finish(self, *, asked: bool, hung: bool, was_ready: bool) -> Exit:
        assert self._process is not None
        name, code = self.command.model_id, self._process.returncode
        self.port = self.progress = None
        if asked and not self._given_up:
            self._become(ServerState.stopped)
            return Exit("asked", code, f"The server of {name} was stopped.")
        self._become(ServerState.failed)
        if self._given_up:
            return Exit("hung", code, f"The server of {name} gave no token any more and was replaced.")
        if hung:
            return Exit("hung", code, f"The server of {name} made no progress in loading and was ended.")
        return classify_exit(name, code, self.log_tail(), was_ready=was_ready)

    def _become(self, state: ServerState) -> None:
        if state is ServerState.ready:
            self.progress = None
        if state in (ServerState.stopped, ServerState.failed):
            self.pid = None
        self.state = state
        self._on_change()


def is_dying(stat: str) -> bool:
    """Whether the line of /proc/PID/stat is of a process that exits, has exited, or was sent SIGKILL just now."""
    fields = stat.rpartition(")")[2].split()
    try:
        state, flags, pending = fields[0], int(fields[6]), int(fields[28])
    except (ValueError, IndexError):
        return False
    return state in "ZX" or bool(flags & PF_EXITING) or bool(pending & KILL_PENDING)


def _live(
    open_process: Callable[[], subprocess.Popen[bytes]],
    loop: asyncio.AbstractEventLoop,
    opened: asyncio.Future[subprocess.Popen[bytes]],
    exited: asyncio.Event,
    on_gone: Callable[[], None],
) -> None:
    """The whole life of a process, in a thread of its own; `on_gone` is called there."""
    try:
        process = open_process()
    except OSError as error:
        loop.call_soon_threadsafe(opened.set_exception, error)
        return
    loop.call_soon_threadsafe(opened.set_result, process)
    process.wait()
    try:
        on_gone()
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(exited.set)


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Returns when one of the events is set, or after the time."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _overall(payload: dict[str, object]) -> float:
    """Progress over all stages (text model, projector, …), each counted alike."""
    value, stages, current = payload.get("value"), payload.get("stages"), payload.get("current")
    fraction = float(value) if isinstance(value, (int, float)) else 0.0
    if not isinstance(stages, list) or current not in stages:
        return fraction
    return (stages.index(current) + fraction) / len(stages)


def rotate(log_file: Path) -> None:
    """Makes room for a new log; the last LOGS_KEPT stay as `.1`, `.2`."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    for number in range(LOGS_KEPT, 0, -1):
        older = log_file.with_name(f"{log_file.name}.{number}")
        newer = log_file if number == 1 else log_file.with_name(f"{log_file.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)


def tail(file: Path, size_bytes: int) -> str:
    """The end of a text file from a whole line on; empty when it cannot be read."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - size_bytes))
            data = stream.read(size_bytes)
    except OSError:
        return ""
    if size > size_bytes:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", errors="replace")
