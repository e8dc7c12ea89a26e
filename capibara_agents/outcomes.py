"""What was seen of the models' answers, kept, guarded and learned from.

    Outcome…  ->  Learner.record  ->  replayed on the recorded past  ->  applied | refused   (a logged update)
                                                                    ->  Expectations, asked by `expect`

Outcomes lie in a SQLite file beside the exemplars: an update is a transaction with a state, and what is expected is a
pure function of the outcomes of the applied ones, so undoing an update leaves nothing of it behind. A question is kept
by its signature, not by its words.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from capibara_agents import garbage
from capibara_agents.errors import StoreError, reason
from capibara_agents.expectations import Array, Beliefs, Chosen, Evidence, Fit, empty_evidence, revisited
from capibara_agents.stock import Stock
from capibara_agents.texts import phrase
from capibara_agents.types import Domain, Expectation, Language, Value

log = logging.getLogger(__name__)

FILE_NAME = "outcomes.sqlite"
KEPT = 20_000
"""So many outcomes are learned from, the newest."""
GUARD = 0.003
"""Updates may cost so much of the replayed past, in share of good answers, all together since it was best."""
TRUST = {"recorded": 1.0, "feedback": 1.0, "vote": 0.5, "verdict": 0.5}

Origin = Literal["recorded", "feedback", "vote", "verdict"]
State = Literal["applied", "refused", "undone"]


class Outcome(Value):
    """How well one model did on one question, by one judge."""

    request_id: str = Field(min_length=1, max_length=200)
    signature: tuple[float, ...] = Field(repr=False, description="Of the question, see signature.py.")
    domain: Domain
    language: Language
    model: str = Field(min_length=1, max_length=200)
    good: float = Field(ge=0, le=1, description="0: bad, 1: good.")
    certainty: float = Field(1.0, ge=0, le=1, description="How far the judge can be relied on here.")
    origin: Origin = "recorded"
    tokens: int = Field(0, ge=0, description="Of the answer; 0 where unknown.")
    seconds: float = Field(0.0, ge=0, description="Of the answer; 0 where unknown.")
    at: float | None = Field(None, description="When it was seen, Unix time; None: when it is recorded.")


class UpdateReport(Value):
    """What came of an update. `before` and `after` are shares of good answers, replayed on the recorded past."""

    update_id: int | None = Field(None, description="None when there was nothing to record.")
    applied: bool
    reason: str
    outcomes: int = 0
    before: float | None = Field(None, description="None while there is no past.")
    after: float | None = None


class Update(Value):
    """One line of the log of updates."""

    id: int
    at: float = Field(description="Unix time.")
    state: State
    kind: Literal["outcomes", "sureness"] = Field(
        "outcomes", description="sureness: how sure voters are of their words began, or ceased, to count in votes."
    )
    outcomes: int = Field(description="Or, of sureness, recorded votes.")
    before: float | None
    after: float | None


class Signed(Protocol):
    """What is needed of a classification."""

    @property
    def signature(self) -> tuple[float, ...]: ...


# ---------------------------------------------------------------- the guard, pure


def replayed(past: Evidence, before: Array, after: Array) -> tuple[float, float]:
    """The share of good answers on the asked questions of `past` if `before`, or `after`, chose the model.

    Both are what is expected there of each model, (asked, models), from all but the question's own outcomes. A model
    that answered it counts with its score there; one that did not, with what `before` expects of it.
    """
    values = _seen(past, past.asked, np.clip(before, 0, 1))
    at = np.arange(len(past.asked))
    return float(values[at, before.argmax(1)].mean()), float(values[at, after.argmax(1)].mean())


def debt(steps: Iterable[tuple[float, float]]) -> float:
    """What applied updates (before, after) have cost since the past was at its best: many small steps are one."""
    owed = 0.0
    for before, after in steps:
        owed = max(0.0, owed + before - after)
    return owed


def _seen(past: Evidence, rows: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Scores (rows, models): the mean of the recorded ones, weighed by trust, else `otherwise`."""
    total, weight = np.zeros((2, len(past.signatures), len(past.models)))
    at = (past.question, past.model)
    np.add.at(weight, at, 1 / past.noise)
    np.add.at(total, at, past.score / past.noise)
    total, weight = total[rows], weight[rows]
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), otherwise)


# ---------------------------------------------------------------- the learner


class Learner:
    """Learns from outcomes and keeps them; safe to share between threads. One process owns a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        prior: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`prior`: expected scores of models before any outcome. Raises StoreError when the file cannot be used."""
        self._prior, self._now = prior, now
        self._door = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._table = _opened(folder / FILE_NAME)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(phrase("stored.outcomes", file=str(folder / FILE_NAME), error=reason(error))) from error
        self._learn(self._evidence(), self._chosen())

    def expect(self, classification: Signed) -> dict[str, Expectation]:
        """What the outcomes near a question let one expect of each model that has any; well below a millisecond."""
        expectations = self._expectations
        if not expectations.models or len(classification.signature) != expectations.signature_size:
            return {}
        return expectations.expect(np.asarray(classification.signature, dtype=np.float32))

    def record(self, outcomes: Sequence[Outcome]) -> UpdateReport:
        """Apply outcomes as one update, unless the recorded past would come out worse; all or none.

        Of several outcomes of one judge on one model's answer the newest counts. Blocks for the time of a fit.
        """
        if not outcomes:
            return UpdateReport(applied=False, reason="There is nothing to record.")
        if len({len(outcome.signature) for outcome in outcomes}) > 1:
            raise StoreError(phrase("stored.signatures"))
        with self._door:
            number = self._write(outcomes)
            report = self._weigh(number, len(outcomes))
            self._settle(number, "applied" if report.applied else "refused", report.before, report.after)
        garbage.give_back()
        log.log(
            logging.INFO if report.applied else logging.WARNING,
            "update %d of %d outcomes: %s",
            *(number, len(outcomes), report.reason),
        )
        return report

    def undo(self, update_id: int) -> UpdateReport:
        """Take an applied update back. Raises StoreError for any other."""
        with self._door:
            found = next((update for update in self._updates() if update.id == update_id), None)
            if found is None or found.state != "applied":
                raise StoreError(phrase("stored.no_update", number=update_id))
            self._settle(update_id, "undone", found.before, found.after)
            self._learn(self._evidence(), self._chosen())
        log.info("update %d was undone", update_id)
        return UpdateReport(update_id=update_id, applied=False, reason="It was undone.", outcomes=found.outcomes)

    def weigh_sureness(self, votes: int, before: float, after: float, *, holds: bool) -> bool:
        """Whether voters' sureness counts, given what `votes` recorded votes say of it; a change is an update.

        `before` and `after`: the chance that was given to what proved true, without it and with it, mean (geometric),
        on votes it was not fitted on. Once undone it stays off until twice as many votes say that it holds.
        """
        with self._door:
            last = next((update for update in reversed(self._updates()) if update.kind == "sureness"), None)
            if last is None or last.state != "applied":
                was_undone = last is not None and last.state == "undone" and votes < 2 * last.outcomes
                if not holds or was_undone:
                    return False
            elif holds:
                return True
            with self._table:
                self._table.execute(
                    "insert into updates (at, state, kind, outcomes, before, after) values (?, ?, 'sureness', ?, ?, ?)",
                    (self._now(), "applied" if holds else "refused", votes, before, after),
                )
        log.info("voters' sureness %s in votes, by %d recorded ones", "counts" if holds else "no longer counts", votes)
        return holds

    def drop_sureness(self) -> None:
        """The votes behind voters' sureness were forgotten: it counts no longer. What was undone stays undone."""
        with self._door, self._table:
            self._table.execute("update updates set state = 'refused' where kind = 'sureness' and state = 'applied'")

    def updates(self) -> tuple[Update, ...]:
        """The log of updates, the oldest first."""
        with self._door:
            return self._updates()

    def count(self) -> int:
        """How many outcomes are learned from."""
        return self._expectations.outcomes

    def stock(self) -> Stock:
        """How much is kept."""
        with self._door:
            row = self._table.execute("select count(*), min(at), max(at) from outcomes").fetchone()
            pages, page_bytes = (
                self._table.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "page_size")
            )
        return Stock(row[0], pages * page_bytes if row[0] else 0, row[1], row[2])

    def clear(self) -> int:
        """Forget all outcomes and what was learned from them; how many there were. They are overwritten.

        What votes taught of voters' sureness, or a person undid of it, stays in the log of updates.
        """
        with self._door:
            self._table.execute("pragma secure_delete = on")
            with self._table:
                count = self._table.execute("delete from outcomes").rowcount
                self._table.execute("delete from updates where kind = 'outcomes'")
                self._table.execute("delete from questions")
            self._table.execute("vacuum")
            self._table.execute("pragma wal_checkpoint(truncate)")
            self._learn(self._evidence(), self._chosen())
        return count

    def close(self) -> None:
        """Let go of the file."""
        with self._door:
            self._table.close()

    # ------------------------------------------------------------ inside the door

    def _weigh(self, number: int, count: int) -> UpdateReport:
        evidence, last = self._evidence(number), self._chosen()
        chosen = revisited(evidence, last, self._prior)
        past = self._evidence(models=evidence.models)
        old = new = None
        applied, reason = True, "It is the first."
        # Not kept until the other fit is made: with many outcomes a fit takes a hundred megabytes.
        expected = Fit.of(past, last.beliefs, self._prior).left_out(past.asked) if len(past.score) else None
        after = Fit.of(evidence, chosen.beliefs, self._prior)
        if expected is not None:
            # The first questions of `evidence` are those of `past`.
            old, new = replayed(past, expected, after.left_out(past.asked))
            steps = [(u.before, u.after) for u in self._updates() if u.state == "applied" and u.kind == "outcomes"]
            owed = debt([*((b, a) for b, a in steps if b is not None and a is not None), (old, new)])
            # A step that costs nothing is welcome whatever is owed.
            applied = old <= new or owed <= GUARD
            reason = "The recorded past comes out as well." if applied else "The recorded past would come out worse."
        if applied:
            self._expectations = after.expectations()
            self._choose(number, chosen)
        return UpdateReport(update_id=number, applied=applied, reason=reason, outcomes=count, before=old, after=new)

    def _learn(self, evidence: Evidence, chosen: Chosen) -> None:
        self._expectations = Fit.of(evidence, chosen.beliefs, self._prior).expectations()

    def _choose(self, number: int, chosen: Chosen) -> None:
        packed = json.dumps({"beliefs": asdict(chosen.beliefs), "outcomes": chosen.outcomes})
        with self._table:
            self._table.execute("update updates set beliefs = ? where id = ?", (packed, number))

    def _chosen(self) -> Chosen:
        """The beliefs of the last applied update, so that undoing one brings back those before it."""
        row = self._table.execute(
            "select beliefs from updates where state = 'applied' and beliefs is not null order by id desc limit 1"
        ).fetchone()
        if row is None:
            return Chosen()
        values = json.loads(row[0])
        if set(values["beliefs"]) != {field.name for field in fields(Beliefs)}:
            # Of another version: some of them together with our own for the rest were never compared.
            return Chosen()
        return Chosen(Beliefs(**values["beliefs"]), values["outcomes"])

    def _write(self, outcomes: Sequence[Outcome]) -> int:
        at = self._now()
        with self._table:
            cursor = self._table.execute(
                "insert into updates (at, state, outcomes) values (?, 'refused', ?)", (at, len(outcomes))
            )
            number = int(cursor.lastrowid or 0)
            self._table.executemany(
                "insert or ignore into questions (request_id, domain, language, signature) values (?, ?, ?, ?)",
                [(o.request_id, o.domain, o.language, _packed(o.signature)) for o in outcomes],
            )
            self._table.executemany(
                "insert into outcomes (update_id, request_id, model, good, certainty, origin, tokens, seconds, at) "
                "values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, o.request_id, o.model, o.good, o.certainty, o.origin, o.tokens, o.seconds, o.at or at)
                    for o in outcomes
                ],
            )
        return number

    def _settle(self, number: int, state: State, before: float | None, after: float | None) -> None:
        with self._table:
            self._table.execute(
                "update updates set state = ?, before = ?, after = ? where id = ?", (state, before, after, number)
            )

    def _updates(self) -> tuple[Update, ...]:
        rows = self._table.execute(
            "select id, at, state, kind, outcomes, before, after from updates order by id"
        ).fetchall()
        names = ("id", "at", "state", "kind", "outcomes", "before", "after")
        return tuple(Update.model_validate(dict(zip(names, row, strict=True))) for row in rows)

    def _evidence(self, number: int = -1, *, models: Sequence[str] = ()) -> Evidence:
        """The outcomes of the applied updates, and of `number`; of one judge on one answer the newest."""
        rows = self._table.execute(
            "select o.request_id, o.model, o.origin, o.good, o.certainty, o.seconds from outcomes o "
            "join updates u on u.id = o.update_id where u.state = 'applied' or u.id = ? order by o.number desc",
            (number,),
        )
        newest: dict[tuple[str, str, str], tuple[float, float, float]] = {}
        for request_id, model, origin, *rest in rows:
            newest.setdefault((request_id, model, origin), (rest[0], rest[1], rest[2]))
            if len(newest) == KEPT:
                break
        # The oldest first: questions keep their places when newer ones come.
        return self._assembled(dict(reversed(newest.items())), models)

    def _assembled(
        self, newest: Mapping[tuple[str, str, str], tuple[float, float, float]], models: Sequence[str]
    ) -> Evidence:
        signatures = self._signatures({key[0] for key in newest})
        newest = {key: value for key, value in newest.items() if key[0] in signatures}
        names = tuple(dict.fromkeys([*models, *(key[1] for key in newest)]))
        if not newest:
            return empty_evidence(names)
        questions = list(dict.fromkeys(key[0] for key in newest))
        place = {request_id: index for index, request_id in enumerate(questions)}
        column = {name: index for index, name in enumerate(names)}
        values = np.array(list(newest.values()))
        trust = np.array([TRUST[key[2]] for key in newest])
        return Evidence(
            models=names,
            signatures=np.stack([signatures[request_id] for request_id in questions]),
            question=np.array([place[key[0]] for key in newest]),
            model=np.array([column[key[1]] for key in newest]),
            score=values[:, 0],
            noise=1 / (trust * np.maximum(values[:, 1], 0.05)),
            seconds=np.where(values[:, 2] > 0, values[:, 2], np.nan),
        )

    def _signatures(self, wanted: set[str]) -> dict[str, np.ndarray]:
        rows = self._table.execute("select request_id, signature from questions order by number desc")
        found = {request_id: _unpacked(packed) for request_id, packed in rows if request_id in wanted}
        # Of another embedder or another form than the newest: no longer comparable.
        size = len(next(iter(found.values()), ()))
        return {request_id: values for request_id, values in found.items() if len(values) == size}


def _opened(file: Path) -> sqlite3.Connection:
    try:
        return _connected(file)
    except sqlite3.DatabaseError as error:
        aside = _set_aside(file)
        log.warning("%s is damaged (%s); it was moved to %s and learning begins anew.", file, error, aside)
        return _connected(file)


def _set_aside(file: Path) -> Path:
    aside = next(path for n in range(1, 10_000) if not (path := file.with_name(f"{file.name}.damaged-{n}")).exists())
    return file.rename(aside)


def _connected(file: Path) -> sqlite3.Connection:
    table = sqlite3.connect(file, check_same_thread=False)
    try:
        table.execute("pragma journal_mode = wal")
        table.executescript(
            "create table if not exists questions (number integer primary key autoincrement, request_id text unique, "
            "domain text not null, language text not null, signature blob not null);"
            "create table if not exists updates (id integer primary key autoincrement, at real not null, "
            "state text not null, outcomes integer not null, before real, after real, "
            "beliefs text, kind text not null default 'outcomes');"
            "create table if not exists outcomes (number integer primary key autoincrement, update_id integer not null "
            "references updates (id), request_id text not null, model text not null, good real not null, "
            "certainty real not null, origin text not null, tokens integer not null, seconds real not null, "
            "at real not null)"
        )
        # A file of an earlier version knows one kind.
        if not any(column[1] == "kind" for column in table.execute("pragma table_info(updates)")):
            table.execute("alter table updates add column kind text not null default 'outcomes'")
        table.execute("select count(*) from outcomes").fetchone()
    except sqlite3.Error:
        table.close()
        raise
    return table


def _packed(signature: Sequence[float]) -> bytes:
    return np.asarray(signature, dtype=np.float16).tobytes()


def _unpacked(packed: bytes) -> np.ndarray:
    return np.frombuffer(packed, dtype=np.float16).astype(np.float32)
