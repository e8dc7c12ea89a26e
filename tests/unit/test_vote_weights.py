"""What recorded votes teach: weights that hold, chances that are true, and when to stop asking."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from capibara_agents.types import AnswerKind, Canonical
from capibara_agents.vote import Round, Tally, VoteWeights, learn, next_voter, tally_of
from capibara_agents.vote import weights as weighing
from capibara_agents.vote.stopping import Course, StopRule, learn_stop
from capibara_agents.vote.traits import traits
from capibara_agents.vote.weights import ENOUGH_ROUNDS, by_value

Said = Mapping[str, str | None]
RIGHT = "right"


def answer(text: str) -> Canonical:
    return Canonical(kind=AnswerKind.name, value=text, confidence=1.0)


def tally(said: Said, domain: str = "math") -> Tally:
    return tally_of({voter: answer(text) if text else None for voter, text in said.items()}, domain=domain)


def played(said: Said, domain: str = "math") -> Round:
    whole = tally(said, domain)
    return Round(tally=whole, right=tuple(said[cluster.voters[0]] == RIGHT for cluster in whole.clusters))


def rounds(make: Callable[[random.Random], Said], n: int = 600, seed: int = 0) -> list[Round]:
    draw = random.Random(seed)
    return [played(make(draw)) for _ in range(n)]


def independent(good: Mapping[str, float], wrongs: int = 3) -> Callable[[random.Random], Said]:
    """Each is right with its own probability, else says one of so many wrong things."""
    return lambda draw: {
        voter: RIGHT if draw.random() < p else f"wrong {draw.randrange(wrongs)}" for voter, p in good.items()
    }


def test_few_votes_teach_nothing() -> None:
    """Every voter stays equal, and nothing is called calibrated."""
    few = rounds(independent({"a": 0.9, "b": 0.5}), n=ENOUGH_ROUNDS - 1)
    assert learn(few, ("a", "b")) == VoteWeights()
    assert not VoteWeights().knows(("a", "b"))


def test_the_better_voter_weighs_more_and_is_asked_first() -> None:
    """Against one that is right half as often."""
    weights = learn(rounds(independent({"weak": 0.4, "strong": 0.85, "middle": 0.6})), ("weak", "strong", "middle"))
    assert weights.order == ("strong", "middle", "weak")
    heard = [weights.weight(voter, "math") for voter in weights.order]
    assert heard == sorted(heard, reverse=True)
    apart = weights.chances(tally({"strong": "x", "middle": "y", "weak": "y"}))
    alone = weights.chances(tally({"strong": "x"}))
    assert apart[0] > 0.4, "two weaker voices do not easily outvote the strong one"
    assert apart[0] < alone[0], "but they are heard"


def test_who_repeats_another_adds_little() -> None:
    """Two that always say the same are worth little more than one of them; two that err apart are worth more."""

    def make(draw: random.Random) -> Said:
        said = dict(independent({"a": 0.7, "b": 0.7}, wrongs=5)(draw))
        return {**said, "echo": said["a"]}

    weights = learn(rounds(make), ("a", "b", "echo"))
    with_echo = weights.chances(tally({"a": "x", "echo": "x"}))[0]
    with_other = weights.chances(tally({"a": "x", "b": "x"}))[0]
    assert with_other > with_echo + 0.1


def test_chances_are_true() -> None:
    """On fresh votes, answers held for p percent are right in p percent; what is missing to 1 is that none is."""
    make = independent({"a": 0.75, "b": 0.65, "c": 0.6})
    weights = learn(rounds(make, n=1500), ("a", "b", "c"))
    held, hits = [], []
    for fresh in rounds(make, n=1500, seed=1):
        chances = weights.chances(fresh.tally)
        assert sum(chances) < 1
        best = int(np.argmax(chances))
        held.append(chances[best])
        hits.append(fresh.right[best])
    for low, high in ((0.0, 0.6), (0.6, 0.85), (0.85, 1.0)):
        inside = [k for k, chance in enumerate(held) if low <= chance < high]
        assert np.mean([held[k] for k in inside]) == pytest.approx(np.mean([hits[k] for k in inside]), abs=0.06)


def test_a_domain_counts_where_votes_differ_by_it() -> None:
    """A voter that knows its mathematics and no history is believed in the one only."""
    draw = random.Random(3)
    recorded = []
    for number in range(1200):
        domain = ("math", "history")[number % 2]
        good = {"a": 0.9 if domain == "math" else 0.3, "b": 0.6}
        recorded.append(played(independent(good)(draw), domain))
    weights = learn(recorded, ("a", "b"))
    said = {"a": "x", "b": "y"}
    assert weights.chances(tally(said, "math"))[0] > weights.chances(tally(said, "math"))[1]
    assert weights.chances(tally(said, "history"))[0] < weights.chances(tally(said, "history"))[1]
    assert weights.weight("a", "math") > weights.weight("a", "history")


def test_order_is_by_what_was_right_and_ties_keep_their_place() -> None:
    """Silence is not right."""
    recorded = [played({"a": None, "b": RIGHT, "c": RIGHT}), played({"a": RIGHT, "b": "no", "c": "no"})]
    assert by_value(recorded, ("c", "a", "b")) == ("c", "a", "b")
    assert by_value([recorded[0]], ("a", "b", "c")) == ("b", "c", "a")


def test_many_voters_are_no_more_than_their_ballots() -> None:
    """The sets of them double with each; a few are drawn for each vote, and none is listed."""
    voters = [f"v{number}" for number in range(20)]
    recorded = rounds(independent(dict.fromkeys(voters, 0.6)), n=ENOUGH_ROUNDS)
    tracemalloc.start()
    try:
        weights = learn(recorded, voters)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert weights.gaps == learn(recorded, voters).gaps, "drawn alike"


def test_without_the_first_the_samples_of_one_model_are_weighed() -> None:
    """The one with the most."""
    voters = ["a", "a#2", "b", "b#2", "b#3"]
    weights = learn(rounds(independent(dict.fromkeys(voters, 0.6))), voters)
    weighed = {name.split(".")[1] for name in weights.gaps if name.startswith("voter.")}
    assert weighed == {"a", "b", "b#2", "b#3"} - {weights.order[0]}
    assert weights.knows(voters)


def test_of_very_many_votes_the_latest_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a fit has room for, and those who were asked in them."""
    monkeypatch.setattr(weighing, "BALLOTS", 300)
    before = rounds(independent({"a": 0.9, "b": 0.3, "gone": 0.9}), n=200)
    since = rounds(independent({"a": 0.3, "b": 0.9}), n=100)
    weights = learn([*before, *since], ("a", "b", "gone"))
    assert (weights.order, weights.rounds) == (("b", "a"), 100)


# ---------------------------------------------------------------- when to stop


def test_asking_ends_when_the_first_are_sure_and_goes_on_when_they_differ() -> None:
    """Two of three that agree settle it; where they differ the third decides."""
    make = independent(dict.fromkeys("abc", 0.8), wrongs=4)
    weights = learn(rounds(make, n=1200), tuple("abc"))
    first, second, third = weights.order
    agreed, split = tally({first: "x", second: "x"}), tally({first: "x", second: "y"})
    assert next_voter(agreed, [third], weights, prior={}) is None
    assert next_voter(split, [third], weights, prior={}) == third
    assert next_voter(agreed, [third], weights, prior={}, min_voters=3) == third, "a minimum is a minimum"


def test_who_cannot_change_the_outcome_is_not_asked() -> None:
    """Weak voters beside one that is nearly always right, once that one has spoken."""
    make = independent({"strong": 0.97, "weak": 0.3, "weaker": 0.25})
    weights = learn(rounds(make, n=1200), ("strong", "weak", "weaker"))
    assert next_voter(tally({"strong": "x"}), ["weak", "weaker"], weights, prior={}) is None


def test_a_rule_asks_on_only_for_more_than_the_price() -> None:
    """A gain of a tenth pays at the usual price and not at a price of two tenths; without a rule asking pays."""
    draw = np.random.default_rng(0)
    first = draw.uniform(0.4, 0.9, (2, 500))
    course = Course(first=first, second=1 - first, worth=np.stack([first[0], first[0] + 0.1]))
    assert learn_stop(course).pays(1, 0.6, 0.4)
    assert not learn_stop(course, price=0.2).pays(1, 0.6, 0.4)
    assert StopRule().pays(1, 0.9, 0.1)


# ---------------------------------------------------------------- traits


def number(value: str) -> Canonical:
    return Canonical(kind=AnswerKind.number, value=value, confidence=1.0)


def option(letter: str) -> Canonical:
    return Canonical(kind=AnswerKind.option, value=letter, confidence=1.0)


def test_traits_of_numbers() -> None:
    """What kind of number it is, and whether the question already had it."""
    found = traits(number("12"), "She has 12 apples and eats 3.", ())
    assert found.keys() == {"answer.in_question", "answer.magnitude"}
    assert {"answer.fraction", "answer.negative"} <= traits(number("-1/2"), "?", ()).keys()
    assert "answer.tens" in traits(number("40"), "?", ())
    assert traits(answer("red"), "?", ()) == {"answer.words": 1.0}


def test_traits_of_options() -> None:
    """Place, length and company among the others; a letter that is not offered is said to be none."""
    choices = ("red", "a rather long and careful description", "all of the above")
    assert traits(option("Z"), "?", choices) == {"answer.no_such_option": 1.0}
    assert {"answer.option.B", "answer.longest"} <= traits(option("B"), "?", choices).keys()
    assert "answer.all_of" in traits(option("C"), "?", choices)
    sizes = [traits(option(letter), "?", ("10", "30", "20")).get("answer.larger", 0.0) for letter in "ABC"]
    assert sizes == [-0.5, 0.5, 0.0]


@pytest.mark.parametrize("missing", [{"strong"}, {"strong", "middle"}])
def test_the_chance_stays_true_when_the_leader_is_dead(missing: set[str]) -> None:
    """Of votes in which everybody was asked it is learned what the others' word is worth without it."""
    make = independent({"strong": 0.9, "middle": 0.6, "weak": 0.5})
    voters = ("strong", "middle", "weak")
    weights = learn(rounds(make, n=1500), voters)
    held, expected, right = frozenset(voters) - missing, 0.0, 0
    others = rounds(make, n=1500, seed=1)
    for one in others:
        left = one.tally.among(held)
        chances = weights.chances(left)
        best = int(np.argmax(chances))
        expected += chances[best]
        leading = frozenset(left.clusters[best].voters)
        right += any(
            truth for cluster, truth in zip(one.tally.clusters, one.right, strict=True) if leading & set(cluster.voters)
        )
    assert expected / len(others) == pytest.approx(right / len(others), abs=0.04)


def test_a_constant_answer_is_worth_nothing() -> None:
    """A voter that always says the same is right now and then, and never outvotes one that knows."""

    def make(draw: random.Random) -> Said:
        truth = draw.randrange(4)
        said = {"constant": 0, "knows": truth if draw.random() < 0.8 else draw.randrange(4)}
        return {voter: RIGHT if number == truth else f"wrong {number}" for voter, number in said.items()}

    weights = learn(rounds(make), ("constant", "knows"))
    chances = weights.chances(tally({"constant": "x", "knows": "y"}))
    assert weights.order == ("knows", "constant")
    assert chances[1] > 2 * chances[0]
