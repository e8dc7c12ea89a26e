"""How much each voter's word is worth, learned from recorded votes: a conditional logit over the answers given.

    P(cluster c is right) = exp(u_c) / (exp(u_0) + sum over clusters of exp(u))        u_0: none of them is right

    u_c = sum over the voters v of c of (w_v + w_v,domain)  +  agree_k for c's k voters  +  traits of the answer . w
    u_0 = none + none_domain + sum over the asked of (asked_v + silent_v if it gave no answer)

(McFadden, Conditional logit analysis of qualitative choice behavior, 1974.) A voter's weight is a log-odds. Weights
are fitted together, so voters that err together share what they are worth between them, and `agree` takes away what
agreement proves less than the sum of its voters. Every weight is shrunk towards 0 by a Gaussian prior (PRECISION).
The sum is learned over the ballots of the first one, two, … voters, so that it holds whoever has answered so far, and
the probability is the ballot's calibrated confidence. Where the first of all could not be asked, what the others say
is worth more than it is beside it: for such ballots weights of their own are learned, over sets of the others drawn by
chance (GAPS for each recorded vote; of the model with the most samples, its samples are drawn too).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydantic import Field

from capibara_agents.types import Value, model_of, sample_of
from capibara_agents.vote.fitting import Choices, fit, probabilities
from capibara_agents.vote.stopping import Course, StopRule, learn_stop
from capibara_agents.vote.sureness import Sureness
from capibara_agents.vote.tally import Cluster, Round, Tally

# One over the variance of a weight, by its kind, chosen once by cross-validation on public recorded answers.
PRECISION: dict[str, float] = {
    "voter": 5.0,
    "voter_domain": 25.0,
    "agree": 3.0,
    "answer": 1.0,
    "none": 0.5,
    "none_domain": 15.0,
    "asked": 10.0,
    "silent": 10.0,
}
GAPS = 4
# Time and memory of a fit grow with its ballots: of more votes than these hold, the latest are learned from.
BALLOTS, GAP_BALLOTS = 25_000, 8_000
MOST_DRAWN = 60
ENOUGH_ROUNDS = 50
"""Fewer recorded votes than this teach nothing: all voters stay equal."""


class VoteWeights(Value):
    """What recorded votes taught; without any, every voter counts the same and nothing is calibrated."""

    order: tuple[str, ...] = Field((), description="Voters by how often they were right, the best first.")
    coefficients: dict[str, float] = Field(default_factory=dict, description="Log-odds by name, see the module.")
    rounds: int = Field(0, description="Recorded votes that stand behind them.")
    stop: StopRule = StopRule()
    gaps: dict[str, float] = Field(
        default_factory=dict, description="As coefficients, for ballots in which the first voter is missing."
    )
    sureness: Sureness | None = Field(
        None, description="What the voters' own log-probabilities say, where recorded votes have shown that they do."
    )
    samples: dict[str, int] = Field(
        default_factory=dict, description="Model -> so many samples of it pay in a vote, where recorded votes show it."
    )

    @property
    def learned(self) -> bool:
        """Whether there is anything behind them."""
        return self.rounds >= ENOUGH_ROUNDS

    def knows(self, voters: Sequence[str]) -> bool:
        """Whether every one of them has been seen in recorded votes."""
        return self.learned and set(voters) <= set(self.order)

    def weight(self, voter: str, domain: str) -> float:
        """A voter's log-odds in a domain; a stranger has the least that is known of any."""
        if voter not in self.order and model_of(voter) in self.order:
            return self.weight(model_of(voter), domain)
        if voter not in self.order:
            return min((self.weight(known, domain) for known in self.order), default=1.0)
        return self._of(f"voter.{voter}") + self._of(f"voter_domain.{voter}@{domain}")

    def chances(self, tally: Tally) -> tuple[float, ...]:
        """P(right) of each cluster; with what is missing to 1, none is. Only for voters that are known."""
        of = self.gaps if self.gaps and self.order[0] not in tally.asked else self.coefficients
        scores = [_sum(of, cluster_features(tally, cluster)) for cluster in tally.clusters]
        none = _sum(of, none_features(tally))
        top = max([none, *scores])
        shares = [math.exp(score - top) for score in (none, *scores)]
        total = sum(shares)
        return tuple(share / total for share in shares[1:])

    def _of(self, name: str) -> float:
        return self.coefficients.get(name, 0.0)


def _sum(coefficients: Mapping[str, float], features: Iterator[tuple[str, float]]) -> float:
    return sum(coefficients.get(name, 0.0) * value for name, value in features)


def cluster_features(tally: Tally, cluster: Cluster) -> Iterator[tuple[str, float]]:
    """What speaks for a cluster, by name."""
    for voter in cluster.voters:
        yield f"voter.{voter}", 1.0
        yield f"voter_domain.{voter}@{tally.domain}", 1.0
    for size in range(2, len(cluster.voters) + 1):
        yield f"agree.{size}", 1.0
    yield from cluster.traits.items()


def none_features(tally: Tally) -> Iterator[tuple[str, float]]:
    """What speaks for none of the answers being right, by name."""
    yield "none.", 1.0
    yield f"none_domain.{tally.domain}", 1.0
    for voter in sorted(tally.asked):
        yield f"asked.{voter}", 1.0
    for voter in tally.silent:
        yield f"silent.{voter}", 1.0


def learn(rounds: Sequence[Round], voters: Sequence[str]) -> VoteWeights:
    """The weights that recorded votes of `voters` teach; the equal ones from fewer than ENOUGH_ROUNDS.

    `rounds` from the oldest to the latest; of many, the latest count.
    """
    if len(rounds) < ENOUGH_ROUNDS:
        return VoteWeights()
    rounds, voters = _latest(rounds, voters)
    order = by_value(rounds, voters)
    stages = [[played.tally.among(frozenset(order[: k + 1])) for played in rounds] for k in range(len(order))]
    rights = [[_right_among(played, frozenset(order[: k + 1])) for played in rounds] for k in range(len(order))]
    choices = _choices([tally for stage in stages for tally in stage], [r for stage in rights for r in stage])
    theta = fit(choices)
    course = _course(choices, probabilities(choices, theta), stages, [played.tally for played in rounds])
    return VoteWeights(
        order=order,
        coefficients=_named(choices, theta),
        rounds=len(rounds),
        stop=learn_stop(course),
        gaps=_learn_gaps(rounds, order),
    )


def _learn_gaps(rounds: Sequence[Round], order: Sequence[str]) -> dict[str, float]:
    """The weights for ballots in which the first voter is missing; {} where there can be no such ballot."""
    others = _drawn_from(order)
    if not others:
        return {}
    # Set number n holds the others whose bit is set in n. There are too many sets to list them.
    sets = range(1, 2 ** len(others))
    draw = random.Random(GAPS)
    choices_of_each = min(GAPS, len(sets))
    drawn = [
        (played, frozenset(voter for bit, voter in enumerate(others) if number >> bit & 1))
        for played in rounds[-(GAP_BALLOTS // choices_of_each) :]
        for number in draw.sample(sets, choices_of_each)
    ]
    choices = _choices([played.tally.among(heard) for played, heard in drawn], [_right_among(*pair) for pair in drawn])
    return _named(choices, fit(choices))


def _latest(rounds: Sequence[Round], voters: Sequence[str]) -> tuple[Sequence[Round], Sequence[str]]:
    """As many of the latest votes as BALLOTS has room for, and the voters that were asked in them."""
    most = max(ENOUGH_ROUNDS, BALLOTS // max(1, len(voters)))
    if len(rounds) <= most:
        return rounds, voters
    latest = rounds[-most:]
    heard = frozenset[str]().union(*(played.tally.asked for played in latest))
    return latest, [voter for voter in voters if voter in heard]


def _drawn_from(order: Sequence[str]) -> list[str]:
    """Who is drawn for ballots without the first: every model once, and the further samples of one of them."""
    samples = Counter(model_of(voter) for voter in order if sample_of(voter) > 1)
    sampled = max(samples, key=lambda model: samples[model], default="")
    return [voter for voter in order[1:] if sample_of(voter) == 1 or model_of(voter) == sampled][:MOST_DRAWN]


def _named(choices: Choices, theta: np.ndarray) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(choices.names, theta, strict=True)}


def by_value(rounds: Sequence[Round], voters: Sequence[str]) -> tuple[str, ...]:
    """The voters by how often they were right, the best first; ties keep their order."""
    hits = dict.fromkeys(voters, 0)
    for played in rounds:
        for cluster, right in zip(played.tally.clusters, played.right, strict=True):
            for voter in cluster.voters:
                hits[voter] += right
    return tuple(sorted(voters, key=lambda voter: -hits[voter]))


def _right_among(played: Round, voters: frozenset[str]) -> list[bool]:
    """Which of the clusters that are left among `voters` are right."""
    return [
        right
        for cluster, right in zip(played.tally.clusters, played.right, strict=True)
        if not voters.isdisjoint(cluster.voters)
    ]


def _choices(tallies: Sequence[Tally], rights: Sequence[Sequence[bool]]) -> Choices:
    """Every cluster and every "none of them" as rows of named columns."""
    columns: dict[str, int] = {}
    left_out = "" if len({tally.domain for tally in tallies}) > 1 else "_domain."
    at_row: list[int] = []
    at_column: list[int] = []
    values: list[float] = []

    def fill(row: int, features: Iterator[tuple[str, float]]) -> None:
        for name, value in features:
            column = columns.get(name)
            if column is None:
                if left_out and left_out in name:
                    continue
                column = columns[name] = len(columns)
            at_row.append(row)
            at_column.append(column)
            values.append(value)

    ballot: list[int] = []
    right: list[bool] = []
    for number, (tally, truth) in enumerate(zip(tallies, rights, strict=True)):
        fill(len(ballot), none_features(tally))
        ballot.append(number)
        right.append(not any(truth))
        for cluster, is_right in zip(tally.clusters, truth, strict=True):
            fill(len(ballot), cluster_features(tally, cluster))
            ballot.append(number)
            right.append(is_right)
    matrix = np.zeros((len(ballot), len(columns)))
    matrix[at_row, at_column] = values
    precision = np.array([PRECISION[name.split(".", 1)[0]] for name in columns])
    return Choices(tuple(columns), matrix, np.array(ballot), np.array(right, dtype=float), precision)


def _course(choices: Choices, chances: np.ndarray, stages: Sequence[Sequence[Tally]], whole: Sequence[Tally]) -> Course:
    """For each stage and round: the two largest chances then, and what the leader is worth once all have spoken."""
    starts = np.append(np.flatnonzero(np.diff(choices.ballot, prepend=-1)), len(choices.ballot))
    n, k = len(whole), len(stages)
    first, second, worth = np.zeros((k, n)), np.zeros((k, n)), np.zeros((k, n))
    for row, tally in enumerate(whole):
        last = (k - 1) * n + row
        final = _by_speaker(tally, chances[starts[last] + 1 : starts[last + 1]])
        for stage in range(k):
            at = stage * n + row
            held = chances[starts[at] + 1 : starts[at + 1]]
            if len(held):
                leader = int(held.argmax())
                first[stage, row] = held[leader]
                second[stage, row] = np.partition(held, -2)[-2] if len(held) > 1 else 0.0
                worth[stage, row] = final[stages[stage][row].clusters[leader].voters[0]]
    return Course(first, second, worth)


def _by_speaker(tally: Tally, chances: np.ndarray) -> Mapping[str, float]:
    return {
        voter: float(chance)
        for cluster, chance in zip(tally.clusters, chances, strict=True)
        for voter in cluster.voters
    }
