"""Reads the two configuration files of the original project."""

from __future__ import annotations

from typing import Any


def recognises(values: dict[str, Any]) -> bool:
    """True for a file of the original project."""
    return False


def translate(values: dict[str, Any], name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The same as keys of Settings, and a warning for every key without meaning here."""
    raise NotImplementedError
