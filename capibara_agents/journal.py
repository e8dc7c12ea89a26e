"""What became of the last requests: no word of them, but the signature of the question, who answered, how it did.

a finished run -> run_of (pure) -> Run -> Journal (SQLite)       for feedback that comes later, by request id
                                -> outcomes_of_run (pure)        what the checks and a vote say of each model
feedback       -> outcomes_of_feedback (pure)                    what a person says of the answer
"""

from __future__ import annotations

import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from capibara_agents.errors import StoreError, reason
from capibara_agents.outcomes import Origin, Outcome
from capibara_agents.route.worth import ASSUMED
from capibara_agents.stock import Stock
from capibara_agents.texts import phrase
from capibara_agents.types import AnswerKind, Ballot, Candidate, Classification, Domain, Language, Value, Verdict
from capibara_agents.vote import Round, Tally, judged_round, learning_method, tally_of_ballot

REQUEST_ID: ContextVar[str | None] = ContextVar("capibara_request_id", default=None)
"""The id of the request that is being answered, set by the face that it came through."""

FILE_NAME = "requests.sqlite"
Table = Literal["runs", "feedback", "rounds"]
# What a row takes, and when it was written, as far as that is known.
_SIZES: dict[Table, tuple[str, str]] = {
    "runs": ("length(run) + length(signature)", "at"),
    "feedback": ("length(cast(comment as blob))", "at"),
    "rounds": ("length(cast(played as blob))", "null"),
}
# What a vote says of its voters counts from so many comparable answers on.
MIN_VOTES = 3
# Of the answers that passed their checks one in so many is learned from.
PASSED_SHARE = 10
KEPT_ROUNDS = 5_000


class Part(Value):
    """One model's part in a run."""

    model: str
    tokens: int = Field(ge=0, description="Of its answer.")
    seconds: float = Field(ge=0, description="Of its answer, without waiting for the model.")
    passed: bool | None = Field(None, description="The checks of its answer; None where it was not checked.")
    agreed: bool | None = Field(None, description="Its answer was the winning one; None where nothing was comparable.")


class Run(Value):
    """A finished run, as far as anything may be learned from it."""

    request_id: str
    domain: Domain
    language: Language
    signature: tuple[float, ...] = Field(repr=False, description="Of the question, see signature.py.")
    answered_by: str
    spoken_by: str = Field("", description="The voter whose answer it is, where that is not just its model.")
    won: bool = Field(False, description="It won a vote of comparable answers.")
    agreement: float = Field(1.0, ge=0, le=1)
    parts: tuple[Part, ...]
    tally: Tally | None = Field(None, description="Of a vote: who agreed with whom, without their answers.")
    known: dict[str, float] = Field(
        default_factory=dict, description="Voter -> 1 or 0, where running its code told whether it is right."
    )


# ---------------------------------------------------------------- pure


def run_of(
    request_id: str,
    classification: Classification,
    candidates: Sequence[Candidate],
    ballot: Ballot,
    verdict: Verdict,
) -> Run | None:
    """The record of a finished run; None when nobody answered or the question's signature is not known."""
    answered = next((c for c in candidates if c.key == verdict.candidate), None)
    if answered is None or not classification.signature:
        return None
    agreed = _agreed(ballot)
    first = {c.model for c in candidates if c.error is None and c.sample == 1}
    # A further sample stands for its model where that has no other answer.
    alone = answered if answered.model not in first else None
    parts = [
        Part(
            model=c.model,
            tokens=c.usage.completion_tokens,
            seconds=max(0.0, c.timings.total_ms - c.timings.wait_ms) / 1000,
            passed=_passed(c, candidates, ballot, verdict),
            agreed=agreed.get(c.voter) if c.key.partition(":")[0] == _attempt(ballot) else None,
        )
        for c in candidates
        if c.error is None and (c.sample == 1 or c is alone)
    ]
    return Run(
        request_id=request_id,
        domain=classification.domain,
        language=classification.language,
        signature=classification.signature,
        answered_by=answered.model,
        spoken_by=answered.voter,
        won=answered.key.partition(":")[0] == _attempt(ballot) and agreed.get(answered.voter, False),
        agreement=ballot.agreement,
        parts=tuple(parts),
        tally=tally_of_ballot(ballot, classification.domain) if _is_comparable(ballot, answered) else None,
        known={c.voter: right for c in candidates if (right := _ran(c)) is not None},
    )


def _is_comparable(ballot: Ballot, answered: Candidate) -> bool:
    """Whether a judgement of the answer says something of the voters: of texts that differ several may be good.

    Not either when the answer that was returned is not the vote's own.
    """
    winners = {f"{_attempt(ballot)}:{vote.model}" for vote in ballot.votes}
    kinds = {vote.answer.kind for vote in ballot.votes}
    return len(ballot.votes) > 1 and AnswerKind.text not in kinds and answered.key in winners


def _ran(candidate: Candidate) -> float | None:
    if candidate.behaviour is None:
        return None
    if not candidate.behaviour.passed:
        return 0.0
    return 1.0 if candidate.behaviour.details.get("outcome") == "passed" else None


def outcomes_of_run(run: Run) -> tuple[Outcome, ...]:
    """What the checks and a vote say of each model.

    An answer that failed a check is bad. One that passed them is not known to be good: it counts as what is assumed of
    a model before anything is recorded, so that a model with few failures does not look worse than one without any
    answer. Passed answers are many and say little; one in PASSED_SHARE is taken, chosen by its request id. A vote
    says how each voter stood to the winning answer, as surely as the voters agreed.
    """
    found = []
    taken = zlib.crc32(run.request_id.encode()) % PASSED_SHARE == 0
    for part in run.parts:
        if part.passed is False:
            found.append(_outcome(run, part, good=0.0, origin="verdict"))
        elif part.agreed is not None:
            found.append(_outcome(run, part, good=float(part.agreed), origin="vote", certainty=run.agreement))
        elif part.passed and taken:
            found.append(_outcome(run, part, good=ASSUMED, origin="verdict"))
    return tuple(found)


def outcomes_of_feedback(run: Run, score: float) -> tuple[Outcome, ...]:
    """What a score in [-1, 1] says: of the model that answered, and of those that voted for the same answer."""
    agreed = {part.model for part in run.parts if part.agreed}
    same = agreed | {run.answered_by} if run.won or run.answered_by in agreed else {run.answered_by}
    latest = {part.model: part for part in run.parts if part.model in same}
    return tuple(_outcome(run, part, good=(score + 1) / 2, origin="feedback") for part in latest.values())


def round_of_run(run: Run, score: float | None = None) -> Round | None:
    """The recorded vote of a run, by what running the code told or else by a person's score in [-1, 1]."""
    if run.tally is None:
        return None
    good = run.known or ({} if score is None else {run.spoken_by or run.answered_by: (score + 1) / 2})
    return judged_round(run.tally, good)


def _outcome(run: Run, part: Part, *, good: float, origin: Origin, certainty: float = 1.0) -> Outcome:
    return Outcome(
        request_id=run.request_id,
        signature=run.signature,
        domain=run.domain,
        language=run.language,
        model=part.model,
        good=good,
        certainty=certainty,
        origin=origin,
        tokens=part.tokens,
        seconds=part.seconds,
    )


def _passed(candidate: Candidate, candidates: Sequence[Candidate], ballot: Ballot, verdict: Verdict) -> bool | None:
    """Whoever was asked alone before the last attempt was rejected; of the last, the winner was judged."""
    last = max(c.attempt for c in candidates)
    alone = sum(c.attempt == candidate.attempt for c in candidates) == 1
    if candidate.attempt < last:
        return False if alone else None
    if candidate.key == verdict.candidate:
        return verdict.accepted
    return None


def _attempt(ballot: Ballot) -> str:
    return (ballot.winner or "").partition(":")[0]


def _agreed(ballot: Ballot) -> dict[str, bool]:
    """Who was with the winner, where enough answers could be compared; free texts only resemble each other."""
    comparable = [vote for vote in ballot.votes if vote.answer.kind is not AnswerKind.text]
    winner = (ballot.winner or "").partition(":")[2]
    cluster = next((vote.cluster for vote in comparable if vote.model == winner), None)
    if cluster is None or len(comparable) < MIN_VOTES:
        return {}
    return {vote.model: vote.cluster == cluster for vote in comparable}


# ---------------------------------------------------------------- the edge


class Journal:
    """The last `keep` runs in a file, by request id; the newest of an id counts. Safe to share between threads."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Raises StoreError when the file cannot be used."""
        self._keep = keep
        self._door = threading.Lock()
        file = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._table = _opened(file)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(phrase("stored.requests", file=str(file), error=reason(error))) from error

    def put(self, runs: Iterable[Run]) -> None:
        """Write runs down, and forget the oldest beyond `keep`."""
        at = time.time()
        rows = [(r.request_id, r.model_dump_json(exclude={"signature"}), _packed(r.signature), at) for r in runs]
        with self._door, self._table:
            statement = "insert or replace into runs (request_id, run, signature, at) values (?, ?, ?, ?)"
            self._table.executemany(statement, rows)
            self._table.execute("delete from runs where number <= (select max(number) from runs) - ?", (self._keep,))

    def get(self, request_id: str) -> Run | None:
        """The run of a request; None when it is not known, or no longer."""
        with self._door, closing(self._table.cursor()) as cursor:
            row = cursor.execute("select run, signature from runs where request_id = ?", (request_id,)).fetchone()
        if row is None:
            return None
        partial = Run.model_validate_json(row[0][:-1] + ',"signature":[]}')
        return partial.model_copy(update={"signature": _unpacked(row[1])})

    def note(self, request_id: str, score: float, comment: str) -> None:
        """Write down what a person said of an answer, in their own words too."""
        with self._door, self._table:
            self._table.execute("insert into feedback values (?, ?, ?, ?)", (request_id, time.time(), score, comment))

    def drop_round(self, request_id: str) -> None:
        """Forget the vote of a request: what was said of it last does not tell who was right."""
        with self._door, self._table:
            self._table.execute("delete from rounds where request_id = ?", (request_id,))
            # The next vote may take the number of this one.
            self._table.execute("update weighed set rounds = ''")

    def add_round(self, request_id: str, played: Round) -> None:
        """Write down a vote whose truth is known; of a request the last word counts."""
        with self._door, self._table:
            self._table.execute("insert or replace into rounds values (?, ?)", (request_id, played.model_dump_json()))
            self._table.execute("delete from rounds where rowid <= (select max(rowid) from rounds) - ?", (KEPT_ROUNDS,))

    def count_rounds(self) -> int:
        """How many votes there are whose truth is known."""
        with self._door, closing(self._table.cursor()) as cursor:
            return int(cursor.execute("select count(*) from rounds").fetchone()[0])

    def rounds(self) -> tuple[Round, ...]:
        """All votes whose truth is known."""
        with self._door, closing(self._table.cursor()) as cursor:
            rows = cursor.execute("select played from rounds order by rowid").fetchall()
        return tuple(Round.model_validate_json(row[0]) for row in rows)

    def state_of_rounds(self) -> str:
        """Differs when the votes whose truth is known do."""
        with self._door, closing(self._table.cursor()) as cursor:
            count, latest = cursor.execute("select count(*), max(rowid) from rounds").fetchone()
        return f"{count}:{latest}"

    def keep_weighed(self, rounds: str, weights: str) -> None:
        """Write down what was learned from votes, and in which state they were, see `state_of_rounds`."""
        with self._door, self._table:
            self._table.execute(
                "insert or replace into weighed values (1, ?, ?, ?)", (learning_method(), rounds, weights)
            )

    def weighed(self) -> tuple[str, str] | None:
        """What was learned from votes and their state then; None when nothing was, or by another method."""
        with self._door, closing(self._table.cursor()) as cursor:
            row = cursor.execute(
                "select rounds, weights from weighed where version = ?", (learning_method(),)
            ).fetchone()
        return None if row is None else (row[0], row[1])

    def stock(self, part: Table) -> Stock:
        """How much is kept of the requests, of what people said of answers, or of votes."""
        size, at = _SIZES[part]
        with self._door, closing(self._table.cursor()) as cursor:
            statement = f"select count(*), coalesce(sum({size}), 0), min({at}), max({at}) from {part}"
            return Stock(*cursor.execute(statement).fetchone())

    def clear(self, part: Table) -> int:
        """Forget all of them; how many there were. What was deleted is overwritten."""
        with self._door:
            self._table.execute("pragma secure_delete = on")
            with self._table:
                count = self._table.execute(f"delete from {part}").rowcount
                if part == "rounds":
                    self._table.execute("delete from weighed")
            self._table.execute("vacuum")
            self._table.execute("pragma wal_checkpoint(truncate)")
        return count

    def close(self) -> None:
        """Let go of the file."""
        with self._door:
            self._table.close()


def _opened(file: Path) -> sqlite3.Connection:
    try:
        return _table(file)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise  # another process is writing for long: the file is whole, and in use
        # Half a file, or none of ours. What it held can only be told about again.
        file.replace(file.with_name(file.name + ".damaged"))
        return _table(file)


def _table(file: Path) -> sqlite3.Connection:
    table = sqlite3.connect(file, check_same_thread=False)
    # A lost last moment costs a feedback, a disk that is waited for costs every request.
    table.execute("pragma journal_mode = wal")
    table.execute("pragma synchronous = off")
    table.execute(
        "create table if not exists runs (number integer primary key autoincrement, request_id text unique, "
        "run text not null, signature blob not null, at real)"
    )
    # A file of an earlier version does not say when.
    if not any(column[1] == "at" for column in table.execute("pragma table_info(runs)")):
        table.execute("alter table runs add column at real")
    table.execute("create table if not exists rounds (request_id text unique, played text not null)")
    table.execute(
        "create table if not exists weighed (one integer primary key, version text not null, rounds text not null, "
        "weights text not null)"
    )
    table.execute("create table if not exists feedback (request_id text, at real, score real, comment text)")
    return table


def _packed(signature: Sequence[float]) -> bytes:
    return np.asarray(signature, dtype=np.float16).tobytes()


def _unpacked(packed: bytes) -> tuple[float, ...]:
    unpacked: list[float] = np.frombuffer(packed, dtype=np.float16).astype(np.float32).tolist()
    return tuple(unpacked)
