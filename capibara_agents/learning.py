"""Learning beside the answering: finished runs and feedback become outcomes, in a thread of its own.

What a run costs on its own way is one entry in a queue. Everything that takes time (writing down, weighing an update
against the recorded past) happens here, in batches; recorded votes are weighed in another thread still.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from capibara_agents import garbage
from capibara_agents.errors import BadQuestion, Behind, CapibaraError, StoreError
from capibara_agents.journal import (
    REQUEST_ID,
    Journal,
    Run,
    Table,
    outcomes_of_feedback,
    outcomes_of_run,
    round_of_run,
    run_of,
)
from capibara_agents.outcomes import Outcome, Update, UpdateReport
from capibara_agents.stock import Stock
from capibara_agents.types import Ballot, Candidate, Classification, Expectation, Verdict
from capibara_agents.vote import (
    ENOUGH_ROUNDS,
    Finding,
    Sureness,
    VoteWeights,
    learn,
    learn_sureness,
    samples_that_pay,
)

log = logging.getLogger(__name__)

# Runs that wait to be written down; beyond, the newest are not learned from.
WAITING = 1000
# Runs that end within so much time are written down together, unless somebody waits for one of them.
GATHERED_S = 0.2
# Outcomes of runs are recorded together: each update is weighed against the past, which takes longer than a run.
BATCH, BATCH_S = 64, 5.0
# The next batch waits for so many times what the last one took: learning has at most this share of a core.
REST = 20.0
CLOSE_S = 5.0
Kept = Literal["requests", "feedback", "votes", "outcomes"]
TABLES: dict[str, Table] = {"requests": "runs", "feedback": "feedback", "votes": "rounds"}


class RecordsOutcomes(Protocol):
    """What learns: `outcomes.Learner`."""

    def record(self, outcomes: Sequence[Outcome]) -> UpdateReport: ...
    def expect(self, classification: Classification) -> Mapping[str, Expectation]: ...
    def updates(self) -> tuple[Update, ...]: ...
    def undo(self, update_id: int) -> UpdateReport: ...
    def weigh_sureness(self, votes: int, before: float, after: float, *, holds: bool) -> bool: ...
    def drop_sureness(self) -> None: ...
    def stock(self) -> Stock: ...
    def clear(self) -> int: ...
    def close(self) -> None: ...


class Learning:
    """Joins the graph, the journal and what learns; safe to use from any thread."""

    def __init__(self, journal: Journal, learner: RecordsOutcomes) -> None:
        self._journal = journal
        self._learner = learner
        self._ended: queue.Queue[Run | threading.Event | None] = queue.Queue(WAITING)
        self._waited_for = threading.Event()
        self._learn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._first = threading.Lock()
        self._closed = False
        self._weights: VoteWeights | None = None
        self._weighing: threading.Thread | None = None
        # Rises when votes are forgotten: what was being learned from them is not to come back.
        self._generation = 0
        self._weigh_again = 0.0
        self._new_rounds = 0

    def expect(self, classification: Classification) -> Mapping[str, Expectation]:
        """What is expected of each model on a question; nothing when the learner fails."""
        try:
            return self._learner.expect(classification)
        except Exception:  # a question is answered by the table when what was learned is of no use
            log.warning("what was learned could not be used", exc_info=True)
            return {}

    def ended(
        self, classification: Classification, candidates: Sequence[Candidate], ballot: Ballot, verdict: Verdict
    ) -> None:
        """A run of a request with an id is over. Never waits, never raises."""
        request_id = REQUEST_ID.get()
        if request_id is None or self._closed:
            return
        try:
            run = run_of(request_id, classification, candidates, ballot, verdict)
            if run is not None:
                self._ended.put_nowait(run)
                self._work()
        except queue.Full:
            pass
        except Exception:  # the answer is given; what can be learned from it is not worth its loss
            log.warning("a run could not be learned from", exc_info=True)

    def feedback(self, request_id: str, score: float, comment: str = "") -> dict[str, Any]:
        """Tell how good an answer was, -1 to 1; what was done with it. BadQuestion (not_found) for an unknown id.

        Blocks while the journal catches up and the update is weighed. Behind where it does not catch up soon.
        """
        caught_up = self._catch_up()
        run = self._journal.get(request_id)
        if run is None and not caught_up:
            raise Behind("Answered requests are still being written down; try again.", retry_after_s=CLOSE_S)
        if run is None:
            raise BadQuestion("No answered request of this id is remembered.", param="request_id", code="not_found")
        self._journal.note(request_id, score, comment)
        self._note_round(run, score)
        self._work()
        self._ended.put(threading.Event())
        outcomes = outcomes_of_feedback(run, score)
        with self._learn:
            report = self._learner.record(outcomes)
        models = [outcome.model for outcome in outcomes]
        return {"request_id": request_id, "score": score, "models": models, **report.model_dump(mode="json")}

    def weights(self) -> VoteWeights:
        """What recorded votes taught of the voters, equal ones where that is of no use.

        Never waits for learning, except at its first call where it was not warmed and no earlier process has learned.
        """
        if self._weights is None and self._weighing is None:
            with self._first:
                if self._weights is None and not self._recall():
                    self._weigh() if self._weights is None else self._weigh_beside()
        return self._weights or VoteWeights()

    def warm(self) -> None:
        """Take up what was learned from recorded votes, and learn from those that are new, beside whoever calls.

        Until that is done what an earlier process learned counts; where there is nothing of it all voters are equal.
        """
        with self._first:
            if self._weights is None and not self._recall():
                self._weigh_beside()

    def updates(self) -> tuple[Update, ...]:
        """What was learned so far, the oldest first."""
        return self._learner.updates()

    def undo(self, update_id: int) -> UpdateReport:
        """Take an update back. BadQuestion (not_found) for one that is not applied."""
        try:
            with self._learn:
                kinds = {update.id: update.kind for update in self._learner.updates()}
                report = self._learner.undo(update_id)
                if self._weights is not None and kinds.get(update_id) == "sureness":
                    self._weights = self._weights.model_copy(update={"sureness": None})
                return report
        except StoreError as error:
            raise BadQuestion(error.said, param="update_id", code="not_found") from error

    def stock(self, what: Kept) -> Stock:
        """How much is kept of the requests, of feedback, of votes or of outcomes."""
        self._catch_up()
        return self._learner.stock() if what == "outcomes" else self._journal.stock(TABLES[what])

    def forget(self, what: Kept) -> int:
        """Forget all of it, and what was learned from it; how many there were."""
        self._catch_up()
        with self._learn:
            if what == "outcomes":
                return self._learner.clear()
            count = self._journal.clear(TABLES[what])
            if what == "votes":
                self._weights, self._new_rounds = VoteWeights(), 0
                self._generation += 1
                self._learner.drop_sureness()
            return count

    def close(self) -> None:
        """Write down what is left, and end the thread."""
        with self._start:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._waited_for.set()
            self._ended.put(None)
            thread.join(CLOSE_S)
        weighing = self._weighing
        if weighing is not None:
            weighing.join(CLOSE_S)
        self._journal.close()
        self._learner.close()

    # ------------------------------------------------------------ the thread

    def _work(self) -> None:
        if self._thread is not None:
            return
        with self._start:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._loop, name="capibara-learning", daemon=True)
                self._thread.start()

    def _catch_up(self) -> bool:
        """Wait until what ended before now is in the journal; whether it is."""
        if self._thread is None:
            return True
        reached = threading.Event()
        self._waited_for.set()
        try:
            self._ended.put(reached, timeout=CLOSE_S)
        except queue.Full:
            return False
        return reached.wait(CLOSE_S)

    def _loop(self) -> None:
        outcomes: list[Outcome] = []
        last = rested = time.monotonic()
        while True:
            runs, item = self._next(BATCH_S if outcomes else None)
            self._write(runs)
            outcomes.extend(outcome for run in runs for outcome in outcomes_of_run(run))
            if item is not None:
                item.set()
            now = time.monotonic()
            due = now >= rested and (len(outcomes) >= BATCH or now - last >= BATCH_S)
            if outcomes and (due or item is None):
                self._record(outcomes)
                self._weigh_anew()
                outcomes, last = [], time.monotonic()
                rested = last + REST * (last - now)
            elif self._new_rounds:
                self._weigh_anew()
            if item is None:
                return

    def _next(self, wait_s: float | None) -> tuple[list[Run], threading.Event | None]:
        """The runs that end next, and what came after them; after `wait_s` seconds an event that nobody waits for."""
        runs: list[Run] = []
        try:
            item = self._ended.get(timeout=wait_s)
            if isinstance(item, Run):
                # To be woken for each takes longer than to write it down.
                self._waited_for.wait(GATHERED_S)
            self._waited_for.clear()
            while isinstance(item, Run):
                runs.append(item)
                item = self._ended.get_nowait()
            return runs, item
        except queue.Empty:
            return runs, threading.Event()

    def _write(self, runs: Sequence[Run]) -> None:
        try:
            if runs:
                self._journal.put(runs)
            for run in runs:
                self._note_round(run)
        except Exception as error:  # noqa: BLE001  (a full disk must not end the thread)
            log.warning("requests could not be written down for feedback: %s", type(error).__name__)

    def _note_round(self, run: Run, score: float | None = None) -> None:
        """Keep a vote whose truth is known; of a request the last word counts."""
        if run.tally is None:
            return
        played = round_of_run(run, score)
        if played is not None:
            self._journal.add_round(run.request_id, played)
            self._new_rounds += 1
        elif score is not None:
            self._journal.drop_round(run.request_id)

    def _weigh_anew(self) -> None:
        """Learn again when known votes have become a twentieth more."""
        if self._closed or time.monotonic() < self._weigh_again:
            return
        count = self._journal.count_rounds()
        if count >= ENOUGH_ROUNDS and self._new_rounds > count // 20:
            self._weigh_beside()

    def _weigh_beside(self) -> None:
        """Learn from recorded votes in a thread of its own: meanwhile runs are written down and feedback is taken."""
        with self._start:
            if self._closed or (self._weighing is not None and self._weighing.is_alive()):
                return
            self._weighing = threading.Thread(target=self._weigh, name="capibara-weighing", daemon=True)
            self._weighing.start()

    def _recall(self) -> bool:
        """Take up the weights that were written down; whether they are of the votes as they are now."""
        generation = self._generation
        try:
            kept, now = self._journal.weighed(), self._journal.state_of_rounds()
            if kept is None:
                return False
            weights = VoteWeights.model_validate_json(kept[1])
            if not any(update.kind == "sureness" and update.state == "applied" for update in self._learner.updates()):
                weights = weights.model_copy(update={"sureness": None})
        except Exception as error:  # noqa: BLE001  (what is damaged is learned again)
            log.warning("what was learned from votes could not be taken up: %s", type(error).__name__)
            return False
        with self._learn:
            if self._generation != generation:
                return False
            self._weights = weights
        return kept[0] == now

    def _weigh(self) -> None:
        """Learn from recorded votes. Only what comes of it is taken over under the lock."""
        began, generation, new = time.monotonic(), self._generation, self._new_rounds
        state = None
        try:
            state = self._journal.state_of_rounds()
            weights, finding = self._learned()
        except Exception as error:  # noqa: BLE001  (a damaged row must not stop the answering)
            log.warning("recorded votes could not be learned from: %s", type(error).__name__)
            weights, finding, state = VoteWeights(), None, None
        with self._learn:
            if self._generation == generation:
                self._weights = weights.model_copy(update={"sureness": self._sureness(finding)})
                self._new_rounds -= new
                if state is not None:
                    self._write_weights(state, self._weights)
        garbage.give_back()
        self._weigh_again = time.monotonic() + REST * (time.monotonic() - began)

    def _write_weights(self, state: str, weights: VoteWeights) -> None:
        """The next start takes them up; where they cannot be written down it learns them again."""
        try:
            self._journal.keep_weighed(state, weights.model_dump_json())
        except Exception as error:  # noqa: BLE001  (a full disk: they count as long as this process lives)
            log.warning("what was learned from votes could not be written down: %s", type(error).__name__)

    def _learned(self) -> tuple[VoteWeights, Finding | None]:
        rounds = self._journal.rounds()
        voters = tuple(dict.fromkeys(voter for played in rounds for voter in sorted(played.tally.asked)))
        weights = learn(rounds, voters).model_copy(update={"samples": samples_that_pay(rounds, learn)})
        return weights, learn_sureness(rounds, voters, learn)

    def _sureness(self, found: Finding | None) -> Sureness | None:
        """What the voters' own log-probabilities say, where that is shown and was not undone."""
        if found is None:
            return None
        try:
            holds = found.sureness is not None
            counts = self._learner.weigh_sureness(found.rounds, found.before, found.after, holds=holds)
        except Exception as error:  # noqa: BLE001  (a full disk: what is not in the log does not count)
            log.warning("voters' sureness could not be written down: %s", type(error).__name__)
            return None
        return found.sureness if counts else None

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        try:
            with self._learn:
                self._learner.record(outcomes)
        except CapibaraError as error:
            log.warning("outcomes could not be recorded: %s", error.message)
        except Exception as error:  # noqa: BLE001  (as above)
            log.warning("outcomes could not be recorded: %s", type(error).__name__)
