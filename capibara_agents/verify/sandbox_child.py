"""The programs on the far side of the sandbox. Standard library only; started by `sandbox.py`, never imported there.

    nursery   started once; has loaded what answers may import, gave up files and network, forks a keeper for each run
    keeper    one a run: starts the two below, watches clock and output, kills them, reports
    answer    runs the code of the answer; it never gets to see the tests
    tests     runs the tests and alone says whether they passed; talks to the answer as in `sandbox_talk`

`answer` and `tests` are locked down before the first byte of foreign code is compiled. If one of the locks that must
be there is missing, nothing runs at all.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from capibara_agents.verify import sandbox_locks as locks
from capibara_agents.verify.sandbox_talk import Garbled, Gone, Incomparable, Peer, frame, receive_frame, send_all
from capibara_agents.verify.sandbox_values import same_shown

# How a child tells the keeper, by its exit status, what it could not say otherwise.
EXIT_PRINTED_TOO_MUCH, EXIT_NOT_LOCKED = 97, 98
# A process whose pipe has closed is about to end; so long it is waited for before it is killed.
_LAST_BREATH_S = 0.25
# Of a verdict, besides the value that it may carry.
_VERDICT_BYTES = 10_000
# Tests that use one of these get the real one, whatever an answer calls by its name.
_OWN_MODULES = {"math", "re", "json", "itertools", "functools", "collections", "operator", "copy", "random"}
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
        while True:
            message, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
            if not message:
                return
            for connection in descriptors:
                if os.fork() == 0:
                    _keep_and_exit(connection)
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
    child = os.fork()
    if child == 0:
        status = EXIT_NOT_LOCKED
        with contextlib.suppress(BaseException):
            _lock_down({}, cpu_s=5, memory_bytes=1 << 30)
            status = 0 if all(_is_refused(attempt) for attempt in attempts) else EXIT_NOT_LOCKED
        os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise OSError("the locks do not hold on this system")


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False


# ---------------------------------------------------------------- keeper


def _keep_and_exit(connection: int) -> NoReturn:
    try:
        locks.end_with_parent()
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
        children = [_start(lambda: _evaluate(job, 3), limits, {1: output_in, 3: verdict_in})]
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
    answer = _start(lambda: _answer(job, 3, 4), limits, {1: output_in, 3: to_answer, 4: from_answer})
    # Only now are the tests read: the answer's process was forked before they were in memory.
    tests = receive_frame(connection)
    descriptors = {3: to_tests, 4: from_tests, 5: verdict_in}
    children = [answer]
    try:
        children.append(_start(lambda: _tests(tests, limits["output_bytes"], 3, 4, 5), limits, descriptors))
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
    child = os.fork()
    if child:
        return child
    status = EXIT_NOT_LOCKED
    try:
        _lock_down(descriptors, cpu_s=limits["cpu_s"], memory_bytes=limits["memory_bytes"])
        status = 1
        body()
        status = 0
    except SystemExit:
        status = 2
    except BaseException:  # noqa: BLE001 - a fork must never return into the keeper's work
        pass
    os._exit(status)


def _lock_down(descriptors: dict[int, int], *, cpu_s: int, memory_bytes: int) -> None:
    """Everything that must hold before foreign code runs. OSError when one of it does not."""
    os.setsid()
    # First out of the way of the numbers they are to have, and of standard input and error, which are /dev/null.
    high = {there: fcntl.fcntl(here, fcntl.F_DUPFD, 20) for there, here in descriptors.items()}
    for there, here in high.items():
        os.dup2(here, there)
    os.closerange(max([2, *descriptors]) + 1, _MOST_DESCRIPTORS)
    locks.limit_resources(cpu_s=cpu_s, memory_bytes=memory_bytes)
    locks.drop_privileges()
    locks.hide_from_debuggers()
    locks.end_with_parent()
    locks.forbid_new_privileges()
    locks.forbid_syscalls()


# ---------------------------------------------------------------- answer


class _Printed(io.StringIO):
    """What was printed since it was last taken; ends the process when it is too much altogether."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._left = limit_bytes

    def write(self, text: str) -> int:
        self._left -= len(text)
        if self._left < 0:
            os._exit(EXIT_PRINTED_TOO_MUCH)
        return super().write(text)

    def take(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def _print_on(text: str) -> None:
    # Wherever a test has sent its output just now.
    sys.stdout.write(text)


def _load(job: dict[str, Any], name: str) -> types.ModuleType:
    """The answer as a module, after the code of the question, of which any error is forgiven."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    if job["given"]:
        with contextlib.suppress(Exception):
            exec(compile(job["given"], "<question>", "exec", dont_inherit=True), module.__dict__)
    exec(compile(job["source"], "<answer>", "exec", dont_inherit=True), module.__dict__)
    return module


def _fault(error: Exception) -> tuple[str, str]:
    """Reason and detail for what code raised while it was loaded."""
    said = f"{type(error).__name__}: {str(error)[:300]}"
    kinds: list[tuple[type[Exception], str]] = [
        (SyntaxError, "syntax"),
        (ModuleNotFoundError, "module_missing"),
        (EOFError, "wants_input"),
        (MemoryError, "memory"),
        (PermissionError, "forbidden"),
        (RecursionError, "recursion"),
    ]
    return next((reason for kind, reason in kinds if isinstance(error, kind)), "raised"), said


def _evaluate(job: dict[str, Any], sink: int) -> None:
    """Run the code as a program, then show the value of the expression, if one is asked for."""
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", "backslashreplace", write_through=False)
    said: dict[str, Any]
    try:
        module = _load(job, "__main__")
        shown = repr(eval(job["expression"], module.__dict__)) if job["expression"] else ""
        said = {"reason": "passed", "value": shown}
    except Exception as error:  # noqa: BLE001 - the code of the question may raise anything
        reason, detail = _fault(error)
        said = {"reason": reason, "detail": detail}
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    send_all(sink, json.dumps(said).encode())


def _answer(job: dict[str, Any], source: int, sink: int) -> None:
    """Load the answer, say what it defines, and let the tests call it."""
    printed = _Printed(job["limits"]["output_bytes"])
    sys.stdout = printed
    peer = Peer(source, sink, judging=False, printed=printed.take)
    try:
        module = _load(job, "answer")
        offered = [[name, *_offer(value, peer)] for name, value in [*module.__dict__.items()] if name[:2] != "__"]
        said = frame(["ready", offered])
    except Exception as error:  # noqa: BLE001 - the answer may raise anything
        said = frame(["failed", *_fault(error)])
    send_all(sink, said)
    peer.serve_for_ever()


def _offer(value: Any, peer: Peer) -> list[Any]:
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, type) and issubclass(value, Exception):
        return ["error", [kind.__name__ for kind in value.__mro__]]
    try:
        return ["value", peer.encode(value)]
    except (RecursionError, ValueError):
        return ["module", "builtins"]


# ---------------------------------------------------------------- tests


def _tests(job: dict[str, Any], output_bytes: int, source: int, sink: int, verdict: int) -> None:
    """Run the tests against the answer at the other end, and say how they went, at the very end and once."""
    sys.stdout = _Printed(output_bytes)
    peer = Peer(source, sink, judging=True)
    peer.output = _print_on
    passed = 0
    try:
        match receive_frame(source):
            case ["failed", str(reason), str(detail)] if reason != "passed":
                said = {"reason": reason, "detail": detail}
            case ["ready", list(offered)]:
                namespace = _namespace(offered, job["entry_point"], peer)
                passed = _run_examples(job["examples"], namespace, peer)
                _run_tests(job, namespace)
                said = {"reason": "passed" if peer.calls else "not_called"}
            case _:
                raise Garbled
    except _Failed as failure:
        said = {"reason": failure.reason, "detail": failure.detail}
        passed = failure.passed
    except Garbled:
        said = {"reason": "broke_off"}
    except Gone:
        # How it ended, the keeper sees.
        said = {"reason": "ended"}
    except Incomparable as error:
        said = {"reason": "incomparable", "detail": str(error)}
    send_all(verdict, json.dumps({**said, "examples": passed}).encode())


class _Failed(Exception):
    def __init__(self, reason: str, detail: str = "", passed: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.passed = reason, detail, passed


def _namespace(offered: list[Any], entry_point: str | None, peer: Peer) -> dict[str, Any]:
    """The names of the answer as the tests see them; built-in functions and modules stay what they are."""
    namespace: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    try:
        for name, kind, what in offered:
            match kind:
                case _ if name != entry_point and hasattr(builtins, name):
                    pass
                case _ if name in _OWN_MODULES:
                    namespace[name] = sys.modules[name]
                case "value":
                    namespace[str(name)] = peer.decode(what)
                case "error":
                    namespace[str(name)] = peer.learn_error(what)
                case "module" if what in sys.modules:
                    namespace[str(name)] = sys.modules[what]
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        raise Garbled from None
    return namespace


def _run_examples(examples: list[list[str]], namespace: dict[str, Any], peer: Peer) -> int:
    """All of them, in order, as in a doctest. How many there were; _Failed at the first that is not as written."""
    shown: list[Any] = []
    sys.displayhook = lambda value: shown.append(value) if value is not None else None
    for number, (source, wanted) in enumerate(examples):
        shown.clear()
        printed = _Printed(1 << 20)
        sys.stdout, before = printed, sys.stdout
        try:
            exec(compile(source, "<example>", "single", dont_inherit=True), namespace)
            seen = printed.take() + "".join(repr(value) for value in shown) or "None"
        except SyntaxError as error:
            raise _Failed("tests_broken", f"{source[:100]}: {error.msg}", number) from None
        except Exception as error:  # noqa: BLE001 - the answer may raise anything
            if isinstance(error, NameError) and _raised_in(error) == "<example>":
                # It speaks of a function that the answer does not have; prose often does.
                continue
            if not _is_wanted_error(error, wanted):
                raise _Failed(*_blame(error, f"{source[:100]}: "), number) from None
            continue
        finally:
            sys.stdout = before
        if wanted and not same_shown(seen, wanted):
            raise _Failed("example_differs", f"{source[:100]} -> {seen[:100]}", number)
    return len(examples)


def _is_wanted_error(error: Exception, wanted: str) -> bool:
    """The last line names the error, with a message or without one."""
    last = wanted.strip().rsplit("\n", 1)[-1].strip()
    name, _, message = last.partition(":")
    return name.rpartition(".")[2] == type(error).__name__ and (not message.strip() or message.strip() == str(error))


def _run_tests(job: dict[str, Any], namespace: dict[str, Any]) -> None:
    """The caller's tests; then `check(candidate)`, or else every `test_…` function without parameters."""
    if not job["tests"]:
        return
    try:
        code = compile(job["tests"], "<tests>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Failed("tests_broken", str(error)[:300]) from None
    entry = job["entry_point"]
    if entry and entry not in namespace:
        raise _Failed("not_defined", entry)
    candidate = namespace.get(entry) if entry else None
    try:
        exec(code, namespace)
        if entry and isinstance(namespace.get("check"), types.FunctionType):
            namespace["check"](candidate)
        for name, value in [*namespace.items()]:
            if name.startswith("test_") and isinstance(value, types.FunctionType) and not value.__code__.co_argcount:
                value()
    except Exception as error:  # noqa: BLE001 - tests and answer may raise anything
        raise _Failed(*_blame(error)) from None
    except SystemExit:
        raise _Failed("tests_broken", "SystemExit") from None


def _blame(error: Exception, before: str = "") -> tuple[str, str]:
    """Reason and detail for what stopped a test."""
    if isinstance(error, AssertionError):
        return "tests_failed", before + _line_of(error) + str(error)[:300]
    if isinstance(error, NameError):
        return "not_defined", before + str(error)[:300]
    reason, said = _fault(error)
    return reason, before + _line_of(error) + said


def _raised_in(error: Exception) -> str:
    trace, name = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    return name


def _line_of(error: Exception) -> str:
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"line {line}: " if line else ""
