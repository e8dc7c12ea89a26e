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
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.exchange import Exchange, Trace, data, done, failure, wants
from capibara_agents.http.house import House
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event

# The models are told by their chat templates what a question is; nothing here continues a bare text.
REFUSED = {"suffix": "insertion", "best_of": "choice among hidden answers", "logprobs": "log-probabilities here"}


class CompletionBody(BaseModel):
    """POST /v1/completions. Unknown fields are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="allow")

    model: str = "capibara"
    prompt: str | list[Any]
    stream: bool = False
    stream_options: wire.StreamOptions | None = None
    echo: bool = False
    n: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
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
        shape = CompletionShape(prompt if body.echo else "", trace=wants(trace), include_usage=usage)
        exchange = Exchange(house, messages, request, shape)
        return await (exchange.stream() if body.stream else exchange.whole(http))

    return routes


def prompt_of(body: CompletionBody) -> str:
    """The one text that is asked. BadQuestion for several, for tokens, and for what cannot be honoured."""
    for name, what in REFUSED.items():
        if (body.model_extra or {}).get(name) not in (None, 0, 1, ""):
            raise BadQuestion(f"This service has no {what}.", param=name, code="unsupported_parameter")
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

    def __init__(self, echo: str, *, trace: bool, include_usage: bool) -> None:
        self._base: dict[str, Any] = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": "capibara",
        }
        self._echo, self._trace, self._include_usage = echo, trace, include_usage

    def whole(self, answer: Answer) -> dict[str, Any]:
        candidate = answer.candidate
        choice = self._choice(self._echo + candidate.content, wire.finish_of(candidate))
        trace = {"capibara": answer.trace()} if self._trace else {}
        return {**self._base, "model": candidate.model, **choice, "usage": wire.usage(candidate.usage), **trace}

    def opening(self) -> Iterator[ServerSentEvent]:
        if self._echo:
            yield data({**self._base, **self._choice(self._echo)})

    def delta(self, event: Event) -> Iterator[ServerSentEvent]:
        self._base["model"] = event["model"]
        yield data({**self._base, **self._choice(event["content"])})

    def closing(self, answer: Answer, *, said: bool) -> Iterator[ServerSentEvent]:
        candidate = answer.candidate
        self._base["model"] = candidate.model
        last = self._choice("" if said else candidate.content, wire.finish_of(candidate))
        yield data({**self._base, **last, "capibara": wire.verdict_of(answer, trace=self._trace)})
        if self._include_usage:
            yield data({**self._base, "choices": [], "usage": wire.usage(candidate.usage)})
        yield done()

    def broken(self, error: CapibaraError) -> Iterator[ServerSentEvent]:
        yield failure(error)

    @staticmethod
    def _choice(text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}]}
