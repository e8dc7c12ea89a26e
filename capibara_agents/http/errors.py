"""The one table from errors to HTTP answers, in OpenAI's shape.

{"error": {"message": …, "type": …, "param": …, "code": …}}
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import compile_path

from capibara_agents.errors import BadQuestion, CapibaraError, ModelError
from capibara_agents.validation import explain_first

log = logging.getLogger(__name__)

MAX_CAUSES, MAX_FRAMES = 4, 8

# code -> (HTTP status, OpenAI's type); codes that are not here are the server's own fault.
TABLE: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "context_length_exceeded": (400, "invalid_request_error"),
    "image_not_supported": (400, "invalid_request_error"),
    "tools_not_supported": (400, "invalid_request_error"),
    "unsupported_parameter": (400, "invalid_request_error"),
    "template_error": (400, "invalid_request_error"),
    "model_not_found": (404, "invalid_request_error"),
    "not_found": (404, "invalid_request_error"),
    "conflict": (409, "invalid_request_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "request_timeout": (408, "invalid_request_error"),
    "request_too_large": (413, "invalid_request_error"),
    "headers_too_large": (431, "invalid_request_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "too_many_requests": (429, "rate_limit_error"),
    "overloaded": (503, "server_error"),
    "closing": (503, "server_error"),
    "starting": (503, "server_error"),
    "invalid_api_key": (401, "authentication_error"),
    "origin_not_allowed": (403, "permission_error"),
    "model_loading": (503, "server_error"),
    "model_unavailable": (503, "server_error"),
    "model_crashed": (503, "server_error"),
    "model_timeout": (504, "server_error"),
    "no_answer": (502, "server_error"),
}
INTERNAL = (500, "server_error")
STATUS_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
}


def body_of(error: CapibaraError) -> dict[str, Any]:
    """OpenAI's error object."""
    code = _code(error)
    return {
        "error": {
            "message": error.message,
            "type": TABLE.get(code, INTERNAL)[1],
            "param": getattr(error, "param", None),
            "code": code,
        }
    }


def status_of(error: CapibaraError) -> int:
    """The HTTP status of one of our errors."""
    return TABLE.get(_code(error), INTERNAL)[0]


def respond(error: CapibaraError) -> JSONResponse:
    """The HTTP answer for one of our errors; Retry-After where waiting may help."""
    headers = {}
    if isinstance(error, ModelError) and (error.retry_after_s or status_of(error) == 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 5)))
    return JSONResponse(body_of(error), status_of(error), headers)


def internal(error: BaseException) -> CapibaraError:
    """What a caller learns of a mistake of ours. The log learns where it happened.

    Neither learns the error's own text: that may quote a prompt.
    """
    kinds = [type(error).__name__]
    cause = error.__cause__ or error.__context__
    while cause is not None and len(kinds) < MAX_CAUSES:
        kinds.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    frames = reversed(traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:])
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    log.error("internal error: %s at %s", " from ".join(kinds), " < ".join(places))
    return CapibaraError("An internal error happened; it has been logged.")


def install(app: FastAPI) -> None:
    """Make every error of the application one of the table. What is not foreseen is the gate's (`gate.py`)."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, CapibaraError)
        return respond(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return respond(_from_validation(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code != 405:
            return _from_http(request, error)
        return await asyncio.to_thread(_from_http, request, error)

    app.add_exception_handler(CapibaraError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _code(error: CapibaraError) -> str:
    return str(getattr(error, "reason", error.code))


def _from_validation(error: RequestValidationError) -> BadQuestion:
    if error.errors()[0]["type"] == "json_invalid":
        return BadQuestion("The body is not valid JSON.")
    path, sentence = explain_first(error.errors(), skip=str(error.errors()[0]["loc"][0]))
    if not path:
        return BadQuestion("The body must be a JSON object, sent as application/json.")
    return BadQuestion(sentence, param=path)


def _from_http(request: Request, error: HTTPException) -> JSONResponse:
    code = STATUS_CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
    message = {
        404: f"There is nothing at {request.method} {request.url.path[:200]}.",
        405: f"{request.method} is not allowed at {request.url.path[:200]}.",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["allow"] = ", ".join(sorted(_allowed(request) | set(headers.pop("Allow", "").split(", ")) - {""}))
    kind = TABLE.get(code, INTERNAL)[1]
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JSONResponse(body, error.status_code, headers)


def _allowed(request: Request) -> set[str]:
    """The methods of all routes at this path; Starlette knows those of the first one only."""
    paths = request.app.openapi()["paths"]
    here = request.url.path
    fitting = [here] if here in paths else [path for path in paths if compile_path(path)[0].match(here)]
    # A path that says more of itself comes before one with more that is filled in.
    least = min((path.count("{") for path in fitting), default=0)
    found = {method.upper() for path in fitting if path.count("{") == least for method in paths[path]}
    return found | {"HEAD"} if "GET" in found else found
