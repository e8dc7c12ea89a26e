"""OpenAI's Responses shapes: bodies in, response objects and events out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.errors import body_of
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event
from capibara_agents.types import Candidate

Message = dict[str, Any]
Item = dict[str, Any]

# Parameters that mean something and that nothing here can honour.
REFUSED = {
    "background": "background responses",
    "conversation": "conversations; use previous_response_id",
    "prompt": "stored prompts",
    "max_tool_calls": "tools of its own",
}
_PARTS = {"input_text": "text", "output_text": "text", "text": "text"}


class TextOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format: dict[str, Any] | None = None


class ResponseBody(BaseModel):
    """POST /v1/responses. Unknown fields are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="allow")

    model: str = "capibara"
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool = False
    store: bool | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["disabled", "auto"] | None = None
    capibara: wire.Options | None = None

    @field_validator("input")
    @classmethod
    def _not_empty(cls, value: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
        if not value:
            raise ValueError("must not be empty")
        return value


def chat_body(body: ResponseBody, history: Sequence[Message]) -> wire.ChatBody:
    """The same question as a chat completion, after the messages of the responses before it.

    BadQuestion names what cannot be honoured.
    """
    for name, what in REFUSED.items():
        if (body.model_extra or {}).get(name):
            raise BadQuestion(f"This service has no {what}.", param=name, code="unsupported_parameter")
    if body.truncation == "auto":
        raise BadQuestion(
            "This service drops no messages by itself; leave truncation out.",
            param="truncation",
            code="unsupported_parameter",
        )
    system: list[Message] = [{"role": "system", "content": body.instructions}] if body.instructions else []
    values: dict[str, Any] = {
        "model": body.model,
        "messages": [*system, *history, *messages_of(body.input)],
        "stream": body.stream,
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "tools": [_tool(tool) for tool in body.tools] if body.tools else None,
        "tool_choice": _tool_choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _format(body.text),
        "capibara": body.capibara,
    }
    return wire.ChatBody.model_validate({name: value for name, value in values.items() if value is not None})


def messages_of(given: str | Sequence[Item]) -> list[Message]:
    """Input items as chat messages. BadQuestion names an item that is none."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[Message] = []
    for number, item in enumerate(given):
        kind = item.get("type") or ("message" if "role" in item else None)
        where = f"input.{number}"
        if kind == "message":
            messages.append({"role": _role(item, where), "content": _content(item.get("content"), where)})
        elif kind == "function_call":
            _append_call(messages, item, where)
        elif kind == "function_call_output":
            output = _string(item, "output", where) if isinstance(item.get("output"), str) else _text_of(item, where)
            messages.append({"role": "tool", "tool_call_id": _string(item, "call_id", where), "content": output})
        elif kind != "reasoning":  # what a model thought before is not told to another
            raise BadQuestion(
                f"{where}: the type must be message, function_call, function_call_output or reasoning.", param=where
            )
    if not messages:
        raise BadQuestion("input holds no message.", param="input")
    return messages


def _role(item: Item, where: str) -> str:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise BadQuestion(f"{where}.role must be user, assistant, system or developer.", param=f"{where}.role")
    return str(role)


def _content(content: Any, where: str) -> Any:
    """A message's content in the shape of chat completions."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadQuestion(f"{where}.content must be a text or a list of parts.", param=f"{where}.content")
    parts = [_part(part, f"{where}.content.{index}") for index, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _PARTS:
        return {"type": "text", "text": _string(part, "text", where)}
    if kind == "refusal":
        return {"type": "text", "text": _string(part, "refusal", where)}
    if kind == "input_image":
        if part.get("image_url") is None:
            raise BadQuestion("Images are sent as image_url; there are no files here.", param=f"{where}.image_url")
        return {"type": "image_url", "image_url": {"url": _string(part, "image_url", where)}}
    raise BadQuestion(f"{where}: the type must be input_text, output_text or input_image.", param=where)


def _append_call(messages: list[Message], item: Item, where: str) -> None:
    """A call of the assistant's; calls that follow each other belong to one message."""
    call = {
        "id": _string(item, "call_id", where),
        "type": "function",
        "function": {"name": _string(item, "name", where), "arguments": _string(item, "arguments", where)},
    }
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})


def _text_of(item: Item, where: str) -> str:
    content = _content(item.get("output"), f"{where}.output")
    if not isinstance(content, str):
        raise BadQuestion(f"{where}.output must be text.", param=f"{where}.output")
    return content


def _string(item: Item, key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise BadQuestion(f"{where}.{key} must be a text.", param=f"{where}.{key}")
    return value


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise BadQuestion(
            "Only tools of the type function can be given; this service has none of its own.",
            param="tools",
            code="unsupported_parameter",
        )
    known = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in known if tool.get(key) is not None}}


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if isinstance(choice, dict) and choice.get("type") == "function" and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


def _format(text: TextOptions | None) -> dict[str, Any] | None:
    """Chat completions keep a schema one level deeper."""
    given = text.format if text else None
    if given is None or given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {key: value for key, value in given.items() if key != "type"}}


# ---------------------------------------------------------------- answers


class Draft:
    """One response object as it comes into being; its events carry growing sequence numbers."""

    def __init__(self, body: ResponseBody, *, id: str, created_s: int, trace: bool) -> None:
        self.id = id
        self._trace = trace
        self._number = -1
        self._items: list[Item] = []
        self._text: list[str] = []
        self._calls: dict[int, Item] = {}
        self._base = _frame(body, id, created_s)

    def finished(self, answer: Answer) -> dict[str, Any]:
        """The whole response object."""
        candidate = answer.candidate
        short = candidate.finish_reason == "length"
        return {
            **self._base,
            "status": "incomplete" if short else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if short else None,
            "model": candidate.model,
            "output": items_of(candidate, self.id),
            "usage": _usage(candidate),
            **({"capibara": answer.trace()} if self._trace else {}),
        }

    def opened(self) -> Iterator[Event]:
        """Before any text."""
        yield self._event("response.created", response=self._base)
        yield self._event("response.in_progress", response=self._base)

    def piece(self, delta: Event) -> Iterator[Event]:
        """The events of one piece of the answer."""
        if delta["content"]:
            yield from self._said(delta["content"])
        for call in delta["tool_calls"]:
            yield from self._called(call)

    def closed(self, answer: Answer) -> Iterator[Event]:
        """Everything that is open is done, then the response is."""
        for index, item in enumerate(items_of(answer.candidate, self.id)):
            yield from self._done(index, item)
        kind = "response.incomplete" if answer.candidate.finish_reason == "length" else "response.completed"
        yield self._event(kind, response=self.finished(answer))

    def broken(self, error: CapibaraError) -> Event:
        """The last event of a stream that could not be finished."""
        told = body_of(error)["error"]
        failed = {**self._base, "status": "failed", "error": {"code": "server_error", "message": told["message"]}}
        return self._event("response.failed", response=failed)

    def _said(self, text: str) -> Iterator[Event]:
        at = {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}
        if not self._text:
            item = {**_message(self.id, ""), "status": "in_progress", "content": []}
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._event("response.content_part.added", **at, part=_part_of(""))
        self._text.append(text)
        yield self._event("response.output_text.delta", **at, delta=text, logprobs=[])

    def _called(self, call: dict[str, Any]) -> Iterator[Event]:
        index = call.get("index") or 0
        place = index + bool(self._text)
        function = call["function"]
        if index not in self._calls:
            item = _call(self.id, index, call.get("id"), function.get("name") or "", "")
            self._calls[index] = item
            yield self._event("response.output_item.added", output_index=place, item={**item, "status": "in_progress"})
        if function.get("arguments"):
            yield self._event(
                "response.function_call_arguments.delta",
                item_id=self._calls[index]["id"],
                output_index=place,
                delta=function["arguments"],
            )

    def _done(self, index: int, item: Item) -> Iterator[Event]:
        if item["type"] == "message":
            at = {"item_id": item["id"], "output_index": index, "content_index": 0}
            text = item["content"][0]["text"]
            if not self._text:
                yield from self._said(text)
            yield self._event("response.output_text.done", **at, text=text, logprobs=[])
            yield self._event("response.content_part.done", **at, part=item["content"][0])
        elif item["type"] == "function_call":
            yield self._event(
                "response.function_call_arguments.done",
                item_id=item["id"],
                output_index=index,
                name=item["name"],
                arguments=item["arguments"],
            )
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _event(self, kind: str, **values: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **values}


def items_of(candidate: Candidate, response_id: str) -> list[Item]:
    """The output items of an answer: its text, and its calls of functions."""
    items: list[Item] = []
    if candidate.content or not candidate.tool_calls:
        items.append(_message(response_id, candidate.content))
    for index, call in enumerate(candidate.tool_calls):
        function = call["function"]
        items.append(_call(response_id, index, call.get("id"), function["name"], function["arguments"]))
    return items


def _message(response_id: str, text: str) -> Item:
    return {
        "id": f"msg_{response_id}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [_part_of(text)],
    }


def _part_of(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(response_id: str, index: int, call_id: str | None, name: str, arguments: str) -> Item:
    return {
        "id": f"fc_{index}_{response_id}",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id or f"call_{index}_{response_id}",
        "name": name,
        "arguments": arguments,
    }


def _usage(candidate: Candidate) -> dict[str, Any]:
    used = candidate.usage
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.total_tokens,
    }


def _frame(body: ResponseBody, id: str, created_s: int) -> dict[str, Any]:
    """What a response object says before there is an answer."""
    return {
        "id": id,
        "object": "response",
        "created_at": created_s,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "store": bool(body.store),
        "temperature": body.temperature,
        "text": {"format": (body.text.format if body.text else None) or {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
    }
