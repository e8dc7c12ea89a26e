"""What comes in over the LangServe wire, and how it is refused.

    read(request, model)        the body of a POST as one of the models below
    config_in_path(request)     the configuration of /c/{config_hash}/
    refusal_of(error, run_id)   the HTTP error for a run that failed

All of them speak of errors as Refusal.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any, TypeVar, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from capibara_agents.errors import CapibaraError
from capibara_agents.http.errors import respond
from capibara_agents.http.langserve_encoding import config_of_hash, encode

log = logging.getLogger(__name__)

MAX_INPUT_DEPTH = 64
INTERNAL_MESSAGE = "Internal Server Error"
# The name on the wire; as a field's own name it would stand in the way of **kwargs.
_KWARGS = AliasChoices("kwargs")
# Keys of a calling graph's own run: a client inside a graph sends them along, and they mean nothing here.
_FOREIGN_KEYS = re.compile(r"__|checkpoint_")


# ---------------------------------------------------------------- bodies


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class RunConfig(_Body):
    """The part of a RunnableConfig that may come from outside; JavaScript's names are understood too."""

    run_name: str | None = Field(None, validation_alias=AliasChoices("run_name", "runName"))
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    configurable: dict[str, Any] | None = None
    max_concurrency: int | None = Field(None, ge=1, validation_alias=AliasChoices("max_concurrency", "maxConcurrency"))

    def runnable_config(self) -> RunnableConfig:
        given: dict[str, Any] = self.model_dump(exclude_none=True, exclude={"max_concurrency", "configurable"})
        knobs = (self.configurable or {}).items()
        given["configurable"] = {key: value for key, value in knobs if not _FOREIGN_KEYS.match(key)}
        return cast(RunnableConfig, given)


class InvokeBody(_Body):
    """Of invoke and stream."""

    input: Any = Field(description="What the runnable takes.")
    config: RunConfig | None = None
    named: dict[str, Any] | None = Field(
        None, validation_alias=_KWARGS, description="Options by name; unknown names are ignored."
    )


class _Filters(InvokeBody):
    include_names: list[str] | None = None
    include_types: list[str] | None = None
    include_tags: list[str] | None = None
    exclude_names: list[str] | None = None
    exclude_types: list[str] | None = None
    exclude_tags: list[str] | None = None

    def filters(self) -> dict[str, list[str] | None]:
        return {name: getattr(self, name) for name in _Filters.model_fields if name[2:7] == "clude"}


class EventsBody(_Filters):
    """Of stream_events; the schema of the events is always v2."""


class LogBody(_Filters):
    """Of stream_log."""

    diff: bool | None = Field(None, description="False or missing: the last patch holds the whole state.")


class BatchBody(_Body):
    """Of batch: one config and kwargs for all inputs, or one for each."""

    inputs: list[Any]
    config: RunConfig | list[RunConfig] | None = None
    named: dict[str, Any] | list[dict[str, Any]] | None = Field(
        None,
        validation_alias=_KWARGS,
        description="`return_exceptions: true` puts an error object where an input failed.",
    )


B = TypeVar("B", bound=_Body)


# ---------------------------------------------------------------- errors


class Refusal(Exception):
    """An HTTP error in LangServe's shape; `message` beside `detail` is what the JavaScript client shows."""

    def __init__(self, status: int, detail: Any, *, code: str = "invalid_request") -> None:
        super().__init__(status)
        self.status = status
        self.detail = detail
        self.code = code
        self.headers: dict[str, str] = {}

    @property
    def message(self) -> str:
        if isinstance(self.detail, str):
            return self.detail
        first = self.detail[0]
        return f"{'.'.join(str(part) for part in first['loc'][1:]) or 'body'}: {first['msg']}"

    def response(self) -> Response:
        body = {"detail": self.detail, "message": self.message, "code": self.code}
        return Response(encode(body), self.status, self.headers, "application/json")


def refusal_of(error: Exception, run_id: UUID) -> Refusal:
    """The HTTP error for a run that failed: the message of a CapibaraError, of anything else none."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, CapibaraError):
        answer = respond(error)
        refusal = Refusal(answer.status_code, error.message, code=getattr(error, "reason", error.code))
        refusal.headers = {"retry-after": answer.headers["retry-after"]} if "retry-after" in answer.headers else {}
        return refusal
    # Its text may hold the prompt: the log gets the class alone, and the place in the code.
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
    log.error("run %s failed with %s at %s", run_id, type(error).__name__, where)
    return Refusal(500, INTERNAL_MESSAGE, code="internal_error")


def invalid(*location: str | int, message: str, kind: str = "value_error") -> Refusal:
    return Refusal(422, [{"loc": ["body", *location], "msg": message, "type": kind}])


def from_validation(error: ValidationError, *location: str | int) -> Refusal:
    """422 without the input and the context, which hold what the caller wrote."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return Refusal(422, [{**one, "loc": ["body", *location, *one["loc"]]} for one in found])


# ---------------------------------------------------------------- requests


async def read(request: Request, model: type[B]) -> B:
    """The body, validated. Raises Refusal: 415 for what is not JSON, 422 for what is wrong in it."""
    # A page of another origin can post a form or plain text without asking first; JSON it cannot.
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Refusal(415, "Send the body as application/json.", code="unsupported_media_type")
    try:
        value = json.loads(await request.body(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise invalid(message="The body is not valid JSON.", kind="json_invalid") from None
    if _deeper_than(value, MAX_INPUT_DEPTH):
        raise invalid(message=f"The body is nested deeper than {MAX_INPUT_DEPTH} levels.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _deeper_than(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(item, levels - 1) for item in inner)


def config_in_path(request: Request) -> RunConfig:
    """The configuration of /c/{config_hash}/, an empty one elsewhere. Raises Refusal (404)."""
    packed = request.path_params.get("config_hash")
    if packed is None:
        return RunConfig()
    try:
        return RunConfig.model_validate(config_of_hash(packed))
    except (ValueError, RecursionError):
        raise Refusal(404, "There is no such configuration: the hash cannot be read.", code="not_found") from None
