"""The fleets that ship: their models as the files beside this one hold them, not yet checked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

FLEETS = ("tiny", "five")


def shipped_fleet(name: str) -> list[dict[str, Any]]:
    """The models of a shipped fleet, as its file holds them."""
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    defaults = document.get("defaults", {})
    return [merged(defaults, {"id": model_id, **spec}) for model_id, spec in document["models"].items()]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` in their places, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result
