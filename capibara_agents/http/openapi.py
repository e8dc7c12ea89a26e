"""What the OpenAPI document says beyond the routes themselves: what each does, examples, errors, streams."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from importlib import resources
from typing import Any

import yaml
from fastapi import FastAPI

from capibara_agents.http.errors import TABLE

METHODS = ("get", "post", "put", "patch", "delete")
# Paths whose answers models write: what can become of those is theirs.
STREAMING = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/api/chat",
    "/api/generate",
    "/runs/stream",
    "/threads/{thread_id}/runs/stream",
)
ANSWERING = (*STREAMING, "/api/consensus/query", "/runs/wait", "/threads/{thread_id}/runs/wait")
# HTTP status -> what it is called, and the code of its example.
STATUSES: dict[int, tuple[str, str, str]] = {
    400: ("The request cannot be answered as asked.", "invalid_request", "temperature must be at most 2."),
    401: ("No valid API key.", "invalid_api_key", "No valid API key. Send it as `Authorization: Bearer KEY`."),
    404: ("There is no such thing.", "model_not_found", "The model 'gpt-4' does not exist here."),
    405: ("The method is not allowed here; Allow says which are.", "method_not_allowed", "PUT is not allowed here."),
    408: ("The body did not arrive in time.", "request_timeout", "The body did not arrive within 30 s."),
    409: ("It is there already, or busy.", "conflict", "There is already a thread of this id."),
    413: ("The body is too large.", "request_too_large", "The body is larger than 20971520 bytes."),
    429: (
        "Over a limit; Retry-After says when to come again.",
        "rate_limit_exceeded",
        "This key may ask again in 3 s.",
    ),
    500: ("A mistake of the service's own; it has been logged.", "internal_error", "An internal error happened."),
    502: ("No model gave any text.", "no_answer", "None of the models asked gave any text."),
    503: ("Loading, overloaded or closing; Retry-After says when to come again.", "model_loading", "It is loading."),
    504: ("No progress in time.", "model_timeout", "phi-4-mini showed no progress within 8 s."),
}
ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "One English sentence: what is wrong and what to do."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "Dotted path of the field that is wrong."},
                "code": {"type": "string", "description": "Stable between releases."},
            },
        }
    },
}
EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
BEARER = {"type": "http", "scheme": "bearer", "description": "Asked for where the configuration has api_keys."}


def describe(app: FastAPI) -> None:
    """Complete the application's OpenAPI document when it is first asked for."""
    made, making = app.openapi, threading.Lock()
    document: dict[str, Any] = {}

    def complete() -> dict[str, Any]:
        # It takes some 0.3 s, so it is asked for beside the event loop.
        with making:
            if not document:
                document.update(completed(made()))
            return document

    app.openapi = complete  # type: ignore[method-assign]


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with every error that the front door and the faces answer with."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for ours in ("HTTPValidationError", "ValidationError"):
        schemas.pop(ours, None)
    schemas["Error"] = ERROR_SCHEMA
    components["securitySchemes"] = {"key": BEARER}
    document["security"] = [{}, {"key": []}]
    known = told()
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                _complete(path, item[method])
                _tell(item[method], known.get(f"{method.upper()} {path}", {}))
    return document


def told() -> dict[str, dict[str, Any]]:
    """`METHOD /path` -> its summary, and where there are any the `body` and the `answer` of an example."""
    source = resources.files("capibara_agents.http").joinpath("operations.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(source)
    return found


def _tell(operation: dict[str, Any], words: dict[str, Any]) -> None:
    operation["summary"] = words.get("summary", operation.get("summary", ""))
    if "body" in words:
        operation["requestBody"]["content"]["application/json"]["example"] = words["body"]
    if "answer" in words:
        for status, response in operation["responses"].items():
            if status.startswith("2") and "application/json" in response.get("content", {}):
                response["content"]["application/json"]["example"] = words["answer"]


def _complete(path: str, operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status in _statuses(path, operation):
        responses.setdefault(str(status), _error(status))
    for response in responses.values():
        stream = response.get("content", {}).get("text/event-stream")
        if stream is not None:
            stream["schema"] = EVENT
    if path in STREAMING:
        responses["200"]["content"]["text/event-stream"] = {"schema": EVENT}


def _statuses(path: str, operation: dict[str, Any]) -> Iterable[int]:
    yield from (401, 405, 429, 500, 503)
    if "requestBody" in operation:
        yield from (400, 404, 408, 413)
    elif operation.get("parameters") or path == "/v1/responses/compact":
        yield from (400, 404)
    if path.startswith("/threads"):
        yield 409
    if path in ANSWERING:
        yield from (502, 504)


def _error(status: int) -> dict[str, Any]:
    description, code, message = STATUSES[status]
    kind = TABLE.get(code, (500, "server_error"))[1]
    example = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "example": example}}
    found: dict[str, Any] = {"description": description, "content": content}
    if status in (429, 503):
        found["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found
