"""OpenAI's older text completions: POST /v1/completions. A prompt is one question of a user's."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import ServerSentEvent
from starlette.responses import Response

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http import chat_rules
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.exchange import Exchange, Trace, data, done, failure, wants
from capibara_agents.http.house import House
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event
from capibara_agents.validation import Whole

# The models are told by their chat templates what a question is; nothing here continues a bare text.
REFUSED = {"suffix": "insertion", "best_of": "choice among hidden answers", "logprobs": "log-probabilities here"}


class CompletionBody(BaseModel):
    """POST /v1/completions. Unknown fields are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    prompt: str | list[Any]
    stream: bool | None = False
    stream_options: wire.StreamOptions | None = None
    echo: bool = False
    n: Whole | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    max_tokens: Whole | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: Whole | None = None
    logit_bias: dict[str, float] | None = None
    capibara: wire.Options | None = None


def router(house: House) -> APIRouter:
    """/v1/completions."""
    routes = APIRouter(prefix="/v1", tags=["openai"])

    @routes.post("/completions")
    async def complete(body: CompletionBody, http: HttpRequest, trace: Trace = None) -> Response:
        prompt = prompt_of(body)
        messages, request = wire.read_chat(chat_body(body, prompt))
        usage = body.stream_options is not None and body.stream_options.include_usage
        shape = CompletionShape(
            prompt if body.echo else "", trace=wants(trace), include_usage=usage, choices=request.choices
        )
        exchange = Exchange(house, messages, request, shape)
        return await (exchange.stream() if body.stream else exchange.whole(http))

    return routes


def prompt_of(body: CompletionBody) -> str:
    """The one text that is asked. BadQuestion for several, for tokens, and for what cannot be honoured."""
    extra = body.model_extra or {}
    for name, what in REFUSED.items():
        if extra.get(name) not in (None, 0, 1, ""):
            raise chat_rules.unsupported(name, f"This service has no {what}.")
    chat_rules.check_parameters({name: value for name, value in extra.items() if name not in REFUSED})
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0] if len(body.prompt) == 1 else None
    if not isinstance(prompt, str):
        raise BadQuestion("prompt must be one text; tokens and several prompts are not taken.", param="prompt")
    return prompt


def chat_body(body: CompletionBody, prompt: str) -> wire.ChatBody:
    """The same question as a chat completion."""
    values = body.model_dump(exclude_none=True, exclude={"prompt", "echo", *(body.model_extra or {})})
    return wire.ChatBody.model_validate({**values, "messages": [{"role": "user", "content": prompt}]})


class CompletionShape:
    """A text_completion, or a stream of them."""

    def __init__(self, echo: str, *, trace: bool, include_usage: bool, choices: int = 1) -> None:
        self._base: dict[str, Any] = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": "capibara",
        }
        self._echo, self._trace, self._include_usage, self._count = echo, trace, include_usage, choices

    def whole(self, answer: Answer) -> dict[str, Any]:
        chosen = answer.ranked()[: self._count]
        choices = [_choice(i, self._echo + c.content, wire.finish_of(c)) for i, c in enumerate(chosen)]
        trace = {"capibara": answer.trace()} if self._trace else {}
        base = {**self._base, "model": answer.candidate.model}
        return {**base, "choices": choices, "usage": wire.usage(*chosen), **trace}

    def opening(self) -> Iterator[ServerSentEvent]:
        if self._echo:
            for index in range(self._count):
                yield self._sent(index, self._echo)

    def delta(self, event: Event) -> Iterator[ServerSentEvent]:
        self._base["model"] = event["model"]
        yield self._sent(0, event["content"])

    def closing(self, answer: Answer, *, said: bool) -> Iterator[ServerSentEvent]:
        chosen = answer.ranked()[: self._count]
        self._base["model"] = answer.candidate.model
        for index, candidate in reversed(list(enumerate(chosen))):
            verdict = {} if index else {"capibara": wire.verdict_of(answer, trace=self._trace)}
            yield self._sent(
                index, "" if said and not index else candidate.content, wire.finish_of(candidate), **verdict
            )
        if self._include_usage:
            yield data({**self._base, "choices": [], "usage": wire.usage(*chosen)})
        yield done()

    def broken(self, error: CapibaraError) -> Iterator[ServerSentEvent]:
        yield failure(error)

    def _sent(self, index: int, text: str, finish_reason: str | None = None, **rest: Any) -> ServerSentEvent:
        return data({**self._base, "choices": [_choice(index, text, finish_reason)], **rest})


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
