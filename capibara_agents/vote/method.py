"""By which method weights are learned: those that were written down hold only as long as it is the same. Pure."""

from __future__ import annotations

import hashlib
import json
from types import ModuleType
from typing import Any

from capibara_agents.vote import fitting, recorded, samples, stopping, sureness, weights

METHOD = 1
"""Raised by whoever changes how weights are learned; what only changes a constant of LEARNING is seen without it."""

LEARNING: tuple[ModuleType, ...] = (fitting, recorded, samples, stopping, sureness, weights)


def learning_method() -> str:
    """The number of the method, and a digest of every constant that enters it."""
    constants = {f"{module.__name__}.{name}": value for module in LEARNING for name, value in _constants(module)}
    written = json.dumps(constants, sort_keys=True)
    return f"{METHOD}:{hashlib.sha256(written.encode()).hexdigest()[:16]}"


def _constants(module: ModuleType) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float | str | dict | tuple)
    ]
