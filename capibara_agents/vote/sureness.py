"""What a voter's own log-probabilities say of its answer, where recorded votes have shown that they say something.

    P'(cluster c is right)  ~  P(cluster c is right) . exp(sum over the voters v of c of (s_v + s_v,domain) . z_v)

P is the chance that is learned from who agreed with whom (weights.py), z_v how sure v was of its words beside what it
is used to, in standard deviations, within REACH. The slopes s are shrunk towards 0 and fitted on recorded votes whose
truth is known. Nothing is used before it has been shown, on votes that it was not fitted on, to foretell the truth
better than P does: the gain in log-likelihood must be beyond chance (PROOF standard errors), and the chances must be
calibrated, or at least as well as before. A voter, or its domain, has a slope from ENOUGH recorded answers on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from pydantic import Field

from capibara_agents.calibration import calibration_error, reliability
from capibara_agents.types import Value
from capibara_agents.vote.fitting import Choices, fit
from capibara_agents.vote.tally import Round, Tally

Statistic = Literal["mean", "min", "tail"]

ENOUGH = 50
FOLDS = 5
PROOF = 2.4
"""Standard errors: one in a hundred by chance, for three statistics that are tried."""
REACH = 3.0
PRECISION = {"sure": 1.0, "sure_domain": 8.0}
MOST_ROUNDS = 1500
"""The latest votes that are read; every fold learns anew from them."""
MOST_ECE = 2.0
"""Times what chances that are exactly true would show in calibration error, at most, unless it was worse before."""


class Chances(Protocol):
    """What is learned from who agreed with whom: `weights.VoteWeights`."""

    def knows(self, voters: Sequence[str]) -> bool: ...
    def chances(self, tally: Tally) -> tuple[float, ...]: ...


class Learns(Protocol):
    """How that is learned: `weights.learn`."""

    def __call__(self, rounds: Sequence[Round], voters: Sequence[str], /) -> Chances: ...


class Sureness(Value):
    """Slopes by voter, and by voter and domain, over one statistic of the log-probabilities."""

    statistic: Statistic
    usual: dict[str, tuple[float, float]] = Field(description="Voter -> mean and standard deviation of the statistic.")
    slopes: dict[str, float] = Field(description="Log-odds a standard deviation, by name.")
    rounds: int = Field(0, description="Recorded votes behind them.")

    def shift(self, voter: str, domain: str, logprobs: Mapping[str, float]) -> float:
        """What its sureness adds to a voter's log-odds; 0 where nothing is known of it."""
        z = self.standing(voter, logprobs)
        slope = self.slopes.get(f"sure.{voter}", 0.0) + self.slopes.get(f"sure_domain.{voter}@{domain}", 0.0)
        return slope * z

    def standing(self, voter: str, logprobs: Mapping[str, float]) -> float:
        """How sure it was beside what it is used to, in standard deviations; 0 where it did not say."""
        if voter not in self.usual or self.statistic not in logprobs:
            return 0.0
        mean, deviation = self.usual[voter]
        return min(max((logprobs[self.statistic] - mean) / deviation, -REACH), REACH)

    def moved(self, tally: Tally, chances: Sequence[float]) -> tuple[float, ...]:
        """The chances of a tally's clusters, moved by how sure their voters were; with what is missing, sum 1."""
        shifts = [
            sum(self.shift(voter, tally.domain, cluster.logprobs.get(voter, {})) for voter in cluster.voters)
            for cluster in tally.clusters
        ]
        moved = [chance * math.exp(shift) for chance, shift in zip(chances, shifts, strict=True)]
        total = sum(moved) + max(0.0, 1.0 - sum(chances))
        return tuple(value / total for value in moved) if total else tuple(chances)


@dataclass(frozen=True)
class Finding:
    """What recorded votes say of sureness; `before` and `after`: the mean chance (geometric) of what proved true."""

    sureness: Sureness | None
    rounds: int
    before: float
    after: float


def learn_sureness(rounds: Sequence[Round], voters: Sequence[str], learn: Learns) -> Finding | None:
    """The slopes that hold on votes they were not fitted on, if any do; None where too few votes say.

    `rounds` from the oldest to the latest; the latest MOST_ROUNDS count.
    """
    rounds = rounds[-MOST_ROUNDS:]
    told = [played for played in rounds if _says(played.tally)]
    if len(told) < ENOUGH:
        return None
    base = learn(rounds, voters)
    told = [played for played in told if base.knows(sorted(played.tally.asked))]
    if len(told) < ENOUGH:
        return None
    folds = [fold for number in range(FOLDS) if (fold := _fold(rounds, told, voters, learn, number)).held]
    # Fewer truths than that are no chance to write down.
    if sum(len(fold.held) for fold in folds) < ENOUGH:
        return None
    tried = [(statistic, _held_out(folds, statistic)) for statistic in get_args(Statistic)]
    statistic, (before, after, holds) = max(tried, key=lambda pair: pair[1][1])
    found = _fitted(told, base, statistic) if holds else None
    return Finding(found, len(told), math.exp(before), math.exp(after))


@dataclass(frozen=True)
class _Fold:
    """What was learned without the votes held out; of these, and of the others, those whose voters it knows."""

    base: Chances
    held: Sequence[Round]
    others: Sequence[Round]


def _fold(rounds: Sequence[Round], told: Sequence[Round], voters: Sequence[str], learn: Learns, number: int) -> _Fold:
    held = told[number::FOLDS]
    hidden = {id(played) for played in held}
    base = learn([played for played in rounds if id(played) not in hidden], voters)
    known = [played for played in told if base.knows(sorted(played.tally.asked))]
    return _Fold(
        base,
        [played for played in known if id(played) in hidden],
        [played for played in known if id(played) not in hidden],
    )


def _says(tally: Tally) -> bool:
    return any(cluster.logprobs for cluster in tally.clusters)


def _held_out(folds: Sequence[_Fold], statistic: Statistic) -> tuple[float, float, bool]:
    """Mean log-chance of the truth without and with slopes, each vote left out of both fits; whether the gain holds."""
    before: list[tuple[float, bool]] = []
    after: list[tuple[float, bool]] = []
    truths: list[tuple[float, float]] = []
    for fold in folds:
        sureness = _fitted(fold.others, fold.base, statistic)
        for played in fold.held:
            plain = fold.base.chances(played.tally)
            moved = sureness.moved(played.tally, plain)
            truths.append((_of_truth(played, plain), _of_truth(played, moved)))
            before.append(_leading(played, plain))
            after.append(_leading(played, moved))
    logs = np.log(np.maximum(np.array(truths), 1e-6))
    gain = logs[:, 1] - logs[:, 0]
    beyond_chance = gain.mean() > PROOF * gain.std(ddof=1) / math.sqrt(len(gain)) and gain.mean() > 0
    is_calibrated = _ece(after) <= max(_ece(before), MOST_ECE * _ece_of_perfect(after))
    holds = bool(beyond_chance) and is_calibrated
    return float(logs[:, 0].mean()), float(logs[:, 1].mean()), holds


def _fitted(told: Sequence[Round], base: Chances, statistic: Statistic) -> Sureness:
    """The slopes of these votes, their chances without them being given."""
    usual = _usual(told, statistic)
    empty = Sureness(statistic=statistic, usual=usual, slopes={}, rounds=len(told))
    known = Counter(
        f"sure_domain.{voter}@{played.tally.domain}" for played in told for voter in _voters(played) if voter in usual
    )
    names = [f"sure.{voter}" for voter in sorted(usual)]
    names += sorted(name for name, count in known.items() if count >= ENOUGH)
    column = {name: number for number, name in enumerate(names)}
    rows: list[np.ndarray] = []
    ballot: list[int] = []
    right: list[float] = []
    offset: list[float] = []
    for number, played in enumerate(told):
        chances = base.chances(played.tally)
        lines = [
            (np.zeros(len(names)), 1.0 - sum(chances), not any(played.right)),
            *((np.zeros(len(names)), chance, is_right) for chance, is_right in zip(chances, played.right, strict=True)),
        ]
        for (line, _, _), cluster in zip(lines[1:], played.tally.clusters, strict=True):
            for name, z in _signs(empty, played.tally.domain, cluster.logprobs):
                if name in column:
                    line[column[name]] += z
        for line, chance, is_right in lines:
            rows.append(line)
            ballot.append(number)
            right.append(float(is_right))
            offset.append(math.log(max(chance, 1e-9)))
    if not names or not rows:
        return empty
    precision = np.array([PRECISION[name.split(".", 1)[0]] for name in names])
    matrix = np.stack(rows)
    theta = fit(Choices(tuple(names), matrix, np.array(ballot), np.array(right), precision, np.array(offset)))
    slopes = {name: round(float(value), 6) for name, value in zip(names, theta, strict=True)}
    return empty.model_copy(update={"slopes": slopes})


def _signs(sureness: Sureness, domain: str, logprobs: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, float]]:
    for voter, said in logprobs.items():
        z = sureness.standing(voter, said)
        yield f"sure.{voter}", z
        yield f"sure_domain.{voter}@{domain}", z


def _voters(played: Round) -> Iterator[str]:
    for cluster in played.tally.clusters:
        yield from cluster.logprobs


def _usual(told: Sequence[Round], statistic: Statistic) -> dict[str, tuple[float, float]]:
    values: dict[str, list[float]] = {}
    for played in told:
        for cluster in played.tally.clusters:
            for voter, said in cluster.logprobs.items():
                if statistic in said:
                    values.setdefault(voter, []).append(said[statistic])
    return {
        voter: (float(np.mean(held)), max(float(np.std(held)), 1e-3))
        for voter, held in values.items()
        if len(held) >= ENOUGH
    }


def _of_truth(played: Round, chances: Sequence[float]) -> float:
    """The chance that was given to what proved true."""
    if not any(played.right):
        return max(0.0, 1.0 - sum(chances))
    return sum(chance for chance, right in zip(chances, played.right, strict=True) if right)


def _leading(played: Round, chances: Sequence[float]) -> tuple[float, bool]:
    if not chances:
        return 0.0, False
    best = max(range(len(chances)), key=lambda k: (chances[k], -k))
    return chances[best], played.right[best]


def _ece(pairs: Sequence[tuple[float, bool]]) -> float:
    return calibration_error(reliability([chance for chance, _ in pairs], [right for _, right in pairs])) or 0.0


def _ece_of_perfect(pairs: Sequence[tuple[float, bool]]) -> float:
    """What that error would be, about, if every chance were exactly true."""
    total = 0.0
    for number in range(10):
        variance = sum(chance * (1 - chance) for chance, _ in pairs if number == min(int(10 * chance), 9))
        total += math.sqrt(2 / math.pi * variance)
    return total / len(pairs)
