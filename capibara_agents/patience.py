"""How long a model may go without a sign of life: from batch to batch of a prompt that it reads, then between tokens.

A long prompt takes minutes on a CPU, and until it is read there is no token. llama-server tells of each batch that it
has read (`return_progress`), so what is waited for is the next batch and not the first token: a model that reads on is
waited for however long its prompt, one that stands still is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

READS_PER_S = 10.0
"""No model of use reads fewer tokens of a prompt in a second. Chosen: 27 billion parameters on 4 slow cores do."""
BATCH_TOKENS = 2048
"""As many as llama-server reads at once where nothing else is configured."""
BURNING_PATIENCE, LEAST_BURNING_S = 4.0, 60.0


def burning_s(limit_s: float) -> float:
    """For how long a model may compute and show nothing of it, given its limit between tokens."""
    return max(BURNING_PATIENCE * limit_s, LEAST_BURNING_S)


def reading_s(limit_s: float, left_tokens: int) -> float:
    """Within how many seconds the next batch is read of a prompt of which so much is left, or the first token comes."""
    return min(limit_s + min(left_tokens, BATCH_TOKENS) / READS_PER_S, burning_s(limit_s))


class Patience:
    """The clock of one question: `timer` is the one that runs while the next piece is awaited."""

    def __init__(self, limit_s: float) -> None:
        """`limit_s`: to the first sign of life, then between tokens."""
        self.limit_s = self.waited_s = limit_s
        self.timer: asyncio.Timeout | None = None

    def reads(self, left_tokens: int) -> None:
        """A sign of life: so many tokens of the prompt are left to be read."""
        if self.timer is None or self.timer.expired():
            return
        self.waited_s = reading_s(self.limit_s, left_tokens)
        self.timer.reschedule(asyncio.get_running_loop().time() + self.waited_s)


READING: ContextVar[Callable[[int], None]] = ContextVar("reading", default=lambda left_tokens: None)
"""Who is told how much of a prompt is left to be read: two libraries lie between, and pass on nothing but answers."""
