"""Bytes: what a model's server will need, what the machine gives, what a process really holds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from capibara_agents.runtime.gguf import Gguf
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.types import Keeps

GIB = 2**30
MIB = 2**20
CGROUP_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")
# Bits an element takes in llama.cpp's cache types, the block's scale included.
CACHE_BITS = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
MICRO_BATCH_TOKENS = 512
# Every so many layers one sees the whole context; llama.cpp knows this by architecture, the file often does not say.
WINDOW_PERIOD = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2}
# Sliding-window models keep copies of their window for reuse, 32 a slot by default, hundreds of MB each.
CONTEXT_CHECKPOINTS = 2
# What llama-server keeps besides weights and caches: code, vocabulary, HTTP threads (measured with 49,152 tokens).
PROCESS_BYTES = 36 * MIB
# `general.file_type` and the format of most tensors of such a file, of those that some CPU rearranges.
MAIN_FORMATS = {
    2: "q4_0",
    7: "q8_0",
    10: "q2_K",
    21: "q2_K",
    14: "q4_K",
    15: "q4_K",
    16: "q5_K",
    17: "q5_K",
    18: "q6_K",
    25: "iq4_nl",
    38: "mxfp4",
}
# Its own default is 8 GiB for each server, which five of them on one machine cannot have.
PROMPT_CACHE_BYTES = 256 * MIB


@dataclass(frozen=True)
class Need:
    """The predicted memory of one server, in bytes: what it holds when it is used, not what it may address."""

    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    prompt_cache_bytes: int = PROMPT_CACHE_BYTES
    checkpoint_bytes: int = 0

    @property
    def in_use_bytes(self) -> int:
        """What comes with use; the rest is held from the start."""
        return self.compute_bytes + self.prompt_cache_bytes + self.checkpoint_bytes

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + PROCESS_BYTES + self.in_use_bytes


def predict(spec: ModelSpec, gguf: Gguf, mmproj_bytes: int = 0) -> Need:
    """Weights, KV cache for all slots, and compute buffers, from the file's own numbers."""
    return Need(
        weights_bytes=gguf.size_bytes + mmproj_bytes,
        cache_bytes=cache_bytes(spec, gguf),
        compute_bytes=compute_bytes(spec, gguf),
        prompt_cache_bytes=prompt_cache_bytes(spec),
        checkpoint_bytes=checkpoint_bytes(spec, gguf),
    )


def prompt_cache_bytes(spec: ModelSpec) -> int:
    """The bound of the cache of finished prompts; `--cache-ram` among the model's extra_args overrules ours."""
    for flag, value in zip(spec.extra_args, spec.extra_args[1:], strict=False):
        if flag in ("--cache-ram", "-cram") and value.isdigit():
            return int(value) * MIB
    return PROMPT_CACHE_BYTES


def keeps(spec: ModelSpec, gguf: Gguf) -> Keeps:
    """How much of earlier prompts its server keeps: with each go its layers' windows, and the copies of those."""
    full, windowed = _layers(gguf)
    token_bytes = max(1.0, full * _token_bytes(spec, gguf))
    window = min(spec.context_tokens, gguf.number("attention.sliding_window"))
    beside_bytes = windowed * window * _token_bytes(spec, gguf) * (1 + CONTEXT_CHECKPOINTS)
    return Keeps(
        slots=spec.slots,
        tokens=int(prompt_cache_bytes(spec) / token_bytes),
        prompt_tokens=int(beside_bytes / token_bytes),
    )


def is_repacked(gguf: Gguf, rearranged: Collection[str]) -> bool:
    """Whether llama.cpp makes a rearranged copy of these weights: mapped as well, they would be held twice.

    `rearranged` are the formats that it rearranges for this CPU, from the CPU's profile.
    """
    file_type = gguf.metadata.get("general.file_type")
    return isinstance(file_type, int) and MAIN_FORMATS.get(file_type) in rearranged


def cache_bytes(spec: ModelSpec, gguf: Gguf) -> int:
    """The KV cache of all slots; layers that see a sliding window keep that window and one micro-batch only."""
    full, windowed = _layers(gguf)
    window = gguf.number("attention.sliding_window")
    tokens = full * spec.context_tokens + windowed * min(spec.context_tokens, window + MICRO_BATCH_TOKENS)
    return int(spec.slots * tokens * _token_bytes(spec, gguf))


def checkpoint_bytes(spec: ModelSpec, gguf: Gguf) -> int:
    """The copies of the windows of all slots."""
    tokens = _layers(gguf)[1] * min(spec.context_tokens, gguf.number("attention.sliding_window"))
    return int(spec.slots * CONTEXT_CHECKPOINTS * tokens * _token_bytes(spec, gguf))


def _layers(gguf: Gguf) -> tuple[int, int]:
    """How many layers see the whole context, and how many a window of it."""
    layers, window = gguf.number("block_count"), gguf.number("attention.sliding_window")
    period = WINDOW_PERIOD.get(gguf.architecture, 1) if window else 1
    return layers // period, layers - layers // period


def _token_bytes(spec: ModelSpec, gguf: Gguf) -> float:
    """What one token takes in the cache of one layer."""
    heads = gguf.number("attention.head_count", 1)
    kv_heads = gguf.number("attention.head_count_kv", heads)
    head_size = gguf.number("embedding_length") // max(1, heads)
    key = gguf.number("attention.key_length", head_size) * CACHE_BITS.get(spec.cache_type_k, 16.0)
    value = gguf.number("attention.value_length", head_size) * CACHE_BITS.get(spec.cache_type_v, 16.0)
    return kv_heads * (key + value) / 8


def compute_bytes(spec: ModelSpec, gguf: Gguf) -> int:
    """Activations and attention masks of one micro-batch, and its scores where flash attention is off."""
    batch = min(spec.batch_tokens or MICRO_BATCH_TOKENS, MICRO_BATCH_TOKENS)
    activations = gguf.number("feed_forward_length") + 2 * gguf.number("embedding_length")
    heads = gguf.number("attention.head_count", 1)
    # The mask is made in 32 bits and kept a second time in 16.
    masks = spec.context_tokens * batch * (4 + 2)
    scores = heads * spec.context_tokens * batch * 4 if spec.flash_attention == "off" else 0
    return batch * 4 * activations + masks + scores


def machine_bytes() -> int:
    """The machine's memory, or the cgroup's limit where that is less."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = CGROUP_MEMORY_MAX.read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def budget_bytes(settings: Settings) -> int:
    """What all servers together may hold."""
    return settings.runtime.memory_budget_bytes or default_budget_bytes(machine_bytes())


def default_budget_bytes(total_bytes: int) -> int:
    """Everything but a reserve for the system, Capibara and the page cache: a tenth, 2 GiB at least, half at most."""
    reserve = min(max(2 * GIB, total_bytes // 10), total_bytes // 2)
    return total_bytes - reserve


def resident_bytes(pid: int) -> int | None:
    """What the process holds in memory now, mapped files included; None when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
