"""Responses that callers may come back to: in memory for those who said nothing, on disk for those who asked.

A response that follows another one holds its whole conversation, so that any of them can be removed by itself.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from capibara_agents.errors import StoreError, reason
from capibara_agents.stock import Stock
from capibara_agents.texts import phrase

IN_MEMORY = 1000
"""How many unasked-for conversations are held; the oldest goes first, all of them with the process."""

_TABLE = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, created_s REAL NOT NULL, messages TEXT NOT NULL, response TEXT NOT NULL
)
"""


class Kept(NamedTuple):
    """A response, and the conversation up to and with it, as chat messages."""

    id: str
    created_s: float
    messages: list[dict[str, Any]]
    response: dict[str, Any]


class Conversations:
    """Safe to share between threads; calls touch the disk for a moment. Raises StoreError when that fails."""

    def __init__(self, file: Path, *, keep_s: float, clock: Callable[[], float]) -> None:
        self._file = file
        self._keep_s = keep_s
        self._clock = clock
        self._recent: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, id: str, messages: list[dict[str, Any]], response: dict[str, Any], *, on_disk: bool) -> None:
        """Remember a response; on disk only where its caller asked for that."""
        kept = Kept(id, self._clock(), messages, response)
        with self._lock:
            if not on_disk:
                self._recent[id] = kept
                while len(self._recent) > IN_MEMORY:
                    self._recent.popitem(last=False)
                return
            row = (id, kept.created_s, json.dumps(messages), json.dumps(response))
            self._run("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", row, make=True)
            self._run("DELETE FROM responses WHERE created_s < ?", (kept.created_s - self._keep_s,))

    def get(self, id: str) -> Kept | None:
        """A response that is kept and has not run out."""
        with self._lock:
            if id in self._recent:
                return self._recent[id]
            oldest_s = self._clock() - self._keep_s
            query = "SELECT id, created_s, messages, response FROM responses WHERE id = ? AND created_s >= ?"
            rows = self._run(query, (id, oldest_s))
        return Kept(rows[0][0], rows[0][1], json.loads(rows[0][2]), json.loads(rows[0][3])) if rows else None

    def remove(self, id: str) -> bool:
        """Forget a response; whether there was one."""
        with self._lock:
            found = self._recent.pop(id, None) is not None
            return bool(self._run("DELETE FROM responses WHERE id = ? RETURNING id", (id,))) or found

    def clear(self) -> int:
        """Forget all; how many there were."""
        with self._lock:
            count = len(self._recent)
            self._recent.clear()
            count += len(self._run("DELETE FROM responses RETURNING id"))
            self._run("VACUUM")
            return count

    def count(self) -> int:
        """How many are kept on disk."""
        with self._lock:
            rows = self._run("SELECT count(*) FROM responses")
        return int(rows[0][0]) if rows else 0

    def stock(self) -> Stock:
        """How much is kept on disk."""
        size = "sum(length(cast(messages AS blob)) + length(cast(response AS blob)))"
        with self._lock:
            rows = self._run(f"SELECT count(*), coalesce({size}, 0), min(created_s), max(created_s) FROM responses")
        return Stock(*rows[0]) if rows else Stock()

    def _run(self, statement: str, values: tuple[Any, ...] = (), *, make: bool = False) -> list[Any]:
        """The rows of one statement; none where nothing has ever been kept on disk."""
        if not make and not self._file.exists():
            return []
        try:
            if make:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=10)) as connection, connection:
                # What was deleted is overwritten, not just left out.
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute(_TABLE)
                return connection.execute(statement, values).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(phrase("stored.responses", file=str(self._file), error=reason(error))) from error
