"""Learning from outcomes: what it learns, what it refuses, what it forgets when told to."""

from __future__ import annotations

import gc
import json
import sqlite3
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from capibara_agents.embedder import DIMENSIONS
from capibara_agents.errors import StoreError
from capibara_agents.expectations import Chosen, Evidence, Fit
from capibara_agents.outcomes import FILE_NAME, GUARD, Learner, Outcome, UpdateReport, debt, replayed
from capibara_agents.signature import FORM_SIZE, SIGNATURE_SIZE

MODELS = ("calm", "keen", "weak")
# How often each model is right about stars and about soups.
TRUTH = {"stars": (0.9, 0.4, 0.2), "soups": (0.4, 0.9, 0.2)}
CENTRES = {
    name: np.random.default_rng(index).normal(size=DIMENSIONS) / np.sqrt(DIMENSIONS) for index, name in enumerate(TRUTH)
}


class Asked:
    """A question, as far as a learner looks at one."""

    def __init__(self, signature: np.ndarray) -> None:
        self.signature = tuple(float(value) for value in signature)


def question(topic: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, len(topic), ord(topic[1])])
    meaning = CENTRES[topic] + 0.4 * rng.normal(size=DIMENSIONS) / np.sqrt(DIMENSIONS)
    return np.concatenate([meaning / np.linalg.norm(meaning), rng.random(FORM_SIZE)]).astype(np.float32)


def outcome(topic: str, seed: int, model: str, good: float, **rest: object) -> Outcome:
    values = {"request_id": f"{topic}-{seed}", "domain": "other", "language": "en", "model": model, "good": good}
    return Outcome.model_validate(values | {"signature": Asked(question(topic, seed)).signature} | rest)


def honest(seeds: range, models: tuple[str, ...] = MODELS) -> list[Outcome]:
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for topic, rates in TRUTH.items():
            drawn = dict(zip(MODELS, rng.random(3) < rates, strict=True))
            found.extend(outcome(topic, seed, model, float(drawn[model])) for model in models)
    return found


def choices(learner: Learner, topic: str, seeds: range = range(5000, 5040)) -> list[str]:
    found = []
    for seed in seeds:
        expected = learner.expect(Asked(question(topic, seed)))
        found.append(max(expected, key=lambda model: expected[model].good))
    return found


def good_choices(learner: Learner) -> float:
    """What its choices are worth in truth."""
    return float(np.mean([TRUTH[topic][MODELS.index(model)] for topic in TRUTH for model in choices(learner, topic)]))


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    return Learner(tmp_path)


def test_without_outcomes_nothing_is_expected(learner: Learner) -> None:
    assert learner.expect(Asked(question("stars", 1))) == {}
    report = learner.record([])
    assert not report.applied
    assert learner.updates() == ()


def test_it_learns_who_is_good_at_what(learner: Learner) -> None:
    learner.record(honest(range(40)))
    assert choices(learner, "stars").count("calm") >= 38
    assert choices(learner, "soups").count("keen") >= 38
    expected = learner.expect(Asked(question("stars", 7777)))
    assert expected["calm"].good == pytest.approx(0.9, abs=0.15)
    assert expected["weak"].good == pytest.approx(0.2, abs=0.15)


def test_one_model_asked_a_question_is_enough_in_the_long_run(learner: Learner) -> None:
    for start in range(0, 120, 40):
        batch = [o for seed in range(start, start + 40) for o in honest(range(seed, seed + 1), (MODELS[seed % 3],))]
        learner.record(batch)
    assert good_choices(learner) > 0.85


def test_support_counts_what_is_near_and_seconds_come_from_there(learner: Learner) -> None:
    learner.record(
        [outcome("stars", seed, "calm", 1.0, seconds=2.0) for seed in range(30)]
        + [outcome("soups", seed, "calm", 1.0, seconds=20.0) for seed in range(30)]
        + [outcome("soups", seed, "keen", 1.0) for seed in range(3)]
    )
    stars, soups = (learner.expect(Asked(question(topic, 900))) for topic in ("stars", "soups"))
    assert stars["calm"].support > 3 * stars["keen"].support
    assert soups["keen"].support > stars["keen"].support
    assert stars["calm"].seconds is not None
    assert soups["calm"].seconds is not None
    assert stars["calm"].seconds < 7 < soups["calm"].seconds
    assert soups["keen"].seconds is None


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    first = Learner(tmp_path)
    first.record(honest(range(20)))
    first.record([outcome("stars", seed, "weak", 0.0) for seed in range(20, 25)])
    asked = Asked(question("stars", 4321))
    before, log = first.expect(asked), first.updates()
    first.close()
    again = Learner(tmp_path)
    assert again.expect(asked) == before
    assert again.updates() == log


def test_beliefs_of_another_version_are_chosen_anew(tmp_path: Path) -> None:
    """Part of them with our own for the rest were never compared; what was recorded is all there."""
    first = Learner(tmp_path)
    first.record(honest(range(20)))
    first.close()
    (file,) = tmp_path.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as table, table:
        old = json.dumps({"beliefs": {"meaning": 0.55, "form": 0.8}, "outcomes": 60})
        assert table.execute("update updates set beliefs = ? where beliefs is not null", (old,)).rowcount > 0
    again = Learner(tmp_path)
    assert again._chosen() == Chosen()
    assert again.expect(Asked(question("stars", 4321)))


def test_an_update_can_be_undone_whole(learner: Learner) -> None:
    learner.record(honest(range(20)))
    asked = Asked(question("stars", 4321))
    before = learner.expect(asked)
    report = learner.record(honest(range(20, 40)))
    assert report.applied
    assert report.update_id is not None
    assert learner.expect(asked) != before
    learner.undo(report.update_id)
    assert learner.expect(asked) == before
    assert [update.state for update in learner.updates()] == ["applied", "undone"]
    with pytest.raises(StoreError):
        learner.undo(report.update_id)


def test_even_the_first_update_can_be_undone(learner: Learner) -> None:
    report = learner.record(honest(range(5)))
    assert report.update_id is not None
    learner.undo(report.update_id)
    assert learner.expect(Asked(question("stars", 1))) == {}
    assert learner.record(honest(range(5))).applied


@pytest.mark.parametrize(
    ("model", "good"), [("calm", 0.0), ("keen", 0.0), ("weak", 1.0)], ids=["down", "down-other", "up"]
)
def test_poisoned_feedback_is_refused(learner: Learner, model: str, good: float) -> None:
    learner.record(honest(range(40)))
    asked = Asked(question("stars", 4321))
    before = learner.expect(asked)
    poison = [outcome(topic, seed, model, good, origin="feedback") for topic in TRUTH for seed in range(1000, 1150)]
    report = learner.record(poison)
    assert not report.applied
    assert report.before is not None
    assert report.after is not None
    assert report.after < report.before - GUARD
    assert learner.expect(asked) == before
    assert learner.updates()[-1].state == "refused"


def test_poison_in_small_doses_is_contained(learner: Learner) -> None:
    learner.record(honest(range(40)))
    healthy = good_choices(learner)
    for seed in range(1000, 1030):
        learner.record([outcome("stars", seed, "calm", 0.0), outcome("stars", seed, "weak", 1.0)])
    assert good_choices(learner) > healthy - 0.02
    assert "refused" in {update.state for update in learner.updates()}


def test_honest_outcomes_are_applied_after_refused_ones(learner: Learner) -> None:
    learner.record(honest(range(30)))
    assert not learner.record([outcome("stars", seed, "calm", 0.0) for seed in range(1000, 1200)]).applied
    assert learner.record(honest(range(30, 60))).applied


def test_many_small_losses_are_one() -> None:
    assert debt([]) == 0
    assert debt([(0.5, 0.499), (0.5, 0.499), (0.5, 0.499)]) == pytest.approx(0.003)
    assert debt([(0.5, 0.498), (0.5, 0.6), (0.5, 0.499)]) == pytest.approx(0.001)


def test_the_newest_word_of_a_judge_counts(learner: Learner) -> None:
    learner.record([outcome("stars", 1, "calm", 0.0, origin="feedback")])
    learner.record([outcome("stars", 1, "calm", 1.0, origin="feedback")] * 5)
    assert learner.count() == 1
    assert learner.expect(Asked(question("stars", 1)))["calm"].good > 0.5


def test_certainty_is_how_much_an_outcome_counts(tmp_path: Path) -> None:
    moved = []
    for index, certainty in enumerate((1.0, 0.2)):
        one = Learner(tmp_path / str(index), prior={"calm": 0.5})
        one.record([outcome("stars", seed, "calm", 1.0, certainty=certainty) for seed in range(3)])
        moved.append(one.expect(Asked(question("stars", 1)))["calm"].good)
    assert moved[0] > moved[1] > 0.5


def test_a_prior_holds_until_outcomes_speak(tmp_path: Path) -> None:
    learner = Learner(tmp_path, prior={"calm": 0.8, "weak": 0.3})
    learner.record([outcome("soups", 1, "calm", 1.0), outcome("soups", 1, "weak", 0.0)])
    far = learner.expect(Asked(question("stars", 1)))
    assert far["calm"].good > far["weak"].good + 0.3


def test_a_question_of_another_embedder_is_no_question(learner: Learner) -> None:
    learner.record(honest(range(5)))
    assert learner.expect(Asked(np.zeros(7))) == {}
    with pytest.raises(StoreError):
        learner.record([outcome("stars", 1, "calm", 1.0), outcome("stars", 2, "calm", 1.0, signature=(1.0,))])


def test_a_damaged_file_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this was never a table" * 100)
    learner = Learner(tmp_path)
    assert learner.record(honest(range(3))).applied
    assert [path.name for path in tmp_path.glob("*.damaged-1")] == [f"{FILE_NAME}.damaged-1"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Learner(tmp_path / "file")


def test_an_interrupted_update_is_not_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(tmp_path)
    learner.record(honest(range(5)))

    def stop(*_: object) -> UpdateReport:
        raise KeyboardInterrupt

    monkeypatch.setattr(learner, "_weigh", stop)
    with pytest.raises(KeyboardInterrupt):
        learner.record(honest(range(5, 10)))
    learner.close()
    assert [update.state for update in Learner(tmp_path).updates()] == ["applied", "refused"]


def test_questions_are_kept_by_their_signature_alone(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    learner.record(honest(range(2)))
    learner.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as table:
        columns = {row[1] for row in table.execute("pragma table_info(questions)")}
    assert columns == {"number", "request_id", "domain", "language", "signature"}


def test_threads_may_ask_while_others_record(learner: Learner) -> None:
    learner.record(honest(range(10)))
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for seed in range(50):
                assert set(learner.expect(Asked(question("stars", seed)))) == set(MODELS)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    def tell(start: int) -> None:
        try:
            learner.record(honest(range(start, start + 5)))
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads += [threading.Thread(target=tell, args=(start,)) for start in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(learner.updates()) == 4


# ---------------------------------------------------------------- the arithmetic


def _table(rows: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    signatures = np.stack([question("stars" if row % 2 else "soups", row) for row in range(rows)])
    scores = (rng.random((rows, 3)) < 0.5).astype(float)
    scores[rng.random(scores.shape) < 0.4] = np.nan
    return signatures, scores


def test_leaving_out_in_closed_form_is_leaving_out() -> None:
    signatures, scores = _table()
    prior = dict.fromkeys(MODELS, 0.5)
    closed = Fit.of(Evidence.complete(MODELS, signatures, scores), prior=prior).left_out(np.arange(30))
    for row in range(5):
        rest = scores.copy()
        rest[row] = np.nan
        refitted = Fit.of(Evidence.complete(MODELS, signatures, rest), prior=prior).expectations()
        assert refitted.good(signatures[row : row + 1])[0] == pytest.approx(closed[row], abs=1e-4)


def test_a_refit_without_change_replays_alike() -> None:
    signatures, scores = _table()
    evidence = Evidence.complete(MODELS, signatures, scores)
    before, after = replayed(evidence, *(Fit.of(evidence).left_out(evidence.asked) for _ in range(2)))
    assert before == after


def test_signatures_have_the_size_that_is_promised() -> None:
    assert question("stars", 1).shape == (SIGNATURE_SIZE,)


def test_of_a_fit_little_is_kept(tmp_path: Path) -> None:
    """The linear algebra behind a fit of 300 questions takes 7 MB at least; what is asked of it is in its result."""
    signature_bytes = question("stars", 1).nbytes
    # Of each question what one model made of it: no beliefs are chosen, which takes long.
    outcomes = honest(range(200))[::4]
    tracemalloc.start()
    try:
        learner = Learner(tmp_path)
        learner.record(outcomes)
        gc.collect()
        kept_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert learner.count() == len(outcomes) == 300
    assert kept_bytes < 3_000_000 + len(outcomes) * signature_bytes
