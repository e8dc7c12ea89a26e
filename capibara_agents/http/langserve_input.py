"""How a conversation comes in over the LangServe wire.

    conversation(value)     the JSON of an `input` -> {"messages": [BaseMessage, …], …}; raises ValidationError
    revived(value)          the JSON of an `input` of any other runnable -> messages, prompts, documents in it

Messages are LangChain's serialised ones (of Python or JavaScript), OpenAI's role objects, [role, text] pairs or
plain texts. Nothing is loaded by a class name from outside: input becomes one of the message classes below, or
it stays JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValueConcrete, StringPromptValue
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


Content = str | list[str | dict[str, Any]]


class _Function(_Wire):
    name: str
    arguments: str


class _OpenAIToolCall(_Wire):
    id: str
    function: _Function


class _LangChainToolCall(_Wire):
    name: str
    args: dict[str, Any]
    id: str | None = None


class _Asked(_Wire):
    """What a user, or whoever instructs the model, says."""

    content: Content
    name: str | None = None


class _Answered(_Wire):
    """What a model said; `content` may be missing beside tool calls."""

    content: Content | None = None
    name: str | None = None
    tool_calls: list[_OpenAIToolCall | _LangChainToolCall] | None = None


class _Returned(_Wire):
    """What a tool gave."""

    content: Content
    tool_call_id: str
    name: str | None = None


class _UserRole(_Asked):
    role: Literal["user", "human", "system", "developer"]


class _AssistantRole(_Answered):
    role: Literal["assistant", "ai"]


class _ToolRole(_Returned):
    role: Literal["tool"]


class _UserType(_Asked):
    type: Literal["human", "HumanMessage", "HumanMessageChunk", "system", "SystemMessage", "SystemMessageChunk"]


class _AssistantType(_Answered):
    type: Literal["ai", "AIMessage", "AIMessageChunk"]


class _ToolType(_Returned):
    type: Literal["tool", "ToolMessage", "ToolMessageChunk"]


_Pair = tuple[Literal["user", "human", "system", "developer", "assistant", "ai"], Content]
_TAGS = {
    **dict.fromkeys(("user", "human", "system", "developer"), "user"),
    **dict.fromkeys(("assistant", "ai"), "assistant"),
    "tool": "tool",
}


def _kind(value: Any) -> str | None:
    """The tag of a message as it came, None for what is no message."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "pair"
    if not isinstance(value, dict):
        return None
    for key in ("role", "type"):
        name = value.get(key)
        if isinstance(name, str):
            tag = _TAGS.get(name if key == "role" else _short(name))
            return f"{key}:{tag}" if tag else None
    return None


def _short(type_name: str) -> str:
    """`AIMessageChunk` and `AIMessage` -> `ai`."""
    for ending in ("MessageChunk", "Message"):
        if type_name.endswith(ending):
            return type_name.removesuffix(ending).lower()
    return type_name


WireMessage = Annotated[
    Annotated[Annotated[str, Field(min_length=1)], Tag("text")]
    | Annotated[Annotated[_Pair, Field(strict=False)], Tag("pair")]
    | Annotated[_UserRole, Tag("role:user")]
    | Annotated[_AssistantRole, Tag("role:assistant")]
    | Annotated[_ToolRole, Tag("role:tool")]
    | Annotated[_UserType, Tag("type:user")]
    | Annotated[_AssistantType, Tag("type:assistant")]
    | Annotated[_ToolType, Tag("type:tool")],
    Discriminator(
        _kind,
        custom_error_type="not_a_message",
        custom_error_message="A message is an object with a role (user, assistant, system, developer, tool) or a "
        "LangChain type and a content, a [role, text] pair, or a text.",
    ),
]
WireMessages = Annotated[list[WireMessage], Field(min_length=1)]


class _Conversation(_Wire):
    messages: WireMessages


_MESSAGES: TypeAdapter[Any] = TypeAdapter(_Conversation)


def conversation_schema(options: type[BaseModel] | None = None) -> dict[str, Any]:
    """The JSON Schema, without references, of what `conversation` takes with the same options."""
    messages = inlined(TypeAdapter(WireMessages).json_schema())
    text = {"type": "string", "minLength": 1}
    knobs = inlined(options.model_json_schema())["properties"] if options else {}
    whole = {
        "type": "object",
        "title": "Conversation",
        "properties": {"messages": {"anyOf": [messages, text], "description": "Oldest first, or one text."}, **knobs},
        "required": ["messages"],
        "additionalProperties": False,
    }
    return {"title": "Input", "anyOf": [whole, messages, text]}


def conversation(value: Any, options: type[BaseModel] | None = None) -> dict[str, Any]:
    """The input of Capibara's runnable: messages, and what stands beside them unchanged.

    Raises pydantic's ValidationError for messages that are none, and for keys beside them that `options` rejects.
    """
    checked = _MESSAGES.validate_python({"messages": _message_list(value)})
    beside: dict[str, Any] = {}
    if isinstance(value, dict) and "messages" in value:
        # A prompt value of JavaScript has its class's own keys beside the messages, one of Python its type.
        beside = {key: item for key, item in value.items() if key not in ("messages", "type") and key[:3] != "lc_"}
    if options:
        check(options, beside)
    return {**beside, "messages": [_message(message) for message in checked.messages]}


def check(options: type[BaseModel], given: dict[str, Any]) -> None:
    """Hold values that came as JSON to their schema, where "yes" is no boolean. Raises pydantic's ValidationError."""
    options.model_validate_json(json.dumps(given), strict=True)


def _message_list(value: Any) -> Any:
    """Every form of a conversation as a list of messages, not yet validated."""
    if isinstance(value, dict):
        if "messages" in value:
            return _message_list(value["messages"])
        if _kind(value) or value.get("type") in ("constructor", "chat", "generic"):
            return [_unpacked(value)]
        # A StringPromptValue of Python has `text`, one of JavaScript `value` beside its namespace.
        text = value.get("text", value.get("value") if "lc_namespace" in value else None)
        return _message_list(text) if isinstance(text, str) else value
    if isinstance(value, str):
        return [value]
    return [_unpacked(item) for item in value] if isinstance(value, list) else value


def _unpacked(value: Any) -> Any:
    """A message serialised as a constructor call, as the object of its type; anything else unchanged."""
    if not isinstance(value, dict) or value.get("type") != "constructor":
        return value
    path, kwargs = value.get("id"), value.get("kwargs")
    name = path[-1] if isinstance(path, list) and path else None
    if isinstance(name, str) and name.endswith(("Message", "MessageChunk")) and isinstance(kwargs, dict):
        return {**kwargs, "type": name}
    return value


def _message(wire: Any) -> BaseMessage:
    if isinstance(wire, str):
        return HumanMessage(wire)
    if isinstance(wire, tuple):
        role, content = wire
        return _built(role, content, {})
    name = getattr(wire, "role", None) or _short(wire.type)
    return _built(name, wire.content or "", wire.model_dump(exclude={"role", "type", "content"}, exclude_none=True))


def _built(name: str, content: Any, given: dict[str, Any]) -> BaseMessage:
    """The message class for a role; what a client may not decide (`example`, `lc_*`) is left behind."""
    kept = {key: given[key] for key in ("id", "name") if isinstance(given.get(key), str)}
    for key in ("additional_kwargs", "response_metadata"):
        if isinstance(given.get(key), dict):
            kept[key] = given[key]
    if name in ("assistant", "ai"):
        return AIMessage(content, **kept, **_tool_calls(given.get("tool_calls") or []))
    if name == "tool":
        status = "error" if given.get("status") == "error" else "success"
        return ToolMessage(content, tool_call_id=given["tool_call_id"], status=status, **kept)
    if name == "developer":
        kept["additional_kwargs"] = {**kept.get("additional_kwargs", {}), "__openai_role__": "developer"}
    if name in ("system", "developer"):
        return SystemMessage(content, **kept)
    return HumanMessage(content, **kept)


def _tool_calls(calls: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Tool calls of either form as LangChain's; arguments that are not a JSON object become invalid calls."""
    valid: list[dict[str, Any]] = []
    invalid: list[dict[str, Any]] = []
    for call in calls:
        if "args" in call:
            valid.append({"name": call["name"], "args": call["args"], "id": call.get("id"), "type": "tool_call"})
            continue
        name, text = call["function"]["name"], call["function"]["arguments"]
        try:
            args = json.loads(text or "{}")
        except (ValueError, RecursionError):
            args = None
        if isinstance(args, dict):
            valid.append({"name": name, "args": args, "id": call["id"], "type": "tool_call"})
        else:
            error = "The arguments are not a JSON object."
            invalid.append({"name": name, "args": text, "id": call["id"], "error": error, "type": "invalid_tool_call"})
    return {"tool_calls": valid, "invalid_tool_calls": invalid}


def revived(value: Any) -> Any:
    """The same JSON with LangChain's messages, prompt values and documents in it made objects again."""
    if isinstance(value, list):
        return [revived(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {key: revived(item) for key, item in _unpacked(value).items()}
    make = _REVIVERS.get(str(inner.get("type")), _revived_message)
    try:
        return make(inner)
    except (ValidationError, KeyError):  # it only looked like one
        return inner


def _revived_message(value: dict[str, Any]) -> Any:
    is_message = "content" in value and (_kind(value) or "").startswith("type:")
    return conversation([value])["messages"][0] if is_message else value


_REVIVERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Document": lambda value: Document(page_content=value["page_content"], metadata=value.get("metadata") or {}),
    "StringPromptValue": lambda value: StringPromptValue(text=value["text"]),
    "ChatPromptValueConcrete": lambda value: ChatPromptValueConcrete(messages=value["messages"]),
}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every `$ref` into its own `$defs` written out; the schema must not refer to itself."""
    defs = schema.get("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return walk(defs[node["$ref"].rsplit("/", 1)[1]])
        return {key: walk(item) for key, item in node.items() if key != "$defs"}

    result: dict[str, Any] = walk(schema)
    return result
