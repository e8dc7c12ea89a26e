"""Threads of the LangGraph API: who they are, and the checkpoints of their runs, in SQLite or in Postgres.

Nothing is opened before the first thread is asked for. One file (or one database) holds both: a row for each thread,
and LangGraph's own tables of checkpoints.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from capibara_agents import types
from capibara_agents.errors import BadQuestion, ConfigError, StoreError, reason
from capibara_agents.stock import Stock
from capibara_agents.texts import phrase

_TABLE = """
CREATE TABLE IF NOT EXISTS capibara_threads (
    id TEXT PRIMARY KEY, created_s DOUBLE PRECISION NOT NULL, updated_s DOUBLE PRECISION NOT NULL,
    ran_s DOUBLE PRECISION NOT NULL, status TEXT NOT NULL, metadata TEXT NOT NULL
)
"""
_COLUMNS = "id, created_s, updated_s, ran_s, status, metadata"


class Thread(NamedTuple):
    """One thread. Times are seconds of the epoch; `status` is idle, busy or error."""

    id: str
    created_s: float
    updated_s: float
    ran_s: float
    status: str
    metadata: dict[str, Any]


class Database(Protocol):
    """A database that can do both: run our statements (parameters as `?`) and keep LangGraph's checkpoints."""

    saver: BaseCheckpointSaver[str]

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...
    async def close(self) -> None: ...
    def stop(self) -> None: ...


class Threads:
    """Safe to share between the requests of one event loop. Raises StoreError when the database fails."""

    def __init__(self, where: Path | str, *, keep_s: float, clock: Callable[[], float]) -> None:
        self._where = where
        self._keep_s = keep_s
        self._clock = clock
        self._opening = asyncio.Lock()
        self._database: Database | None = None

    async def saver(self) -> BaseCheckpointSaver[str]:
        """Where LangGraph keeps the checkpoints."""
        return (await self._open()).saver

    async def create(self, id: str, metadata: Mapping[str, Any], *, or_get: bool = False) -> Thread:
        """A new thread. BadQuestion (conflict) when there is one of that id, unless `or_get`."""
        await self._forget_old()
        now_s = self._clock()
        row = (id, now_s, now_s, now_s, "idle", json.dumps(metadata))
        statement = f"INSERT INTO capibara_threads ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        made = await self._run(f"{statement} RETURNING id", row)
        if not made and not or_get:
            raise BadQuestion("There is already a thread of this id.", param="thread_id", code="conflict")
        return await self.get(id)

    async def get(self, id: str) -> Thread:
        """BadQuestion (not_found) when there is none, or when it has run out."""
        oldest_s = self._clock() - self._keep_s
        rows = await self._run(
            f"SELECT {_COLUMNS} FROM capibara_threads WHERE id = ? AND updated_s >= ?", (id, oldest_s)
        )
        if not rows:
            raise BadQuestion("There is no thread of this id.", param="thread_id", code="not_found")
        return _thread(rows[0])

    async def all(self) -> list[Thread]:
        """Every thread that has not run out, the newest first."""
        oldest_s = self._clock() - self._keep_s
        rows = await self._run(
            f"SELECT {_COLUMNS} FROM capibara_threads WHERE updated_s >= ? ORDER BY created_s DESC, id", (oldest_s,)
        )
        return [_thread(row) for row in rows]

    async def describe(self, id: str, metadata: Mapping[str, Any]) -> Thread:
        """Add to its metadata."""
        merged = {**(await self.get(id)).metadata, **metadata}
        await self._run(
            "UPDATE capibara_threads SET metadata = ?, updated_s = ? WHERE id = ?",
            (json.dumps(merged), self._clock(), id),
        )
        return await self.get(id)

    async def mark(self, id: str, status: str) -> None:
        """Its status, and that it was used now."""
        now_s = self._clock()
        await self._run(
            "UPDATE capibara_threads SET status = ?, updated_s = ?, ran_s = ? WHERE id = ?", (status, now_s, now_s, id)
        )

    async def remove(self, id: str) -> None:
        """Forget a thread and every checkpoint of it. BadQuestion (not_found) when there is none."""
        await self.get(id)
        await self._delete(id)

    async def stock(self) -> Stock:
        """How much is kept; the size is that of the file, and not known of Postgres."""
        rows = await self._run("SELECT count(*), min(created_s), max(updated_s) FROM capibara_threads")
        count, oldest_s, newest_s = rows[0]
        size_bytes = self._where.stat().st_size if count and isinstance(self._where, Path) else 0
        return Stock(count, size_bytes, oldest_s, newest_s)

    async def clear(self) -> int:
        """Forget all threads and their checkpoints; how many there were. In a file they are overwritten."""
        in_file = isinstance(self._where, Path)
        if in_file:
            await self._run("PRAGMA secure_delete = ON")
        ids = await self._run("SELECT id FROM capibara_threads")
        for (id,) in ids:
            await self._delete(id)
        if in_file:
            await self._run("VACUUM")
            await self._run("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(ids)

    async def close(self) -> None:
        """Let go of the database; it opens again when it is needed."""
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    def stop(self) -> None:
        """As close, where no event loop runs any more."""
        database, self._database = self._database, None
        if database is not None:
            database.stop()

    async def _delete(self, id: str) -> None:
        await (await self.saver()).adelete_thread(id)
        await self._run("DELETE FROM capibara_threads WHERE id = ?", (id,))

    async def _forget_old(self) -> None:
        rows = await self._run("SELECT id FROM capibara_threads WHERE updated_s < ?", (self._clock() - self._keep_s,))
        for (id,) in rows:
            await self._delete(id)

    async def _run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        database = await self._open()
        try:
            return await database.run(statement, values)
        except sqlite3.Error as error:
            raise StoreError(phrase("stored.threads", error=reason(error))) from error

    async def _open(self) -> Database:
        async with self._opening:
            if self._database is None:
                is_url = isinstance(self._where, str)
                database = await (_postgres(str(self._where)) if is_url else _sqlite(Path(self._where)))
                await database.run(_TABLE)
                self._database = database
            return self._database


def _thread(row: Sequence[Any]) -> Thread:
    return Thread(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]))


def _serializer() -> JsonPlusSerializer:
    """Only values of ours are made again from what the database holds."""
    ours = [
        (kind.__module__, kind.__name__)
        for kind in vars(types).values()
        if isinstance(kind, type) and issubclass(kind, types.Value | Enum)
    ]
    return JsonPlusSerializer(allowed_msgpack_modules=ours)


# ---------------------------------------------------------------- the two databases


class _Sqlite:
    def __init__(self, connection: Any, saver: BaseCheckpointSaver[str], lock: asyncio.Lock) -> None:
        self.saver = saver
        self._connection = connection
        self._lock = lock

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        async with self._lock, self._connection.execute(statement, values) as cursor:
            rows = [tuple(row) for row in await cursor.fetchall()]
            await self._connection.commit()
            return rows

    async def close(self) -> None:
        await self._connection.close()

    def stop(self) -> None:
        self._connection.stop()


async def _sqlite(file: Path) -> Database:
    # LangGraph's checkpointers take a while to import, and few callers keep threads.
    import aiosqlite  # noqa: PLC0415
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415

    try:
        await asyncio.to_thread(file.parent.mkdir, parents=True, exist_ok=True)
        connection = await aiosqlite.connect(file)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(phrase("stored.threads_file", file=str(file), error=reason(error))) from error
    saver = AsyncSqliteSaver(connection, serde=_serializer())
    await saver.setup()
    return _Sqlite(connection, saver, saver.lock)


class _Postgres:
    def __init__(self, pool: Any, saver: BaseCheckpointSaver[str]) -> None:
        self.saver = saver
        self._pool = pool

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        import psycopg  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

        try:
            async with (
                self._pool.connection() as connection,
                connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor,
            ):
                await cursor.execute(statement.replace("?", "%s"), values)
                return list(await cursor.fetchall()) if cursor.description else []
        except psycopg.Error as error:
            # Its text may show the address.
            raise StoreError(phrase("stored.postgres", error=type(error).__name__)) from error

    async def close(self) -> None:
        await self._pool.close()

    def stop(self) -> None:
        """Its connections end with the process."""


async def _postgres(url: str) -> Database:
    try:
        from langgraph.checkpoint.postgres.aio import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
            AsyncPostgresSaver,
        )
        from psycopg.rows import dict_row  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
        from psycopg_pool import AsyncConnectionPool  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError:
        raise ConfigError(phrase("wrong.no_postgres")) from None
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: Any = AsyncConnectionPool(url, open=False, kwargs=options)
    try:
        await pool.open(wait=True, timeout=10)
        saver = AsyncPostgresSaver(pool, serde=_serializer())
        await saver.setup()
    except Exception as error:  # the driver's errors share no base class, and their texts may hold the password
        await pool.close()
        raise StoreError(phrase("stored.postgres_not_opened", error=type(error).__name__)) from error
    return _Postgres(pool, saver)
