"""What servers really held, remembered between runs, so that the next prediction is better than the first.

data_dir/memory.json: one entry for each model and shape (weights, context, slots, cache types, arguments, engine).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from capibara_agents.runtime.memory import Need
from capibara_agents.settings import ModelSpec

FILE_NAME = "memory.json"
SHAPE_KEYS = {
    "context_tokens",
    "slots",
    "threads",
    "batch_tokens",
    "flash_attention",
    "cache_type_k",
    "cache_type_v",
    "extra_args",
}
# An entry is written again when it has moved by more than this share.
WORTH_WRITING = 0.01


@dataclass(frozen=True)
class Measured:
    """Bytes of one shape: held right after it became ready, and the most it ever held."""

    ready_bytes: int
    peak_bytes: int


def corrected_bytes(need: Need, measured: Measured | None) -> int:
    """What to reserve: the prediction, until the server was seen.

    What is held from the start (weights, caches, the process) is then known; what use adds (compute buffers, the
    prompt cache) is still predicted, because the measured peak may come from a server that had little to do.
    """
    if measured is None:
        return need.total_bytes
    return max(measured.peak_bytes, measured.ready_bytes + need.in_use_bytes)


def shape_key(spec: ModelSpec, weights_bytes: int, engine_version: str) -> str:
    """Names one shape: equal for what must take equally much memory."""
    parts = [spec.model_dump_json(include=SHAPE_KEYS), spec.weights.source, str(weights_bytes), engine_version]
    return f"{spec.id}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"


class Ledger:
    """The file, read once. Whatever is wrong with it counts as nothing known; it is never a reason to fail."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / FILE_NAME
        self._entries = _read(self._file)
        self._writing = threading.Lock()

    def get(self, key: str) -> Measured | None:
        return self._entries.get(key)

    def note(self, key: str, held_bytes: int, *, just_ready: bool) -> None:
        """Takes a measurement into account and writes it down when it tells something new."""
        old = self._entries.get(key)
        if old is None and not just_ready:
            return
        ready = held_bytes if just_ready or old is None else old.ready_bytes
        new = Measured(ready, max(held_bytes, old.peak_bytes if old else 0))
        self._entries[key] = new
        if old is None or _moved(old.ready_bytes, new.ready_bytes) or _moved(old.peak_bytes, new.peak_bytes):
            self._write_elsewhere()

    def _write_elsewhere(self) -> None:
        """In a thread where a loop runs in this one: LangGraph's development server allows no file work beside it."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._write()
            return
        with contextlib.suppress(RuntimeError):  # no new threads while the interpreter shuts down
            threading.Thread(target=self._write, name="memory-ledger").start()

    def _write(self) -> None:
        draft = self._file.with_name(self._file.name + ".new")
        # What is known when the lock is had: whoever writes last writes the newest.
        with self._writing, contextlib.suppress(OSError):
            entries = {key: asdict(measured) for key, measured in self._entries.copy().items()}
            draft.write_text(json.dumps(entries, indent=1), encoding="ascii")
            draft.replace(self._file)


def _moved(old_bytes: int, new_bytes: int) -> bool:
    return abs(new_bytes - old_bytes) > WORTH_WRITING * old_bytes


def _read(file: Path) -> dict[str, Measured]:
    try:
        said = json.loads(file.read_text(encoding="ascii"))
        return {str(k): Measured(int(v["ready_bytes"]), int(v["peak_bytes"])) for k, v in said.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
