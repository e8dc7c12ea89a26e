"""What is kept on disk of people's questions, how much of it, how old it is; and forgetting it.

    responses   conversations of /v1/responses whose callers asked for that
    threads     conversations of the LangGraph API
    requests    what became of the last requests, by id: no words, the signature of the question
    feedback    scores and comments on answers
    votes       votes whose right answer is known, from feedback and checks
    outcomes    what was learned from checks, votes and feedback: no words either
    exemplars   example questions that a user added; the shipped ones are part of the program

Each store counts and clears its own; here they get a name. In the JSON that HTTP and the terminal both show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from capibara_agents.errors import BadQuestion
from capibara_agents.stock import Stock
from capibara_agents.texts import phrase

if TYPE_CHECKING:
    from capibara_agents.conversations import Conversations
    from capibara_agents.exemplars import ExemplarStore
    from capibara_agents.learning import Learning
    from capibara_agents.settings import Settings
    from capibara_agents.threads import Threads

Kind = Literal["responses", "threads", "requests", "feedback", "votes", "outcomes", "exemplars"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Stores(Protocol):
    """Whoever has the stores: the house."""

    settings: Settings

    @property
    def conversations(self) -> Conversations: ...
    @property
    def threads(self) -> Threads: ...
    @property
    def learning(self) -> Learning: ...
    @property
    def exemplars(self) -> ExemplarStore: ...


async def listed(stores: Stores) -> dict[str, Any]:
    """{"object", "data_dir", "data"}, a row for each kind: {"kind"} and the fields of Stock."""
    rows = [{"kind": kind, **asdict(await _stock(stores, kind))} for kind in KINDS]
    return {"object": "list", "data_dir": str(stores.settings.data_dir), "data": rows}


async def deleted(stores: Stores, kind: str) -> dict[str, Any]:
    """Forget all of a kind: {"kind", "deleted"}. BadQuestion (not_found) for a kind there is not."""
    known = checked([kind])[0]
    # Responses are also held in memory, file or no file.
    there = known == "responses" or _exists(stores, known)
    return {"kind": known, "deleted": await _clear(stores, known) if there else 0}


def checked(kinds: Sequence[str]) -> list[Kind]:
    """The kinds of these names; BadQuestion (not_found) names the first that is none."""
    found: list[Kind] = []
    for name in kinds:
        kind = next((known for known in KINDS if known == name), None)
        if kind is None:
            told = phrase("wrong.kept", name=repr(name[:100]), known=", ".join(KINDS))
            raise BadQuestion(told, code="not_found")
        found.append(kind)
    return found


def _exists(stores: Stores, kind: Kind) -> bool:
    """Nothing is made just to be counted."""
    settings = stores.settings
    elsewhere: dict[Kind, object] = {"exemplars": settings.routing.exemplar_store, "threads": settings.server.threads}
    files: dict[Kind, str] = {
        "responses": "responses.sqlite3",
        "threads": "threads.sqlite3",
        "requests": "requests.sqlite",
        "feedback": "requests.sqlite",
        "votes": "requests.sqlite",
        "outcomes": "outcomes.sqlite",
        "exemplars": "exemplars",
    }
    return elsewhere.get(kind) is not None or (settings.data_dir / files[kind]).exists()


async def _stock(stores: Stores, kind: Kind) -> Stock:
    if not _exists(stores, kind):
        return Stock()
    if kind == "threads":
        return await stores.threads.stock()
    return await asyncio.to_thread(_counted, stores, kind)


async def _clear(stores: Stores, kind: Kind) -> int:
    return await (stores.threads.clear() if kind == "threads" else asyncio.to_thread(_cleared, stores, kind))


def _counted(stores: Stores, kind: Kind) -> Stock:
    if kind == "responses":
        return stores.conversations.stock()
    if kind == "exemplars":
        found = stores.exemplars.list(origin="user")
        return Stock(len(found), sum(len(exemplar.content.encode()) for exemplar in found))
    assert kind != "threads"
    return stores.learning.stock(kind)


def _cleared(stores: Stores, kind: Kind) -> int:
    if kind == "responses":
        return stores.conversations.clear()
    if kind == "exemplars":
        return stores.exemplars.remove([exemplar.id for exemplar in stores.exemplars.list(origin="user")])
    assert kind != "threads"
    return stores.learning.forget(kind)
