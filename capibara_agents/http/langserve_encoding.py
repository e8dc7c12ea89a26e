"""How values travel over the LangServe wire, and how a configuration travels in a path.

    encode(value)           any Python value -> JSON bytes that both remote clients revive; never raises
    config_of_hash(text)    the `/c/{config_hash}/` part of a path -> dict; raises ValueError

The JSON is ASCII: the Python client splits an event stream at U+0085, U+2028 and U+2029 as well as at CRLF,
so these characters must never stand in it unescaped.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import Runnable
from langgraph.types import Send
from pydantic import (
    BaseModel,
    RootModel,
    SecretBytes,
    SecretStr,
)

from capibara_agents.errors import CapibaraError

MAX_DEPTH = 100
MAX_VALUES = 200_000  # well under a second of one core
MAX_INT_BITS = 1000  # more does not fit a double, and Python refuses to print very long integers
MAX_CONFIG_CHARS = 65_536

TOO_DEEP = "<nested too deeply>"
TOO_LARGE = "<too many values>"
CYCLE = "<refers to itself>"


# ---------------------------------------------------------------- values out


def encode(value: Any) -> bytes:
    """The value as one line of ASCII JSON, whatever it is."""
    return json.dumps(plain(value), allow_nan=False, separators=(",", ":")).encode("ascii")


def plain(value: Any) -> Any:
    """The value as dicts, lists, strings, numbers, booleans and None."""
    return _Plain().of(value)


class _Plain:
    """One pass over one value: `_above` holds the ids of the containers around the current one."""

    def __init__(self) -> None:
        self._above: set[int] = set()
        self._left = MAX_VALUES

    def of(self, value: Any) -> Any:
        if type(value) is str:
            return _text(value)
        if value is None or value is True or value is False:
            return value
        self._left -= 1
        refusal = self._refusal(value)
        if refusal:
            return refusal
        self._above.add(id(value))
        try:
            return self._converted(value)
        except Exception:  # noqa: BLE001  (a foreign object's own code raised: it must not cost the whole answer)
            return _opaque(value)
        finally:
            self._above.discard(id(value))

    def _refusal(self, value: Any) -> str:
        if self._left < 0:
            return TOO_LARGE
        if len(self._above) >= MAX_DEPTH:
            return TOO_DEEP
        return CYCLE if id(value) in self._above else ""

    def _converted(self, value: Any) -> Any:
        # The parts of a token come first: a chunk is encoded for each.
        if type(value) is dict or type(value) is list:
            return self._collection(value)
        if isinstance(value, BaseModel) and not isinstance(value, Runnable):
            return self._model(value)
        for kinds, convert in _SCALARS:
            if isinstance(value, kinds):
                return convert(value)
        return self._collection(value)

    def _collection(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {_key(key): self.of(value[key]) for key in self._bounded(value)}
        if isinstance(value, Sequence):
            return [self.of(item) for item in self._bounded(value)]
        if isinstance(value, Set):
            # A set has no order; sorting makes the same set the same JSON.
            return sorted(map(self.of, self._bounded(value)), key=lambda item: json.dumps(item, sort_keys=True))
        if isinstance(value, np.ndarray):
            return self.of(value.tolist()) if value.size < MAX_VALUES else TOO_LARGE
        return self._object(value)

    def _object(self, value: Any) -> Any:
        if isinstance(value, Send):
            return {"node": self.of(value.node), "arg": self.of(value.arg)}
        if dataclasses.is_dataclass(value) and not isinstance(value, Runnable):
            return {field.name: self.of(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return _opaque(value)

    def _bounded(self, items: Iterable[Any]) -> Iterator[Any]:
        # A range of 10**12 costs nothing until somebody walks it.
        return islice(items, max(self._left, 0) + 1)

    def _model(self, value: BaseModel) -> Any:
        if isinstance(value, RootModel):
            return self.of(value.root)
        # Field by field: a dump by declared types would cut an AIMessage down to a BaseMessage.
        shown = {name: self.of(getattr(value, name)) for name in _shown_fields(type(value))}
        shown.update({_key(name): self.of(item) for name, item in (value.model_extra or {}).items()})
        if isinstance(value, ChatPromptValue):
            shown.setdefault("type", "ChatPromptValueConcrete")  # the name under which a client revives it
        return shown


@lru_cache(maxsize=512)
def _shown_fields(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(name for name, field in model.model_fields.items() if not field.exclude)


def _text(value: str) -> str:
    # Lone surrogates are legal in Python and in no JSON parser.
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _integer(value: int) -> int | str:
    number = int(value)
    return number if number.bit_length() <= MAX_INT_BITS else hex(number)


def _float(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _error(value: BaseException) -> dict[str, str]:
    if isinstance(value, CapibaraError):
        return {"type": "error", "code": value.code, "message": _text(value.message)}
    # The message of any other exception may hold a prompt, a path or a key.
    return {"type": "error", "code": "internal_error", "message": f"{type(value).__name__} on the server."}


def _opaque(value: Any) -> dict[str, Any]:
    """LangChain's own form for what cannot be serialised: the class, and nothing of its content."""
    kind = value if isinstance(value, type) else type(value)
    return {"lc": 1, "type": "not_implemented", "id": [*str(kind.__module__).split("."), kind.__qualname__]}


_SCALARS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: plain(value.value)),
    (str, lambda value: _text(str.__str__(value))),
    (int, _integer),
    ((float, np.floating), _float),
    (np.generic, lambda value: plain(value.tolist())),
    ((UUID, Decimal, PurePath, SecretStr, SecretBytes), str),
    ((datetime.datetime, datetime.date, datetime.time), lambda value: value.isoformat()),
    (datetime.timedelta, lambda value: value.total_seconds()),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(bytes(value)).decode("ascii")),
    (BaseException, _error),
    (type, _opaque),
)


def _key(key: Any) -> str:
    if type(key) is str:
        return _text(key)
    value = plain(key)
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


# ---------------------------------------------------------------- configurations in a path

_ALPHABET = {
    char: index for index, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-$")
}


def config_of_hash(text: str) -> dict[str, Any]:
    """The configuration a client packed with lz-string's `compressToEncodedURIComponent`; ValueError otherwise."""
    config = json.loads(decompressed(text))
    if not isinstance(config, dict):
        raise ValueError("the configuration is not an object")
    return config


def decompressed(text: str) -> str:
    """The text behind an lz-string in its URI alphabet, at most MAX_CONFIG_CHARS long; ValueError otherwise.

    A row of codes, each as wide as the dictionary's size needs. The codes 0 and 1 announce a new character of
    8 and 16 bits, 2 ends the text, every other code names a sequence of the dictionary, or the one about to enter.
    """
    bits = _bits(text)
    known = ["", "", ""]
    out: list[str] = []
    last, width, total = "", 2, 0
    while (code := _number(bits, width)) != 2:
        if code < 2:
            known.append(chr(_number(bits, 16 if code else 8)))
            code = len(known) - 1
        if code > len(known) or (code == len(known) and not last):
            raise ValueError("not an lz-string: an unknown code")
        entry = known[code] if code < len(known) else last + last[0]
        total += len(entry)
        if total > MAX_CONFIG_CHARS:
            raise ValueError("the configuration is too long")
        out.append(entry)
        if last:
            known.append(last + entry[0])
        last = entry
        width = len(known).bit_length()
    return "".join(out).encode("utf-16", "surrogatepass").decode("utf-16")


def _bits(text: str) -> Iterator[int]:
    for char in text.replace(" ", "+"):
        if char not in _ALPHABET:
            raise ValueError("not an lz-string: a character outside its alphabet")
        value = _ALPHABET[char]
        yield from ((value >> shift) & 1 for shift in range(5, -1, -1))


def _number(bits: Iterator[int], width: int) -> int:
    """The next `width` bits, least significant first."""
    number = 0
    for place in range(width):
        bit = next(bits, None)
        if bit is None:
            raise ValueError("not an lz-string: it ends too early")
        number |= bit << place
    return number
