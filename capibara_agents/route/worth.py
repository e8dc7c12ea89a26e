"""What asking each model is worth: how good its answer will be, less a price for waiting.

    worth(m)  = good(m) - PRICE_PER_S[quality] * wait_s(m)

    good(m)   = a(m) + d + s(m) / (s(m) + BELIEVE) * (g(m) - a(m) - d)      clipped to [0, 1]
    d         = sum over recorded models of s (g - a)  /  (BELIEVE + sum of s), or 0 where that is above 0

a(m) is what the table assumes: ASSUMED for the tier that should answer, STEP_DOWN less for each rung of the ladder
below it, STEP_UP less for each above (a larger model answers as well, and slower). g(m) and s(m) are the goodness and
the support of what was recorded near the question (`types.Expectation`), d is how much harder the question is than
the table assumes, by the models that were recorded: so a model without outcomes is not preferred merely because the
others have shown that the question is hard. This is shrinkage towards the table, in which BELIEVE outcomes weigh as
much as the table does; with nothing recorded, or support below ENOUGH, good(m) = a(m).

    wait_s(m) = load_s(m) + queue_s(m) + reread_s(m)
                + what it is slower than the others, where outcomes say how long answers take

load_s counts only while some other model that could answer is up: when everything has to be loaded the table's
choice stands. A load for which another model must make room costs twice: that one will have to come back.

    reread_s(m) = (the most that any of them has read of this conversation - what m has read of it) / prefill_per_s(m)

What nobody has read yet has to be read by whoever answers, which is in the table's choice already: so nothing changes
for a new conversation, and a little read changes little. For a deadline it counts: until an answer begins, all that the
model has not read yet is read (`begins_s`). Reading costs once, for as many turns as still come: however
long the conversation, it weighs no more than READING_AT_MOST, less than two rungs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from capibara_agents.route.able import status_of, weights_bytes
from capibara_agents.route.situation import Situation
from capibara_agents.route.table import ladder
from capibara_agents.settings import ModelSpec
from capibara_agents.types import Domain, Expectation, FleetSnapshot, ModelStatus, ServerState, Tier

# What a second of waiting may cost in probability of a good answer. Chosen: in balanced quality 40 s weigh as much as
# one rung, so any of the models is loaded for a question that is its own, and none for one that another does as well.
PRICE_PER_S: dict[str, float] = {"fast": 0.02, "balanced": 0.003, "best": 0.0003}
ASSUMED, STEP_DOWN, STEP_UP = 0.75, 0.12, 0.015
# Little, because what is expected is shrunk already, towards ASSUMED, where there are few outcomes.
BELIEVE, ENOUGH = 3.0, 1.0
# An answer's length in seconds where no outcome says, for the length of a queue.
ANSWER_S = 10.0
# As the machine room guesses before it has seen a load.
START_S, READ_BYTES_PER_S, UNKNOWN_BYTES = 1.0, 500e6, 2**30
# Until any was measured: 40 tokens a second for 12 GB of weights, and in proportion, as computing bounds it. Chosen.
PREFILL_BYTES_PER_S = 500e9
# More than one rung, less than two.
READING_AT_MOST = 0.2
UP = frozenset({ServerState.ready, ServerState.starting})

Part = Literal["good", "load", "queue", "read"]


@dataclass(frozen=True)
class Prospect:
    """What asking one model promises. `good` in [0, 1]; all else in seconds."""

    spec: ModelSpec
    good: float
    load_s: float
    queue_s: float
    answer_s: float
    """By how much its answers take longer than those of the others; negative when they are shorter."""
    load_counts: bool
    reread_s: float = 0.0
    """For what it has to read anew of a conversation that another one has read."""

    def parts(self, price_per_s: float) -> dict[Part, float]:
        """The terms of its worth, by what they come from."""
        return {
            "good": self.good - price_per_s * self.answer_s,
            "load": -price_per_s * self.load_s if self.load_counts else 0.0,
            "queue": -price_per_s * self.queue_s,
            "read": -reading(self.reread_s, price_per_s),
        }

    def worth(self, price_per_s: float, *, without: Part | None = None) -> float:
        """The sum of its parts, or of the others than one."""
        return sum(value for part, value in self.parts(price_per_s).items() if part != without)


def prospects(situation: Situation, specs: Sequence[ModelSpec], tier: Tier) -> list[Prospect]:
    """What asking each of `specs` promises, for a question that `tier` should answer; in the order of `specs`."""
    fleet, expectations = situation.fleet, situation.expectations
    domain = situation.classification.domain
    good = _goodness({spec.id: assumed(spec.tier, tier, domain) for spec in specs}, expectations)
    known = [e.seconds for spec in specs if (e := expectations.get(spec.id)) and e.seconds is not None]
    usual_s = fmean(known) if known else 0.0
    statuses = {spec.id: status_of(spec.id, fleet) for spec in specs}
    anew_s = reread_s(situation, specs)
    load_counts = any(status is not None and status.state in UP for status in statuses.values())
    found = []
    for spec in specs:
        expected = expectations.get(spec.id)
        seconds = expected.seconds if expected else None
        found.append(
            Prospect(
                spec=spec,
                good=good[spec.id],
                load_s=load_s(spec, statuses[spec.id], fleet),
                queue_s=queue_s(statuses[spec.id], ANSWER_S if seconds is None else seconds),
                answer_s=0.0 if seconds is None else seconds - usual_s,
                load_counts=load_counts,
                reread_s=anew_s.get(spec.id, 0.0),
            )
        )
    return found


def decisive_part(chosen: Prospect, passed_over: Prospect, price_per_s: float) -> Part:
    """What spoke most for `chosen` against `passed_over`, but for who has read the conversation."""
    ours, theirs = chosen.parts(price_per_s), passed_over.parts(price_per_s)
    return max((part for part in ours if part != "read"), key=lambda part: ours[part] - theirs[part])


def reread_s(situation: Situation, specs: Sequence[ModelSpec]) -> dict[str, float]:
    """Seconds in which each of `specs` reads what another of them has read of the conversation; {} for a new one."""
    read = {spec.id: situation.read_tokens.get(spec.id, 0) for spec in specs}
    most = max(read.values(), default=0)
    if not most:
        return {}
    return {spec.id: (most - read[spec.id]) / prefill_per_s(spec, situation) for spec in specs}


def begins_s(prospect: Prospect, situation: Situation) -> float:
    """Seconds until the answer begins: loading, queueing, and reading all that the model has not read yet."""
    spec = prospect.spec
    unread = situation.classification.prompt_tokens - situation.read_tokens.get(spec.id, 0)
    # The prompt's size is an estimate; what another has read of it was counted.
    reading_s = max(unread / prefill_per_s(spec, situation), prospect.reread_s)
    return prospect.load_s + prospect.queue_s + reading_s


def prefill_per_s(spec: ModelSpec, situation: Situation) -> float:
    """Tokens of a prompt that the model reads in a second: as measured, else by its size and how fast others read."""
    measured = situation.prefill_per_s
    if spec.id in measured:
        return measured[spec.id]
    known = [measured[other.id] * _size(other) for other in situation.settings.models if other.id in measured]
    return (fmean(known) if known else PREFILL_BYTES_PER_S) / _size(spec)


def _size(spec: ModelSpec) -> int:
    return weights_bytes(spec) or UNKNOWN_BYTES


def reading(seconds: float, price_per_s: float) -> float:
    """What so many seconds of reading cost, in probability of a good answer."""
    return min(READING_AT_MOST, price_per_s * seconds)


def assumed(tier: Tier, wanted: Tier, domain: Domain) -> float:
    """How good a tier is taken to be where another one should answer, before anything was recorded."""
    rungs = ladder(domain)
    steps = rungs.index(tier) - rungs.index(wanted)
    return ASSUMED + (STEP_DOWN * steps if steps < 0 else -STEP_UP * steps)


def load_s(spec: ModelSpec, status: ModelStatus | None, fleet: FleetSnapshot) -> float:
    """Seconds until the model is ready: 0 when it is, or when nothing is known of it."""
    if status is None or status.state is ServerState.ready:
        return 0.0
    whole_s = status.load_s
    if whole_s is None:
        whole_s = START_S + _size(spec) / READ_BYTES_PER_S
    if status.state is ServerState.starting:
        return whole_s * (1.0 - (0.5 if status.load_progress is None else status.load_progress))
    return whole_s * (2.0 if _must_make_room(spec, fleet) else 1.0)


def queue_s(status: ModelStatus | None, answer_s: float) -> float:
    """Seconds until one of its places is free: 0 while one is."""
    if status is None:
        return 0.0
    ahead = status.queue + status.active - status.slots + 1
    return max(0, ahead) / status.slots * answer_s


def _must_make_room(spec: ModelSpec, fleet: FleetSnapshot) -> bool:
    if fleet.budget_bytes is None or fleet.used_bytes is None:
        return False
    return fleet.used_bytes + weights_bytes(spec) > fleet.budget_bytes


def _goodness(assumptions: Mapping[str, float], expectations: Mapping[str, Expectation]) -> dict[str, float]:
    recorded = {m: e for m in assumptions if (e := expectations.get(m)) is not None and e.support >= ENOUGH}
    support = sum(e.support for e in recorded.values())
    harder = min(0.0, sum(e.support * (e.good - assumptions[m]) for m, e in recorded.items()) / (BELIEVE + support))
    good = {}
    for model, assumption in assumptions.items():
        here = assumption + harder
        if (e := recorded.get(model)) is not None:
            here += e.support / (e.support + BELIEVE) * (e.good - here)
        good[model] = min(1.0, max(0.0, here))
    return good
