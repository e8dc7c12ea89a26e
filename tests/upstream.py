"""A scripted OpenAI-compatible model server that can do what the stand-in weights cannot.

It calls tools (several at once), sees images, keeps JSON schemas, thinks aloud, knows log-probabilities and streams.
What it says follows from the request alone, so that two equal requests get equal answers. Capibara stands before it
through its ordinary seam, a fleet that hands out an endpoint (`fakes.FakeFleet`).
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

ESSAY = (
    "The sea covers most of the planet, moves with the moon and the wind, feeds those who live beside it, and keeps "
    "the weather of the land mild. Its waves break on the shore by day and by night, and sailors have told stories of "
    "it for as long as there have been ships. Below the light there are mountains that nobody has climbed. "
)
CAPITALS = {"france": "Paris", "spain": "Madrid", "españa": "Madrid", "italy": "Rome", "portugal": "Lisbon"}


@dataclass(frozen=True)
class Reply:
    """What the model says to one request."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    """Name and JSON arguments of each call."""


@dataclass
class Scripted:
    """The application, and the bodies it was sent."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    _prompts: dict[str, list[str]] = field(default_factory=dict)

    def app(self) -> Starlette:
        """POST /v1/chat/completions and GET /health."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/health", _health),
            ]
        )

    def _cached(self, body: dict[str, Any]) -> int:
        """How much of the prompt has been read before, as a prefix of a prompt to the same model."""
        prompt = "\n".join(text_of(message) for message in body["messages"])
        before = self._prompts.setdefault(body["model"], [])
        longest = max((_same(prompt, other) for other in before), default=0)
        before.append(prompt)
        return len(tokens(prompt[:longest]))

    async def _chat(self, http: Request) -> Response:
        body = await http.json()
        self.requests.append(body)
        refused = _refusal(body)
        try:
            reply, cached_tokens = reply_to(body), self._cached(body)
        except (KeyError, TypeError, ValueError, AttributeError):
            refused = "The messages cannot be read."
        if refused:
            return JSONResponse({"error": {"message": refused, "type": "invalid_request_error", "code": 400}}, 400)
        answer = Spoken(body, reply, cached_tokens=cached_tokens)
        if body.get("stream"):
            return StreamingResponse(_events(answer.chunks()), media_type="text/event-stream")
        return JSONResponse(answer.whole())


def _same(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


async def _health(http: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _events(chunks: Iterator[dict[str, Any]]) -> AsyncIterator[str]:
    for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def _refusal(body: dict[str, Any]) -> str:
    """As llama-server: these do not go together."""
    if body.get("tools") and body.get("logprobs") and body.get("stream"):
        return "logprobs is not supported with tools + stream"
    return ""


# ---------------------------------------------------------------- what is said


def reply_to(body: dict[str, Any]) -> Reply:
    """The answer to a chat request."""
    messages = body["messages"]
    last = messages[-1]
    text = text_of(last)
    if body.get("tools") and last["role"] != "tool":
        calls = calls_for(body, text)
        if calls:
            return Reply(calls=calls)
    schema = _schema(body.get("response_format"))
    if schema is not None:
        return Reply(text=json.dumps(instance(schema, schema, text), ensure_ascii=False))
    reasoning = "The question is simple. " * 3 if re.search(r"think|step by step|reasoning", text, re.I) else ""
    if last["role"] == "tool":
        return Reply(text=f"The tool says: {text}")
    return Reply(text=_words(messages, text), reasoning=reasoning)


def _words(messages: Sequence[dict[str, Any]], text: str) -> str:  # noqa: PLR0911
    images = images_of(messages[-1])
    if images:
        return f"The picture is a {' and a '.join(kind_of(image) for image in images)}."
    if found := re.search(r"(?:Repeat this text exactly, nothing else|Say exactly): (.*)", text, re.S):
        return found[1].strip()
    if re.search(r"what is my name", text, re.I):
        named = re.findall(r"my name is (\w+)", " ".join(text_of(m) for m in messages if m["role"] == "user"), re.I)
        return f"{named[-1]}" if named else "I do not know your name."
    if found := re.search(r"(\d+) ?([*+]) ?(\d+)", text):
        one, other = int(found[1]), int(found[3])
        return str(one * other if found[2] == "*" else one + other)
    if found := re.search(r"Add (\d+) to your last answer", text):
        said = [text_of(m) for m in messages if m["role"] == "assistant"]
        return str(int(found[1]) + int(re.sub(r"\D", "", said[-1]) or 0))
    if found := re.search(r"Count from (\d+) to (\d+)", text):
        return ", ".join(str(n) for n in range(int(found[1]), int(found[2]) + 1))
    if found := re.search(r"capital of (\w+)", text, re.I):
        return f"{CAPITALS.get(found[1].lower(), 'Atlantis')}"
    if found := re.search(r"capital de (\w+)", text, re.I):
        return f"La capital es {CAPITALS.get(found[1].lower(), 'la Atlántida')}."
    if re.search(r"essay|at length|story", text, re.I):
        return ESSAY
    return "Hello, this is an answer of the scripted model."


def text_of(message: dict[str, Any]) -> str:
    """The words of a message, whatever the shape of its content."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")


def images_of(message: dict[str, Any]) -> list[bytes]:
    """The images of a message."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def kind_of(image: bytes) -> str:
    """What can be seen without a decoder: the format, and of a PNG its size."""
    if image.startswith(b"\x89PNG"):
        return f"PNG of {int.from_bytes(image[16:20])} by {int.from_bytes(image[20:24])} pixels"
    return "JPEG" if image.startswith(b"\xff\xd8") else "file of an unknown kind"


# ---------------------------------------------------------------- tools and schemas


def calls_for(body: dict[str, Any], text: str) -> tuple[tuple[str, str], ...]:
    """The calls that the request asks for; none where the question has nothing to do with a tool."""
    tools = {tool["function"]["name"]: tool["function"] for tool in body["tools"]}
    choice = body.get("tool_choice") or "auto"
    if choice == "none":
        return ()
    if isinstance(choice, dict):
        names = [choice["function"]["name"]]
    else:
        names = [name for name in tools if any(word in text.lower() for word in name.split("_") if len(word) > 3)]
        names = names or (list(tools)[:1] if choice == "required" else [])
    cities = re.findall(r"\bin ((?:[A-Z]\w+)(?: [A-Z]\w+)*)|\band ((?:[A-Z][a-z]\w*)(?: [A-Z]\w+)*)", text)
    places = [one or other for one, other in cities]
    calls = []
    for name in names:
        schema = tools[name].get("parameters") or {"type": "object", "properties": {}}
        for place in places or [""]:
            calls.append((name, json.dumps(instance(schema, schema, text, place), ensure_ascii=False)))
    return tuple(calls[:1] if body.get("parallel_tool_calls") is False else calls)


def _schema(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    kind = (response_format or {}).get("type")
    if kind == "json_object":
        return {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    if kind == "json_schema":
        assert response_format is not None
        schema: dict[str, Any] = response_format["json_schema"]["schema"]
        return schema
    return None


def instance(  # noqa: PLR0911
    schema: dict[str, Any], root: dict[str, Any], text: str, place: str = "", name: str = ""
) -> Any:
    """A value that keeps a JSON schema, filled from the text where that says anything."""
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return instance(target, root, text, place, name)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return instance(schema[key][0], root, text, place, name)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: instance(value, root, text, place, key) for key, value in properties.items()}
    if kind == "array":
        count = max(1, schema.get("minItems", 0))
        return [instance(schema.get("items", {}), root, text, place, name) for _ in range(count)]
    return _scalar(kind, schema, text, place, name)


def _scalar(kind: str, schema: dict[str, Any], text: str, place: str, name: str) -> Any:
    numbers = re.findall(r"\d+", text)
    if kind == "integer":
        return max(int(numbers[0]) if numbers else 36, schema.get("minimum", 0))
    if kind == "number":
        return float(numbers[0]) if numbers else 36.5
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    if name == "content" and "exactly:\n" in text:
        return text.partition("exactly:\n")[2]
    return place or "Ada"


# ---------------------------------------------------------------- how it is said


class Spoken:
    """One answer as OpenAI's objects."""

    def __init__(self, body: dict[str, Any], reply: Reply, *, cached_tokens: int) -> None:
        self._cached_tokens = cached_tokens
        self._body = body
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 10_000
        thoughts, words = tokens(reply.reasoning), tokens(_cut(reply.text, body.get("stop")))
        self._thoughts = thoughts[:limit]
        self._tokens = words[: max(0, limit - len(thoughts))]
        self._calls = reply.calls
        short = len(thoughts) + len(words) > limit
        self._finish = "tool_calls" if reply.calls else "length" if short else "stop"
        self._base = {"id": "chatcmpl-upstream", "created": 1, "model": body["model"]}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Chunks of a stream, the usage one last."""
        yield self._chunk({"role": "assistant", "content": None})
        for token in self._thoughts:
            yield self._chunk({"reasoning_content": token})
        for token in self._tokens:
            yield self._chunk({"content": token}, logprobs=self._logprobs([token]))
        for index, (name, arguments) in enumerate(self._calls):
            opening = {"name": name, "arguments": ""}
            yield self._call({"index": index, "id": f"call_{index}", "type": "function", "function": opening})
            for start in range(0, len(arguments), 7):
                yield self._call({"index": index, "function": {"arguments": arguments[start : start + 7]}})
        yield self._chunk({}, finish_reason=self._finish)
        yield {**self._base, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()}

    def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._tokens)}
        if self._calls:
            message["tool_calls"] = [
                {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for i, (name, arguments) in enumerate(self._calls)
            ]
        logprobs = self._logprobs(self._tokens)
        choice = {"index": 0, "message": message, "finish_reason": self._finish, "logprobs": logprobs}
        return {**self._base, "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        return self._chunk({"tool_calls": [call]})

    def _chunk(
        self, delta: dict[str, Any], *, finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return {**self._base, "object": "chat.completion.chunk", "choices": [choice]}

    def _logprobs(self, said: Sequence[str]) -> dict[str, Any] | None:
        if not self._body.get("logprobs"):
            return None
        others = range(self._body.get("top_logprobs") or 0)
        return {
            "content": [
                {
                    "token": token,
                    "logprob": -0.25,
                    "bytes": list(token.encode()),
                    "top_logprobs": [
                        {"token": token if n == 0 else f"{n}", "logprob": -0.25 - n, "bytes": list(token.encode())}
                        for n in others
                    ],
                }
                for token in said
            ]
        }

    def _usage(self) -> dict[str, Any]:
        asked = sum(len(tokens(text_of(m))) + len(images_of(m)) * 256 + 4 for m in self._body["messages"])
        written = len(self._thoughts) + len(self._tokens) + sum(len(arguments) // 4 + 8 for _, arguments in self._calls)
        details = {"cached_tokens": min(self._cached_tokens, asked)}
        counted = {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}
        return {**counted, "prompt_tokens_details": details}


def tokens(text: str) -> list[str]:
    """Words with the space before them."""
    return re.findall(r"\s*\S+", text)


def _cut(text: str, stop: str | list[str] | None) -> str:
    for sequence in [stop] if isinstance(stop, str) else stop or []:
        text = text.partition(sequence)[0]
    return text


# ---------------------------------------------------------------- serving


@contextmanager
def serving(app: Any, *, send_buffer_bytes: int | None = None, **options: Any) -> Iterator[str]:
    """An ASGI application on a free port of loopback, in a thread; its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    # From here on callers wait, also before the thread has come to it.
    listener.listen(1024)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", **options))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
