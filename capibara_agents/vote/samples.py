"""Several answers of one model in a vote: how they are drawn, and whether recorded votes show that they pay. Pure.

Samples of one model err together, so they are measured and not assumed: only votes that were asked for with samples,
and whose truth became known, can admit them to votes that did not ask for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from capibara_agents.types import Sampling, model_of, sample_of, voter_of
from capibara_agents.vote.stopping import PRICE
from capibara_agents.vote.sureness import Learns
from capibara_agents.vote.tally import Round

LEAST_TEMPERATURE = 0.7
"""Below, a second answer is the first one again."""
SEED_STEP = 1_000_003
FOLDS = 5
ENOUGH = 50
PROOF = 1.645
"""Standard errors by which the gain must be above its price: one in twenty by chance."""
MOST_SAMPLES = 5
MOST_ROUNDS = 1000
"""The latest votes that are read for each number of samples; every fold learns anew from them."""


def sampled(sampling: Sampling, sample: int) -> Sampling:
    """How a further sample (2, 3, …) is drawn: warm enough to differ, with a seed of its own."""
    temperature = max(sampling.temperature or 0.0, LEAST_TEMPERATURE)
    seed = ((sampling.seed or 0) + (sample - 1) * SEED_STEP) % 2**31
    return sampling.model_copy(update={"temperature": temperature, "seed": seed})


def with_samples(voters: Sequence[str], count: int) -> tuple[str, ...]:
    """The voters and, after them, the further samples of the first of them, up to `count` of it altogether."""
    return (*voters, *(voter_of(voters[0], sample) for sample in range(2, count + 1)))


def samples_that_pay(rounds: Sequence[Round], learn: Learns) -> dict[str, int]:
    """Model -> so many of its samples, where each is shown to be worth its call; models of which none is are left out.

    A number of samples is compared with none but the first, by votes that were left out when the weights were learned.
    """
    heard = {voter for played in rounds for voter in played.tally.asked}
    found: dict[str, int] = {}
    for model in sorted({model_of(voter) for voter in heard if sample_of(voter) > 1}):
        worth = {count: _worth(rounds, model, count, learn) for count in range(2, MOST_SAMPLES + 1)}
        best = max(worth, key=lambda count: (worth[count], -count))
        if worth[best] > 0:
            found[model] = best
    return found


def _worth(rounds: Sequence[Round], model: str, count: int, learn: Learns) -> float:
    """The least that so many samples may be expected to gain over one, less the price of their calls."""
    wanted = {voter_of(model, sample) for sample in range(1, count + 1)}
    told = [played for played in rounds if wanted <= played.tally.asked][-MOST_ROUNDS:]
    if len(told) < ENOUGH:
        return 0.0
    with_all = [_without(played, {v for v in _samples_of(model, played) if v not in wanted}) for played in told]
    alone = [_without(played, _samples_of(model, played) - {model}) for played in told]
    gains = [after - before for after, before in zip(_hits(with_all, learn), _hits(alone, learn), strict=True)]
    mean = sum(gains) / len(gains)
    deviation = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1))
    return mean - PROOF * deviation / math.sqrt(len(gains)) - PRICE * (count - 1)


def _samples_of(model: str, played: Round) -> set[str]:
    return {voter for voter in played.tally.asked if model_of(voter) == model}


def _without(played: Round, left_out: set[str]) -> Round:
    """The round as it would have been had some not been asked."""
    kept = played.tally.asked - left_out
    right = tuple(
        is_right
        for cluster, is_right in zip(played.tally.clusters, played.right, strict=True)
        if not kept.isdisjoint(cluster.voters)
    )
    return Round(tally=played.tally.among(kept), right=right)


def _hits(rounds: Sequence[Round], learn: Learns) -> list[int]:
    """Of each round whether the likeliest answer is right, weighed by what the other folds teach."""
    voters = tuple(dict.fromkeys(voter for played in rounds for voter in sorted(played.tally.asked)))
    hits = [0] * len(rounds)
    for fold in range(FOLDS):
        weights = learn([played for number, played in enumerate(rounds) if number % FOLDS != fold], voters)
        for number in range(fold, len(rounds), FOLDS):
            chances = weights.chances(rounds[number].tally)
            if chances:
                hits[number] = rounds[number].right[max(range(len(chances)), key=lambda k: (chances[k], -k))]
    return hits
