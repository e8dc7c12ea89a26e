"""Votes replayed on recorded answers: what a panel of models would have said together, asked in order of value.

Per panel the rows are dealt into folds; each fold is voted on with weights learned from the others (vote/weights.py),
asking on until it no longer pays (vote/stopping.py). A question that running code settles is settled so.
"""

from __future__ import annotations

import ast
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from capibara_agents.answers import parse_number, plain_text
from capibara_agents.calibration import Bin, calibration_error, reliability
from capibara_agents.errors import ConfigError
from capibara_agents.evaluation.metrics import Z_95, Share, share
from capibara_agents.evaluation.rows import read_objects
from capibara_agents.texts import phrase
from capibara_agents.types import AnswerKind, Canonical
from capibara_agents.vote import Round, Tally, VoteWeights, learn, next_voter, tally_of
from capibara_agents.wishes import wish_of

FOLD_SEED, CHANCE_DRAWS = 0, 50
Panels = dict[str, dict[str, tuple[str, ...]]]
Settle = Callable[[str], str | None]
Agrees = Callable[[str, str], bool]


class Given(BaseModel):
    """One model's recorded answer; `extracted` None: it gave none that could be read."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    model: str
    extracted: str | None = None
    correct: bool = False


class Row(BaseModel):
    """A question, its truth, and what each model answered; other keys of a line are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    id: str
    prompt: str
    reference: str = ""
    domain: str | None = None
    category: str | None = None
    options: tuple[str, ...] = ()
    answers: tuple[Given, ...]

    @property
    def field(self) -> str:
        """What reliability may depend on: the category where the source has one."""
        return self.category or self.domain or "other"


@dataclass(frozen=True)
class Outcome:
    """How one row came out: with early stop, and after the first 1, 2, … voters, the last of them all."""

    right: bool
    confidence: float
    calls: int
    after: tuple[bool, ...]
    confidence_of_all: float
    settled: bool = False


@dataclass(frozen=True)
class PanelFigures:
    """One panel on one set; shares and gains in percent (points), `calls` per question."""

    set: str
    panel: str
    n: int
    best_single: float
    majority: float
    ours: float
    oracle: float
    calls: float
    ece: float
    ours_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    asking_all: float
    after: tuple[float, ...]
    surest_half: float
    ece_of_perfect: float
    tool_verified: float
    bins: tuple[Bin, ...]


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a JSONL file. ConfigError names the file, the line and what is wrong."""
    rows = []
    for number, values in read_objects(path):
        try:
            rows.append(Row.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigError(phrase("rows.wrong", path=path, line=number, key=place, wish=wish_of(first))) from error
    return tuple(rows)


def read_panels(path: Path) -> Panels:
    """Set -> panel -> its models. ConfigError for a file that does not say that, or names a model twice."""
    try:
        panels: Panels = TypeAdapter(Panels).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(phrase("rows.no_panels", path=path, error=error)) from error
    for of_set in panels.values():
        for name, models in of_set.items():
            if not models or len(set(models)) < len(models):
                raise ConfigError(phrase("rows.panel", path=path, panel=name))
    return panels


def check(rows: Sequence[Row], *, of_set: str, panels: Mapping[str, Sequence[str]], folds: int) -> None:
    """ConfigError when no row has an answer of one of the models, or there are fewer rows than folds."""
    known = {given.model for row in rows for given in row.answers}
    for panel, models in panels.items():
        if missing := [model for model in models if model not in known]:
            raise ConfigError(phrase("rows.no_answer", set=of_set, models=", ".join(missing), panel=panel))
    if not 2 <= folds <= len(rows):
        raise ConfigError(phrase("rows.folds", set=of_set, folds=folds, rows=len(rows)))


def replay_all(
    rows: Sequence[Row],
    *,
    of_set: str,
    panels: Mapping[str, Sequence[str]],
    folds: int,
    settled: Mapping[str, bool] | None = None,
) -> Iterator[PanelFigures]:
    """The figures of each panel, one after the other. For rows and panels that `check` passed."""
    for panel, models in panels.items():
        yield replay(rows, of_set=of_set, panel=panel, models=models, folds=folds, settled=settled)


def replay(
    rows: Sequence[Row],
    *,
    of_set: str,
    panel: str,
    models: Sequence[str],
    folds: int,
    settled: Mapping[str, bool] | None = None,
) -> PanelFigures:
    """The figures of one panel; `settled`: row id -> whether what running its code gave is right."""
    settled = settled or {}
    rounds = [round_of_row(row, models) for row in rows]
    fold = dealt(len(rows), folds)
    outcomes: dict[int, Outcome] = {}
    for number in range(folds):
        held = [i for i in range(len(rows)) if fold[i] == number]
        others = [i for i in range(len(rows)) if fold[i] != number]
        weights = learn([rounds[i] for i in others if rows[i].id not in settled], models)
        trust = _trust([settled[rows[i].id] for i in others if rows[i].id in settled])
        for i in held:
            right = settled.get(rows[i].id)
            outcomes[i] = _voted(rounds[i], weights, models) if right is None else _run(right, trust, len(models))
    return _figures(rows, rounds, [outcomes[i] for i in range(len(rows))], of_set=of_set, panel=panel, models=models)


def settle_all(rows: Sequence[Row], settle: Settle, agrees: Agrees) -> Iterator[tuple[str, bool] | None]:
    """For each row its id and whether running its code gives the truth; None where that settles nothing."""
    for row in rows:
        answer = settle(row.prompt)
        yield None if answer is None else (row.id, agrees(row.reference, answer))


def as_json(figures: Sequence[PanelFigures]) -> dict[str, Any]:
    """The panels with their figures, shares in percent."""
    return {"panels": [{k: v for k, v in asdict(one).items() if k != "bins"} for one in figures]}


def _canonical(extracted: str, row: Row) -> Canonical:
    """An answer that was already extracted, in the form in which it is compared."""
    if row.options:
        return Canonical(kind=AnswerKind.option, value=extracted.strip().upper(), confidence=1.0)
    if row.domain == "coding":
        return Canonical(kind=AnswerKind.literal, value=_literal(extracted), confidence=1.0)
    number = parse_number(extracted)
    if number is not None:
        return Canonical(kind=AnswerKind.number, value=number, confidence=1.0)
    return Canonical(kind=AnswerKind.text, value=plain_text(extracted) or extracted.strip(), confidence=1.0)


def _literal(written: str) -> str:
    """A Python value as Python shows it: quotes may differ, kinds may not; what is none stays as it is written."""
    try:
        return repr(ast.literal_eval(written.strip()))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return written.strip()


def round_of_row(row: Row, models: Sequence[str]) -> Round:
    """The vote of these models on one row, with its truth."""
    by_model = {given.model: given for given in row.answers}
    answers: dict[str, Canonical | None] = {}
    for model in models:
        given = by_model.get(model)
        said = given.extracted if given else None
        answers[model] = _canonical(said, row) if said else None
    tally = tally_of(
        answers, domain=row.field, question=row.prompt, choices=row.options, equal=lambda a, b: a.value == b.value
    )
    return Round(
        tally=tally, right=tuple(any(by_model[v].correct for v in cluster.voters) for cluster in tally.clusters)
    )


def dealt(n: int, folds: int) -> list[int]:
    """A fold for each row, of equal size as near as can be; always the same for as many rows."""
    order = list(range(n))
    random.Random(FOLD_SEED).shuffle(order)
    dealt = [0] * n
    for place, row in enumerate(order):
        dealt[row] = place % folds
    return dealt


def _trust(seen: Sequence[bool]) -> float:
    """How far settled answers can be relied on, by those of the other folds (rule of succession)."""
    return (sum(seen) + 1) / (len(seen) + 2)


def _run(right: bool, trust: float, voters: int) -> Outcome:
    """One model is asked, and running the code tells whether it is right."""
    return Outcome(
        right=right, confidence=trust, calls=1, after=(right,) * voters, confidence_of_all=trust, settled=True
    )


def _voted(played: Round, weights: VoteWeights, models: Sequence[str]) -> Outcome:
    truth = {
        v: right for cluster, right in zip(played.tally.clusters, played.right, strict=True) for v in cluster.voters
    }
    order = weights.order or tuple(models)
    stages = [_leader(played.tally.among(frozenset(order[: k + 1])), weights, truth) for k in range(len(order))]
    calls = 1
    while next_voter(played.tally.among(frozenset(order[:calls])), order[calls:], weights, prior={}) is not None:
        calls += 1
    right, confidence = stages[calls - 1]
    return Outcome(
        right=right,
        confidence=confidence,
        calls=calls,
        after=tuple(hit for hit, _ in stages),
        confidence_of_all=stages[-1][1],
    )


def _leader(tally: Tally, weights: VoteWeights, truth: Mapping[str, bool]) -> tuple[bool, float]:
    """Whether the likeliest answer is right, and its chance; without learned weights, its share of the voters."""
    if not tally.clusters:
        return False, 0.0
    asked = len(tally.asked)
    chances = weights.chances(tally) if weights.learned else [len(cluster.voters) / asked for cluster in tally.clusters]
    best = max(range(len(chances)), key=lambda k: (chances[k], -k))
    return truth[tally.clusters[best].voters[0]], chances[best]


def _figures(
    rows: Sequence[Row],
    played: Sequence[Round],
    outcomes: Sequence[Outcome],
    *,
    of_set: str,
    panel: str,
    models: Sequence[str],
) -> PanelFigures:
    n = len(rows)
    single = _best_single(rows, models)
    ours = share(outcome.right for outcome in outcomes)
    gain, margin = _paired([o.right - s for o, s in zip(outcomes, single, strict=True)])
    confidences, rights = [o.confidence for o in outcomes], [o.right for o in outcomes]
    bins = reliability(confidences, rights)
    surest = sorted(outcomes, key=lambda outcome: -outcome.confidence_of_all)[: max(1, n // 2)]
    return PanelFigures(
        set=of_set,
        panel=panel,
        n=n,
        best_single=_percent(share(single)),
        majority=_percent(share(_majority(one) for one in played)),
        ours=_percent(ours),
        oracle=_percent(share(any(one.right) for one in played)),
        calls=round(sum(o.calls for o in outcomes) / n, 3),
        ece=round(calibration_error(bins) or 0.0, 4),
        ours_interval=_rounded(ours.interval or (0.0, 100.0)),
        gain=round(gain, 2),
        gain_interval=_rounded((gain - margin, gain + margin)),
        asking_all=_percent(share(o.after[-1] for o in outcomes)),
        after=tuple(_percent(share(o.after[k] for o in outcomes)) for k in range(len(models))),
        surest_half=_percent(share(outcome.after[-1] for outcome in surest)),
        ece_of_perfect=round(_ece_of_perfect(confidences), 4),
        tool_verified=_percent(share(o.settled for o in outcomes)),
        bins=bins,
    )


def _best_single(rows: Sequence[Row], models: Sequence[str]) -> list[bool]:
    """Row by row, whether the model was right that was right most often; a missing answer is wrong."""
    hits = {
        model: [any(given.correct for given in row.answers if given.model == model) for row in rows] for model in models
    }
    return max(hits.values(), key=sum)


def _majority(played: Round) -> bool:
    """Whether the answer of most voters is right; of as many, the one that the earlier voter gave."""
    clusters = played.tally.clusters
    best = max(range(len(clusters)), key=lambda k: (len(clusters[k].voters), -k), default=None)
    return best is not None and played.right[best]


def _paired(differences: Sequence[int]) -> tuple[float, float]:
    """Mean difference in points and half its 95 % interval (normal, paired)."""
    n = len(differences)
    mean = sum(differences) / n
    variance = sum((d - mean) ** 2 for d in differences) / max(1, n - 1)
    return 100 * mean, 100 * Z_95 * math.sqrt(variance / n)


def _ece_of_perfect(confidences: Sequence[float]) -> float:
    """The calibration error that as many rows would show if every confidence were exactly true, by simulation."""
    draw = random.Random(FOLD_SEED)
    errors = []
    for _ in range(CHANCE_DRAWS):
        lucky = [draw.random() < confidence for confidence in confidences]
        errors.append(calibration_error(reliability(confidences, lucky)) or 0.0)
    return sum(errors) / len(errors)


def _percent(measured: Share) -> float:
    return round(measured.percent or 0.0, 2)


def _rounded(interval: tuple[float, float]) -> tuple[float, float]:
    return round(interval[0], 2), round(interval[1], 2)
