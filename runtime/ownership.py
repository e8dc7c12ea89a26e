"""Whose processes these are: one Capibara per data folder, and the end of what a crashed one left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from capibara_agents.errors import ConfigError
from capibara_agents.texts import phrase

LOCK_NAME = "fleet.lock"
RUN_FOLDER = "run"
# A process started at the recorded moment, give or take what the kernel's clock rounds, is the recorded process.
SAME_START_S = 0.05
KILL_WAIT_S = 2.0


class DataFolder:
    """Holds the lock of a data folder, and notes of the processes that were started from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: IO[str] | None = None

    def __enter__(self) -> DataFolder:
        """Takes the lock. Raises ConfigError when another process has it, or the folder cannot be written."""
        try:
            (self.root / RUN_FOLDER).mkdir(parents=True, exist_ok=True)
            lock = (self.root / LOCK_NAME).open("a+")
        except OSError as error:
            raise ConfigError(phrase("wrong.data_dir", folder=self.root, error=error.strerror)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "?"
            lock.close()
            raise ConfigError(phrase("wrong.data_dir_taken", pid=holder, folder=self.root)) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def log_file(self, model_id: str) -> Path:
        return self.root / "logs" / f"{model_id}.log"

    def note(self, model_id: str, pid: int) -> None:
        """Remembers a child, so that the next start can end it should this process die without doing so."""
        # A child that is gone already, or a full disk: then there is nothing to remember, or no way to.
        with contextlib.suppress(psutil.Error, OSError):
            started = psutil.Process(pid).create_time()
            self._note(model_id).write_text(json.dumps({"pid": pid, "started": started}), encoding="ascii")

    def forget(self, model_id: str) -> None:
        with contextlib.suppress(OSError):
            self._note(model_id).unlink(missing_ok=True)

    def end_leftovers(self) -> int:
        """Kills the noted processes that still run and are the noted ones; returns how many there were."""
        ended = 0
        for note in sorted((self.root / RUN_FOLDER).glob("*.json")):
            try:
                said = json.loads(note.read_text(encoding="ascii"))
                ended += _end(int(said["pid"]), float(said["started"]))
            except (OSError, ValueError, KeyError, TypeError):
                pass  # half-written by a crash: it names nobody
            note.unlink(missing_ok=True)
        return ended

    def _note(self, model_id: str) -> Path:
        return self.root / RUN_FOLDER / f"{model_id}.json"


def _end(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > SAME_START_S or os.getpgid(pid) != pid:
            return False
        os.killpg(pid, signal.SIGKILL)
        process.wait(KILL_WAIT_S)
    except psutil.TimeoutExpired:
        return True
    except (psutil.Error, ProcessLookupError, PermissionError):
        return False
    return True
