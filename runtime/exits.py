"""Why a server process ended: its exit code and its last words, turned into one sentence and a decision."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

ExitKind = Literal["asked", "bad_flag", "bad_file", "illegal_instruction", "memory", "port", "hung", "crash"]
PERMANENT: frozenset[ExitKind] = frozenset({"bad_flag", "bad_file", "illegal_instruction"})
LAST_WORDS_CHARS = 300

# The first row whose words occur in the log decides; llama.cpp ends with exit code 1 for all of them.
_WORDS: tuple[tuple[ExitKind, tuple[str, ...]], ...] = (
    ("memory", ("failed to allocate", "unable to allocate", "out of memory", "bad_alloc", "cannot allocate memory")),
    ("port", ("couldn't bind", "address already in use")),
    ("bad_flag", ("invalid argument:", "error while handling argument", "to show complete usage, run with -h")),
    ("bad_file", ("error loading model", "failed to load model", "failed to open gguf file", "invalid magic")),
)
_FATAL = ("GGML_ASSERT", "ggml_abort", "terminate called", "alloc", "out of memory", "exiting due to")


@dataclass(frozen=True)
class Exit:
    """The end of one process. `sentence` says what happened and what to do."""

    kind: ExitKind
    code: int | None
    sentence: str

    @property
    def permanent(self) -> bool:
        return self.kind in PERMANENT


def classify_exit(model_id: str, code: int, log_tail: str, *, was_ready: bool) -> Exit:
    """`code` is the return code (negative: the signal's number); `log_tail` the end of the process's log."""
    number = -code if code < 0 else code - 128 if code > 128 else 0
    if number == signal.SIGILL:
        return Exit(
            "illegal_instruction",
            code,
            f"llama-server for {model_id} was built for another CPU (illegal instruction): build it on this machine, "
            "or set runtime.llama_server to one that fits.",
        )
    words = log_tail.lower()
    kind: ExitKind = "crash"
    if not was_ready and not number:
        kind = next((kind for kind, marks in _WORDS if any(mark in words for mark in marks)), "crash")
    said = fatal_words(log_tail) if was_ready else last_words(log_tail)
    return Exit(kind, code, _sentence(kind, model_id, code, number, said))


def _sentence(kind: ExitKind, model_id: str, code: int, number: int, words: str) -> str:
    said = f" Its last words: {words}" if words else ""
    if kind == "bad_flag":
        return f"llama-server refuses its arguments for {model_id}; correct the model's keys or extra_args.{said}"
    if kind == "bad_file":
        return f"llama-server cannot load the weights of {model_id}; check them with `capibara models verify`.{said}"
    if kind == "memory":
        return f"There was not enough memory for {model_id}; lower its context_tokens or slots, or free memory.{said}"
    if kind == "port":
        return f"The port chosen for {model_id} was taken in the meantime; it is started again on another.{said}"
    how = f"was ended by {signal_name(number)}" if number else f"ended with exit code {code}"
    hint = " (the system does this when memory runs out)" if number == signal.SIGKILL else ""
    return f"The server of {model_id} {how}{hint}.{said}"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def fatal_words(log_tail: str) -> str:
    """Like `last_words`, but only lines of the engine's own collapse: those about requests may quote them."""
    return last_words("\n".join(line for line in log_tail.splitlines() if any(mark in line for mark in _FATAL)))


def last_words(log_tail: str) -> str:
    """The last lines that look like errors, else the very last one, on one line and cut to LAST_WORDS_CHARS."""
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()]
    telling = [line for line in lines if " E " in line or "error" in line.lower()] or lines[-1:]
    text = " | ".join(telling[-3:])
    return text if len(text) <= LAST_WORDS_CHARS else "…" + text[-LAST_WORDS_CHARS:]
