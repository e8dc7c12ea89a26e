"""Fixtures of the unit tests that more than one file uses."""

from runtime_room import room, run

__all__ = ["room", "run"]
