"""Small model files with random weights in the shapes of the five, written for a test.

Vocabulary and chat template are those of the stand-in, copied byte by byte from its header; the rest is made here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

STRING, ARRAY, U32, F32 = 8, 9, 4, 6
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32
EMBEDDING, LAYERS, HEADS, FEED_FORWARD = 512, 10, 8, 1536


@dataclass(frozen=True)
class Shape:
    """One architecture, scaled down. `head` is the width of one attention head."""

    architecture: str
    kv_heads: int
    head: int = EMBEDDING // HEADS
    keys: dict[str, int | float] = field(default_factory=dict)
    layers: int = LAYERS


SHAPES = {
    "mistral": Shape("llama", 2, keys={"rope.dimension_count": 64}),
    "qwen2": Shape("qwen2", 2),
    "phi3": Shape("phi3", 4, keys={"rope.dimension_count": 64}),
    "gemma3": Shape("gemma3", 4, head=96, keys={"attention.sliding_window": 512}),
    "gpt-oss": Shape(
        "gpt-oss",
        2,
        keys={
            "attention.sliding_window": 128,
            "expert_count": 4,
            "expert_used_count": 2,
            "expert_feed_forward_length": 768,
        },
    ),
}


def write(file: Path, shape: Shape, stand_in: Path, seed: int = 1) -> Path:
    """A whole GGUF file with random weights."""
    tokenizer, vocabulary = tokenizer_of(stand_in)
    keys = [_key("general.architecture", shape.architecture), *(_key(k, v) for k, v in _keys(shape).items())]
    tensors = [("token_embd.weight", (EMBEDDING, vocabulary)), ("output_norm.weight", (EMBEDDING,))]
    if shape.architecture == "gpt-oss":
        # The only one of the five whose output matrix is not the embedding's.
        tensors.append(("output.weight", (EMBEDDING, vocabulary)))
    for layer in range(shape.layers):
        tensors += [(f"blk.{layer}.{name}", size) for name, size in _layer(shape).items()]
    chance = np.random.default_rng(seed)
    with file.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys) + len(tokenizer)))
        stream.write(b"".join([*keys, *tokenizer]))
        offset = 0
        for name, size in tensors:
            stream.write(_text(name) + struct.pack(f"<I{len(size)}Q", len(size), *size))
            stream.write(struct.pack("<IQ", int(len(size) > 1 and not _is_plain(name)), offset))
            offset += _padded(_bytes(name, size))
        stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
        for name, size in tensors:
            _write_tensor(stream, name, size, chance)
    return file


def _keys(shape: Shape) -> dict[str, Any]:
    values: dict[str, Any] = {
        "block_count": shape.layers,
        "context_length": 8192,
        "embedding_length": EMBEDDING,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        **shape.keys,
    }
    return {f"{shape.architecture}.{name}": value for name, value in values.items()}


def _layer(shape: Shape) -> dict[str, tuple[int, ...]]:
    e, f, q, kv = EMBEDDING, FEED_FORWARD, HEADS * shape.head, shape.kv_heads * shape.head
    names: dict[str, tuple[int, ...]] = {"attn_norm.weight": (e,), "attn_output.weight": (q, e)}
    apart = {"attn_q.weight": (e, q), "attn_k.weight": (e, kv), "attn_v.weight": (e, kv)}
    dense = {"ffn_norm.weight": (e,), "ffn_gate.weight": (e, f), "ffn_up.weight": (e, f), "ffn_down.weight": (f, e)}
    biases = {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if shape.architecture == "phi3":
        fused = {"attn_qkv.weight": (e, q + 2 * kv), "ffn_up.weight": (e, 2 * f)}
        return {**names, **fused, "ffn_norm.weight": (e,), "ffn_down.weight": (f, e)}
    if shape.architecture == "qwen2":
        return {**names, **apart, **biases, **dense}
    if shape.architecture == "gemma3":
        norms = {"attn_q_norm.weight": (shape.head,), "attn_k_norm.weight": (shape.head,)}
        after = {"post_attention_norm.weight": (e,), "post_ffw_norm.weight": (e,)}
        return {**names, **apart, **norms, **after, **dense}
    if shape.architecture == "gpt-oss":
        experts, inner = int(shape.keys["expert_count"]), int(shape.keys["expert_feed_forward_length"])
        return {
            **names, **apart, **biases, "attn_output.bias": (e,), "attn_sinks.weight": (HEADS,),
            "post_attention_norm.weight": (e,),
            "ffn_gate_inp.weight": (e, experts), "ffn_gate_inp.bias": (experts,),
            "ffn_gate_exps.weight": (e, inner, experts), "ffn_gate_exps.bias": (inner, experts),
            "ffn_up_exps.weight": (e, inner, experts), "ffn_up_exps.bias": (inner, experts),
            "ffn_down_exps.weight": (inner, e, experts), "ffn_down_exps.bias": (e, experts),
        }  # fmt: skip
    return {**names, **apart, **dense}


def _is_plain(name: str) -> bool:
    """Biases and the choice of experts are kept in 32 bits."""
    return name.endswith(".bias") or "gate_inp" in name


def _bytes(name: str, size: tuple[int, ...]) -> int:
    return int(np.prod(size)) * (2 if len(size) > 1 and not _is_plain(name) else 4)


def _write_tensor(stream: BinaryIO, name: str, size: tuple[int, ...], chance: np.random.Generator) -> None:
    count = int(np.prod(size))
    if "norm" in name:
        data = np.ones(count, np.float32)
    else:
        data = chance.standard_normal(count, np.float32) * np.float32(0.02)
    raw = data.astype(np.float16 if _bytes(name, size) == 2 * count else np.float32).tobytes()
    stream.write(raw + b"\0" * (_padded(len(raw)) - len(raw)))


def _padded(size: int) -> int:
    return size + -size % ALIGNMENT


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _key(name: str, value: str | float) -> bytes:
    if isinstance(value, str):
        return _text(name) + struct.pack("<I", STRING) + _text(value)
    kind, layout = (U32, "<I") if isinstance(value, int) else (F32, "<f")
    return _text(name) + struct.pack("<I", kind) + struct.pack(layout, value)


def tokenizer_of(file: Path) -> tuple[list[bytes], int]:
    """The raw `tokenizer.*` keys of a file, and how many tokens they define."""
    found, vocabulary = [], 0
    with file.open("rb") as stream:
        stream.seek(16)
        (count,) = struct.unpack("<Q", stream.read(8))
        for _ in range(count):
            begin = stream.tell()
            name = stream.read(struct.unpack("<Q", stream.read(8))[0]).decode()
            items = _skip(stream, struct.unpack("<I", stream.read(4))[0])
            end = stream.tell()
            if name == "tokenizer.ggml.tokens":
                vocabulary = items
            if name.startswith("tokenizer."):
                stream.seek(begin)
                found.append(stream.read(end - begin))
    return found, vocabulary


def _skip(stream: BinaryIO, kind: int) -> int:
    """Goes past one value; the number of items of an array, else 1."""
    if kind == STRING:
        stream.seek(struct.unpack("<Q", stream.read(8))[0], 1)
        return 1
    if kind != ARRAY:
        stream.seek(WIDTHS[kind], 1)
        return 1
    element, count = struct.unpack("<IQ", stream.read(12))
    for _ in range(count):
        _skip(stream, element)
    return int(count)
