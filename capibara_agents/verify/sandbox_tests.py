"""The process of the tests: alone says whether they passed. Standard library only; see `sandbox_child`."""

from __future__ import annotations

import builtins
import json
import sys
import types
from typing import Any

from capibara_agents.verify.sandbox_answer import Printed, fault
from capibara_agents.verify.sandbox_talk import Garbled, Gone, Incomparable, Peer, receive_frame, send_all
from capibara_agents.verify.sandbox_values import same_shown

# Tests that use one of these get the real one, whatever an answer calls by its name.
_OWN_MODULES = {"math", "re", "json", "itertools", "functools", "collections", "operator", "copy", "random"}


def tests(job: dict[str, Any], output_bytes: int, source: int, sink: int, verdict: int) -> None:
    """Run the tests against the answer at the other end, and say how they went, at the very end and once."""
    sys.stdout = Printed(output_bytes)
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


def _print_on(text: str) -> None:
    # Wherever a test has sent its output just now.
    sys.stdout.write(text)


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
        printed = Printed(1 << 20)
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
    reason, said = fault(error)
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
