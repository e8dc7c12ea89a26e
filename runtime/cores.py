"""Which cores a server computes on: disjoint sets where they fit, and never more busy threads than cores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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


def may_work(threads: int, busy_threads: int, cores: int) -> bool:
    """Whether one more server may begin to answer: a lone one always, another while the cores suffice for all.

    No server has more threads than there are cores, so the threads that work are never more than the cores.
    """
    return busy_threads == 0 or busy_threads + threads <= cores
