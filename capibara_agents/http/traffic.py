"""How much may be under way: for each key and in all. Decided at once, nobody waits at the door."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from capibara_agents.errors import ModelError
from capibara_agents.settings import ServerSettings

# Callers whose recent use is remembered; the one that was quiet the longest is forgotten first.
REMEMBERED = 10_000
BUSY_RETRY_S = 2.0


class Refused(ModelError):
    """The door is shut for now; come again in `retry_after_s`."""

    def __init__(self, code: str, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = code


def starting(message: str) -> Refused:
    """What is said to those who come too early and are not let wait."""
    return Refused("starting", message, 1)


def closing() -> Refused:
    """What is said to those who come too late."""
    return Refused("closing", "The service is closing; answers under way are finished first.", 10)


@dataclass
class _Use:
    """One caller's: a bucket of requests that fills again over a minute, and what is under way."""

    left: float
    seen_s: float
    active: int = 0


class Traffic:
    """Counts requests in and out. Belongs to one event loop; only the work of POSTs is counted."""

    def __init__(self, limits: ServerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._uses: OrderedDict[bytes, _Use] = OrderedDict()
        self.active = 0
        self._waiting = 0
        self.closing = False
        """Set once: what is under way ends, nothing new begins."""
        self.begun = asyncio.Event()
        """Clear while the house is not warm yet: what needs it waits at the gate."""
        self.begun.set()
        self.at_rest: Callable[[], object] = lambda: None
        """Called when nothing is under way any more; nobody waits for it but who comes next."""

    @contextmanager
    def admitted(self, caller: bytes) -> Iterator[None]:
        """Room for one request of this caller while it lasts. Raises Refused."""
        use = self._use(caller)
        self._check(use)
        use.left -= 1
        use.active += 1
        self.active += 1
        try:
            yield
        finally:
            use.active -= 1
            self.active -= 1
            if not self.active:
                self.at_rest()

    async def until_begun(self) -> None:
        """Wait for a house that is not warm yet, with as many others as may be under way. Raises Refused."""
        if self._waiting >= self._limits.requests_in_all:
            raise starting(f"The service is starting, and {self._waiting} requests wait for it, which is all it takes.")
        self._waiting += 1
        try:
            await self.begun.wait()
        finally:
            self._waiting -= 1
        if self.closing:
            raise closing()

    def _use(self, caller: bytes) -> _Use:
        per_minute = self._limits.requests_per_minute
        now = self._clock()
        use = self._uses.setdefault(caller, _Use(left=per_minute or 0, seen_s=now))
        self._uses.move_to_end(caller)
        if per_minute is not None:
            use.left = min(per_minute, use.left + (now - use.seen_s) * per_minute / 60)
        use.seen_s = now
        if len(self._uses) > REMEMBERED:
            oldest = next(iter(self._uses))
            if not self._uses[oldest].active:
                del self._uses[oldest]
        return use

    def _check(self, use: _Use) -> None:
        limits = self._limits
        if self.closing:
            raise closing()
        if limits.requests_at_once is not None and use.active >= limits.requests_at_once:
            message = f"This key has {use.active} requests under way, which is its limit."
            raise Refused("too_many_requests", message, BUSY_RETRY_S)
        if limits.requests_per_minute is not None and use.left < 1:
            wait_s = math.ceil((1 - use.left) * 60 / limits.requests_per_minute)
            raise Refused("rate_limit_exceeded", f"This key may ask again in {wait_s} s.", wait_s)
        if self.active >= limits.requests_in_all:
            message = f"{self.active} requests are under way, which is all this service takes."
            raise Refused("overloaded", message, BUSY_RETRY_S)
