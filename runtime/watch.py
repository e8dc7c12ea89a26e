"""Is a busy server still at work? What can be seen of it from outside, and what follows from that.

/health proves nothing: its HTTP threads answer while the thread that computes is stuck. /slots shows the tokens
that were read and written, but not within one batch of a long prompt, which may take a minute. The CPU time of the
process tells the two apart: a stopped or dead-locked server uses none and is given up after the model's own limit
between tokens; one that computes and shows no token gets several times as long (`patience.burning_s`), because that
may be a long batch, and is given up then, because it may be an endless loop.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from capibara_agents.patience import burning_s
from capibara_agents.types import Endpoint

PROBE_TIMEOUT_S = 2.0
# Less of one core than this is not computing: HTTP threads and timers alone use up to 1 %.
BURNING_SHARE = 0.2


@dataclass(frozen=True)
class Pulse:
    """One look at a server. `marker` is None when it did not answer; it changes with every token."""

    marker: tuple[tuple[int, ...], ...] | None
    processing: int
    decoded: int
    cpu_s: float


@dataclass
class Watch:
    """What is remembered of one server between looks; times are seconds of one monotonic clock."""

    limit_s: float
    moved_at: float | None = None
    moved_cpu_s: float = 0.0
    last: Pulse | None = None
    last_at: float = 0.0
    tokens_per_second: float | None = None

    @property
    def is_suspicious(self) -> bool:
        """Whether it was last seen without progress: such a server is looked at also when nobody holds a claim."""
        return self.moved_at is not None and self.last_at > self.moved_at

    def rest(self) -> None:
        """Nobody uses it: nothing is expected of it."""
        self.moved_at = self.last = self.tokens_per_second = None

    def is_hung(self, now: float, pulse: Pulse) -> bool:
        """Takes one look into account; True when the server has to be replaced."""
        before, before_at = self.last, self.last_at
        self.last, self.last_at = pulse, now
        if pulse.marker is not None and before is not None and before.marker is not None and now > before_at:
            self.tokens_per_second = max(0, pulse.decoded - before.decoded) / (now - before_at)
        at_rest = pulse.marker is not None and not pulse.processing
        moved = pulse.marker is not None and (before is None or pulse.marker != before.marker)
        if self.moved_at is None or at_rest or moved:
            self.moved_at, self.moved_cpu_s = now, pulse.cpu_s
            return False
        still_s = now - self.moved_at
        burning = pulse.cpu_s - self.moved_cpu_s >= BURNING_SHARE * still_s
        return still_s > (burning_s(self.limit_s) if burning else self.limit_s)


async def look(http: httpx.AsyncClient, endpoint: Endpoint, pid: int) -> Pulse | None:
    """One look, bounded by `PROBE_TIMEOUT_S` seconds on every read; never raises for what the server does.

    None: the server answers but does not show its slots, so that nothing can be said.
    """
    cpu_s = cpu_seconds(pid)
    headers = {"Authorization": f"Bearer {endpoint.api_key}", "Connection": "close"}
    try:
        response = await http.get(f"{endpoint.url}/slots", headers=headers, timeout=PROBE_TIMEOUT_S)
        if response.status_code != 200:
            return None
        slots = response.json()
    except (httpx.HTTPError, ValueError):
        slots = None
    return pulse_of(slots, cpu_s)


def pulse_of(slots: object, cpu_s: float) -> Pulse:
    """The answer of /slots as a pulse; anything that is not a list of slots counts as no answer."""
    if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
        return Pulse(None, 0, 0, cpu_s)
    marker, decoded = [], 0
    for slot in slots:
        tokens = slot.get("next_token") or [{}]
        first = tokens[0] if isinstance(tokens, list) else tokens
        written = int(first.get("n_decoded") or 0)
        decoded += written
        marker.append((int(slot.get("id_task", -1)), int(slot.get("n_prompt_tokens_processed") or 0), written))
    return Pulse(tuple(marker), sum(bool(slot.get("is_processing")) for slot in slots), decoded, cpu_s)


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and of what it has started (a command_prefix may stay in between)."""
    total = 0.0
    for one in _family(pid):
        # Gone in the meantime: its exit is reported by other means.
        with suppress(psutil.Error):
            times = psutil.Process(one).cpu_times()
            total += times.user + times.system
    return total


def _family(pid: int) -> list[int]:
    """The process and all that descends from it.

    As the kernel lists them: psutil reads of every process of the machine whose child it is, 4 ms each second in
    which an answer is written, and the other threads wait for the interpreter.
    """
    family = [pid]
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        # Not every kernel lists them.
        with suppress(psutil.Error):
            family.extend(child.pid for child in psutil.Process(pid).children(recursive=True))
        return family
    for parent in family:
        # Gone in the meantime, at any of these steps.
        with suppress(OSError):
            for listed in Path(f"/proc/{parent}/task").glob("*/children"):
                family.extend(int(child) for child in listed.read_text().split())
    return family
