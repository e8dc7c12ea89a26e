"""Weights that were written down count only for the method by which they were learned."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from capibara_agents.journal import Journal
from capibara_agents.learning import Learning
from capibara_agents.outcomes import Learner
from capibara_agents.vote import Cluster, Round, Tally, learn, learning_method, samples, stopping, sureness, weights
from capibara_agents.vote import method as method_module

VOTERS = ("a", "b", "c")
LEARNED_BY_1 = {
    "voter.a": 1.126,
    "voter.b": -0.421,
    "voter.c": 0.388,
    "agree.2": 1.217,
    "none.": 0.175,
}
STOPPED_BY_1 = (0.0170, -0.0039, 0.0142, -0.0150, 0.0080)


def rounds(count: int = 200) -> list[Round]:
    """Votes of a better one and of two that often err alike."""
    draw = random.Random(7)
    made = []
    for _ in range(count):
        said = {"a": "right" if draw.random() < 0.7 else "other"}
        said["b"] = "right" if draw.random() < 0.5 else f"wrong {draw.randrange(3)}"
        said["c"] = (
            said["b"] if draw.random() < 0.4 else "right" if draw.random() < 0.5 else f"wrong {draw.randrange(3)}"
        )
        texts = tuple(dict.fromkeys(said.values()))
        clusters = tuple(Cluster(voters=tuple(v for v in VOTERS if said[v] == text)) for text in texts)
        right = tuple(text == "right" for text in texts)
        made.append(Round(tally=Tally(domain="math", clusters=clusters), right=right))
    return made


def learning(folder: Path, played: list[Round]) -> Learning:
    journal = Journal(folder, keep=100)
    for number, one in enumerate(played):
        journal.add_round(f"r{number}", one)
    return Learning(journal, Learner(folder))


def test_the_number_of_the_method_was_raised_if_weights_are_learned_otherwise() -> None:
    """The same votes teach what they taught. If this fails, raise METHOD and write down here what it learns now."""
    assert method_module.METHOD == 1
    learned = learn(rounds(), VOTERS)
    assert {name: learned.coefficients[name] for name in LEARNED_BY_1} == pytest.approx(LEARNED_BY_1, abs=2e-3)
    assert learned.stop.gain[-1] == pytest.approx(STOPPED_BY_1, abs=2e-4)


@pytest.mark.parametrize(
    ("module", "constant", "value"),
    [
        (weights, "PRECISION", {**weights.PRECISION, "voter": 6.0}),
        (weights, "GAPS", weights.GAPS + 1),
        (stopping, "PRICE", 2 * stopping.PRICE),
        (samples, "PROOF", 2.0),
        (sureness, "FOLDS", 4),
        (method_module, "METHOD", method_module.METHOD + 1),
    ],
)
def test_any_constant_of_learning_is_in_the_key(
    monkeypatch: pytest.MonkeyPatch, module: object, constant: str, value: object
) -> None:
    """And the same constants give the same key."""
    before = learning_method()
    assert learning_method() == before
    monkeypatch.setattr(module, constant, value)
    assert learning_method() != before


def test_weights_of_another_method_are_learned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of the package is the same, a constant is not; the ones of the new method are then written down."""
    with closing(learning(tmp_path, rounds())) as first:
        before = first.weights()
        assert before.learned
    monkeypatch.setitem(weights.PRECISION, "voter", 500.0)
    with closing(learning(tmp_path, [])) as second:
        again = second.weights()
        assert again.rounds == before.rounds
        assert abs(again.coefficients["voter.a"]) < abs(before.coefficients["voter.a"])
    monkeypatch.setattr("capibara_agents.learning.learn", _fail)
    with closing(learning(tmp_path, [])) as third:
        assert third.weights() == again


def _fail(*_: object) -> None:
    raise AssertionError
