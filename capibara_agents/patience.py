"""How long a model may go without a sign of life: from batch to batch of a prompt that it reads, then between tokens.

A long prompt takes minutes on a CPU, and until it is read there is no token. llama-server tells of each batch that it
has read (`return_progress`), so what is waited for is the next batch and not the first token: a model that reads on is
waited for however long its prompt, one that stands still is not. Where a server answers several at once, the tokens of
all wait while it reads a batch of one prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import TypeVar

from capibara_agents.errors import ModelTimeout
from capibara_agents.settings import ModelSpec

T = TypeVar("T")
Told = Callable[[int, int], None]

READS_PER_S = 10.0
"""No model of use reads fewer tokens of a prompt in a second; for one whose speed is not known yet. Chosen."""
SLOWER = 2.0
"""A machine may be so much busier than when the speed was measured. Chosen."""
BATCH_TOKENS = 2048
"""As many as llama-server reads at once where nothing else is configured."""
BURNING_PATIENCE, LEAST_BURNING_S = 4.0, 60.0


def burning_s(limit_s: float) -> float:
    """For how long a model may compute and show nothing of it, given its limit between tokens."""
    return max(BURNING_PATIENCE * limit_s, LEAST_BURNING_S)


def reading_s(limit_s: float, left_tokens: int, per_s: float = READS_PER_S) -> float:
    """Within how many seconds the next batch is read of a prompt of which so much is left, or the first token comes."""
    return min(limit_s + min(left_tokens, BATCH_TOKENS) / per_s, burning_s(limit_s))


class Patience:
    """The clock of one question to one model."""

    def __init__(self, spec: ModelSpec, reads_per_s: float | None = None, on_reading: Told | None = None) -> None:
        """`reads_per_s`: tokens of a prompt, as measured. `on_reading` is told of each batch but the last of a prompt.

        It gets tokens: how many are read, of how many.
        """
        self._spec, self._on_reading = spec, on_reading
        self._per_s = READS_PER_S if reads_per_s is None else reads_per_s / SLOWER
        # As long as it takes to read a batch of somebody else's prompt, where somebody else may be there.
        self._limit_s = self._until_read(BATCH_TOKENS if spec.slots > 1 else 0)
        self._waited_s = self._limit_s
        self._timer: asyncio.Timeout | None = None
        self.has_begun = False
        """Whether the server took the prompt up; one that refuses it says nothing of reading."""

    async def over(self, pieces: AsyncIterator[T]) -> AsyncIterator[T]:
        """The pieces of an answer, each in time. Raises ModelTimeout."""
        iterator = aiter(pieces)
        while True:
            self._waited_s = self._limit_s
            try:
                async with asyncio.timeout(self._waited_s) as timer:
                    self._timer = timer
                    piece = await anext(iterator)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if not timer.expired():
                    raise
                message = f"{self._spec.id} showed no progress within {self._waited_s:.3g} s."
                raise ModelTimeout(message, model_id=self._spec.id) from error
            yield piece

    def reads(self, read_tokens: int, total_tokens: int) -> None:
        """A sign of life while the first piece is awaited: so much of the prompt is read."""
        self.has_begun = True
        if self._timer is None or self._timer.expired():
            return
        self._waited_s = max(self._limit_s, self._until_read(total_tokens - read_tokens))
        self._timer.reschedule(asyncio.get_running_loop().time() + self._waited_s)
        if self._on_reading is not None and 0 < read_tokens < total_tokens:
            self._on_reading(read_tokens, total_tokens)

    def _until_read(self, left_tokens: int) -> float:
        return reading_s(self._spec.timeout_s, left_tokens, self._per_s)


READING: ContextVar[Told] = ContextVar("reading", default=lambda read_tokens, total_tokens: None)
"""Who is told how much of a prompt is read: two libraries lie between, and pass on nothing but answers."""
