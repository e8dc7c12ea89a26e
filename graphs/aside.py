"""Work that takes the processor for more than a few milliseconds goes to a thread: others wait for the loop.

Two pools, so that what takes milliseconds never queues behind what takes seconds: SHORT computes, RUNS waits for code
that is run. asyncio's own threads are left to the stores. Threads start when they are first needed and end with the
program.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from capibara_agents.verify import sandbox

P = ParamSpec("P")
T = TypeVar("T")

BRIEF_CHARS = 400
"""A text up to so long is classified, or searched for code, in a millisecond or two: less than a thread may cost."""
SHORT = ThreadPoolExecutor(4, thread_name_prefix="capibara-short")
RUNS = ThreadPoolExecutor(sandbox.MOST_AT_ONCE, thread_name_prefix="capibara-run")
"""As many as the sandbox has places: a run that has its thread need not wait for a place."""


async def aside(is_long: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns; in a thread where that may take long."""
    if is_long:
        return await in_thread(SHORT, work, *args, **kwargs)
    return work(*args, **kwargs)


async def in_thread(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, in a pool of one's choice."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(pool, partial(context.run, work, *args, **kwargs))
