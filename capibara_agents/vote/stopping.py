"""When asking further no longer pays: optimal stopping, learned by regression from the end backwards.

Going on from k voters is worth what the final ballot then holds the outcome for, less PRICE for every call. It is
regressed on what is known after k answers, the chances p1 and p2 of the two leading answers (Longstaff and Schwartz,
Valuing American options by simulation, 2001). The worth of an outcome is its chance once all have spoken, not whether
it was right: the same mean with far less noise, and exactly no gain where the rest cannot change the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from capibara_agents.types import Value

Array = npt.NDArray[np.floating[Any]]

PRICE = 0.003
"""What one more call has to raise the chance of a right answer by."""
RIDGE = 0.1


class StopRule(Value):
    """For each number of voters that have been asked, the weights of `features`; empty: never worth stopping."""

    gain: tuple[tuple[float, ...], ...] = ()
    price: float = Field(PRICE, ge=0)

    def pays(self, asked: int, p1: float, p2: float) -> bool:
        """Whether asking one more is expected to pay after `asked` answers (at least 1)."""
        if not 1 <= asked <= len(self.gain):
            return True
        return float(features(np.array([p1]), np.array([p2]))[0] @ np.array(self.gain[asked - 1])) > self.price


@dataclass(frozen=True, eq=False)
class Course:
    """n recorded votes at k stages, each (k, n): chances of the two leading answers, and of the leader in the end."""

    first: Array
    second: Array
    worth: Array


def features(p1: Array, p2: Array) -> Array:
    """(n,) and (n,) to (n, 5)."""
    return np.stack([np.ones_like(p1), p1, p2, p1 * p1, p1 * p2], axis=1)


def learn_stop(course: Course, price: float = PRICE) -> StopRule:
    """The rule that these votes teach."""
    value = course.worth[-1].copy()
    rule: list[tuple[float, ...]] = []
    for stage in range(len(course.worth) - 2, -1, -1):
        known = features(course.first[stage], course.second[stage])
        curvature = known.T @ known + RIDGE * np.eye(known.shape[1])
        gain = np.linalg.solve(curvature, known.T @ (value - course.worth[stage]))
        goes_on = known @ gain > price
        value = np.where(goes_on, value - price, course.worth[stage])
        rule.insert(0, tuple(float(weight) for weight in gain))
    return StopRule(gain=tuple(rule), price=price)
