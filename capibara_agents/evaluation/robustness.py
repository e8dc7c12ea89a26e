"""Whether a decision stays the same when a question is written a little differently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from capibara_agents.evaluation.metrics import Share, share
from capibara_agents.evaluation.perturbation import KINDS, perturbed
from capibara_agents.evaluation.routing import Decide, Decided, Outcome, share_json
from capibara_agents.evaluation.rows import Row


@dataclass(frozen=True)
class Trial:
    """A row, the kind of change, and the decisions before and after it."""

    row: Row
    kind: str
    before: Decided
    after: Decided

    @property
    def same_choice(self) -> bool:
        return self.before.choice == self.after.choice

    @property
    def same_domain(self) -> bool:
        return self.before.classification.domain == self.after.classification.domain


@dataclass(frozen=True)
class Stability:
    """Shares of decisions (model and mode) and of domains that stayed the same."""

    choice: Share
    domain: Share


def variants(rows: Iterable[Row], seed: int) -> Iterator[tuple[Row, str, str]]:
    """Every row with each kind of change that changes it: row, kind, new text."""
    for row in rows:
        for kind in KINDS:
            text = perturbed(row.prompt, kind, seed, row.id)
            if text is not None:
                yield row, kind, text


def trials(outcomes: Sequence[Outcome], decide: Decide, seed: int) -> Iterator[list[Trial]]:
    """Decide every variant of each outcome's row again; one list a row."""
    for outcome in outcomes:
        yield [Trial(row, kind, outcome.decided, decide(text)) for row, kind, text in variants([outcome.row], seed)]


def stability(tried: Sequence[Trial]) -> Stability:
    """The shares over some trials."""
    return Stability(choice=share(t.same_choice for t in tried), domain=share(t.same_domain for t in tried))


def by_kind(tried: Sequence[Trial]) -> dict[str, Stability]:
    """The shares of each kind of change that was tried."""
    return {kind: stability(held) for kind in KINDS if (held := [t for t in tried if t.kind == kind])}


def as_json(tried: Sequence[Trial]) -> dict[str, Any]:
    """Shares in percent: all trials, by kind, by language."""
    languages = sorted({trial.row.language for trial in tried})
    return {
        **_stability_json(stability(tried)),
        "by_kind": {kind: _stability_json(shares) for kind, shares in by_kind(tried).items()},
        "by_language": {
            language: _stability_json(stability([t for t in tried if t.row.language == language]))
            for language in languages
        },
    }


def _stability_json(shares: Stability) -> dict[str, Any]:
    return {
        "n": shares.choice.n,
        **share_json("unchanged", shares.choice),
        **share_json("domain_unchanged", shares.domain),
    }
