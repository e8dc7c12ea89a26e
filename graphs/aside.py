"""Work that takes the processor for more than a few milliseconds goes to a thread: others wait for the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BRIEF_CHARS = 400
"""A text up to so long is classified, or searched for code, in a millisecond or two: less than a thread may cost."""


async def aside(is_long: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns; in a thread where that may take long."""
    if is_long:
        return await asyncio.to_thread(work, *args, **kwargs)
    return work(*args, **kwargs)
