"""What is remembered of an answered request, and what feedback, checks and votes make of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capibara_agents.http.app import build_app
from capibara_agents.journal import (
    FILE_NAME,
    PASSED_SHARE,
    Journal,
    Run,
    outcomes_of_feedback,
    outcomes_of_run,
    round_of_run,
    run_of,
)
from capibara_agents.learning import Learning
from capibara_agents.outcomes import Learner, UpdateReport
from capibara_agents.route.worth import ASSUMED
from capibara_agents.signature import SIGNATURE_SIZE
from capibara_agents.types import AnswerKind, Ballot, Candidate, Canonical, Check, Timings, Verdict, Vote
from capibara_agents.vote import Round, VoteWeights, learn
from tests.asgi import Exchange, get, post
from tests.fakes import ENGLISH, GPT, MISTRAL, PHI, QWEN, SPANISH, FakeHouse, FakeLearner, classification, until

SIGNATURE = tuple(np.random.default_rng(0).standard_normal(SIGNATURE_SIZE).tolist())
ASKED = classification(signature=SIGNATURE)
CHAT = "/v1/chat/completions"


def answered(model: str, attempt: int = 1, **rest: Any) -> Candidate:
    timings = Timings(wait_ms=1000, total_ms=3000)
    return Candidate(model=model, attempt=attempt, content=rest.pop("content", "x"), timings=timings, **rest)


def verdict(key: str, accepted: bool = True) -> Verdict:
    return Verdict(accepted=accepted, candidate=key, final=True)


def alone(winner: str) -> Ballot:
    return Ballot(winner=winner, method="pass", agreement=1, confidence=1)


def vote(winner: str, kind: AnswerKind, **clusters: int) -> Ballot:
    by_name = {"phi": PHI, "qwen": QWEN, "mistral": MISTRAL, "gpt": GPT}
    votes = tuple(
        Vote(model=by_name[name], answer=Canonical(kind=kind, value=str(n), confidence=1), weight=1, cluster=n)
        for name, n in clusters.items()
    )
    return Ballot(winner=winner, method="weighted", agreement=0.75, confidence=0.7, votes=votes)


def run(candidates: Sequence[Candidate], ballot: Ballot, said: Verdict) -> Run:
    made = run_of("r", ASKED, candidates, ballot, said)
    assert made is not None
    return made


# ---------------------------------------------------------------- pure


def test_some_passed_answers_count_as_what_is_assumed() -> None:
    """Else a model with one failure in a thousand would look bad; the same request always decides the same."""
    made = run([answered(PHI)], alone(f"1:{PHI}"), verdict(f"1:{PHI}"))
    found = [outcomes_of_run(made.model_copy(update={"request_id": f"r{i}"})) for i in range(1000)]
    taken = [outcomes for outcomes in found if outcomes]
    assert 1000 / PASSED_SHARE / 2 < len(taken) < 1000 / PASSED_SHARE * 2
    assert {(o.model, o.good, o.origin) for (o,) in taken} == {(PHI, ASSUMED, "verdict")}


def test_an_answer_that_failed_its_checks_is_a_bad_outcome() -> None:
    """Of the model that gave it, with its seconds; of one that passed, this request says nothing."""
    made = run([answered(PHI), answered(MISTRAL, 2)], alone(f"2:{MISTRAL}"), verdict(f"2:{MISTRAL}"))
    (bad,) = outcomes_of_run(made)
    assert (bad.model, bad.good, bad.origin, bad.seconds) == (PHI, 0.0, "verdict", 2.0)
    assert bad.signature == SIGNATURE
    unaccepted = run([answered(PHI)], alone(f"1:{PHI}"), verdict(f"1:{PHI}", accepted=False))
    assert [(o.model, o.good) for o in outcomes_of_run(unaccepted)] == [(PHI, 0.0)]


def test_a_failure_is_no_outcome() -> None:
    """A server that died says nothing of what its model knows."""
    made = run(
        [answered(PHI, error="model_crashed"), answered(MISTRAL, 2)], alone(f"2:{MISTRAL}"), verdict(f"2:{MISTRAL}")
    )
    assert outcomes_of_run(made) == ()
    assert [part.model for part in made.parts] == [MISTRAL]


def test_a_vote_tells_who_was_with_the_winner() -> None:
    """As surely as the voters agreed."""
    voters = [answered(PHI), answered(QWEN), answered(GPT)]
    ballot = vote(f"1:{GPT}", AnswerKind.number, phi=0, qwen=1, gpt=0)
    found = outcomes_of_run(run(voters, ballot, verdict(f"1:{GPT}")))
    assert {(o.model, o.good, o.certainty, o.origin) for o in found} == {
        (PHI, 1.0, 0.75, "vote"),
        (QWEN, 0.0, 0.75, "vote"),
        (GPT, 1.0, 0.75, "vote"),
    }


@pytest.mark.parametrize(
    ("kind", "clusters"),
    [(AnswerKind.text, {"phi": 0, "qwen": 1, "gpt": 2}), (AnswerKind.number, {"phi": 0, "gpt": 0})],
)
def test_a_vote_that_compares_little_says_nothing(kind: AnswerKind, clusters: dict[str, int]) -> None:
    """Free texts, or fewer than three voters."""
    names = {"phi": PHI, "qwen": QWEN, "gpt": GPT}
    voters = [answered(names[name]) for name in clusters]
    assert outcomes_of_run(run(voters, vote(f"1:{GPT}", kind, **clusters), verdict(f"1:{GPT}"))) == ()


@pytest.mark.parametrize(("score", "good"), [(-1, 0.0), (0, 0.5), (0.5, 0.75), (1, 1.0)])
def test_feedback_is_about_the_model_that_answered(score: float, good: float) -> None:
    """Not about those that were rejected before it."""
    made = run([answered(PHI), answered(MISTRAL, 2)], alone(f"2:{MISTRAL}"), verdict(f"2:{MISTRAL}"))
    (one,) = outcomes_of_feedback(made, score)
    assert (one.model, one.good, one.origin) == (MISTRAL, good, "feedback")


def test_feedback_on_a_vote_is_about_all_who_gave_that_answer() -> None:
    """They said the same."""
    voters = [answered(PHI), answered(QWEN), answered(GPT)]
    made = run(voters, vote(f"1:{GPT}", AnswerKind.number, phi=0, qwen=1, gpt=0), verdict(f"1:{GPT}"))
    assert {o.model for o in outcomes_of_feedback(made, 1)} == {PHI, GPT}


def sampled(**clusters: int) -> Ballot:
    """A vote in which two samples of phi-4-mini take part."""
    names = {"phi": PHI, "second": f"{PHI}#2", "qwen": QWEN, "gpt": GPT}
    votes = tuple(
        Vote(
            model=names[name], answer=Canonical(kind=AnswerKind.number, value=str(n), confidence=1), weight=1, cluster=n
        )
        for name, n in clusters.items()
    )
    return Ballot(winner=f"1:{PHI}#2", method="weighted", agreement=0.75, confidence=0.7, votes=votes)


def test_feedback_on_a_winning_sample_is_about_all_who_gave_that_answer() -> None:
    """Its model's first sample said something else; the others said the same."""
    voters = [answered(PHI), answered(PHI, sample=2), answered(QWEN), answered(GPT)]
    made = run(voters, sampled(phi=1, second=0, qwen=0, gpt=1), verdict(f"1:{PHI}#2"))
    assert {o.model for o in outcomes_of_feedback(made, 1)} == {PHI, QWEN}


def test_feedback_on_a_sample_counts_where_the_first_one_failed() -> None:
    """The model has no other answer."""
    voters = [answered(PHI, error="model_crashed"), answered(PHI, sample=2), answered(QWEN), answered(GPT)]
    made = run(voters, sampled(second=0, qwen=1, gpt=0), verdict(f"1:{PHI}#2"))
    assert {o.model for o in outcomes_of_feedback(made, 1)} == {PHI, GPT}


def test_nothing_is_remembered_of_a_run_without_an_answer() -> None:
    """Or without a signature, which nothing could be learned from."""
    nobody = Verdict(accepted=False, candidate=None, final=True)
    assert run_of("r", ASKED, [answered(PHI, error="x")], alone("1:x"), nobody) is None
    assert run_of("r", classification(), [answered(PHI)], alone(f"1:{PHI}"), verdict(f"1:{PHI}")) is None


# ---------------------------------------------------------------- the journal


def test_the_journal_keeps_the_last_and_survives_a_restart(tmp_path: Path) -> None:
    """No more than it is told to keep; signatures as exact as half precision."""
    made = run([answered(PHI)], alone(f"1:{PHI}"), verdict(f"1:{PHI}"))
    journal = Journal(tmp_path, keep=3)
    journal.put(made.model_copy(update={"request_id": f"r{i}"}) for i in range(5))
    journal.close()
    journal = Journal(tmp_path, keep=3)
    assert [journal.get(f"r{i}") is not None for i in range(5)] == [False, False, True, True, True]
    back = journal.get("r4")
    assert back is not None
    assert back.signature == pytest.approx(SIGNATURE, abs=2e-3)
    assert back.model_copy(update={"signature": SIGNATURE, "request_id": "r"}) == made
    journal.close()


def test_the_journal_holds_no_text(tmp_path: Path) -> None:
    """Neither question nor answer is in its files."""
    made = run([answered(PHI, content="geheimnisvoll")], alone(f"1:{PHI}"), verdict(f"1:{PHI}"))
    journal = Journal(tmp_path, keep=3)
    journal.put([made])
    journal.close()
    assert b"geheimnisvoll" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    """What it held is lost for feedback, and nothing else."""
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    journal = Journal(tmp_path, keep=3)
    assert journal.get("r") is None
    journal.close()
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()
    sqlite3.connect(tmp_path / FILE_NAME).execute("select count(*) from runs")


# ---------------------------------------------------------------- over HTTP


async def chat(house: FakeHouse, request_id: str, **body: Any) -> Exchange:
    house.classifier.says = ASKED
    sent = {"model": "capibara", "messages": [{"role": "user", "content": "¿Capital de España?"}], **body}
    return await post(build_app(house), CHAT, sent, x_request_id=request_id).done()


async def feedback(house: FakeHouse, **body: Any) -> Exchange:
    return await post(build_app(house), "/v1/feedback", body).done()


@pytest.mark.parametrize("stream", [False, True])
async def test_feedback_reaches_the_learner(house: FakeHouse, stream: bool) -> None:
    """By the request id of the answer, streamed or not; the reply says what was done."""
    house.upstream.script(PHI, SPANISH)
    assert (await chat(house, "abc", stream=stream)).status == 200
    got = await feedback(house, request_id="abc", score=-0.5, comment="no")
    assert got.status == 200, got.body
    report = house.learner.report.model_dump(mode="json")
    assert got.json() == {"request_id": "abc", "score": -0.5, "models": [PHI], **report}
    (told,) = house.learner.told
    assert (told.model, told.good, told.origin) == (PHI, 0.25, "feedback")
    with sqlite3.connect(house.settings.data_dir / FILE_NAME) as table:
        assert table.execute("select request_id, score, comment from feedback").fetchall() == [("abc", -0.5, "no")]
    assert told.signature == pytest.approx(SIGNATURE, abs=2e-3)


async def test_an_update_that_is_refused_says_so(house: FakeHouse) -> None:
    """The guard's reason is passed on."""
    house.learner.report = UpdateReport(update_id=7, applied=False, reason="It would make the past worse.")
    house.upstream.script(PHI, SPANISH)
    await chat(house, "abc")
    got = (await feedback(house, request_id="abc", score=1)).json()
    assert (got["update_id"], got["applied"], got["reason"]) == (7, False, "It would make the past worse.")


async def test_feedback_on_a_request_nobody_remembers_is_404(house: FakeHouse) -> None:
    """Also for a request that was refused, or had no answer."""
    got = await feedback(house, request_id="never", score=1)
    assert (got.status, got.json()["error"]["code"], got.json()["error"]["param"]) == (404, "not_found", "request_id")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"score": 1}, "request_id"),
        ({"request_id": "x"}, "score"),
        ({"request_id": "x", "score": 1.1}, "score"),
        ({"request_id": "x", "score": -2}, "score"),
        ({"request_id": "x", "score": "good"}, "score"),
        ({"request_id": "", "score": 1}, "request_id"),
        ({"request_id": "x", "score": 1, "comment": 7}, "comment"),
    ],
)
async def test_wrong_feedback_is_a_400(house: FakeHouse, body: dict[str, Any], param: str) -> None:
    """That names the field."""
    got = await feedback(house, **body)
    assert (got.status, got.json()["error"]["param"]) == (400, param)


async def test_a_rejected_answer_is_learned_from_without_being_asked(house: FakeHouse) -> None:
    """In the thread beside; the answer does not wait for it."""
    house.upstream.script(PHI, ENGLISH)
    house.upstream.script(MISTRAL, SPANISH)
    assert (await chat(house, "abc")).status == 200
    house.learning.close()
    assert [(o.model, o.good, o.origin) for o in house.learner.told] == [(PHI, 0.0, "verdict")]


async def test_a_learner_that_fails_costs_no_answer(house: FakeHouse) -> None:
    """Neither the route of the next question nor its answer; feedback says that it failed."""
    house.upstream.otherwise = SPANISH
    house.learner.fails = RuntimeError("out of order")
    assert (await chat(house, "abc")).status == 200
    assert (await chat(house, "abd")).status == 200
    assert (await feedback(house, request_id="abc", score=1)).status == 500


async def test_what_is_expected_moves_the_route(house: FakeHouse) -> None:
    """The learner's expectations reach the policy, and the reason says so."""
    from capibara_agents.types import Expectation

    house.upstream.otherwise = SPANISH
    house.learner.expects = {PHI: Expectation(good=0.2, support=50), MISTRAL: Expectation(good=0.9, support=50)}
    got = await chat(house, "abc")
    assert (got.status, got.headers["x-capibara-models"]) == (200, MISTRAL)
    routed = (await post(build_app(house), "/v1/route", {"input": "hola"}).done()).json()
    assert (routed["model"], routed["reason_code"]) == (MISTRAL, "route.good")


async def test_runs_without_a_request_are_not_remembered(house: FakeHouse) -> None:
    """A program that uses the library has no id that feedback could name."""
    from langchain_core.messages import HumanMessage

    from capibara_agents.types import Request

    house.classifier.says = ASKED
    house.upstream.script(PHI, SPANISH)
    await house.capibara.answer([HumanMessage("hola")], Request())
    assert house.learning._thread is None


async def test_many_runs_wait_for_nobody(house: FakeHouse) -> None:
    """The queue is bounded; what does not fit is not learned from, and the newest feedback still works."""
    house.upstream.otherwise = SPANISH
    for number in range(5):
        await chat(house, f"r{number}")
    got = await feedback(house, request_id="r4", score=1)
    assert got.status == 200
    # What its checks say of the same run may have been recorded before it.
    await until(lambda: [outcome.origin for outcome in house.learner.told].count("feedback") == 1)


async def test_undoing_what_is_not_there_is_404(house: FakeHouse) -> None:
    """The log is empty, and its entries are numbers."""
    got = await post(build_app(house), "/v1/learning/7/undo", {}).done()
    assert (got.status, got.json()["error"]["param"]) == (404, "update_id")
    got = await post(build_app(house), "/v1/learning/x/undo", {}).done()
    assert (got.status, got.json()["error"]["param"]) == (400, "update_id")


async def test_a_real_learner_records_survives_and_undoes(house: FakeHouse) -> None:
    """Feedback over HTTP reaches the file; a new start still expects it, and undo takes it back."""
    house.upstream.otherwise = SPANISH
    house.learning._learner = Learner(house.settings.data_dir)
    await chat(house, "abc")
    update = (await feedback(house, request_id="abc", score=-1)).json()["update_id"]
    assert (await get(build_app(house), "/v1/learning").done()).json()["data"][0]["state"] == "applied"
    assert Learner(house.settings.data_dir).expect(ASKED)[PHI].good < 0.5
    undone = await post(build_app(house), f"/v1/learning/{update}/undo", {}).done()
    assert undone.status == 200
    assert Learner(house.settings.data_dir).expect(ASKED) == {}


# ---------------------------------------------------------------- votes whose truth is known


def voted(winner: str, known: dict[str, str] | None = None, **clusters: int) -> Run:
    """A finished vote; `known`: voter -> what running its code showed."""
    ballot = vote(f"1:{winner}", AnswerKind.number, **clusters)
    candidates = [
        answered(
            v.model,
            behaviour=Check(name="runs", passed=known[v.model] != "failed", details={"outcome": known[v.model]})
            if known
            else None,
        )
        for v in ballot.votes
    ]
    return run(candidates, ballot, verdict(f"1:{winner}"))


def test_praise_of_a_vote_says_that_the_other_answers_were_wrong() -> None:
    """A bad score says that only where nobody said anything else."""
    divided = voted(PHI, phi=0, qwen=0, gpt=1)
    praised = round_of_run(divided, 1.0)
    assert praised is not None
    assert [(c.voters, right) for c, right in zip(praised.tally.clusters, praised.right, strict=True)] == [
        ((PHI, QWEN), True),
        ((GPT,), False),
    ]
    assert round_of_run(divided, -1.0) is None
    united = round_of_run(voted(PHI, phi=0, qwen=0), -1.0)
    assert united is not None
    assert united.right == (False,)
    assert round_of_run(divided) is None, "nobody has judged it"


def test_what_running_the_code_showed_needs_no_persons_word() -> None:
    """Tools tell of each answer."""
    told = round_of_run(voted(PHI, {PHI: "passed", QWEN: "passed", GPT: "failed"}, phi=0, qwen=0, gpt=1))
    assert told is not None
    assert told.right == (True, False)
    assert round_of_run(voted(PHI, {PHI: "unknown", GPT: "unknown"}, phi=0, gpt=1)) is None


def test_no_word_of_a_ballot_is_kept(tmp_path: Path) -> None:
    """Who agreed with whom, not on what."""
    secret = "4815162342"
    ballot = vote(f"1:{PHI}", AnswerKind.name, phi=0, gpt=1)
    ballot = ballot.model_copy(
        update={
            "votes": tuple(
                v.model_copy(update={"answer": v.answer.model_copy(update={"value": f"{secret}{v.cluster}"})})
                for v in ballot.votes
            )
        }
    )
    made = run([answered(PHI), answered(GPT)], ballot, verdict(f"1:{PHI}"))
    journal = Journal(tmp_path, keep=10)
    journal.put([made])
    played = round_of_run(made, 1.0)
    assert played is not None
    journal.add_round("r", played)
    journal.close()
    assert secret.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_weights_are_learned_from_votes_and_survive_a_restart(tmp_path: Path) -> None:
    """After enough votes the voter that was right weighs more than the one that was wrong, also in the next process."""
    journal = Journal(tmp_path, keep=1000)
    for number in range(60):
        played = round_of_run(voted(GPT, gpt=0, phi=1), 1.0)
        assert played is not None
        journal.add_round(f"r{number}", played)
    journal.close()
    learning = Learning(Journal(tmp_path, keep=1000), FakeLearner())
    weights = learning.weights()
    learning.close()
    assert weights.knows((PHI, GPT))
    assert weights.weight(GPT, "factual_qa") > weights.weight(PHI, "factual_qa") + 1


def test_too_few_votes_teach_nothing(tmp_path: Path) -> None:
    """All voters stay equal."""
    learning = Learning(Journal(tmp_path, keep=10), FakeLearner())
    assert not learning.weights().learned
    learning.close()


@pytest.fixture
def slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Learning, threading.Event]]:
    """Learning from sixty votes that has begun, and ends when it is let."""
    journal = Journal(tmp_path, keep=1000)
    played = round_of_run(voted(GPT, gpt=0, phi=1), 1.0)
    assert played is not None
    for number in range(60):
        journal.add_round(f"r{number}", played)
    begun, go_on = threading.Event(), threading.Event()

    def waiting(rounds: Sequence[Round], voters: Sequence[str]) -> VoteWeights:
        begun.set()
        go_on.wait(60)
        return learn(rounds, voters)

    monkeypatch.setattr("capibara_agents.learning.learn", waiting)
    learning = Learning(journal, FakeLearner())
    learning.warm()
    assert begun.wait(60)
    yield learning, go_on
    go_on.set()
    learning.close()


async def test_nothing_waits_while_votes_are_learned_from(slowly: tuple[Learning, threading.Event]) -> None:
    """Neither the start, nor a vote, nor runs that are written down, nor feedback; then the weights are there."""
    learning, go_on = slowly
    assert not learning.weights().learned
    learning._ended.put(voted(GPT, gpt=0, phi=1).model_copy(update={"request_id": "new"}))
    learning._work()
    assert learning.feedback("new", 1.0)["request_id"] == "new"
    go_on.set()
    await until(lambda: learning.weights().learned)


def test_votes_that_were_forgotten_meanwhile_teach_nothing(slowly: tuple[Learning, threading.Event]) -> None:
    """What was being learned from them is dropped."""
    learning, go_on = slowly
    assert learning.forget("votes") == 60
    go_on.set()
    assert learning._weighing is not None
    learning._weighing.join(60)
    assert not learning._weighing.is_alive()
    assert not learning.weights().learned


async def test_feedback_before_its_answer_is_written_down_is_503(
    house: FakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be tried again; a 404 would be final."""
    go_on = threading.Event()
    put = Journal.put

    def slow(journal: Journal, runs: Iterable[Run]) -> None:
        go_on.wait(60)
        put(journal, runs)

    monkeypatch.setattr(Journal, "put", slow)
    monkeypatch.setattr("capibara_agents.learning.CLOSE_S", 0.05)
    house.learning._ended.put(voted(GPT, gpt=0, phi=1))
    house.learning._work()
    early = await feedback(house, request_id="r", score=1)
    assert (early.status, early.json()["error"]["code"]) == (503, "overloaded")
    assert int(early.headers["retry-after"]) >= 1
    go_on.set()
    monkeypatch.setattr("capibara_agents.learning.CLOSE_S", 60.0)
    assert (await feedback(house, request_id="r", score=1)).status == 200
