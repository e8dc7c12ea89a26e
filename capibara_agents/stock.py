"""How much a store holds: what every store on disk can say of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stock:
    """How much a store holds. `size_bytes` of what is kept, not of its file; times are Unix times, None if unknown."""

    count: int = 0
    size_bytes: int = 0
    oldest_s: float | None = None
    newest_s: float | None = None
