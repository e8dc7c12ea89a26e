"""The one door to LiteLLM: asks one model one question, streaming, and says what came of it.

A claim on the fleet gives an endpoint; LiteLLM's Router learns it (and nothing that is not ready);
langchain-openai's chat model converts messages, tools, usage and log-probabilities. LiteLLM retries nothing and
falls back to nothing: the chain of a question is the graph's business, the same for streams and for answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from typing import Any, NoReturn

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import ConfigDict

from capibara_agents.affinity import Affinity, Turn
from capibara_agents.config import prepare_libraries
from capibara_agents.errors import BadQuestion, CapibaraError, ModelCrashed, ModelError, ModelTimeout
from capibara_agents.patience import READING, Patience, Told
from capibara_agents.settings import ModelSpec
from capibara_agents.types import Candidate, Endpoint, Fleet, Sampling, Timings, Usage

NOWHERE = "http://warm-up.invalid"
LITELLM_LOGGERS = ("LiteLLM", "LiteLLM Router")
TAIL_TOKENS = 16
# OpenAI's code for a prompt that is too long, and llama-server's.
CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")


@dataclass(frozen=True)
class Delta:
    """A piece of an answer as it comes; empty fields say nothing."""

    model: str
    attempt: int
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    logprobs: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Inquiry:
    """One model asked once."""

    spec: ModelSpec
    attempt: int
    messages: Sequence[BaseMessage]
    sampling: Sampling
    deadline_s: float | None = None


class Models:
    """Asks the models of a fleet through LiteLLM's Router."""

    def __init__(self, fleet: Fleet, *, load_wait_s: float, affinity: Affinity | None = None) -> None:
        self._fleet = fleet
        self._load_wait_s = load_wait_s
        self.affinity = affinity or Affinity()
        self._known: dict[str, Endpoint] = {}
        self._chats: dict[str, FleetChat] = {}
        self._clients: dict[str, Any] = {}

    @cached_property
    def _router(self) -> Any:
        return _new_router()

    def warm(self) -> None:
        """Pay now for what LiteLLM imports, at its import and again at its first call (seconds). Blocks."""
        router = self._router
        # A thread of its own: the caller may already be inside an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _first_call(router)).result()

    async def ask(
        self,
        inquiry: Inquiry,
        *,
        on_delta: Callable[[Delta], None] | None = None,
        on_reading: Told | None = None,
        config: RunnableConfig | None = None,
    ) -> Candidate:
        """The model's answer, or a candidate that says why there is none. Raises nothing but cancellation.

        `on_delta` is called for every piece as it arrives, `on_reading` after each batch of a long prompt but the last.
        """
        answer = _Assembly(inquiry, on_delta)
        patience = Patience(inquiry.spec, self.affinity.speeds().get(inquiry.spec.id), on_reading)
        try:
            async with asyncio.timeout(inquiry.deadline_s):
                await self._stream(inquiry, answer, patience, config)
        except TimeoutError:
            error = ModelTimeout(f"{inquiry.spec.id} did not finish before the request's deadline.")
            return answer.candidate(error, code="deadline")
        except CapibaraError as error:
            return answer.candidate(error)
        return answer.candidate()

    async def _stream(
        self, inquiry: Inquiry, answer: _Assembly, patience: Patience, config: RunnableConfig | None
    ) -> None:
        spec = inquiry.spec
        async with self._fleet.claim(spec.id, self._load_wait_s) as endpoint:
            answer.claimed()
            self._introduce(endpoint)
            chat = self._chat(spec)
            arguments = _arguments(spec, inquiry.sampling)
            READING.set(patience.reads)
            try:
                async with aclosing(chat.astream(list(inquiry.messages), config, **arguments)) as chunks:  # type: ignore[type-var]
                    async for chunk in patience.over(chunks):
                        answer.add(chunk)
            except (CapibaraError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001  (LiteLLM's and openai's errors share no base class)
                _translate(error, spec)
            finally:
                # Also what was broken off has been read; what was refused has pushed nothing out.
                if patience.has_begun or answer.first_s is not None:
                    self.affinity.answered(answer.turn(), endpoint)

    def _chat(self, spec: ModelSpec) -> FleetChat:
        """The model's chat model; it keeps nothing of a question, and making one takes a millisecond."""
        if spec.id not in self._chats:
            self._chats[spec.id] = FleetChat(spec=spec, router=self._router, clients=self._clients, model=spec.id)
        return self._chats[spec.id]

    def _introduce(self, endpoint: Endpoint) -> None:
        """Tell the Router where the model answers now; it forgets where it answered before."""
        if self._known.get(endpoint.model_id) == endpoint:
            return
        from capibara_agents.llama_client import LlamaClient  # noqa: PLC0415  (aiohttp takes 0.2 s to import)

        _upsert(self._router, endpoint)
        self._clients[endpoint.model_id] = LlamaClient(f"{endpoint.url}/v1", endpoint.api_key)
        self._known[endpoint.model_id] = endpoint


def _upsert(router: Any, endpoint: Endpoint) -> None:
    from litellm.types.router import Deployment, LiteLLM_Params, ModelInfo  # noqa: PLC0415

    router.upsert_deployment(
        Deployment(
            model_name=endpoint.model_id,
            litellm_params=LiteLLM_Params(
                model=f"openai/{endpoint.model_id}",
                custom_llm_provider="openai",
                api_base=f"{endpoint.url}/v1",
                api_key=endpoint.api_key,
                max_retries=0,
            ),
            model_info=ModelInfo(id=endpoint.model_id),
        )
    )


def _new_router() -> Any:
    prepare_libraries()
    import litellm  # noqa: PLC0415  (2.4 s; the command line must not pay for it)
    from litellm.llms.openai.openai import OpenAIChatCompletion  # noqa: PLC0415
    from litellm.router import Router  # noqa: PLC0415
    from litellm.utils import validate_and_fix_openai_messages  # noqa: PLC0415

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    for name in LITELLM_LOGGERS:
        # They repeat what a server answered, prompts included; what matters of it is in the candidate.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    litellm.disable_streaming_logging = True
    openai_chat, as_openai = OpenAIChatCompletion(), litellm.OpenAIGPTConfig()

    class Direct(Router):
        """Asks LiteLLM's handler of OpenAI's protocol for the deployment that the Router picks.

        Around that, the Router keeps limits and fallbacks of its own, of which there are none, for a millisecond of a
        core before the first token. `litellm.completion` looks for another more who speaks which protocol, what the
        model costs and which parameters it takes: servers of one kind, which have no price, take all as they are.
        """

        async def ask(self, model: str, *, messages: list[Any], client: Any, books: Any, **parameters: Any) -> Any:
            """LiteLLM's stream from the model's deployment; raises LiteLLM's errors."""
            deployment = self.get_available_deployment(model=model, messages=messages)
            try:
                return await openai_chat.async_streaming(
                    model=model,
                    messages=validate_and_fix_openai_messages(messages),
                    optional_params=parameters,
                    litellm_params=deployment["litellm_params"],
                    provider_config=as_openai,
                    logging_obj=books,
                    client=client,
                    timeout=math.inf,
                )
            # Whatever the client raises: LiteLLM gives each the type that callers wait for.
            except Exception as error:
                raise litellm.exception_type(model, error, "openai") from error

    return Direct(
        model_list=[],
        num_retries=0,
        max_fallbacks=0,
        disable_cooldowns=True,
        enable_pre_call_checks=False,
    )


async def _first_call(router: Any) -> None:
    """A call that reaches no model: the client refuses it."""
    import openai  # noqa: PLC0415

    from capibara_agents.llama_client import LlamaClient, Refused  # noqa: PLC0415

    class Nobody(LlamaClient):
        async def _create(self, **_: Any) -> NoReturn:
            raise Refused(503, "")

    _upsert(router, Endpoint(model_id="warm-up", url=NOWHERE, api_key="none", generation=0))
    messages = [{"role": "user", "content": ""}]
    with suppress(openai.APIError):
        await router.ask("warm-up", messages=messages, client=Nobody(NOWHERE, "none"), books=_no_books()("", messages))
    router.delete_deployment(id="warm-up")


@cache
def _no_books() -> Callable[[str, list[Any]], Any]:
    """Makes what LiteLLM wants to log one call with."""
    from litellm.litellm_core_utils.litellm_logging import Logging  # noqa: PLC0415

    class NoBooks(Logging):
        """LiteLLM's books on one call, not kept: they copy prompts and price the answer, 11 ms after each.

        What is to be known of a call is in its candidate.
        """

        def pre_call(self, *args: Any, **kwargs: Any) -> None: ...
        def post_call(self, *args: Any, **kwargs: Any) -> None: ...
        def success_handler(self, *args: Any, **kwargs: Any) -> None: ...
        def failure_handler(self, *args: Any, **kwargs: Any) -> None: ...
        async def async_success_handler(self, *args: Any, **kwargs: Any) -> None: ...
        async def async_failure_handler(self, *args: Any, **kwargs: Any) -> None: ...
        async def dispatch_success_handlers(self, *args: Any, **kwargs: Any) -> None: ...
        async def dispatch_failure_handlers(self, *args: Any, **kwargs: Any) -> None: ...
        def response_cost_calculator(self, *args: Any, **kwargs: Any) -> float:
            return 0.0

    def books(model_id: str, messages: list[Any]) -> Any:
        return NoBooks(
            model=model_id,
            messages=messages,
            stream=True,
            call_type="acompletion",
            start_time=datetime.now(),
            litellm_call_id="",
            function_id="",
        )

    return books


class _Completions:
    """LiteLLM's Router in the shape of openai's `chat.completions`, as langchain-openai calls it."""

    def __init__(self, router: Any, spec: ModelSpec, clients: Mapping[str, Any]) -> None:
        self._router = router
        self._spec = spec
        self._clients = clients

    async def create(self, **payload: Any) -> Any:
        from capibara_agents.llama_client import Pieces  # noqa: PLC0415

        response = await self._router.ask(
            **payload,
            client=self._clients[self._spec.id],
            books=_no_books()(self._spec.id, payload["messages"]),
        )
        return Pieces(response.completion_stream, READING.get())


class FleetChat(BaseChatOpenAI):
    """langchain-openai's chat model with LiteLLM's Router in the place of the OpenAI client."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(self, *, spec: ModelSpec, router: Any, clients: Mapping[str, Any], **kwargs: Any) -> None:
        completions = _Completions(router, spec, clients)
        super().__init__(
            api_key="local",
            client=completions,
            async_client=completions,
            root_client=completions,
            root_async_client=completions,
            stream_usage=True,
            # Limits are kept in one place, around each chunk, where waiting for the first one counts too.
            stream_chunk_timeout=None,
            **kwargs,
        )

    @property
    def _llm_type(self) -> str:
        return "capibara-fleet"

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        """The library's conversion, which leaves out the reasoning text that llama-server sends."""
        converted = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if converted is not None and (choices := chunk.get("choices")):
            reasoning = (choices[0].get("delta") or {}).get("reasoning_content")
            if reasoning:
                converted.message.additional_kwargs["reasoning_content"] = reasoning
        return converted


def _arguments(spec: ModelSpec, sampling: Sampling) -> dict[str, Any]:
    """Keyword arguments for the chat model. What OpenAI's SDK would parse itself travels in extra_body."""
    arguments = sampling.model_dump(exclude_none=True, exclude={"response_format", "stop", "tools", "logprobs"})
    arguments["max_tokens"] = sampling.max_tokens or spec.max_tokens
    if sampling.logprobs:
        arguments["logprobs"] = True
    if sampling.stop:
        arguments["stop"] = list(sampling.stop)
    if sampling.tools:
        arguments["tools"] = list(sampling.tools)
    extra: dict[str, Any] = {}
    if sampling.response_format:
        extra["response_format"] = sampling.response_format
    if extra:
        arguments["extra_body"] = extra
    return arguments


def _translate(error: Exception, spec: ModelSpec) -> NoReturn:
    """A foreign error as one of ours. The only table of LiteLLM's errors."""
    import openai  # noqa: PLC0415

    cause: BaseException = getattr(error, "original_exception", None) or error
    if isinstance(cause, openai.BadRequestError):
        text = str(getattr(cause, "message", cause))
        if isinstance(cause, ContextOverflowError) or any(code in text for code in CONTEXT_CODES):
            raise BadQuestion(
                f"The prompt does not fit into the {spec.context_tokens} tokens of {spec.id}.",
                param="messages",
                code="context_length_exceeded",
            ) from error
        raise BadQuestion(f"The server of {spec.id} refused the parameters of this request.") from error
    if isinstance(cause, openai.APITimeoutError):
        raise ModelTimeout(f"{spec.id} did not answer in time.", model_id=spec.id) from error
    if isinstance(cause, openai.APIStatusError) and cause.status_code not in (500, 502, 503):
        message = f"The server of {spec.id} answered with HTTP {cause.status_code}."
        raise ModelError(message, model_id=spec.id) from error
    raise ModelCrashed(f"The server of {spec.id} broke off the connection.", model_id=spec.id) from error


@dataclass
class _Assembly:
    """Collects the pieces of one answer and its timings."""

    inquiry: Inquiry
    on_delta: Callable[[Delta], None] | None
    asked_s: float = field(default_factory=time.monotonic)
    claimed_s: float | None = None
    first_s: float | None = None
    whole: AIMessageChunk | None = None
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    tool_chunks: AIMessageChunk | None = None

    def claimed(self) -> None:
        self.claimed_s = time.monotonic()

    def add(self, chunk: AIMessageChunk) -> None:
        delta = _delta(chunk, self.inquiry)
        said_something = delta.content or delta.reasoning or delta.tool_calls
        if said_something and self.first_s is None:
            self.first_s = time.monotonic()
        if delta.content:
            self.content.append(delta.content)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        if delta.tool_calls:
            self.tool_chunks = chunk if self.tool_chunks is None else self.tool_chunks + chunk
        self.logprobs.extend(delta.logprobs)
        self.finish_reason = chunk.response_metadata.get("finish_reason") or self.finish_reason
        if chunk.usage_metadata:
            self.usage = _usage(chunk.usage_metadata)
        if said_something and self.on_delta is not None:
            self.on_delta(delta)

    def turn(self) -> Turn:
        """What has come so far, for what is remembered of who has read what."""
        return Turn(
            model=self.inquiry.spec.id,
            messages=self.inquiry.messages,
            sampling=self.inquiry.sampling,
            first_s=None if self.first_s is None or self.claimed_s is None else self.first_s - self.claimed_s,
            usage=self.usage,
            content="".join(self.content),
            tool_calls=_tool_calls(self.tool_chunks),
            has_reasoned=bool(self.reasoning),
        )

    def candidate(self, error: CapibaraError | None = None, code: str | None = None) -> Candidate:
        """What has come so far, as a value."""
        now = time.monotonic()
        claimed = self.claimed_s if self.claimed_s is not None else now
        known = [entry["logprob"] for entry in self.logprobs if entry.get("logprob") is not None]
        return Candidate(
            model=self.inquiry.spec.id,
            attempt=self.inquiry.attempt,
            content="".join(self.content),
            reasoning="".join(self.reasoning),
            tool_calls=_tool_calls(self.tool_chunks),
            finish_reason=self.finish_reason,
            usage=self.usage,
            logprobs=tuple(self.logprobs),
            mean_logprob=sum(known) / len(known) if known else None,
            min_logprob=min(known, default=None),
            tail_logprob=sum(known[-TAIL_TOKENS:]) / len(known[-TAIL_TOKENS:]) if known else None,
            timings=Timings(
                wait_ms=round(1000 * (claimed - self.asked_s), 2),
                ttft_ms=None if self.first_s is None else round(1000 * (self.first_s - claimed), 2),
                total_ms=round(1000 * (now - self.asked_s), 2),
            ),
            error=None if error is None else code or getattr(error, "reason", error.code),
            error_message="" if error is None else error.message,
            retry_after_s=getattr(error, "retry_after_s", None),
            emitted=self.on_delta is not None and self.first_s is not None,
        )


def _delta(chunk: AIMessageChunk, inquiry: Inquiry) -> Delta:
    logprobs = chunk.response_metadata.get("logprobs") or {}
    return Delta(
        model=inquiry.spec.id,
        attempt=inquiry.attempt,
        content=chunk.text if isinstance(chunk.content, list) else chunk.content,
        reasoning=chunk.additional_kwargs.get("reasoning_content", ""),
        tool_calls=tuple(_tool_call_delta(call) for call in chunk.tool_call_chunks),
        logprobs=tuple(logprobs.get("content") or ()),
    )


def _usage(told: UsageMetadata) -> Usage:
    return Usage(
        prompt_tokens=told["input_tokens"],
        completion_tokens=told["output_tokens"],
        cached_tokens=(told.get("input_token_details") or {}).get("cache_read"),
        reasoning_tokens=(told.get("output_token_details") or {}).get("reasoning"),
    )


def _tool_call_delta(call: Any) -> dict[str, Any]:
    """OpenAI's shape of a piece of a tool call."""
    function = {"name": call.get("name"), "arguments": call.get("args") or ""}
    piece = {"index": call.get("index") or 0, "function": {k: v for k, v in function.items() if v is not None}}
    return {**piece, "id": call["id"], "type": "function"} if call.get("id") else piece


def _tool_calls(chunk: AIMessageChunk | None) -> tuple[dict[str, Any], ...]:
    """OpenAI's shape of whole tool calls; arguments stay the text the model wrote."""
    if chunk is None:
        return ()
    return tuple(
        {
            "id": call.get("id") or "",
            "type": "function",
            "function": {"name": call.get("name") or "", "arguments": call.get("args") or ""},
        }
        for call in chunk.tool_call_chunks
    )
