"""Voters' own log-probabilities: learned from recorded votes, used where they were shown to say something."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from capibara_agents.errors import StoreError
from capibara_agents.journal import Journal
from capibara_agents.learning import Learning
from capibara_agents.outcomes import Learner
from capibara_agents.types import AnswerKind, Ballot, Canonical, Vote
from capibara_agents.vote import Cluster, Round, Tally, VoteWeights, learn, learn_sureness, sureness, tally_of_ballot

A, B = "a", "b"


def rounds(count: int, *, telling: bool, seed: int = 0) -> tuple[Round, ...]:
    """Votes of two equals that are right two times in three; where `telling`, surer when they are right."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        right = {voter: draw.random() < 0.65 for voter in (A, B)}
        sure = {v: {"mean": (-0.3 if telling and right[v] else -1.0) + 0.5 * draw.gauss(0, 1)} for v in (A, B)}
        if right[A] == right[B] and right[A]:
            clusters: tuple[Cluster, ...] = (Cluster(voters=(A, B), logprobs=sure),)
            truth: tuple[bool, ...] = (True,)
        else:
            clusters = tuple(Cluster(voters=(v,), logprobs={v: sure[v]}) for v in (A, B))
            truth = (right[A], right[B])
        made.append(Round(tally=Tally(domain="math", clusters=clusters), right=truth))
    return tuple(made)


def one(mean_a: float, mean_b: float) -> Tally:
    clusters = tuple(Cluster(voters=(v,), logprobs={v: {"mean": m}}) for v, m in ((A, mean_a), (B, mean_b)))
    return Tally(domain="math", clusters=clusters)


def test_what_the_words_say_is_found_and_used() -> None:
    """The surer of two who differ is the likelier; the chances still sum to at most 1."""
    found = learn_sureness(rounds(300, telling=True), (A, B), learn)
    assert found is not None
    assert found.sureness is not None
    assert found.after > found.before
    weights = learn(rounds(300, telling=True), (A, B))
    moved = found.sureness.moved(one(-1.0, -0.3), weights.chances(one(-1.0, -0.3)))
    assert moved[1] > 2 * moved[0]
    assert sum(moved) <= 1.0 + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_words_that_say_nothing_move_nothing(seed: int) -> None:
    """Chance alone is not evidence."""
    found = learn_sureness(rounds(200, telling=False, seed=seed), (A, B), learn)
    assert found is not None
    assert found.sureness is None


def test_too_few_votes_say_nothing() -> None:
    """Nor votes whose log-probabilities nobody wrote down."""
    assert learn_sureness(rounds(40, telling=True), (A, B), learn) is None
    silent = [Round(tally=_without_logprobs(played.tally), right=played.right) for played in rounds(300, telling=True)]
    assert learn_sureness(silent, (A, B), learn) is None


def test_where_no_fold_has_learned_nothing_is_claimed() -> None:
    """Enough votes to learn from, and too few once some are held out: no chance of anything."""
    assert learn_sureness(rounds(55, telling=True), (A, B), learn) is None


def test_each_fold_learns_once_and_from_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many statistics are tried, and votes recorded."""
    monkeypatch.setattr(sureness, "MOST_ROUNDS", 200)
    learned_from: list[int] = []

    def counted(played: Sequence[Round], voters: Sequence[str]) -> VoteWeights:
        learned_from.append(len(played))
        return learn(played, voters)

    assert learn_sureness(rounds(250, telling=True), (A, B), counted) is not None
    assert learned_from == [200, *[160] * 5]


def _without_logprobs(tally: Tally) -> Tally:
    return tally.model_copy(update={"clusters": tuple(c.model_copy(update={"logprobs": {}}) for c in tally.clusters)})


def test_a_ballots_log_probabilities_are_recorded() -> None:
    """With the vote, for when its truth becomes known; in no trace."""
    said = Canonical(kind=AnswerKind.number, value="84", confidence=1.0)
    vote = Vote(model=A, answer=said, weight=1.0, cluster=0, logprobs={"mean": -0.5, "min": -2.0, "tail": -0.1})
    ballot = Ballot(winner="1:a", method="confidence", agreement=1.0, confidence=1.0, votes=(vote,))
    assert tally_of_ballot(ballot, "math").clusters[0].logprobs == {A: {"mean": -0.5, "min": -2.0, "tail": -0.1}}
    assert "logprobs" not in ballot.model_dump()["votes"][0]


def learning(folder: Path, played: Sequence[Round] = ()) -> Learning:
    journal = Journal(folder, keep=100)
    for number, one_round in enumerate(played):
        journal.add_round(f"r{number}", one_round)
    return Learning(journal, Learner(folder))


def test_it_survives_a_restart_and_can_be_undone(tmp_path: Path) -> None:
    """As one update of the log; undone, it stays off, over a restart too, and the weights stay."""
    with closing(learning(tmp_path, rounds(300, telling=True))) as first:
        assert first.weights().sureness is not None
    with closing(learning(tmp_path)) as second:
        assert second.weights().sureness is not None
        assert [(update.kind, update.state) for update in second.updates()] == [("sureness", "applied")]
        second.undo(second.updates()[-1].id)
        assert second.weights().sureness is None
        assert second.weights().learned
    with closing(learning(tmp_path)) as third:
        assert third.weights().sureness is None
        assert [update.state for update in third.updates()] == ["undone"]


def fail(*_: object) -> VoteWeights:
    raise AssertionError


def test_the_next_start_learns_only_from_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same votes teach what they taught, and nobody waits for it: a single question, asked alone, counts by it."""
    with closing(learning(tmp_path, rounds(300, telling=True))) as first:
        weights = first.weights()
    monkeypatch.setattr("capibara_agents.learning.learn", fail)
    with closing(learning(tmp_path)) as second:
        assert second.weights() == weights
    with closing(learning(tmp_path)) as third:
        third.warm()
        assert third.weights() == weights
        assert third._weighing is None


def test_votes_that_came_since_are_learned_from_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until that is done the earlier weights count."""
    with closing(learning(tmp_path, rounds(100, telling=True))) as first:
        weights = first.weights()
    go_on = threading.Event()

    def waiting(played: Sequence[Round], voters: Sequence[str]) -> VoteWeights:
        go_on.wait(60)
        return learn(played, voters)

    monkeypatch.setattr("capibara_agents.learning.learn", waiting)
    with closing(learning(tmp_path, rounds(200, telling=True))) as second:
        assert second.weights() == weights
        go_on.set()
        assert second._weighing is not None
        second._weighing.join(60)
        assert second.weights().rounds == 200


def test_weights_of_votes_that_are_gone_or_of_none_are_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten votes leave no weights; learning that failed leaves none behind; damaged ones are learned again."""
    with closing(learning(tmp_path, rounds(100, telling=True))) as first:
        assert first.weights().learned
        first.forget("votes")
    with closing(learning(tmp_path, rounds(100, telling=True))) as second, monkeypatch.context() as patched:
        patched.setattr("capibara_agents.learning.learn", fail)
        assert not second.weights().learned
    with closing(learning(tmp_path)) as third:
        assert third.weights().learned
        third._journal.keep_weighed(third._journal.state_of_rounds(), "{")
    with closing(learning(tmp_path)) as fourth:
        assert fourth.weights().learned


def test_another_vote_under_the_number_of_a_dropped_one_is_learned_from(tmp_path: Path) -> None:
    """There are as many votes as before, and the last one's number is the same."""
    played = rounds(101, telling=True)
    with closing(learning(tmp_path, played[:100])) as first:
        weights = first.weights()
        assert first._recall()
        first._journal.drop_round("r99")
        first._journal.add_round("r100", played[100])
        assert first._recall() is False
        assert first.weights() == weights


def test_votes_that_are_forgotten_while_weights_are_taken_up_stay_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of them before does not count after."""
    with closing(learning(tmp_path, rounds(100, telling=True))) as first:
        assert first.weights().learned
    with closing(learning(tmp_path)) as second:
        read = second._journal.weighed

        def meanwhile_forgotten() -> tuple[str, str] | None:
            kept = read()
            second.forget("votes")
            return kept

        monkeypatch.setattr(second._journal, "weighed", meanwhile_forgotten)
        second.warm()
        assert not second.weights().learned


def test_what_was_undone_needs_twice_the_evidence(tmp_path: Path) -> None:
    """And a finding that does not hold is never applied; one that no longer does is taken out of use."""
    with closing(Learner(tmp_path)) as learner:
        assert not learner.weigh_sureness(100, 0.5, 0.5, holds=False)
        assert learner.updates() == ()
        assert learner.weigh_sureness(100, 0.5, 0.6, holds=True)
        learner.undo(learner.updates()[-1].id)
        assert not learner.weigh_sureness(199, 0.5, 0.6, holds=True)
        assert learner.weigh_sureness(200, 0.5, 0.6, holds=True)
        assert not learner.weigh_sureness(300, 0.6, 0.5, holds=False)
        assert [update.state for update in learner.updates()] == ["undone", "applied", "refused"]
        with pytest.raises(StoreError):
            learner.undo(learner.updates()[-1].id)


def test_forgetting_outcomes_leaves_what_was_undone_and_what_can_be(tmp_path: Path) -> None:
    """The log of sureness is not of the outcomes."""
    with closing(learning(tmp_path, rounds(300, telling=True))) as first:
        assert first.weights().sureness is not None
        first.forget("outcomes")
        first.undo(first.updates()[-1].id)
        assert first.weights().sureness is None
        first.forget("outcomes")
    with closing(learning(tmp_path)) as second:
        assert second.weights().learned
        assert second.weights().sureness is None


def test_with_the_votes_their_sureness_is_settled(tmp_path: Path) -> None:
    """Nothing counts by votes that are gone; it is no person's word against it either."""
    with closing(learning(tmp_path, rounds(300, telling=True))) as first:
        assert first.weights().sureness is not None
        first.forget("votes")
        assert [update.state for update in first.updates()] == ["refused"]
        assert first.weights().sureness is None


def test_undoing_it_learns_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the weights stays as it is."""
    with closing(learning(tmp_path, rounds(300, telling=True))) as first:
        weights = first.weights()

        def fail(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(first, "_weigh", fail)
        first.undo(first.updates()[-1].id)
        assert first.weights() == weights.model_copy(update={"sureness": None})
