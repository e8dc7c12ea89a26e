"""The fleet's decisions as pure functions: when a server may start again, and who makes room for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_BACKOFF_S = 10.0
LONGEST_BACKOFF_S = 300.0


def restart_delay_s(failures: int) -> float:
    """Seconds before the next start after so many failures in a row: none after the first, then 10, 20, … 300."""
    if failures <= 1:
        return 0.0
    return min(FIRST_BACKOFF_S * 2.0 ** min(failures - 2, 10), LONGEST_BACKOFF_S)


@dataclass(frozen=True)
class Resident:
    """A model that holds memory, as eviction sees it."""

    id: str
    bytes: int
    idle: bool
    """Ready, with no claim held and none waiting."""
    pinned: bool = False
    idle_s: float = 0.0
    reload_s: float = 1.0
    """What loading it again would take."""


def choose_victims(residents: Sequence[Resident], needed_bytes: int, free_bytes: int) -> tuple[str, ...] | None:
    """The idle models to unload so that `needed_bytes` fit; () when they fit already, None when they cannot.

    Cheapest first: a model that loads quickly and was not used for long costs least to lose. Of those, none
    is taken that turns out not to be needed.
    """
    if needed_bytes <= free_bytes:
        return ()
    candidates = sorted(
        (r for r in residents if r.idle and not r.pinned and r.bytes > 0),
        key=lambda r: (r.reload_s / (1.0 + r.idle_s), r.id),
    )
    chosen: list[Resident] = []
    for resident in candidates:
        chosen.append(resident)
        free_bytes += resident.bytes
        if free_bytes >= needed_bytes:
            break
    else:
        return None
    for resident in tuple(chosen):
        if free_bytes - resident.bytes >= needed_bytes:
            chosen.remove(resident)
            free_bytes -= resident.bytes
    return tuple(r.id for r in chosen)


def load_limit_s(no_progress_s: float, weights_bytes: int) -> float:
    """The longest a load may take though it progresses: 5 min and 20 s for each GiB, never under the idle limit."""
    return max(no_progress_s, 300.0 + 20.0 * weights_bytes / 2**30)


def retry_after_s(elapsed_s: float, progress: float | None, typical_s: float) -> float:
    """A guess of the seconds until a load is done, between 1 and 300."""
    if progress is not None and progress > 0.05 and elapsed_s > 1.0:
        left = elapsed_s * (1.0 - progress) / progress
    else:
        left = typical_s - elapsed_s
    return float(min(300, max(1, round(left))))
