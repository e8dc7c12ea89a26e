"""Memory as a service wants it: Python's collector not in the middle of an answer nor over what stays, and no hoard."""

from __future__ import annotations

import atexit
import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# New objects before the collector looks at them in the middle of an answer; a question makes about 900, Python's own
# limit is 700. So many take it 4 ms at a time.
COLLECTED_AFTER = 5_000

# While a program starts, nearly all that is made stays: a collector that looks at it again and again finds nothing, and
# takes a fifth of the time that the imports take.
STARTING_AFTER = 100_000

# glibc gives threads that meet in malloc pools of their own, up to eight a core, and what is free in one
# is of no use to the others: 28 MB of a service's 580. Python holds its own lock most of the time; two are enough.
POOLS = 2
_M_ARENA_MAX = -8

_door = threading.Lock()
# Of another C library than glibc, which has neither of the two functions, nothing is asked.
_libc = ctypes.CDLL(None)
# The process's own thresholds, once for each service that runs.
_own: list[tuple[int, int, int]] = []


def of_a_program() -> None:
    """For a process that is Capibara's own: imports are not looked through while they go on."""
    gc.set_threshold(STARTING_AFTER, *gc.get_threshold()[1:])
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, POOLS)
    # Registered first, run last: at its end Python looks through everything several times (1.1 s), to no end.
    atexit.register(gc.freeze)


@contextmanager
def put_off() -> Iterator[None]:
    """While a service runs that has started: what is here now stays, what comes is looked at by greater numbers.

    The collector is the whole process's: it is as it was when the last of several services has ended.
    """
    with _door:
        # The collector need not look at a million objects again at every full round.
        gc.collect()
        gc.freeze()
        _own.append(_own[0] if _own else gc.get_threshold())
        gc.set_threshold(COLLECTED_AFTER, *_own[0][1:])
    try:
        yield
    finally:
        with _door:
            before = _own.pop()
            if not _own:
                gc.set_threshold(*before)


def collect_of_a_question() -> None:
    """What a question has left behind, after its answer instead of during the next; under load, by number."""
    gc.collect(1)


def give_back() -> None:
    """Free memory goes back to the system, after work that took much of it for a while; milliseconds."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
