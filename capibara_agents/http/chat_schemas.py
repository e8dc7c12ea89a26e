"""JSON Schemas of what `chat_rules.py` checks by hand, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_PART = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"const": "text"}, "text": _TEXT},
        },
        {
            "type": "object",
            "required": ["type", "image_url"],
            "properties": {
                "type": {"const": "image_url"},
                "image_url": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {
                        "url": {"type": "string", "pattern": "^data:image/[A-Za-z0-9.+-]+;base64,[A-Za-z0-9+/=]*$"}
                    },
                },
            },
        },
    ]
}
_CONTENT = {"anyOf": [_TEXT, {"type": "array", "items": _PART}]}
_CALL = {
    "type": "object",
    "required": ["id", "type", "function"],
    "properties": {
        "id": _TEXT,
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name", "arguments"],
            "properties": {"name": _TEXT, "arguments": _TEXT},
        },
    },
}


def _message(role: str, content: dict[str, Any], **properties: Any) -> dict[str, Any]:
    required = ["role", *(["content"] if role != "assistant" else []), *(["tool_call_id"] if role == "tool" else [])]
    known = {"role": {"const": role}, "content": content, **properties}
    return {"type": "object", "required": required, "properties": known}


MESSAGES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "oneOf": [
            _message("system", _CONTENT),
            _message("developer", _CONTENT),
            _message("user", _CONTENT, name=_TEXT),
            _message(
                "assistant",
                {"anyOf": [_TEXT, {"type": "array", "items": _PART}, {"type": "null"}]},
                tool_calls={"type": "array", "items": _CALL},
            ),
            _message("tool", _CONTENT, tool_call_id=_TEXT),
        ]
    },
    "examples": [[{"role": "user", "content": "¿Cuál es la capital de España?"}]],
}
TOOLS: dict[str, Any] = {
    "anyOf": [
        {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "function"],
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$"},
                            "description": _TEXT,
                            "parameters": {"type": "object", "description": "A JSON Schema."},
                            "strict": {"type": ["boolean", "null"]},
                        },
                    },
                },
            },
        },
        {"type": "null"},
    ]
}
TOOL_CHOICE: dict[str, Any] = {
    "anyOf": [
        {"enum": ["none", "auto", "required"]},
        {
            "type": "object",
            "required": ["type", "function"],
            "properties": {
                "type": {"const": "function"},
                "function": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}},
            },
        },
        {"type": "null"},
    ]
}
RESPONSE_FORMAT: dict[str, Any] = {
    "anyOf": [
        {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["text", "json_object"]}}},
        {
            "type": "object",
            "required": ["type", "json_schema"],
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {
                    "type": "object",
                    "required": ["schema"],
                    "properties": {
                        "name": _TEXT,
                        "strict": {"type": ["boolean", "null"]},
                        "schema": {"type": "object"},
                    },
                },
            },
        },
        {"type": "null"},
    ]
}
