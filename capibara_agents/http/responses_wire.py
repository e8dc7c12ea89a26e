"""OpenAI's Responses: bodies in, as the same question for a chat. Pure; what goes out is `responses_draft.py`'s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from capibara_agents.errors import BadQuestion
from capibara_agents.http import chat_rules
from capibara_agents.http import openai_wire as wire
from capibara_agents.validation import Whole, explain_first

Message = dict[str, Any]
Item = dict[str, Any]

# Parameters that mean something and that nothing here can honour.
REFUSED = {
    "background": "background responses",
    "conversation": "conversations; use previous_response_id",
    "prompt": "stored prompts",
    "max_tool_calls": "tools of its own",
    "context_management": "context management",
}
LOGPROBS = "message.output_text.logprobs"
# Fields that a chat completion calls otherwise.
CHAT_NAMES = {"response_format": "text.format", "max_completion_tokens": "max_output_tokens", "messages": "input"}
_PARTS = {"input_text": "text", "output_text": "text", "text": "text"}


class TextOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponseBody(BaseModel):
    """POST /v1/responses. Unknown fields are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="allow", strict=True)

    input: str | list[dict[str, Any]]
    model: str
    instructions: str | None = None
    stream: bool | None = False
    store: bool | None = None
    previous_response_id: str | None = None
    max_output_tokens: Whole | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    include: list[str] | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=20)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
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
    _check(body)
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
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logprobs": True if LOGPROBS in (body.include or ()) or body.top_logprobs else None,
        "top_logprobs": body.top_logprobs,
        "capibara": body.capibara,
    }
    try:
        return wire.ChatBody.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        path, sentence = explain_first(error.errors(include_url=False))
        ours = _as_given(path)
        raise BadQuestion(sentence.replace(path, ours, 1), param=ours) from None


def _as_given(path: str) -> str:
    """A field of a chat completion under the name that it has in Responses."""
    top, dot, rest = path.partition(".")
    return CHAT_NAMES.get(top, top) + dot + rest


def _check(body: ResponseBody) -> None:
    extra = body.model_extra or {}
    for name, what in REFUSED.items():
        if extra.get(name):
            raise chat_rules.unsupported(name, f"This service has no {what}.")
    chat_rules.check_parameters(extra)
    if body.truncation == "auto":
        raise chat_rules.unsupported("truncation", "This service drops no messages by itself; leave truncation out.")
    for name in ("effort", "summary", "generate_summary"):
        if (body.reasoning or {}).get(name) is not None:
            message = f"This service has no choice of reasoning {name}; it is set for each model in the configuration."
            raise chat_rules.unsupported(f"reasoning.{name}", message)
    if body.text is not None and body.text.verbosity is not None:
        raise chat_rules.unsupported("text.verbosity", "This service has no choice of verbosity.")
    for item in body.include or ():
        if item != LOGPROBS:
            raise chat_rules.unsupported("include", f"Of include, this service has {LOGPROBS} alone.")


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
