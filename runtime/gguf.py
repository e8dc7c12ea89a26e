"""The header of a GGUF file: just enough of it to tell a model file from rubbish and to predict its memory.

The layout is: magic `GGUF`, version (uint32), tensor count and key count (uint64), then the keys: a name, a type
and a value each. Strings are a uint64 length and bytes; arrays are an element type, a uint64 count and elements.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from capibara_agents.errors import WeightsError
from capibara_agents.texts import phrase

MAGIC = b"GGUF"
STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
# No real key, count or string of a header is larger; a corrupt one would have us read for ever.
LONGEST_STRING_BYTES = 16 * 2**20
MOST_ITEMS = 4_000_000
MOST_KEYS = 10_000

Scalar = str | int | float | bool
Metadata = dict[str, Scalar | tuple[Scalar, ...]]


@dataclass(frozen=True)
class Gguf:
    """The keys of one file; arrays longer than `_KEPT_ITEMS` (vocabularies) are left out."""

    size_bytes: int
    tensors: int
    metadata: Metadata

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def number(self, key: str, default: int = 0) -> int:
        """An integer of the model's architecture, `key` without its prefix; the largest of a per-layer array."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, (int, float))]
        return int(max(numbers, default=default))


_KEPT_ITEMS = 1024


def read_gguf(file: Path) -> Gguf:
    """Reads the keys up to the tokenizer's. Raises WeightsError for a file that is absent, truncated or not GGUF."""
    try:
        with file.open("rb") as stream:
            return _read(stream, file.stat().st_size)
    except OSError as error:
        raise WeightsError(phrase("wrong.unreadable", file=file, error=error.strerror or error)) from error
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise WeightsError(phrase("weights.not_whole_again", file=file, error=error)) from error


def _read(stream: BinaryIO, size_bytes: int) -> Gguf:
    if stream.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version, tensors, count = struct.unpack("<IQQ", _exactly(stream, 20))
    if not 2 <= version <= 3 or count > MOST_KEYS:
        raise ValueError(f"its header says version {version} and {count} keys")
    metadata: Metadata = {}
    for _ in range(count):
        name = _string(stream)
        # The architecture's numbers come before the vocabulary, which is long to read and not needed.
        if name.startswith("tokenizer.") and len(metadata) > 1:
            break
        value = _value(stream, _scalar(stream, "<I"))
        if value is not None:
            metadata[name] = value
    return Gguf(size_bytes, tensors, metadata)


def tensor_bytes(file: Path) -> dict[str, int]:
    """The size of each tensor by name, padding included. Reads the whole header. Raises WeightsError."""
    try:
        with file.open("rb") as stream:
            return _tensor_bytes(stream, file.stat().st_size)
    except OSError as error:
        raise WeightsError(phrase("wrong.unreadable", file=file, error=error.strerror or error)) from error
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise WeightsError(phrase("weights.not_whole", file=file, error=error)) from error


def _tensor_bytes(stream: BinaryIO, file_bytes: int) -> dict[str, int]:
    if stream.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    _, tensors, keys = struct.unpack("<IQQ", _exactly(stream, 20))
    if keys > MOST_KEYS or tensors > MOST_ITEMS:
        raise ValueError(f"its header says {tensors} tensors and {keys} keys")
    for _ in range(keys):
        _string(stream)
        _value(stream, _scalar(stream, "<I"))
    begins: dict[str, int] = {}
    for _ in range(tensors):
        name = _string(stream)
        # Its number of dimensions, as many lengths, its type, and where it begins in the data.
        _exactly(stream, 8 * _scalar(stream, "<I") + 4)
        begins[name] = _scalar(stream, "<Q")
    data_bytes = file_bytes - stream.tell()
    if max(begins.values(), default=0) >= data_bytes:
        raise ValueError("it ends before its last tensor")
    edges = sorted({*begins.values(), data_bytes})
    return {name: edges[edges.index(begin) + 1] - begin for name, begin in begins.items()}


def _value(stream: BinaryIO, kind: int) -> Scalar | tuple[Scalar, ...] | None:
    if kind != ARRAY:
        return _item(stream, kind)
    element, count = struct.unpack("<IQ", _exactly(stream, 12))
    if count > MOST_ITEMS:
        raise ValueError(f"an array of {count} items")
    items = tuple(_item(stream, element) for _ in range(count))
    return items if count <= _KEPT_ITEMS else None


def _item(stream: BinaryIO, kind: int) -> Scalar:
    if kind == STRING:
        return _string(stream)
    if kind not in SCALARS:
        raise ValueError(f"a value of the unknown type {kind}")
    scalar: Scalar = struct.unpack(SCALARS[kind], _exactly(stream, struct.calcsize(SCALARS[kind])))[0]
    return scalar


def _scalar(stream: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, _exactly(stream, struct.calcsize(layout)))[0])


def _string(stream: BinaryIO) -> str:
    length = _scalar(stream, "<Q")
    if length > LONGEST_STRING_BYTES:
        raise ValueError(f"a string of {length} bytes")
    return _exactly(stream, length).decode("utf-8", errors="replace")


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ValueError("it ends inside its header")
    return data
