"""Which cores a server computes on: disjoint sets where they fit, and never more busy threads than cores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# A claim waits so long for cores; then its server answers beside the busy ones, with threads that sleep when idle.
CORES_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Lease:
    """`cores` are a server's own; empty: it shares all of them, and its idle threads must sleep, not spin."""

    threads: int
    cores: tuple[int, ...] = ()

    @property
    def mask(self) -> str:
        """As llama-server's --cpu-mask takes it, hexadecimal; empty for a server that shares."""
        return f"0x{sum(1 << core for core in self.cores):x}" if self.cores else ""


def lease(threads: int, cores: Sequence[int], held: Iterable[Lease]) -> Lease:
    """The lowest free cores, one for each thread; without enough of them the server shares.

    `cores` are the numbers this process may use, `held` the leases of the servers that run. A single thread and a
    server that takes every core get no cores of their own: the kernel places those better than we could.
    """
    others = list(held)
    taken = {core for other in others for core in other.cores}
    # Those who share may be on any core, so each of their threads counts as one that is not free.
    floating = sum(other.threads for other in others if not other.cores)
    free = [core for core in sorted(cores) if core not in taken]
    if threads == 1 or threads >= len(cores) or len(free) - floating < threads:
        return Lease(threads)
    return Lease(threads, tuple(free[:threads]))


def may_work(threads: int, busy_threads: int, cores: int, waited_s: float = 0.0) -> bool:
    """Whether one more server may begin to answer: a lone one always, another while the cores suffice for all.

    Who has waited `CORES_PATIENCE_S` begins in any case: a slow answer must not hold up a quick one for minutes.
    """
    return busy_threads == 0 or busy_threads + threads <= cores or waited_s >= CORES_PATIENCE_S
