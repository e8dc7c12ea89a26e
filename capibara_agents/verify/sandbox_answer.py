"""The process of the answer: loads its code and lets the tests call it. Standard library only; see `sandbox_child`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import types
from typing import Any

from capibara_agents.verify.sandbox_talk import Peer, frame, send_all

# How it tells the keeper, by its exit status, what it could not say otherwise.
EXIT_PRINTED_TOO_MUCH = 97


class Printed(io.StringIO):
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


def _load(job: dict[str, Any], name: str) -> types.ModuleType:
    """The answer as a module, after the code of the question, of which any error is forgiven."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    if job["given"]:
        with contextlib.suppress(Exception):
            exec(compile(job["given"], "<question>", "exec", dont_inherit=True), module.__dict__)
    exec(compile(job["source"], "<answer>", "exec", dont_inherit=True), module.__dict__)
    return module


def fault(error: Exception) -> tuple[str, str]:
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


def evaluate(job: dict[str, Any], sink: int) -> None:
    """Run the code as a program, then show the value of the expression, if one is asked for."""
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", "backslashreplace", write_through=False)
    said: dict[str, Any]
    try:
        module = _load(job, "__main__")
        shown = repr(eval(job["expression"], module.__dict__)) if job["expression"] else ""
        said = {"reason": "passed", "value": shown}
    except Exception as error:  # noqa: BLE001 - the code of the question may raise anything
        reason, detail = fault(error)
        said = {"reason": reason, "detail": detail}
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    send_all(sink, json.dumps(said).encode())


def answer(job: dict[str, Any], source: int, sink: int) -> None:
    """Load the answer, say what it defines, and let the tests call it."""
    printed = Printed(job["limits"]["output_bytes"])
    sys.stdout = printed
    peer = Peer(source, sink, judging=False, printed=printed.take)
    try:
        module = _load(job, "answer")
        offered = [[name, *_offer(value, peer)] for name, value in [*module.__dict__.items()] if name[:2] != "__"]
        said = frame(["ready", offered])
    except Exception as error:  # noqa: BLE001 - the answer may raise anything
        said = frame(["failed", *fault(error)])
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
