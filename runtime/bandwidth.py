"""The limit of decoding: what one token reads from memory, and how fast this machine reads.

A decoded token reads every weight once, so that no kernel can give more tokens a second than the read bandwidth
divided by those bytes. The cache of the context is read too, and is left out: the limit is for a short context.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from capibara_agents.runtime.gguf import read_gguf, tensor_bytes

MIB = 2**20
# Far beyond any last-level cache (the largest has 1.1 GiB in all), yet quick to fill.
SLICE_BYTES = 256 * MIB
QUICK_SLICE_BYTES = 96 * MIB
ROUNDS = 7
# No more of the free memory than this share is used for measuring.
MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class Bandwidth:
    """How fast `threads` threads read `bytes_each` each; the best round counts."""

    bytes_per_s: float
    threads: int
    bytes_each: int
    rounds: int


def read_bandwidth(threads: int, *, quick: bool = False) -> Bandwidth:
    """Measures it: each thread takes the dot product of its own memory with itself, all at the same time.

    A dot product of a vector with itself reads every byte once and writes none; numpy lets other threads run
    meanwhile. Each thread fills its own memory first, so that it lies near its core.
    """
    room = int(psutil.virtual_memory().available * MEMORY_SHARE) // threads
    size = max(MIB, min(QUICK_SLICE_BYTES if quick else SLICE_BYTES, room))
    rounds = 3 if quick else ROUNDS
    barrier = threading.Barrier(threads)
    times: list[list[tuple[float, float]]] = [[] for _ in range(threads)]

    def work(number: int) -> None:
        memory = np.ones(size // 4, dtype=np.float32)
        for _ in range(rounds):
            barrier.wait()
            began = time.perf_counter()
            np.dot(memory, memory)
            times[number].append((began, time.perf_counter()))

    with threadpool_limits(1):
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    spans = [max(end for _, end in spans) - min(begin for begin, _ in spans) for spans in zip(*times, strict=True)]
    return Bandwidth(threads * size / min(spans), threads, size, rounds)


def bytes_per_token(file: Path) -> int:
    """What decoding one token reads of a model's weights.

    Of a mixture of experts only those that one token uses; the table of token vectors only where it is the output
    matrix too. Raises WeightsError for a file that is not whole.
    """
    header = read_gguf(file)
    used, experts = header.number("expert_used_count"), header.number("expert_count")
    sizes = tensor_bytes(file)
    total = 0.0
    for name, size in sizes.items():
        if name == "token_embd.weight" and "output.weight" in sizes:
            continue
        is_expert = "_exps." in name and experts > 0
        total += size * used / experts if is_expert else size
    return round(total)
