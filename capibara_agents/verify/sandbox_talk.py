"""How tests reach an answer that runs in another process: values travel as JSON, objects stay where they are.

    tests  -- call, get, apply -->  answer
           <-- value | raised --
           <-- call (of a function that a test passed as an argument) --

What arrives is plain data of exactly the built-in types, so nothing the answer returns can decide for itself what it
equals. Objects of the answer's own classes arrive as a `Remote`: using one asks the answer's process, but comparing
or computing with one beside plain data is refused (`Incomparable`), for the answer would be the judge of that.
In the other direction the answer may only call functions that a test handed to it.
Standard library only: this runs in the sandbox.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import json
import operator
import os
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

MAX_FRAME_BYTES = 16_000_000
_LENGTH_BYTES = 8

Functions = (types.FunctionType, types.MethodType, types.BuiltinMethodType)


class Incomparable(BaseException):
    """A test sets an object of the answer against plain data; no verdict can come of that."""


class Gone(BaseException):
    """The other side has ended."""


class Garbled(Gone):
    """The other side does not keep to the protocol."""


def receive_exactly(descriptor: int, size: int) -> bytes:
    """So many bytes; Gone when fewer come."""
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 1 << 20))
        if not part:
            raise Gone
        parts += part
    return bytes(parts)


def receive_frame(descriptor: int) -> Any:
    """One JSON value; Garbled when it is too large or not JSON, Gone when nobody is there."""
    size = int.from_bytes(receive_exactly(descriptor, _LENGTH_BYTES), "big")
    if size > MAX_FRAME_BYTES:
        raise Garbled
    try:
        return json.loads(receive_exactly(descriptor, size))
    except (ValueError, RecursionError):
        raise Garbled from None


def frame(message: Any) -> bytes:
    """A JSON value as bytes on the wire, its length before it; ValueError when it is too large."""
    body = json.dumps(message).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError("a value of more than 16 MB")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def send_all(descriptor: int, data: bytes) -> None:
    """Every byte; Gone when nobody reads."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        raise Gone from None


# ---------------------------------------------------------------- objects of the other side


def _two_sided(name: str) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any) -> Any:
        if not isinstance(other, Remote):
            raise Incomparable(name)
        return self._peer.ask("apply", name, self, other)

    return method


def _one_sided(name: str) -> Callable[..., Any]:
    def method(self: Remote, *args: Any) -> Any:
        return self._peer.ask("apply", name, self, *args)

    return method


class Remote:
    """An object that lives in the answer's process."""

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("apply", "getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("apply", "setattr", self, name, value)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self._peer.call(self, args, keywords)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._peer.ask("apply", "iter", self)
        while True:
            try:
                yield self._peer.ask("apply", "next", iterator)
            except StopIteration:
                return

    def __contains__(self, value: Any) -> bool:
        # Not left to the object: it would say yes to everything.
        return any(value is item or value == item for item in self)

    def __eq__(self, other: object) -> Any:
        if other is None or self is other:
            return self is other
        return _two_sided("eq")(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __repr__(self) -> Any:
        return self._peer.ask("apply", "repr", self)

    def __str__(self) -> Any:
        return self._peer.ask("apply", "str", self)

    def __bool__(self) -> Any:
        return self._peer.ask("apply", "bool", self)

    def __instancecheck__(self, value: object) -> Any:
        return isinstance(value, Remote) and self._peer.ask("apply", "isinstance", value, self)

    __len__, __next__, __getitem__ = _one_sided("len"), _one_sided("next"), _one_sided("getitem")
    __setitem__, __delitem__ = _one_sided("setitem"), _one_sided("delitem")
    __enter__, __exit__ = _one_sided("enter"), _one_sided("exit")
    __lt__, __le__, __gt__, __ge__ = _two_sided("lt"), _two_sided("le"), _two_sided("gt"), _two_sided("ge")
    __add__, __sub__, __mul__ = _two_sided("add"), _two_sided("sub"), _two_sided("mul")
    __truediv__, __floordiv__, __mod__ = _two_sided("truediv"), _two_sided("floordiv"), _two_sided("mod")
    __and__, __or__, __xor__, __matmul__ = (
        _two_sided("and_"),
        _two_sided("or_"),
        _two_sided("xor"),
        _two_sided("matmul"),
    )


def _refused(self: Remote, *_: Any) -> NoReturn:
    raise Incomparable("arithmetic")


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "matmul"):
    setattr(Remote, f"__r{_name}__", _refused)
for _name in ("pow", "neg", "pos", "abs", "invert", "int", "float", "index", "complex", "round"):
    setattr(Remote, f"__{_name}__", _refused)

# What may be applied to an object of the answer, by name.
APPLICABLE: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (getattr, setattr, iter, next, repr, str, bool, len, isinstance)},
    **{f.__name__: f for f in (operator.getitem, operator.setitem, operator.delitem)},
    **{f.__name__: f for f in (operator.eq, operator.lt, operator.le, operator.gt, operator.ge)},
    **{f.__name__: f for f in (operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv)},
    **{f.__name__: f for f in (operator.mod, operator.and_, operator.or_, operator.xor, operator.matmul)},
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, *_: type(value).__exit__(value, None, None, None),
}


# ---------------------------------------------------------------- values on the wire

_PLAIN = (type(None), bool, str, float)
# Tag, type, to JSON, from JSON. The values inside containers are encoded and decoded in turn.
_CONTAINERS: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}
_BY_TEXT: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "bytearray": (bytearray, bytearray.hex, bytearray.fromhex),
    "complex": (complex, repr, complex),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "fraction": (fractions.Fraction, str, fractions.Fraction),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
}
_TAG_OF = {kind: tag for tag, kind in _CONTAINERS.items()} | {row[0]: tag for tag, row in _BY_TEXT.items()}
_BASES = (int, str, float, dict, *_TAG_OF)


class Peer:
    """One end of the talk. `judging` is the end of the tests, which shows the other only what it passes."""

    def __init__(self, source: int, sink: int, *, judging: bool, printed: Callable[[], str] = str) -> None:
        self._source, self._sink, self._judging, self._printed = source, sink, judging, printed
        self._mine: list[Any] = []
        self._errors: dict[str, type[BaseException]] = {}
        self.calls = 0
        self.output: Callable[[str], Any] = str

    # -------- asking

    def call(self, function: Remote, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call a function of the other side; what it did to lists, dicts and sets it was given is done here too."""
        self.calls += 1
        message = ["call", self.encode(function), self.encode([*args]), self.encode(keywords)]
        try:
            value, changed = self._exchange(message)
        except StopIteration as error:
            # Inside `all(map(…))` it would end the test early, and well.
            raise RuntimeError("the function raised StopIteration") from error
        for place, after in changed:
            _become(args[place], self.decode(after))
        return self.decode(value)

    def ask(self, verb: str, name: str, *args: Any) -> Any:
        """Apply a function of APPLICABLE on the other side."""
        self.calls += 1
        value, _ = self._exchange([verb, name, self.encode([*args])])
        return self.decode(value)

    def _exchange(self, message: Any) -> tuple[Any, Any]:
        send_all(self._sink, frame(message))
        while True:
            reply = receive_frame(self._source)
            try:
                match reply:
                    case ["value", value, changed, str(printed)]:
                        self.output(printed)
                        return value, changed
                    case ["raised", list(names), args, str(printed)]:
                        self.output(printed)
                        error = self._error(names, self.decode(args))
                    case ["call" | "apply", *_]:
                        self._serve(reply)
                        continue
                    case _:
                        raise Garbled
            except (TypeError, ValueError, KeyError, IndexError, RecursionError):
                raise Garbled from None
            raise error

    def _error(self, names: list[str], args: Any) -> BaseException:
        for name in names:
            kind = self._errors.get(name) or getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                error = kind.__new__(kind)
                error.args = args if isinstance(args, tuple) else ()
                return error
        return Exception(names[0] if names else "")

    def learn_error(self, names: list[str]) -> type[BaseException]:
        """A class here for an exception that the answer defines, by the names of its ancestors, nearest first."""
        parents = (self._errors.get(name) or getattr(builtins, name, None) for name in names[1:])
        parent = next((kind for kind in parents if isinstance(kind, type) and issubclass(kind, Exception)), Exception)
        self._errors[names[0]] = type(names[0], (parent,), {})
        return self._errors[names[0]]

    # -------- answering

    def serve_for_ever(self) -> NoReturn:
        """Answer one message after the other; ends with Gone."""
        while True:
            self._serve(receive_frame(self._source))

    def _serve(self, message: Any) -> None:
        try:
            match message:
                case ["call", function, args, keywords]:
                    given = self.decode(args)
                    target = self._callable(function)
                    value = target(*given, **self.decode(keywords))
                    changed = [[i, now] for i, now in self._encoded_mutables(given) if now != args[1][i]]
                    reply = ["value", self.encode(value), changed, self._printed()]
                case ["apply", str(name), args] if not self._judging:
                    reply = ["value", self.encode(APPLICABLE[name](*self.decode(args))), [], self._printed()]
                case _:
                    raise Garbled
            data = frame(reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side is to see it raised
            data = frame(self._raised(error))
        send_all(self._sink, data)

    def _callable(self, node: Any) -> Callable[..., Any]:
        # The answer may call back only what a test passed to it, and nothing of what hangs on that.
        if self._judging and not (isinstance(node, list) and node[:1] == ["yours"]):
            raise Garbled
        return self.decode(node)  # type: ignore[no-any-return]

    def _encoded_mutables(self, values: list[Any]) -> Iterator[tuple[int, Any]]:
        for place, value in enumerate(values):
            if type(value) in (list, dict, set, bytearray, collections.deque):
                yield place, self.encode(value)

    def _raised(self, error: Exception) -> list[Any]:
        names = [kind.__name__ for kind in type(error).__mro__]
        args = [arg if type(arg) in (*_PLAIN, int) else type(arg).__name__ for arg in error.args[:4]]
        cut = tuple(arg[:1000] if isinstance(arg, str) else arg for arg in args)
        return ["raised", names, self.encode(cut), self._printed()]

    # -------- values

    def encode(self, value: Any) -> Any:  # noqa: PLR0911 - one for each kind
        """A value as JSON: data by value, everything else as a number that only this side can resolve."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if -(2**63) <= value < 2**63 else ["int", hex(value)]
        if kind is Remote:
            return ["yours", value._number]
        if kind is dict:
            return ["dict", [[self.encode(key), self.encode(item)] for key, item in value.items()]]
        tag = _TAG_OF.get(kind)
        if tag in _CONTAINERS:
            return [tag, [self.encode(item) for item in value]]
        if tag is not None:
            return [tag, _BY_TEXT[tag][1](value)]
        return self._encode_other(value)

    def _encode_other(self, value: Any) -> Any:
        if value is NotImplemented or value is Ellipsis:
            return ["name", repr(value)]
        name = getattr(value, "__name__", None)
        if isinstance(name, str) and getattr(builtins, name, None) is value:
            return ["name", name]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return ["record", type(value).__name__, list(value._fields), [self.encode(item) for item in value]]
        for base in _BASES:
            if isinstance(value, base):
                return self.encode(base(value))
        if self._judging and not isinstance(value, Functions):
            raise Incomparable(type(value).__name__)
        self._mine.append(value)
        return ["mine", len(self._mine) - 1]

    def decode(self, node: Any) -> Any:  # noqa: PLR0911 - one for each kind
        """The reverse. TypeError, ValueError, IndexError or KeyError for what `encode` never makes."""
        match node:
            case None | bool() | int() | float() | str():
                return node
            case ["int", str(text)]:
                return int(text, 16)
            case ["dict", list(pairs)]:
                return {self.decode(key): self.decode(item) for key, item in pairs}
            case ["mine", int(number)]:
                return Remote(self, number) if self._judging else _callback(Remote(self, number))
            case ["yours", int(number)] if number >= 0:
                return self._mine[number]
            case ["name", str(name)]:
                return getattr(builtins, name)
            case ["record", str(name), list(fields), list(items)]:
                return collections.namedtuple(name, fields)(*map(self.decode, items))
            case [str(tag), list(items)] if tag in _CONTAINERS:
                return _CONTAINERS[tag](map(self.decode, items))
            case [str(tag), str(text)]:
                return _BY_TEXT[tag][2](text)
        raise ValueError("not a value")


def _callback(remote: Remote) -> Callable[..., Any]:
    """A function of the test, seen from the answer."""

    def callback(*args: Any, **keywords: Any) -> Any:
        return remote(*args, **keywords)

    return callback


def _become(value: Any, after: Any) -> None:
    """Give a mutable argument the content that it has on the other side."""
    if type(value) is not type(after):
        return
    if isinstance(value, dict | set):
        value.clear()
        value.update(after)
    elif isinstance(value, list | bytearray):
        value[:] = after
    elif isinstance(value, collections.deque):
        value.clear()
        value.extend(after)
