"""Python's garbage collector as a service wants it: not in the middle of an answer, and not over what stays."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# New objects before the collector looks at them in the middle of an answer; a question makes about 900, Python's own
# limit is 700. So many take it 4 ms at a time.
COLLECTED_AFTER = 5_000

_door = threading.Lock()
# The process's own thresholds, once for each service that runs.
_own: list[tuple[int, int, int]] = []


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
