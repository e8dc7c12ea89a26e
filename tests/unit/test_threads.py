"""Threads over both databases: the file always, Postgres where an address is given."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from capibara_agents.errors import BadQuestion, ConfigError, StoreError
from capibara_agents.threads import Threads
from tests.fakes import SPANISH, FakeHouse

POSTGRES = os.environ.get("CAPIBARA_TEST_POSTGRES_URL", "")
INPUT: Any = {"messages": [("user", "¿Cuál es la capital de España?")]}


@pytest.fixture(params=["sqlite", "postgres"])
async def threads(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Threads]:
    """Threads over one of the two."""
    if request.param == "postgres" and not POSTGRES:
        pytest.skip("no CAPIBARA_TEST_POSTGRES_URL")
    where = POSTGRES if request.param == "postgres" else tmp_path / "threads.sqlite3"
    made = Threads(where, keep_s=60, clock=lambda: 1000.0)
    yield made
    await made.close()


async def test_a_thread_and_its_states_are_kept(threads: Threads, house: FakeHouse) -> None:
    """A run's state comes back as values of ours, also after the database was opened anew; then it is removed."""
    id = str(uuid4())
    await threads.create(id, {"user": "ana"})
    with pytest.raises(BadQuestion, match="already"):
        await threads.create(id, {})
    house.upstream.otherwise = SPANISH
    config: Any = {"configurable": {"thread_id": id}}
    graph = house.graph.copy(update={"checkpointer": await threads.saver()})
    before = await graph.ainvoke(INPUT, config, durability="exit")
    await threads.mark(id, "idle")
    await threads.close()
    graph = house.graph.copy(update={"checkpointer": await threads.saver()})
    after = (await graph.aget_state(config)).values
    assert (after["plan"], after["ballot"], after["candidates"]) == (
        before["plan"],
        before["ballot"],
        before["candidates"],
    )
    assert (await threads.describe(id, {"more": 1})).metadata == {"user": "ana", "more": 1}
    assert id in [thread.id for thread in await threads.all()]
    await threads.remove(id)
    assert (await graph.aget_state(config)).values == {}
    with pytest.raises(BadQuestion, match="no thread"):
        await threads.get(id)


async def test_a_database_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, without the address; what is missing is named."""
    (tmp_path / "file").write_text("")
    for where in (tmp_path / "file" / "threads.sqlite3", tmp_path):
        with pytest.raises(StoreError):
            await Threads(where, keep_s=60, clock=lambda: 0.0).all()
    monkeypatch.setitem(__import__("sys").modules, "langgraph.checkpoint.postgres.aio", None)
    with pytest.raises(ConfigError, match=r"capibara\[postgres\]"):
        await Threads("postgresql://user:secreta@127.0.0.1:1/x", keep_s=60, clock=lambda: 0.0).all()
