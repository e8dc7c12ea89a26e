"""OpenAI's shapes: bodies in, completions and chunks out. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from capibara_agents.errors import BadQuestion
from capibara_agents.http import chat_rules, chat_schemas
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event, read_messages, read_request
from capibara_agents.types import VIRTUAL_MODELS, Candidate, Plan, Request, Usage, model_of
from capibara_agents.validation import Whole


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class Options(BaseModel):
    """The body's own object `capibara`: how the question is to be answered."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mode: str | None = None
    voters: list[str] | None = None
    min_voters: Whole | None = None
    max_voters: Whole | None = None
    samples: Whole | None = None
    voting: str | None = None
    template: str | None = None
    quality: str | None = None
    deadline_s: float | None = None
    fallback: bool | None = None
    stream: Literal["auto", "eager", "verified"] = "auto"
    tests: str | None = None
    synthesis: bool | None = None
    judge: bool | None = None


class ChatBody(BaseModel):
    """POST /v1/chat/completions. Unknown fields are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="allow", strict=True)

    messages: Annotated[list[dict[str, Any]], WithJsonSchema(chat_schemas.MESSAGES)] = Field(min_length=1)
    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Whole | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    max_tokens: Whole | None = Field(None, ge=1)
    max_completion_tokens: Whole | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: Whole | None = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=20)
    logit_bias: dict[str, float] | None = None
    response_format: Annotated[dict[str, Any] | None, WithJsonSchema(chat_schemas.RESPONSE_FORMAT)] = None
    tools: Annotated[list[dict[str, Any]] | None, WithJsonSchema(chat_schemas.TOOLS)] = None
    tool_choice: Annotated[str | dict[str, Any] | None, WithJsonSchema(chat_schemas.TOOL_CHOICE)] = None
    parallel_tool_calls: bool | None = None
    capibara: Options | None = None

    @field_validator("messages")
    @classmethod
    def _have_roles(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, message in enumerate(messages):
            if not isinstance(message.get("role"), str):
                raise ValueError(f"message {number} has no role")
        return messages

    @field_validator("response_format")
    @classmethod
    def _is_known_format(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get("type") not in ("text", "json_object", "json_schema"):
            raise ValueError("type must be text, json_object or json_schema")
        return value


def read_chat(body: ChatBody) -> tuple[list[BaseMessage], Request]:
    """The conversation and how to answer it. BadQuestion names what cannot be honoured."""
    extra = body.model_extra or {}
    chat_rules.check_parameters(extra)
    chat_rules.check_messages(body.messages)
    chat_rules.check_tools(body.tools or (), body.tool_choice)
    chat_rules.check_format(body.response_format)
    chat_rules.check_bias(body.logit_bias, named=body.model not in VIRTUAL_MODELS)
    if body.tools and body.logprobs:
        raise chat_rules.unsupported("logprobs", "logprobs cannot be combined with tools.")
    if body.top_logprobs is not None and not body.logprobs:
        raise BadQuestion("top_logprobs needs logprobs: true.", param="top_logprobs")
    options = body.capibara or Options()
    sampling = {
        name: getattr(body, name)
        for name in (
            "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "top_logprobs", "logit_bias",
        )
    }  # fmt: skip
    if body.tools:
        sampling |= {"tool_choice": body.tool_choice, "parallel_tool_calls": body.parallel_tool_calls}
    sampling |= {
        "max_tokens": body.max_completion_tokens or body.max_tokens,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop or [],
        "logprobs": bool(body.logprobs),
        "response_format": _format(body.response_format),
        "tools": body.tools or [],
    }
    chosen = options.model_dump(exclude_none=True, exclude={"stream"})
    stream = options.stream if body.stream else "off"
    if body.n is not None and body.n > 1:
        # So many are wanted that the vote may not be decided before; and none is known to be first until it is.
        chosen["min_voters"] = max(chosen.get("min_voters", 2), min(body.n, 5))
        stream = "verified" if body.stream else "off"
    values = {**chosen, "model": body.model, "stream": stream, "choices": body.n or 1, "sampling": sampling}
    return read_messages(body.messages), request_of(values)


def request_of(values: dict[str, Any]) -> Request:
    """The fields of Request; BadQuestion names the wrong one as it stands in the body."""
    try:
        return read_request(values)
    except BadQuestion as error:
        top, _, rest = (error.param or "").partition(".")
        path = rest if top == "sampling" else f"capibara.{error.param}" if top in Options.model_fields else error.param
        raise BadQuestion(error.message.replace(error.param or "", path or "", 1), param=path) from None


def _format(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if response_format is None or response_format["type"] == "text" else response_format


def completion(answer: Answer, *, id: str, created_s: int, trace: bool, choices: int = 1) -> dict[str, Any]:
    """A chat.completion object, the best candidate first."""
    chosen = answer.ranked()[:choices]
    body = {
        "id": id,
        "object": "chat.completion",
        "created": created_s,
        "model": answer.candidate.model,
        "choices": [_choice(index, candidate) for index, candidate in enumerate(chosen)],
        "usage": usage(*chosen),
    }
    return {**body, "capibara": answer.trace()} if trace else body


def _choice(index: int, candidate: Candidate) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": candidate.content or None, "refusal": None}
    message["annotations"] = []
    if candidate.reasoning:
        message["reasoning_content"] = candidate.reasoning
    if candidate.tool_calls:
        message["tool_calls"] = [dict(call) for call in candidate.tool_calls]
    elif message["content"] is None:
        message["content"] = ""
    return {
        "index": index,
        "message": message,
        "logprobs": {"content": list(candidate.logprobs), "refusal": None} if candidate.logprobs else None,
        "finish_reason": finish_of(candidate),
    }


def usage(first: Candidate, *others: Candidate) -> dict[str, Any]:
    """OpenAI's usage object: the tokens of what is returned; the prompt as the first one's model counted it."""
    written = sum(candidate.usage.completion_tokens for candidate in (first, *others))
    read: Usage = first.usage
    counted: dict[str, Any] = {
        "prompt_tokens": read.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": read.prompt_tokens + written,
    }
    if read.cached_tokens is not None:
        counted["prompt_tokens_details"] = {"cached_tokens": read.cached_tokens}
    return counted


def finish_of(candidate: Candidate) -> str:
    """OpenAI's finish_reason."""
    return candidate.finish_reason or ("tool_calls" if candidate.tool_calls else "stop")


def verdict_of(answer: Answer, *, trace: bool) -> dict[str, Any]:
    """What the last chunk of a stream says of the decision."""
    verdict: dict[str, Any] = {"verified": answer.verdict.accepted, "degraded": answer.verdict.degraded}
    if answer.ballot.votes:
        verdict["agreement"] = answer.ballot.agreement
    if answer.verdict.held is not None:
        verdict["held"] = answer.verdict.held
    return {**verdict, **answer.trace()} if trace else verdict


class Chunks:
    """Makes the chat.completion.chunk objects of one stream."""

    def __init__(self, *, id: str, created_s: int) -> None:
        self._base = {"id": id, "object": "chat.completion.chunk", "created": created_s}
        self._model = "capibara"
        self._opened: set[int] = set()

    def delta(self, event: Event, index: int = 0) -> dict[str, Any]:
        """A piece of the answer, or of the choice at `index`."""
        delta: dict[str, Any] = {}
        if event["content"]:
            delta["content"] = event["content"]
        if event["reasoning"]:
            delta["reasoning_content"] = event["reasoning"]
        if event["tool_calls"]:
            delta["tool_calls"] = [dict(call) for call in event["tool_calls"]]
        self._model = event["model"]
        logprobs = {"content": list(event["logprobs"]), "refusal": None} if event["logprobs"] else None
        return self._chunk(index, delta, logprobs=logprobs)

    def whole(self, candidate: Candidate, index: int = 0) -> dict[str, Any]:
        """An answer in one piece, where none of it has been sent."""
        calls = tuple({**call, "index": number} for number, call in enumerate(candidate.tool_calls))
        return self.delta(
            {
                "model": candidate.model,
                "content": candidate.content,
                "reasoning": candidate.reasoning,
                "tool_calls": calls,
                "logprobs": candidate.logprobs,
            },
            index,
        )

    def finish(self, candidate: Candidate, index: int) -> dict[str, Any]:
        """The end of a choice."""
        return self._chunk(index, {}, finish_reason=finish_of(candidate))

    def last(self, answer: Answer, *, trace: bool) -> dict[str, Any]:
        """The end of the answer that won; verdict and trace ride on it."""
        self._model = answer.candidate.model
        return {**self.finish(answer.candidate, 0), "capibara": verdict_of(answer, trace=trace)}

    def used(self, *chosen: Candidate) -> dict[str, Any]:
        """The usage chunk: empty choices."""
        return {**self._base, "model": self._model, "choices": [], "usage": usage(*chosen)}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        if index not in self._opened:
            self._opened.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._base, "model": self._model, "choices": [choice]}


def plan_headers(plan: Plan) -> dict[str, str]:
    """What is known of the decision before an answer: route, mode, models."""
    return {"x-capibara-route": plan.tier, "x-capibara-mode": plan.mode, "x-capibara-models": ",".join(_models(plan))}


def _models(plan: Plan) -> list[str]:
    """The models of a plan, each once, however many of its answers vote."""
    return list(dict.fromkeys(model_of(voter) for voter in plan.models))


def decision_headers(answer: Answer) -> dict[str, str]:
    """The whole decision, for an answer that is complete."""
    return {
        **plan_headers(answer.plan),
        "x-capibara-models": ",".join(dict.fromkeys(c.model for c in answer.candidates)),
        "x-capibara-agreement": f"{answer.ballot.agreement:.3f}",
        "x-capibara-verified": str(answer.verdict.accepted).lower(),
        "x-capibara-degraded": str(answer.verdict.degraded).lower(),
    }
