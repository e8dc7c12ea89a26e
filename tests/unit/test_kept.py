"""What is kept of people's questions: counted where it lies, and gone when it is deleted."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capibara_agents import kept
from capibara_agents.conversations import Conversations
from capibara_agents.errors import BadQuestion, StoreError
from capibara_agents.http.app import build_app
from capibara_agents.journal import FILE_NAME, Journal, Part, Run
from capibara_agents.outcomes import Learner, Outcome
from capibara_agents.signature import SIGNATURE_SIZE
from tests.asgi import Exchange, get
from tests.fakes import classification

SIGNATURE = tuple(np.random.default_rng(0).standard_normal(SIGNATURE_SIZE).tolist())
SECRET = "una frase que nadie más escribe"


def run(number: int) -> Run:
    return Run(
        request_id=f"r{number}",
        domain="math",
        language="es",
        signature=(0.5, 0.25),
        answered_by="phi-4-mini",
        parts=(Part(model="phi-4-mini", tokens=3, seconds=0.5, passed=True),),
    )


def outcome(number: int) -> Outcome:
    return Outcome(
        request_id=f"r{number}", signature=SIGNATURE, domain="math", language="es", model="phi-4-mini", good=1.0
    )


def conversations(folder: Path) -> Conversations:
    return Conversations(folder / "responses.sqlite3", keep_s=60, clock=time.time)


def test_responses_are_counted_and_their_words_are_gone_from_the_file(tmp_path: Path) -> None:
    """Not only left out: no page of the file holds them any more."""
    store = conversations(tmp_path)
    store.keep("resp_1", [{"role": "user", "content": SECRET}], {"id": "resp_1"}, on_disk=True)
    stock = store.stock()
    assert stock.count == 1
    assert stock.size_bytes >= len(SECRET)
    assert stock.oldest_s == stock.newest_s
    assert SECRET[:20].encode() in (tmp_path / "responses.sqlite3").read_bytes()
    assert store.clear() == 1
    assert store.stock().count == 0
    assert SECRET[:20].encode() not in (tmp_path / "responses.sqlite3").read_bytes()


def test_requests_and_feedback_are_separate(tmp_path: Path) -> None:
    """What was said of an answer goes alone; the comment is gone from every file."""
    journal = Journal(tmp_path, keep=10)
    journal.put([run(1), run(2)])
    journal.note("r1", -1.0, SECRET)
    assert (journal.stock("runs").count, journal.stock("feedback").count) == (2, 1)
    assert journal.stock("runs").oldest_s is not None
    assert journal.clear("feedback") == 1
    assert (journal.stock("runs").count, journal.stock("feedback").count) == (2, 0)
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert journal.clear("runs") == 2
    assert journal.get("r1") is None
    journal.close()


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Its requests have no time; new ones do."""
    with sqlite3.connect(tmp_path / FILE_NAME) as old:
        old.execute(
            "create table runs (number integer primary key autoincrement, request_id text unique, "
            "run text not null, signature blob not null)"
        )
        old.execute("insert into runs (request_id, run, signature) values ('r0', '{}', x'00')")
    old.close()
    journal = Journal(tmp_path, keep=10)
    assert journal.stock("runs").newest_s is None
    journal.put([run(1)])
    assert journal.stock("runs").count == 2
    assert journal.stock("runs").newest_s is not None
    journal.close()


def test_what_was_learned_is_forgotten_with_its_outcomes(tmp_path: Path) -> None:
    """Nothing is expected of a model any more."""
    learner = Learner(tmp_path)
    learner.record([outcome(number) for number in range(3)])
    asked = classification(signature=SIGNATURE)
    assert learner.expect(asked)
    assert learner.stock().count == 3
    assert learner.clear() == 3
    assert learner.stock() == kept.Stock()
    assert not learner.expect(asked)
    assert learner.updates() == ()
    learner.close()


async def test_nothing_is_made_to_be_counted(house: Any) -> None:
    """A house that has kept nothing has zero of each kind, and still no store."""
    found = await kept.listed(house)
    assert [row["kind"] for row in found["data"]] == list(kept.KINDS)
    assert all(row["count"] == 0 for row in found["data"])
    assert not (house.settings.data_dir / "exemplars").exists()
    assert not (house.settings.data_dir / "threads.sqlite3").exists()


async def test_a_kind_is_deleted_over_http_and_the_others_stay(house: Any) -> None:
    """The service's own stores, through GET and DELETE /v1/data."""
    house.conversations.keep("resp_1", [{"role": "user", "content": SECRET}], {"id": "resp_1"}, on_disk=True)
    await house.threads.create("t1", {})
    app = build_app(house)

    async def counts() -> dict[str, int]:
        return {row["kind"]: row["count"] for row in (await get(app, "/v1/data").done()).json()["data"]}

    async def delete(kind: str) -> Exchange:
        return await Exchange(app, "DELETE", f"/v1/data/{kind}").done()

    before = await counts()
    assert (before["responses"], before["threads"]) == (1, 1)
    assert (await delete("responses")).json() == {"kind": "responses", "deleted": 1}
    after = await counts()
    assert (after["responses"], after["threads"]) == (0, 1)
    assert (await delete("threads")).json()["deleted"] == 1
    unknown = await delete("secrets")
    assert unknown.status == 404
    assert "responses" in unknown.json()["error"]["message"]
    await house.threads.close()


def test_an_unknown_kind_is_named() -> None:
    """With those there are."""
    with pytest.raises(BadQuestion, match=r"secrets.*exemplars"):
        kept.checked(["responses", "secrets"])


def test_a_journal_that_another_process_writes_to_for_long_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole: moved away, all that it holds would be lost."""
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.execute("begin exclusive")
        monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
        with pytest.raises(StoreError, match="locked"):
            Journal(tmp_path, keep=10)
    assert not (tmp_path / f"{FILE_NAME}.damaged").exists()
