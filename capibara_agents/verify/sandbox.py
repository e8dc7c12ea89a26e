"""Runs Python from an answer where it can do no harm, against tests that it can neither see nor forge.

    run(Program(source=answer, tests="assert add(1, 2) == 3")) -> RunResult(outcome="passed" | "failed" | "unknown", …)

The answer and its tests run in two processes of their own (`sandbox_child`), each without files, network, other
programs or processes (`sandbox_locks`); only values pass between them (`sandbox_talk`). The process of the tests says
whether they passed, so an answer that prints, exits or patches its way out shows nothing. Where the kernel does not
grant the locks nothing is run: `available()` says so. What each lock stops and what remains is in docs/sandbox.md.

`run` blocks and may be called from any thread; from a coroutine use `asyncio.to_thread`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from capibara_agents.types import Value
from capibara_agents.verify.sandbox_answer import EXIT_PRINTED_TOO_MUCH
from capibara_agents.verify.sandbox_child import EXIT_NOT_LOCKED
from capibara_agents.verify.sandbox_locks import MACHINES
from capibara_agents.verify.sandbox_talk import MAX_FRAME_BYTES, Gone, frame

Outcome = Literal["passed", "failed", "unknown"]

# What answers may import. It is loaded before the locks close, because afterwards no file can be opened; what is not
# here, numpy say, leaves the outcome unknown. Not here on purpose: what would exist and then not work, such as asyncio.
PRELOAD = (
    "__future__", "abc", "array", "ast", "base64", "binascii", "bisect", "builtins", "calendar", "cmath", "codecs",
    "collections", "collections.abc", "concurrent.futures", "concurrent.futures.thread", "contextlib", "copy",
    "csv", "dataclasses", "datetime", "decimal", "difflib", "doctest", "encodings.ascii", "encodings.base64_codec",
    "encodings.cp1252", "encodings.hex_codec", "encodings.latin_1", "encodings.rot_13", "encodings.utf_16",
    "encodings.utf_32", "encodings.unicode_escape", "encodings.raw_unicode_escape", "enum", "errno", "fractions",
    "functools", "gc", "graphlib", "hashlib", "heapq", "hmac", "html", "html.parser", "inspect", "io", "ipaddress",
    "itertools", "json", "keyword", "locale", "logging", "math", "numbers", "operator", "os", "os.path", "pathlib",
    "pprint", "queue", "random", "re", "reprlib", "secrets", "statistics", "string", "struct", "sys", "tempfile",
    "textwrap", "threading", "time", "timeit", "token", "tokenize", "traceback", "types", "typing", "unicodedata",
    "unittest", "unittest.mock", "urllib.parse", "uuid", "warnings", "weakref", "zlib", "_strptime",
)  # fmt: skip
MOST_AT_ONCE = 8
# A nursery loads its modules in a fraction of this; a keeper reports so long after its run's own limit at the latest.
START_S = 30.0
REPORT_S = 5.0

# No site packages, no variables of the environment, no current folder on the path, nothing written beside sources.
_PYTHON = (sys.executable, "-I", "-S", "-E", "-B", "-X", "utf8", "-c")
_CHILD = """
import sys, types
for name, path in (("capibara_agents", sys.argv[1]), ("capibara_agents.verify", sys.argv[1] + "/verify")):
    module = types.ModuleType(name)
    module.__path__ = [path]
    sys.modules[name] = module
from capibara_agents.verify.sandbox_child import main
main(int(sys.argv[2]), sys.argv[3].split(","))
"""

# Reason -> its text, and the outcome that follows from it.
REASONS: dict[str, tuple[str, Outcome]] = {
    "passed": ("verify.sandbox.passed", "passed"),
    "tests_failed": ("verify.sandbox.tests_failed", "failed"),
    "example_differs": ("verify.sandbox.example_differs", "failed"),
    "raised": ("verify.sandbox.raised", "failed"),
    "syntax": ("verify.sandbox.syntax", "failed"),
    "not_defined": ("verify.sandbox.not_defined", "failed"),
    "wall": ("verify.sandbox.wall", "unknown"),
    "cpu": ("verify.sandbox.cpu", "failed"),
    "memory": ("verify.sandbox.memory", "failed"),
    "output": ("verify.sandbox.output", "failed"),
    "recursion": ("verify.sandbox.recursion", "failed"),
    "forbidden": ("verify.sandbox.forbidden", "failed"),
    "exited": ("verify.sandbox.exited", "failed"),
    "crashed": ("verify.sandbox.crashed", "failed"),
    "broke_off": ("verify.sandbox.broke_off", "failed"),
    "module_missing": ("verify.sandbox.module_missing", "unknown"),
    "wants_input": ("verify.sandbox.wants_input", "unknown"),
    "not_called": ("verify.sandbox.not_called", "unknown"),
    "incomparable": ("verify.sandbox.incomparable", "unknown"),
    "tests_broken": ("verify.sandbox.tests_broken", "unknown"),
    "too_long": ("verify.sandbox.too_long", "unknown"),
    "lost": ("verify.sandbox.lost", "unknown"),
    "not_locked": ("verify.sandbox.not_locked", "unknown"),
    "no_linux": ("verify.sandbox.no_linux", "unknown"),
    "no_filter": ("verify.sandbox.no_filter", "unknown"),
}


class Limits(Value):
    """What one run may use; each of its two processes for itself, the wall clock for both.

    A loop without end uses up its processor time and has failed. Who runs out of wall time first may just have been
    left waiting on a busy machine: that outcome is unknown.
    """

    wall_s: float = Field(10.0, gt=0)
    cpu_s: int = Field(3, ge=1)
    memory_bytes: int = Field(512 << 20, ge=128 << 20, description="Address space; the interpreter takes about 60 MB.")
    output_bytes: int = Field(1_000_000, ge=0, description="Printed text.")


class Example(Value):
    """A statement, and what Python would show after it; empty: nothing is asked of it."""

    source: str
    wanted: str = ""


class Program(Value):
    """Code of an answer and what it is held against."""

    source: str = Field(description="The answer's code.")
    given: str = Field(
        "", description="Code of the question, run before it (imports, helpers); its errors are ignored."
    )
    tests: str = Field("", description="The caller's: asserts, `check(candidate)`, or functions named test_….")
    examples: tuple[Example, ...] = Field((), description="Found in the question; they count where no tests are sent.")
    entry_point: str | None = Field(None, description="The function that `check` is called with.")


class RunResult(Value):
    """How a run went. `reason` is a key of REASONS, `detail` and `output` are foreign text."""

    outcome: Outcome
    reason: str
    detail: str = ""
    value: str = Field("", description="repr of the expression that was asked for.")
    output: str = Field("", description="What the code printed, where it ran as a program.")
    examples_passed: int = 0
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    peak_bytes: int = Field(0, description="Resident memory of its largest process.")

    @property
    def text_code(self) -> str:
        """The code of `texts/` for the reason."""
        return REASONS[self.reason][0]


class NotAvailable(Exception):
    """Nothing can be run here. `reason` is a key of REASONS."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Sandbox:
    """Owns the nursery, the process that the runs are forked from; started at the first run. Safe in any thread."""

    def __init__(self, preload: tuple[str, ...] = PRELOAD) -> None:
        self._preload = preload
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.locks: tuple[str, ...] = ()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, program: Program, limits: Limits | None = None) -> RunResult:
        """Run an answer against its tests, or else its examples; without either the outcome is unknown (`not_called`).

        Never raises: where nothing can be run the outcome is unknown, and the reason says why.
        """
        limits = limits or Limits()
        answer = {"limits": limits.model_dump(), "given": program.given, "source": program.source}
        tests = {
            "tests": program.tests,
            # Docstrings err now and then; who sends tests has said what counts.
            "examples": [[e.source, e.wanted] for e in program.examples] if not program.tests else [],
            "entry_point": program.entry_point,
        }
        return self._run([answer, tests], limits)

    def evaluate(self, source: str, expression: str = "", limits: Limits | None = None) -> RunResult:
        """Run code as a program: `output` is what it printed, `value` the repr of the expression after it.

        The code speaks for itself here. That is right for the code of a question, never for that of an answer.
        """
        limits = limits or Limits()
        job = {"limits": limits.model_dump(), "given": "", "source": source, "expression": expression}
        return self._run([job], limits)

    def start(self) -> tuple[str, ...]:
        """Start the nursery if it is not there; the names of the locks that hold. NotAvailable when it cannot be."""
        with self._lock:
            if self._nursery is None or self._nursery.poll() is not None:
                self._stop()
                self._start()
            return self.locks

    def close(self) -> None:
        """End the nursery; runs under way end with it."""
        with self._lock:
            self._stop()

    # ---------------------------------------------------------------- one run

    def _run(self, messages: list[Any], limits: Limits) -> RunResult:
        try:
            data = b"".join(map(frame, messages))
        except ValueError:
            return _result("too_long")
        if len(data) > MAX_FRAME_BYTES:
            return _result("too_long")
        try:
            with self._places:
                self.start()
                return _read_report(self._ask(data, limits), limits)
        except NotAvailable as missing:
            return _result(missing.reason, detail=missing.detail)
        except (OSError, Gone):
            return _result("lost")

    def _ask(self, data: bytes, limits: Limits) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, self._lock:
                if self._control is None:
                    raise Gone
                socket.send_fds(self._control, [b"r"], [theirs.fileno()])
            ours.settimeout(limits.wall_s + REPORT_S)
            ours.sendall(data)
            return _receive(ours, limits.wall_s + REPORT_S)

    # ---------------------------------------------------------------- the nursery

    def _start(self) -> None:
        if sys.platform != "linux":
            raise NotAvailable("no_linux", sys.platform)
        if platform.machine() not in MACHINES:
            raise NotAvailable("no_filter", platform.machine())
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).resolve().parents[1])
        with theirs:
            nursery = subprocess.Popen(
                [*_PYTHON, _CHILD, package, str(theirs.fileno()), ",".join(self._preload)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._nursery, self._control = nursery, ours
        try:
            hello = _receive(ours, START_S)
        except (OSError, Gone) as error:
            self._stop()
            raise NotAvailable("not_locked", "no sign of the nursery") from error
        if "error" in hello:
            self._stop()
            raise NotAvailable("not_locked", str(hello["error"]))
        ours.settimeout(START_S)
        self.locks = tuple(hello["locks"])

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._nursery is not None:
            with contextlib.suppress(ProcessLookupError):
                self._nursery.send_signal(signal.SIGKILL)
            self._nursery.wait()
        self._nursery = self._control = None


def _receive(connection: socket.socket, at_most_s: float) -> dict[str, Any]:
    """A frame within so many seconds. Gone, or TimeoutError, when it does not come whole."""
    until = time.monotonic() + at_most_s
    data = bytearray()
    while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "big"):
        connection.settimeout(max(until - time.monotonic(), 0.001))
        part = connection.recv(1 << 20)
        if not part or len(data) > 4 * MAX_FRAME_BYTES:
            raise Gone
        data += part
    found = json.loads(data[8:])
    if not isinstance(found, dict):
        raise Gone
    return found


# ---------------------------------------------------------------- what a report means


def _result(reason: str, **more: Any) -> RunResult:
    return RunResult(outcome=REASONS[reason][1], reason=reason, **more)


def _read_report(report: dict[str, Any], limits: Limits) -> RunResult:
    """The result that a keeper's report stands for. Pure."""
    said = _said(report["verdict"])
    reason = _reason(report, said, limits)
    return _result(
        reason,
        detail=str(said.get("detail", ""))[:1000],
        value=str(said.get("value", "")) if reason == "passed" else "",
        output=report["output"],
        examples_passed=int(said.get("examples", 0)),
        wall_ms=report["wall_ms"],
        cpu_ms=report["cpu_ms"],
        peak_bytes=report["peak_bytes"],
    )


def _said(verdict: str) -> dict[str, Any]:
    try:
        said = json.loads(verdict)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict) or not isinstance(said.get("examples", 0), int):
        return {}
    return said


def _reason(report: dict[str, Any], said: dict[str, Any], limits: Limits) -> str:
    if report["cut"] in ("wall", "output"):
        return str(report["cut"])
    reason = said.get("reason")
    if isinstance(reason, str) and reason in REASONS:
        return reason
    # The process of the answer first: in a process table of its own its end is the end of the tests' process, too.
    ended = next((status for status in (report["answer_exit"], report["tests_exit"]) if status is not None), None)
    if ended is None:
        return "broke_off"
    if ended >= 0:
        return {EXIT_PRINTED_TOO_MUCH: "output", EXIT_NOT_LOCKED: "not_locked"}.get(ended, "exited")
    if ended == -signal.SIGXCPU or (ended == -signal.SIGKILL and report["cpu_ms"] > limits.cpu_s * 900):
        return "cpu"
    return "memory" if ended == -signal.SIGKILL else "crashed"


# ---------------------------------------------------------------- the one that all share

_shared = Sandbox()
atexit.register(_shared.close)


def run(program: Program, limits: Limits | None = None) -> RunResult:
    """`Sandbox.run` of the sandbox that this process shares."""
    return _shared.run(program, limits)


def evaluate(source: str, expression: str = "", limits: Limits | None = None) -> RunResult:
    """`Sandbox.evaluate` of the sandbox that this process shares."""
    return _shared.evaluate(source, expression, limits)


def available() -> tuple[bool, str]:
    """Whether code can be run here, tried out; and the locks that hold, or the key of REASONS why not."""
    try:
        return True, ", ".join(_shared.start())
    except NotAvailable as missing:
        return False, missing.reason
