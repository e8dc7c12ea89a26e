"""LangServe's wire format over any LangChain Runnable, for RemoteRunnable of Python and of JavaScript.

    POST invoke | batch                     one JSON answer
    POST stream                             events: metadata, data…, end
    POST stream_log | stream_events         events: data…, end  (events of LangChain's version v2)
    GET  input_schema | output_schema | config_schema
    GET  playground/                        a page of our own

Each also stands under /c/{config_hash}/, where the hash is a configuration packed by lz-string.

What is wrong with a request is told before anything runs: 422 with {"detail": [{loc, msg, type}]}. A run that fails
before its first event is an HTTP error, {"detail", "message", "code"}; one that fails later, an event `error` with
{"status_code", "message"}, the last of its stream. A client that goes away takes its run with it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any, TypeVar
from uuid import UUID, uuid4

from fastapi import APIRouter
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from langchain_core.tracers.log_stream import RunLogPatch
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from capibara_agents.errors import CapibaraError
from capibara_agents.http.langserve_encoding import encode
from capibara_agents.http.langserve_events import ClientGone, EventStream, while_connected
from capibara_agents.http.langserve_input import check, conversation, conversation_schema, inlined
from capibara_agents.http.langserve_request import (
    BatchBody,
    EventsBody,
    InvokeBody,
    LogBody,
    Refusal,
    RunConfig,
    config_in_path,
    from_validation,
    invalid,
    read,
    refusal_of,
)
from capibara_agents.types import Request as Options

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]

CLIENT_GONE = 499  # nobody reads it; access logs do

GET_ERRORS = {404: "The configuration in the path cannot be read.", 500: "It failed here."}
POST_ERRORS = {
    400: "The question cannot be answered as asked.",
    404: "There is no such model, or the configuration in the path cannot be read.",
    415: "The body is not JSON.",
    422: "The body is not what it should be; `detail` is a list of places.",
    500: "It failed here.",
    502: "No model gave an answer.",
    503: "The model is not up; see Retry-After.",
    504: "The model gave nothing in time.",
}
INVOKE_EXAMPLE = {"input": {"messages": [{"role": "user", "content": "¿Cuál es la capital de Perú?"}]}}
BATCH_EXAMPLE = {"inputs": ["¿Qué es un ayllu?", [["user", "What is a quipu?"]]]}
STREAM_EXAMPLE = 'event: data\r\ndata: {"content": "Lima", "type": "AIMessageChunk"}\r\n\r\nevent: end\r\n\r\n'
_REFUSED = {
    "type": "object",
    "properties": {"detail": {}, "message": {"type": "string"}, "code": {"type": "string"}},
    "required": ["detail", "message", "code"],
}
_METADATA = {
    "type": "object",
    "properties": {"run_id": {"type": "string", "format": "uuid"}, "feedback_tokens": {"type": "array", "items": {}}},
}
_INVOKED = {
    "type": "object",
    "properties": {"output": {}, "metadata": _METADATA},
    "required": ["output", "metadata"],
}
_BATCHED = {
    "type": "object",
    "properties": {"output": {"type": "array", "items": {}}, "metadata": {"type": "object"}},
    "required": ["output", "metadata"],
}
_HASH_PARAMETER = {
    "name": "config_hash",
    "in": "path",
    "required": True,
    "description": "A config as lz-string's compressToEncodedURIComponent packs it.",
    "schema": {"type": "string"},
}


# ---------------------------------------------------------------- the face


@dataclass(frozen=True)
class Limits:
    """What one request may ask for: seconds of silence in a stream, inputs of a batch, runs side by side."""

    ping_s: float
    batch: int
    concurrency: int


@dataclass(frozen=True)
class _Run:
    """One input, ready for the runnable."""

    id: UUID
    input: Any
    config: RunnableConfig
    kwargs: dict[str, Any]


class _Face:
    """The endpoints over one runnable; `options` names what may stand in kwargs and configurable."""

    def __init__(
        self,
        runnable: Runnable[Any, Any],
        to_input: Callable[[Any], Any] | None,
        options: type[BaseModel] | None,
        limits: Limits,
    ) -> None:
        self._runnable = runnable
        self._to_input = to_input or partial(conversation, options=options)
        self._options = options
        self._limits = limits
        self._takes_conversation = to_input is None

    # ------------------------------------------------------------ one JSON answer

    async def invoke(self, request: Request) -> Response:
        """Answer one input."""
        run = self._run(await read(request, InvokeBody), config_in_path(request))
        output = await while_connected(request.receive, self._answer(run))
        metadata = {"run_id": run.id, "feedback_tokens": []}
        return Response(encode({"output": output, "metadata": metadata}), media_type="application/json")

    async def batch(self, request: Request) -> Response:
        """Answer several inputs, in their order."""
        body, packed = await read(request, BatchBody), config_in_path(request)
        runs = self._runs(body, packed)
        asked = [c.max_concurrency for c in (packed, *_list(body.config)) if c.max_concurrency]
        return_exceptions = isinstance(body.named, dict) and body.named.get("return_exceptions") is True
        limit = min([self._limits.concurrency, *asked])
        output = await while_connected(request.receive, self._answers(runs, limit, return_exceptions=return_exceptions))
        ids = [run.id for run in runs]
        metadata = {"run_ids": ids, "responses": [{"run_id": run_id, "feedback_tokens": []} for run_id in ids]}
        return Response(encode({"output": output, "metadata": metadata}), media_type="application/json")

    async def _answer(self, run: _Run) -> Any:
        try:
            return await self._runnable.ainvoke(run.input, run.config, **run.kwargs)
        except Exception as error:  # whatever the runnable raised is translated, and shown only if it is ours
            raise refusal_of(error, run.id) from error

    async def _answers(self, runs: Sequence[_Run], limit: int, *, return_exceptions: bool) -> list[Any]:
        """The outputs in the order of the runs. The first failure cancels the others, unless it is an output too."""
        places = asyncio.Semaphore(limit)

        async def one(run: _Run) -> Any:
            async with places:
                try:
                    return await self._answer(run)
                except Refusal as refusal:
                    if not return_exceptions:
                        raise
                    return {"type": "error", "code": refusal.code, "message": refusal.message}

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(run)) for run in runs]
        except* Refusal as refused:
            failures = refused.exceptions
        else:
            return [task.result() for task in tasks]
        raise failures[0]

    # ------------------------------------------------------------ streams

    async def stream(self, request: Request) -> Response:
        """Answer one input piece by piece."""
        run = self._run(await read(request, InvokeBody), config_in_path(request))
        metadata = encode({"run_id": run.id, "feedback_tokens": []})
        return self._events(run, self._runnable.astream(run.input, run.config, **run.kwargs), metadata)

    async def stream_log(self, request: Request) -> Response:
        """The run as patches of its log."""
        body = await read(request, LogBody)
        run = self._run(body, config_in_path(request))
        return self._events(run, self._log(run, body))

    async def _log(self, run: _Run, body: LogBody) -> AsyncGenerator[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        options: dict[str, Any] = {**run.kwargs, **body.filters()}
        patches = self._runnable.astream_log(run.input, run.config, diff=True, **options)
        async with aclosing(patches) as stream:  # type: ignore[type-var]
            async for patch in stream:
                yield {"ops": patch.ops}
                if not body.diff:
                    seen.extend(patch.ops)
        if seen:
            # Once, at the end: with every event the state would cost the square of the answer's length. As a patch
            # that changes nothing: the JavaScript client never asks for diffs, and reads `ops` alone.
            state = (RunLogPatch(*seen[:1]) + RunLogPatch(*seen[1:])).state
            yield {"ops": [{"op": "replace", "path": "", "value": state}]}

    async def stream_events(self, request: Request) -> Response:
        """Everything that happens in the run, as LangChain's events v2."""
        body = await read(request, EventsBody)
        run = self._run(body, config_in_path(request))
        options: dict[str, Any] = {**run.kwargs, **body.filters()}
        return self._events(run, self._runnable.astream_events(run.input, run.config, version="v2", **options))

    def _events(self, run: _Run, values: AsyncIterator[Any], metadata: bytes | None = None) -> EventStream:
        def failure(error: Exception) -> tuple[Response, bytes]:
            refusal = refusal_of(error, run.id)
            return refusal.response(), encode({"status_code": refusal.status, "message": refusal.message})

        return EventStream(values, encode, failure, metadata=metadata, ping_s=self._limits.ping_s)

    # ------------------------------------------------------------ what a request becomes

    def _run(self, body: InvokeBody, packed: RunConfig, *where: str | int) -> _Run:
        """The input and the configuration as the runnable takes them. Raises Refusal (4xx)."""
        value = self._input(body.input, *(where or ("input",)))
        run_id = uuid4()
        given = (body.config or RunConfig()).runnable_config()
        config = merge_configs(packed.runnable_config(), given, {"run_id": run_id})
        names = self._options.model_fields if self._options else {}
        kwargs = {key: item for key, item in (body.named or {}).items() if key in names}
        self._check(config.get("configurable", {}), "config", "configurable")
        self._check(kwargs, "kwargs")
        return _Run(run_id, value, config, kwargs)

    def _runs(self, body: BatchBody, packed: RunConfig) -> list[_Run]:
        count = len(body.inputs)
        if count > self._limits.batch:
            raise invalid("inputs", message=f"A batch has at most {self._limits.batch} inputs.", kind="too_long")
        parts = zip(
            body.inputs,
            _of_each("config", body.config, count),
            _of_each("kwargs", body.named, count),
            strict=True,
        )
        return [
            self._run(InvokeBody(input=value, config=config, kwargs=named), packed, "inputs", index)
            for index, (value, config, named) in enumerate(parts)
        ]

    def _input(self, value: Any, *where: str | int) -> Any:
        try:
            return self._to_input(value)
        except ValidationError as error:
            raise from_validation(error, *where) from None
        except CapibaraError as error:
            raise refusal_of(error, uuid4()) from None
        except (ValueError, TypeError, KeyError):
            raise invalid(*where, message="This is not an input of the runnable.") from None

    def _check(self, given: dict[str, Any], *where: str) -> None:
        if self._options:
            known = {key: value for key, value in given.items() if key in self._options.model_fields}
            try:
                check(self._options, known)
            except ValidationError as error:
                raise from_validation(error, *where) from None

    # ------------------------------------------------------------ schemas and the page

    async def input_schema(self, request: Request) -> Response:
        """The JSON Schema of `input`."""
        runnable = self._configured(request)
        schema = conversation_schema(self._options) if self._takes_conversation else runnable.get_input_jsonschema()
        return Response(encode(schema), media_type="application/json")

    async def output_schema(self, request: Request) -> Response:
        """The JSON Schema of the output."""
        schema = self._configured(request).get_output_jsonschema()
        return Response(encode(schema), media_type="application/json")

    async def config_schema(self, request: Request) -> Response:
        """The JSON Schema of `config`."""
        runnable = self._configured(request)
        schema = inlined(RunConfig.model_json_schema())
        if self._options:
            schema["properties"]["configurable"] = inlined(self._options.model_json_schema())
        else:
            schema = runnable.get_config_jsonschema(include=list(RunConfig.model_fields))
        return Response(encode(schema), media_type="application/json")

    def _configured(self, request: Request) -> Runnable[Any, Any]:
        return self._runnable.with_config(config_in_path(request).runnable_config())

    async def playground(self, request: Request) -> Response:
        """A page to try it on."""
        config_in_path(request)
        return HTMLResponse(*_page())

    # ------------------------------------------------------------ what there is, for the router and for OpenAPI

    def endpoints(self, *, brief: bool) -> list[tuple[str, Endpoint, dict[str, Any]]]:
        """Path, endpoint and OpenAPI operation of each route; brief ones leave the input to GET input_schema."""
        described = self._takes_conversation and not brief
        operations = deepcopy(_operations(self._options, self._limits.batch, described=described))
        endpoints: dict[str, Endpoint] = {
            "invoke": self.invoke,
            "batch": self.batch,
            "stream": self.stream,
            "stream_log": self.stream_log,
            "stream_events": self.stream_events,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "config_schema": self.config_schema,
            "playground/": self.playground,
        }
        return [(path, endpoint, operations[path]) for path, endpoint in endpoints.items()]


# Half of what it takes to build the application, and the same for each.
@cache
def _operations(options: type[BaseModel] | None, max_batch: int, *, described: bool) -> dict[str, dict[str, Any]]:
    """The OpenAPI operation of each route, by its path; undescribed ones leave the input open."""
    operation = partial(_operation, conversation_schema(options) if described else {}, max_batch)
    stream = {"text/event-stream": {"schema": {"type": "string"}, "example": STREAM_EXAMPLE}}
    schema = {"application/json": {"schema": {"type": "object"}}}
    return {
        "invoke": operation({"application/json": {"schema": _INVOKED}}, InvokeBody),
        "batch": operation({"application/json": {"schema": _BATCHED}}, BatchBody),
        "stream": operation(stream, InvokeBody),
        "stream_log": operation(stream, LogBody),
        "stream_events": operation(stream, EventsBody),
        "input_schema": operation(schema),
        "output_schema": operation(schema),
        "config_schema": operation(schema),
        "playground/": operation({"text/html": {"schema": {"type": "string"}}}),
    }


def _operation(
    takes: dict[str, Any], max_batch: int, content: dict[str, Any], body: type[BaseModel] | None = None
) -> dict[str, Any]:
    """An OpenAPI operation: what it answers, how it refuses, and for a POST what it takes."""
    refusal = {"application/json": {"schema": _REFUSED}}
    codes = POST_ERRORS if body else GET_ERRORS
    responses = {str(code): {"description": text, "content": refusal} for code, text in codes.items()}
    operation: dict[str, Any] = {"responses": {"200": {"description": "Done.", "content": content}, **responses}}
    if body:
        schema = inlined(body.model_json_schema())
        several = {"type": "array", "items": takes, "maxItems": max_batch}
        schema["properties"].update({"inputs": several} if body is BatchBody else {"input": takes})
        example = BATCH_EXAMPLE if body is BatchBody else INVOKE_EXAMPLE
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    return operation


def _list(given: RunConfig | list[RunConfig] | None) -> list[RunConfig]:
    return given if isinstance(given, list) else [given] if given else []


def _of_each(name: str, given: Any, count: int) -> list[Any]:
    """One value for each input, from one for all or a list. Raises Refusal when the list has another length."""
    if not isinstance(given, list):
        return [given] * count
    if len(given) not in (0, count):
        raise invalid(name, message=f"There are {count} inputs and {len(given)} values of {name}.")
    return given or [None] * count


@cache
def _page() -> tuple[str, int, dict[str, str]]:
    """The playground's text, status and headers. Its policy lets in its own script and style, and nothing else."""
    text = resources.files("capibara_agents.http").joinpath("playground.html").read_text(encoding="utf-8")

    def hashes(tag: str) -> str:
        digests = [hashlib.sha256(body.encode()).digest() for body in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    return text, 200, headers


# ---------------------------------------------------------------- the router


def router(
    runnable: Runnable[Any, Any],
    *,
    prefix: str = "/capibara",
    to_input: Callable[[Any], Any] | None = None,
    options: type[BaseModel] | None = Options,
    ping_s: float = 5.0,
    max_batch: int = 256,
    max_concurrency: int = 8,
) -> APIRouter:
    """LangServe's routes over a runnable.

    `to_input` makes the runnable's input of the JSON under `input`; ValueError, TypeError, KeyError and pydantic's
    ValidationError mean 422. None: a conversation, {"messages": [BaseMessage, …]}, with fields of `options` beside
    it. `options` are also checked in config.configurable, and the only names of kwargs that reach the runnable.
    A stream sends a comment after `ping_s` seconds of silence; a batch has at most `max_batch` inputs, of which
    `max_concurrency` run at a time.
    """
    # The wire's /stream_log is LangChain's astream_log; whoever calls the route chose it, and the log need not say so.
    warnings.filterwarnings("ignore", message="astream_log is deprecated")
    face = _Face(runnable, to_input, options, Limits(ping_s, max_batch, max_concurrency))
    routes = APIRouter(prefix=prefix, tags=["LangServe"])
    for base in ("", "/c/{config_hash}"):
        for path, endpoint, description in face.endpoints(brief=bool(base)):
            routes.add_api_route(
                f"{base}/{path}",
                _answering(endpoint),
                methods=["POST" if "requestBody" in description else "GET"],
                operation_id="_".join(["langserve", path.strip("/"), *(["configured"] if base else [])]),
                summary=str(endpoint.__doc__).splitlines()[0],
                openapi_extra={**description, **({"parameters": [_HASH_PARAMETER]} if base else {})},
                response_class=Response,
            )
    return routes


def _answering(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its refusals as responses."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return refusal.response()
        except (ClientGone, ClientDisconnect):
            return Response(status_code=CLIENT_GONE)

    return answer
