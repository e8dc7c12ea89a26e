"""Which model has read which conversation, and so need not read it again: what a choice of model may count on.

A llama-server keeps the prompts it has read: each of its slots the last one, its cache in memory some before that
(`types.Keeps`). A turn of the conversation that is sent to the same server costs the reading of what is new in it; any
other model reads all of it. Known here, of the last conversations of each model, is

    prefix -> tokens    a keyed digest of each of its first and last beginnings, message by message, tools included
    generation          of the server that read it: another process has read nothing

and nothing that was said; the key is made with the process and never leaves it. A conversation is forgotten when its
server can no longer hold it, or when a turn has taken its place. What a server reports of its cache corrects how much
is believed of it (`_trust`), and how long it took over the rest tells how fast it reads.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from capibara_agents.types import Endpoint, FleetSnapshot, Keeps, Sampling, ServerState, Usage

# Beginnings that are remembered of a conversation: the first ones, which others may share, and the last ones.
FIRST, LAST = 8, 24
MOST_CONVERSATIONS = 64
"""Of one model, whatever its server holds."""
FRAME_CHARS, IMAGE_CHARS, CHARS_PER_TOKEN = 16, 1000, 3.8
"""What a message's frame and an image count as, and a token where the server counted none."""
LONG_MESSAGES, LONG_CHARS = 200, 500_000
"""What is longer takes more than a millisecond to digest (2,000 messages about 8 ms), and is not for an event loop."""
SAMPLED_CHARS = 4096
"""Of each end of an image so much tells it from others."""
# llama-server's: a slot is taken again for a prompt that begins like more than this share of it; a prompt that would
# lose half of a slot or more of it to another has it saved first; of a saved one less than a quarter is not worth it.
LIKE, KEPT, WORTH_LOADING = 0.1, 0.5, 0.25
# How quickly a belief follows what is seen, and the least that tells anything.
FORGETS, ENOUGH_TOKENS = 0.7, 64


@dataclass(frozen=True)
class Turn:
    """A model was asked: what was sent, and what came, as far as it came."""

    model: str
    messages: Sequence[BaseMessage]
    sampling: Sampling
    first_s: float | None = None
    """Until the first piece; None where none came, and so nobody knows what was read."""
    usage: Usage = field(default_factory=Usage)
    content: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    has_reasoned: bool = False

    def answer(self) -> AIMessage | None:
        """The answer as it comes back with the next turn; None where the server holds something else in its place.

        What a model thought is left out of its next prompt, so from there on that is another one.
        """
        if self.has_reasoned or not (self.content.strip() or self.tool_calls):
            return None
        try:
            calls = [
                {"name": c["function"]["name"], "args": json.loads(c["function"]["arguments"]), "id": c["id"]}
                for c in self.tool_calls
            ]
            return AIMessage(self.content, tool_calls=calls)
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(eq=False)
class _Conversation:
    """What one model's server holds of one. `marks`: digest of a beginning -> its tokens."""

    model: str
    generation: int
    tokens: int
    marks: dict[bytes, int] = field(default_factory=dict)


@dataclass
class _Pace:
    """Tokens read and seconds taken, the latest counting most."""

    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens = FORGETS * self.tokens + tokens
        self.seconds = FORGETS * self.seconds + seconds


class Affinity:
    """The record of one process; safe to use from any thread and any event loop."""

    def __init__(self, speeds: Mapping[str, float] | None = None) -> None:
        """`speeds`: tokens a second in which models read, as measured before anything was asked."""
        self._key = secrets.token_bytes(32)
        self._door = threading.Lock()
        self._held: dict[str, list[_Conversation]] = {}
        self._known: dict[bytes, list[_Conversation]] = {}
        self._trust: dict[str, float] = {}
        self._paces: dict[str, _Pace] = {}
        self._measured = dict(speeds or {})
        # A thread begins with the first long conversation, if there is ever one.
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="capibara-affinity")

    def read(self, messages: Sequence[BaseMessage], sampling: Sampling, fleet: FleetSnapshot) -> dict[str, int]:
        """Tokens of this prompt that each model's server holds by what is known here; who holds none is not in it."""
        if not self._known:
            return {}
        beginnings = self._beginnings(messages, sampling)
        up = {status.id: status.generation for status in fleet.models if status.state is ServerState.ready}
        with self._door:
            return {
                model: tokens
                for model, held in self._longest(beginnings, up).items()
                if (tokens := int(held * self._trust.get(model, 1.0))) > 0
            }

    def speeds(self) -> dict[str, float]:
        """Tokens of a prompt a second, of each model of which they were measured."""
        with self._door:
            seen = {model: pace.tokens / pace.seconds for model, pace in self._paces.items()}
        return {**self._measured, **seen}

    def answered(self, turn: Turn, endpoint: Endpoint) -> None:
        """A model was asked, and its server holds this now; of a long conversation it is known a little later."""
        if takes_long(turn.messages):
            self._aside.submit(self._take_in, turn, endpoint)
        else:
            self._take_in(turn, endpoint)

    def _take_in(self, turn: Turn, endpoint: Endpoint) -> None:
        answer = turn.answer()
        sent = whole = self._beginnings([*turn.messages, *([] if answer is None else [answer])], turn.sampling)
        if answer is not None:
            sent = _Beginnings(whole.digests[:-1], whole.chars[:-1])
        conversation = _conversation(turn, endpoint.generation, sent)
        if answer is not None and conversation.marks:
            conversation.marks[whole.digests[-1]] = conversation.tokens
        with self._door:
            self._learn(turn, endpoint, sent)
            self._hold(conversation, endpoint.keeps, sent)

    # ------------------------------------------------------------ what is held; the door is shut

    def _longest(self, beginnings: _Beginnings, up: Mapping[str, int]) -> dict[str, int]:
        found: dict[str, int] = {}
        whole = beginnings.chars[-1] if beginnings.chars else 0
        for digest, chars in beginnings.from_the_longest():
            for held in self._known.get(digest, ()):
                if held.model in found or up.get(held.model) != held.generation:
                    continue
                tokens = held.marks[digest]
                if chars > LIKE * whole and (tokens >= WORTH_LOADING * held.tokens or self._is_latest(held)):
                    found[held.model] = tokens
        return found

    def _is_latest(self, conversation: _Conversation) -> bool:
        """Whether it is surely still in a slot."""
        return self._held[conversation.model][-1] is conversation

    def _learn(self, turn: Turn, endpoint: Endpoint, sent: _Beginnings) -> None:
        """How far what is known here holds, and how fast the model reads."""
        cached = turn.usage.cached_tokens
        if cached is None or not turn.usage.prompt_tokens:
            return
        expected = self._longest(sent, {turn.model: endpoint.generation}).get(turn.model, 0)
        if expected >= ENOUGH_TOKENS:
            seen = min(1.0, cached / expected)
            self._trust[turn.model] = FORGETS * self._trust.get(turn.model, 1.0) + (1 - FORGETS) * seen
        anew = turn.usage.prompt_tokens - cached
        # Calls of tools come when they are whole: until then is no time of reading.
        if anew >= ENOUGH_TOKENS and turn.first_s and not turn.tool_calls:
            self._paces.setdefault(turn.model, _Pace()).add(anew, turn.first_s)

    def _hold(self, new: _Conversation, keeps: Keeps, sent: _Beginnings) -> None:
        """The new one is the latest; whose place it took and what there is no room for is forgotten."""
        digests = set(sent.digests)
        before = self._held.get(new.model, [])
        stay = [c for c in before if c.generation == new.generation and not _is_overwritten(c, digests)]
        kept: list[_Conversation] = []
        room = keeps.tokens
        for place, conversation in enumerate(reversed([*stay, new])):
            room -= conversation.tokens + keeps.prompt_tokens
            if (place < keeps.slots or room >= 0) and place < MOST_CONVERSATIONS:
                kept.append(conversation)
        self._held[new.model] = kept[::-1]
        for conversation in before:
            if conversation not in kept:
                self._forget(conversation)
        for digest in new.marks:
            self._known.setdefault(digest, []).append(new)

    def _forget(self, conversation: _Conversation) -> None:
        for digest in conversation.marks:
            holders = self._known[digest]
            holders.remove(conversation)
            if not holders:
                del self._known[digest]

    # ------------------------------------------------------------ digests

    def _beginnings(self, messages: Sequence[BaseMessage], sampling: Sampling) -> _Beginnings:
        """Of each message the digest and the size of all up to it, and of what a chat template puts before them."""
        around = _around(sampling)
        digest = blake2b(around, digest_size=16, key=self._key)
        chars, digests, sizes = len(around), [], []
        for message in messages:
            turn, size = _as_sent(message)
            digest.update(turn)
            chars += size
            digests.append(digest.copy().digest())
            sizes.append(chars)
        return _Beginnings(digests, sizes)


@dataclass(frozen=True)
class _Beginnings:
    """`chars` of each, cumulated."""

    digests: list[bytes]
    chars: list[int]

    def from_the_longest(self) -> Iterator[tuple[bytes, int]]:
        return zip(reversed(self.digests), reversed(self.chars), strict=True)

    def remembered(self) -> list[tuple[bytes, int]]:
        """The first ones and the last ones."""
        pairs = list(zip(self.digests, self.chars, strict=True))
        return pairs if len(pairs) <= FIRST + LAST else [*pairs[:FIRST], *pairs[-LAST:]]


def takes_long(messages: Sequence[BaseMessage]) -> bool:
    """Whether digesting them is work for a thread."""
    return len(messages) > LONG_MESSAGES or sum(_chars(message.content) for message in messages) > LONG_CHARS


def _conversation(turn: Turn, generation: int, sent: _Beginnings) -> _Conversation:
    """What the server holds after a turn; without a token of it nobody knows what, only that it was busy."""
    chars = sent.chars[-1] if sent.chars else 0
    prompt = turn.usage.prompt_tokens or int(chars / CHARS_PER_TOKEN)
    marks = {}
    if turn.first_s is not None and chars:
        marks = {digest: round(prompt * size / chars) for digest, size in sent.remembered()}
    return _Conversation(turn.model, generation, prompt + turn.usage.completion_tokens, marks)


def _is_overwritten(conversation: _Conversation, sent: set[bytes]) -> bool:
    """Whether a new prompt has taken the slot of one that it continues or begins like, without its being saved."""
    shared = max((tokens for digest, tokens in conversation.marks.items() if digest in sent), default=0)
    return shared > 0 and shared >= KEPT * conversation.tokens


def _around(sampling: Sampling) -> bytes:
    """What may change how a chat template begins."""
    said: dict[str, Any] = {
        "tools": sampling.tools,
        "tool_choice": sampling.tool_choice,
        "parallel_tool_calls": sampling.parallel_tool_calls,
        "response_format": sampling.response_format,
    }
    said = {name: value for name, value in said.items() if value}
    return json.dumps(said, sort_keys=True, default=str).encode() if said else b""


def _as_sent(message: BaseMessage) -> tuple[bytes, int]:
    """A message for the digest, so that no two are alike, and its size in characters."""
    content = message.content
    text, chars = (content, len(content)) if isinstance(content, str) else _parts(content)
    beside = ""
    if message.type in ("ai", "tool"):
        calls = [[call["name"], call["args"], call["id"]] for call in getattr(message, "tool_calls", ())]
        answers = getattr(message, "tool_call_id", None)
        if calls or answers:
            beside = json.dumps([calls, answers], sort_keys=True, default=str)
    head = f"{message.type}\0{message.name or ''}\0{len(text)}\0{len(beside)}\0"
    return f"{head}{text}{beside}".encode("utf-8", "surrogatepass"), chars + len(beside) + FRAME_CHARS


def _parts(content: Sequence[Any]) -> tuple[str, int]:
    """The text of a content of parts, with what tells its images apart, and its size in characters."""
    if len(content) == 1 and isinstance(content[0], Mapping) and isinstance(content[0].get("text"), str):
        # As some clients send what others send as plain text.
        return content[0]["text"], len(content[0]["text"])
    said, chars = [], 0
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if isinstance(text, str):
            said.append(f"text\0{len(text)}\0{text}")
            chars += len(text)
        else:
            said.append(_image(part))
            chars += IMAGE_CHARS
    return "".join(said), chars


def _chars(content: str | Sequence[Any]) -> int:
    """Characters of its text, in one piece or in parts."""
    if isinstance(content, str):
        return len(content)
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in content)
    return sum(len(text) for text in texts if isinstance(text, str))


def _image(part: Any) -> str:
    """Enough of a part that is no text, which may be megabytes, to tell it from others."""
    image = part.get("image_url") if isinstance(part, Mapping) else None
    url = image.get("url") if isinstance(image, Mapping) else image
    whole = url if isinstance(url, str) else json.dumps(part, sort_keys=True, default=str)
    return f"image\0{len(whole)}\0{whole[:SAMPLED_CHARS]}{whole[-SAMPLED_CHARS:]}"
