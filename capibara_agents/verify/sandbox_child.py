"""The programs on the far side of the sandbox. Standard library only; started by `sandbox.py`, never imported there.

    nursery   started once; has loaded what answers may import, gave up files and network, forks a keeper for each run
    keeper    one a run: starts the two below, watches clock and output, kills them, reports
    answer    runs the code of the answer; it never gets to see the tests (`sandbox_answer`)
    tests     runs the tests and alone says whether they passed; talks to the answer (`sandbox_tests`)

`answer` and `tests` are locked down before the first byte of foreign code is compiled. If one of the locks that must
be there is missing, nothing runs at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from capibara_agents.verify import sandbox_locks as locks
from capibara_agents.verify.sandbox_answer import answer as answer_to
from capibara_agents.verify.sandbox_answer import evaluate
from capibara_agents.verify.sandbox_talk import frame, receive_frame, send_all
from capibara_agents.verify.sandbox_tests import tests as run_tests

# How a child tells the keeper, by its exit status, what it could not say otherwise.
EXIT_NOT_LOCKED = 98
# A process whose pipe has closed is about to end; so long it is waited for before it is killed.
_LAST_BREATH_S = 0.25
# Of a verdict, besides the value that it may carry.
_VERDICT_BYTES = 10_000
# Neither nursery nor keeper ever holds a descriptor beyond this number.
_MOST_DESCRIPTORS = 256


# ---------------------------------------------------------------- nursery


def main(control: int, preload: list[str]) -> None:
    """Serve the parent at the socket `control` until it closes, as it also does when the parent dies.

    Not by `end_with_parent`: to the kernel the parent is the thread that started the nursery, and threads come and go.
    """
    # A low number, so that few have to be closed in each child.
    low = os.dup(control)
    os.close(control)
    with socket.socket(fileno=low) as parent:
        try:
            held = _prepare(preload)
        except (OSError, AttributeError) as error:
            parent.sendall(frame({"error": f"{type(error).__name__}: {error}"}))
            return
        parent.sendall(frame({"locks": held}))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        own = os.pidfd_open(os.getpid())
        while True:
            message, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
            if not message:
                return
            for connection in descriptors:
                if os.fork() == 0:
                    _keep_and_exit(connection, own)
                os.close(connection)


def _prepare(preload: list[str]) -> list[str]:
    """Load modules, then lock what can be locked for all; the names of the locks that hold. OSError: not safe."""
    for name in preload:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    held = []
    optional: list[tuple[str, Callable[[], None]]] = [
        ("namespaces", locks.own_namespaces),
        ("killed_first", locks.be_killed_first),
        ("empty_root", locks.empty_root),
    ]
    for name, lock in optional:
        with contextlib.suppress(OSError):
            lock()
            held.append(name)
    locks.forbid_new_privileges()
    with contextlib.suppress(OSError):
        locks.landlock()
        held.append("landlock")
    locks.hide_from_debuggers()
    # Nothing more can be imported from files, by anyone.
    sys.path.clear()
    sys.path_importer_cache.clear()
    _prove_locks()
    gc.collect()
    gc.freeze()
    return [*held, "syscalls", "limits", "nobody" if os.geteuid() == 0 else "no_capabilities"]


def _prove_locks() -> None:
    """A child locked down like an answer tries what must not work. OSError when any of it does."""
    attempts: list[Callable[[], object]] = [
        lambda: os.open("/", os.O_RDONLY),
        lambda: Path("/").stat(),
        lambda: socket.socket(socket.AF_UNIX),
        lambda: socket.socket(socket.AF_INET),
        os.fork,
        lambda: os.execv("/bin/true", ["true"]),
        lambda: os.kill(1, 0),
    ]
    own = os.pidfd_open(os.getpid())
    child = os.fork()
    if child == 0:
        status = EXIT_NOT_LOCKED
        with contextlib.suppress(BaseException):
            _lock_down({}, own, cpu_s=5, memory_bytes=1 << 30)
            status = 0 if all(_is_refused(attempt) for attempt in attempts) else EXIT_NOT_LOCKED
        os._exit(status)
    os.close(own)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise OSError("the locks do not hold on this system")


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False


# ---------------------------------------------------------------- keeper


def _keep_and_exit(connection: int, nursery: int) -> NoReturn:
    try:
        locks.end_with_parent(nursery)
        os.close(nursery)
        # The nursery lets the kernel reap; a keeper wants to know how its children ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        send_all(connection, frame(_keep(connection)))
    except BaseException:  # noqa: BLE001 - a fork must never return into the nursery's loop
        os._exit(1)
    os._exit(0)


def _keep(connection: int) -> dict[str, Any]:
    """One run: its children, their output, and how they ended."""
    job = receive_frame(connection)
    limits = job["limits"]
    began = time.monotonic()
    output, output_in = os.pipe()
    verdict, verdict_in = os.pipe()
    with contextlib.suppress(OSError):
        locks.own_processes()
    if "expression" in job:
        children = [_start(lambda: evaluate(job, 3), limits, {1: output_in, 3: verdict_in})]
    else:
        children = _start_both(job, connection, output_in, verdict_in)
    os.close(output_in)
    os.close(verdict_in)
    watch = _Watch(connection, output, verdict, limits["output_bytes"])
    cut = watch.until_verdict(began + limits["wall_s"], also_output=len(children) == 1)
    said, printed = bytes(watch.said[verdict]), bytes(watch.said[output])
    # Only where the tests could not say how it went does it matter how the answer's process ended.
    ended = _end(children, patient=cut is None and (not said or b'"ended"' in said))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cut": cut,
        "verdict": said.decode("utf-8", "replace"),
        "output": printed.decode("utf-8", "replace"),
        "answer_exit": ended[0],
        "tests_exit": ended[1] if len(ended) > 1 else None,
        "wall_ms": (time.monotonic() - began) * 1000,
        "cpu_ms": (used.ru_utime + used.ru_stime) * 1000,
        "peak_bytes": used.ru_maxrss * 1024,
    }


def _start_both(job: dict[str, Any], connection: int, output_in: int, verdict_in: int) -> list[int]:
    """The processes of the answer and of its tests, with a pipe each way between them."""
    limits = job["limits"]
    to_answer, from_tests = os.pipe()
    to_tests, from_answer = os.pipe()
    answer = _start(lambda: answer_to(job, 3, 4), limits, {1: output_in, 3: to_answer, 4: from_answer})
    # Only now are the tests read: the answer's process was forked before they were in memory.
    tests = receive_frame(connection)
    descriptors = {3: to_tests, 4: from_tests, 5: verdict_in}
    children = [answer]
    try:
        children.append(_start(lambda: run_tests(tests, limits["output_bytes"], 3, 4, 5), limits, descriptors))
    except OSError:
        # A table of processes whose first has ended takes no more; then there is nothing left to test.
        if not _has_ended(answer, _LAST_BREATH_S):
            raise
    for end in (to_answer, from_tests, to_tests, from_answer):
        os.close(end)
    return children


class _Watch:
    """Reads what the children say, within bounds."""

    def __init__(self, connection: int, output: int, verdict: int, output_bytes: int) -> None:
        self._connection, self._output, self._verdict = connection, output, verdict
        self._limits = {output: output_bytes, verdict: output_bytes + _VERDICT_BYTES}
        self.said: dict[int, bytearray] = {output: bytearray(), verdict: bytearray()}

    def until_verdict(self, deadline: float, *, also_output: bool) -> str | None:
        """None when the verdict's pipe closed (and the output's, too); otherwise why the run is cut off."""
        waiting = {self._verdict, self._output}
        poll = select.poll()
        for descriptor in waiting:
            poll.register(descriptor, select.POLLIN)
        poll.register(self._connection, select.POLLRDHUP)
        while self._verdict in waiting or (also_output and self._output in waiting):
            left_s = deadline - time.monotonic()
            ready = poll.poll(max(left_s, 0) * 1000)
            if not ready or left_s <= 0:
                return "wall"
            for descriptor, _ in ready:
                if descriptor == self._connection:
                    return "cancelled"
                data = os.read(descriptor, 1 << 16)
                self.said[descriptor] += data
                if not data:
                    waiting.discard(descriptor)
                    poll.unregister(descriptor)
                if len(self.said[descriptor]) > self._limits[descriptor]:
                    del self.said[descriptor][self._limits[descriptor] :]
                    return "output"
        return None


def _end(children: list[int], *, patient: bool) -> list[int | None]:
    """Kill all; for each its exit status, negative for a signal, None when it was alive until killed here.

    The answer's process, the first, is the last to be waited for: the first of a process table ends only when all
    others of it are gone and reaped.
    """
    statuses: dict[int, int | None] = {}
    for child in reversed(children):
        statuses[child] = _wait(child, _LAST_BREATH_S if patient else 0.0)
    left = [child for child in reversed(children) if statuses[child] is None]
    for child in left:
        os.kill(child, signal.SIGKILL)
    for child in left:
        os.waitpid(child, 0)
    return [statuses[child] for child in children]


def _has_ended(child: int, at_most_s: float) -> bool:
    handle = os.pidfd_open(child)
    try:
        return bool(select.select([handle], [], [], at_most_s)[0])
    finally:
        os.close(handle)


def _wait(child: int, at_most_s: float) -> int | None:
    if not _has_ended(child, at_most_s):
        return None
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _start(body: Callable[[], None], limits: dict[str, Any], descriptors: dict[int, int]) -> int:
    """A locked-down child that runs `body` with just these descriptors (number there: number here)."""
    own = os.pidfd_open(os.getpid())
    child = os.fork()
    if child:
        os.close(own)
        return child
    status = EXIT_NOT_LOCKED
    try:
        _lock_down(descriptors, own, cpu_s=limits["cpu_s"], memory_bytes=limits["memory_bytes"])
        status = 1
        body()
        status = 0
    except SystemExit:
        status = 2
    except BaseException:  # noqa: BLE001 - a fork must never return into the keeper's work
        pass
    os._exit(status)


def _lock_down(descriptors: dict[int, int], keeper: int, *, cpu_s: int, memory_bytes: int) -> None:
    """Everything that must hold before foreign code runs. OSError when one of it does not."""
    os.setsid()
    # First out of the way of the numbers they are to have, and of standard input and error, which are /dev/null.
    high = {there: fcntl.fcntl(here, fcntl.F_DUPFD, 20) for there, here in descriptors.items()}
    parent = max([2, *descriptors]) + 1
    high[parent] = fcntl.fcntl(keeper, fcntl.F_DUPFD, 20)
    for there, here in high.items():
        os.dup2(here, there)
    os.closerange(parent + 1, _MOST_DESCRIPTORS)
    locks.limit_resources(cpu_s=cpu_s, memory_bytes=memory_bytes)
    locks.drop_privileges()
    locks.hide_from_debuggers()
    locks.end_with_parent(parent)
    os.close(parent)
    locks.forbid_new_privileges()
    locks.forbid_syscalls()
