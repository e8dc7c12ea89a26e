"""Several samples of one model: drawn apart, admitted by recorded votes only."""

from __future__ import annotations

import random

from capibara_agents.types import Sampling
from capibara_agents.vote import Cluster, Round, Tally, learn, sampled, samples_that_pay, with_samples

M = "m"


def rounds(count: int, *, independent: bool) -> tuple[Round, ...]:
    """Votes of three samples of a model that is right three times in four; alike, or each for itself."""
    draw, made = random.Random(3), []
    for _ in range(count):
        first = draw.random() < 0.75
        right = [first, *((draw.random() < 0.75 if independent else first) for _ in range(2))]
        said: dict[object, list[str]] = {}
        for number, is_right in enumerate(right, 1):
            # Wrong answers of samples that err apart differ.
            answer = "right" if is_right else number if independent else "wrong"
            said.setdefault(answer, []).append(M if number == 1 else f"{M}#{number}")
        clusters = tuple(Cluster(voters=tuple(voters)) for voters in said.values())
        made.append(Round(tally=Tally(domain="math", clusters=clusters), right=tuple(a == "right" for a in said)))
    return tuple(made)


def test_samples_pay_where_recorded_votes_show_it() -> None:
    """Those that err apart do, those that repeat each other do not."""
    assert samples_that_pay(rounds(200, independent=True), learn) == {M: 3}
    assert samples_that_pay(rounds(200, independent=False), learn) == {}


def test_few_votes_or_none_with_samples_admit_nothing() -> None:
    """Off until measured."""
    assert samples_that_pay(rounds(40, independent=True), learn) == {}
    plain = Round(tally=Tally(domain="math", clusters=(Cluster(voters=(M,)),)), right=(True,))
    assert samples_that_pay([plain] * 200, learn) == {}


def test_each_sample_is_drawn_in_its_own_way() -> None:
    """Warm, with seeds that differ and follow from the request's; what is warm already stays as it is."""
    cold = [sampled(Sampling(temperature=0.0, seed=5), sample) for sample in (2, 3)]
    assert all(one.temperature and one.temperature > 0 for one in cold)
    assert len({5, *(one.seed for one in cold)}) == 3
    assert sampled(Sampling(temperature=1.2), 2).temperature == 1.2
    assert sampled(Sampling(seed=5), 2) == sampled(Sampling(seed=5), 2)


def test_samples_stand_after_the_voters() -> None:
    """The first voter's, under names of their own."""
    assert with_samples(["a", "b"], 3) == ("a", "b", "a#2", "a#3")
    assert with_samples(["a", "b"], 1) == ("a", "b")
