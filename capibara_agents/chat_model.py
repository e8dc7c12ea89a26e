"""Capibara as a LangChain chat model: in this process, or over HTTP at a running service.

ChatCapibara(fleet="tiny")                             starts what it needs at the first question
ChatCapibara(base_url="http://127.0.0.1:8000")         asks a service
ChatCapibara(capibara=my_capibara)                     shares a Capibara, which its owner closes
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.language_models.base import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from capibara_agents.errors import BadQuestion
from capibara_agents.runnable import GraphRunnable
from capibara_agents.types import Request, Sampling, TemplateName, Voting

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

SAMPLING = frozenset(Sampling.model_fields)
OPTIONS = frozenset(Request.model_fields) - {"sampling", "stream", "model"}
# What LangChain tells its tracers along with a question.
OF_TRACERS = frozenset({"ls_structured_output_format", "structured_output_format", "strict"})
# The models inside speak to nobody but this chat model: a tracer would hear every token twice.
ALONE: RunnableConfig = {"callbacks": []}
Method = Literal["json_schema", "function_calling", "json_mode"]


class ChatCapibara(BaseChatModel):
    """Five local models as one chat model; sync and async, streaming, tools, structured output.

    The decision behind an answer is in its `response_metadata["capibara"]` (in this process; over HTTP the service's
    headers have it). Errors are those of `capibara_agents.errors` in this process, and of `openai` over HTTP.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, ignored_types=(cached_property,))

    model: str = Field("capibara", alias="model_name", description="A model id, an alias or a virtual model.")
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | str | None = Field(None, alias="stop_sequences")
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    mode: Literal["auto", "single", "cascade", "consensus"] | None = None
    voters: tuple[str, ...] | None = None
    min_voters: int | None = None
    max_voters: int | None = None
    samples: int | None = None
    voting: Voting | None = None
    template: TemplateName | None = None
    quality: Literal["fast", "balanced", "best"] | None = None
    deadline_s: float | None = None
    fallback: bool | None = None

    base_url: str | None = Field(None, description="Of a running service, without /v1; None: in this process.")
    api_key: SecretStr | None = None
    timeout: float | None = Field(None, description="Seconds, of an HTTP request; deadline_s is for the answer.")
    max_retries: int = Field(0, description="Of an HTTP request.")
    capibara: Any = Field(None, exclude=True, repr=False, description="A Capibara to share.")
    config_file: str | None = Field(None, description="Configuration of a Capibara in this process.")
    fleet: Literal["tiny", "five"] | None = None
    streaming: bool = False

    @property
    def _llm_type(self) -> str:
        return "capibara"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "base_url": self.base_url, **self._standing_options(), **self._standing_sampling()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="capibara", ls_model_name=str(kwargs.get("model", self.model)), ls_model_type="chat"
        )
        if (temperature := kwargs.get("temperature", self.temperature)) is not None:
            params["ls_temperature"] = temperature
        if (max_tokens := kwargs.get("max_tokens", self.max_tokens)) is not None:
            params["ls_max_tokens"] = max_tokens
        if stops := stop or _list(self.stop):
            params["ls_stop"] = stops
        return params

    # ------------------------------------------------------------ answers

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.base_url is not None:
            return self._remote._generate(messages, stop, run_manager, **_remote_kwargs(kwargs))
        return _result(self._local.invoke(messages, ALONE, **self._fields(stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.base_url is not None:
            return await self._remote._agenerate(messages, stop, run_manager, **_remote_kwargs(kwargs))
        return _result(await self._local.ainvoke(messages, ALONE, **self._fields(stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if self.base_url is not None:
            yield from self._remote._stream(messages, stop, run_manager, **_remote_kwargs(kwargs))
            return
        for piece in self._local.stream(messages, ALONE, **self._fields(stop, kwargs)):
            chunk = _chunk(piece)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if self.base_url is not None:
            async for chunk in self._remote._astream(messages, stop, run_manager, **_remote_kwargs(kwargs)):
                yield chunk
            return
        async for piece in self._local.astream(messages, ALONE, **self._fields(stop, kwargs)):
            chunk = _chunk(piece)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    # ------------------------------------------------------------ tools and structure

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """With tools it may call. `tool_choice`: auto, none, any (or required, or True), or the name of one tool."""
        converted = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        choice = _choice(tool_choice, [tool["function"]["name"] for tool in converted])
        return self.bind(tools=converted, **({"tool_choice": choice} if choice else {}), **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers that keep a schema: by the server's grammar (json_schema), by a tool, or as any JSON (json_mode)."""
        wanted: Any = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
        told = {"kwargs": {"method": method, "strict": strict}, "schema": convert_to_openai_tool(schema)}
        kwargs = {**kwargs, "ls_structured_output_format": told}
        if method == "function_calling":
            tool = convert_to_openai_tool(schema, strict=strict)
            name = tool["function"]["name"]
            bound = self.bind_tools([tool], tool_choice=name, **kwargs)
            tool_parser: Any = (
                PydanticToolsParser(tools=[wanted], first_tool_only=True)
                if wanted
                else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            )
            return _parsed(bound, tool_parser, include_raw=include_raw)
        bound = self.bind(response_format=_format(schema, method, strict=strict), **kwargs)
        parser: Any = PydanticOutputParser(pydantic_object=wanted) if wanted else JsonOutputParser()
        return _parsed(bound, parser, include_raw=include_raw)

    # ------------------------------------------------------------ where the answers come from

    @cached_property
    def _local(self) -> GraphRunnable:
        if self.capibara is not None:
            shared: GraphRunnable = self.capibara
            return shared
        from capibara_agents.assembly import Capibara  # noqa: PLC0415  (LangGraph takes seconds to import)

        flags = {"fleet": self.fleet} if self.fleet else {}
        return Capibara.from_config(self.config_file, **flags)

    @cached_property
    def _remote(self) -> ChatOpenAI:
        import httpx  # noqa: PLC0415
        from langchain_openai import ChatOpenAI  # noqa: PLC0415

        # A kept connection belongs to the event loop that opened it; this object may be used on several.
        limits = httpx.Limits(max_keepalive_connections=0)
        options = self._standing_options()
        return ChatOpenAI(
            model=self.model,
            base_url=f"{str(self.base_url).rstrip('/').removesuffix('/v1')}/v1",
            api_key=self.api_key or SecretStr("none"),
            timeout=self.timeout,
            max_retries=self.max_retries,
            stream_usage=True,
            http_client=httpx.Client(limits=limits, timeout=self.timeout),
            http_async_client=httpx.AsyncClient(limits=limits, timeout=self.timeout),
            stop_sequences=_list(self.stop) or None,
            extra_body={"capibara": options} if options else None,
            **{key: value for key, value in self._standing_sampling().items() if key != "stop"},
        )

    def close(self) -> None:
        """Stop the servers that this chat model has started; a shared Capibara is its owner's."""
        started = self.__dict__.pop("_local", None)
        if started is not None and self.capibara is None:
            started.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------ what is asked for

    def _standing_options(self) -> dict[str, Any]:
        """The fields of Request that were set; as JSON has them."""
        found = {name: getattr(self, name) for name in OPTIONS if hasattr(self, name)}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in found.items() if v is not None}

    def _standing_sampling(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in SAMPLING if name != "stop" and hasattr(self, name)}
        stops = {"stop": _list(self.stop)} if self.stop else {}
        return {name: value for name, value in found.items() if value is not None} | stops

    def _fields(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of Request for one question. BadQuestion for a name that means nothing here."""
        given = {name: value for name, value in kwargs.items() if name not in OF_TRACERS and value is not None}
        for name in given:
            if name not in SAMPLING | OPTIONS | {"model", "max_completion_tokens"}:
                message = f"{name} is no option of a chat with Capibara."
                raise BadQuestion(message, param=name, code="unsupported_parameter")
        sampling = self._standing_sampling() | {name: value for name, value in given.items() if name in SAMPLING}
        if "max_completion_tokens" in given:
            sampling["max_tokens"] = given["max_completion_tokens"]
        stops = stop or _list(given.get("stop"))
        if stops:
            sampling["stop"] = stops
        options = self._standing_options() | {name: value for name, value in given.items() if name in OPTIONS}
        return {**options, "model": given.get("model", self.model), "sampling": sampling}


def _list(stop: Any) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or [])


def _remote_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the OpenAI client: options of ours go into the body's own object."""
    ours = {name: value for name, value in kwargs.items() if name in OPTIONS}
    rest = {name: value for name, value in kwargs.items() if name not in OPTIONS | OF_TRACERS}
    return {**rest, "extra_body": {"capibara": ours}} if ours else rest


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _chunk(piece: AIMessage) -> ChatGenerationChunk:
    assert isinstance(piece, AIMessageChunk)
    return ChatGenerationChunk(message=piece)


def _choice(choice: dict[str, Any] | str | bool | None, names: Sequence[str]) -> dict[str, Any] | str | None:
    """OpenAI's tool_choice."""
    if choice is True or choice in ("any", "required"):
        return "required"
    if isinstance(choice, str) and choice not in ("auto", "none"):
        if choice not in names:
            raise BadQuestion(f"tool_choice names no tool; there are {', '.join(names)}.", param="tool_choice")
        return {"type": "function", "function": {"name": choice}}
    return choice or None


def _format(schema: Any, method: Method, *, strict: bool | None) -> dict[str, Any]:
    """OpenAI's response_format."""
    if method == "json_mode":
        return {"type": "json_object"}
    if method != "json_schema":
        raise BadQuestion("method must be json_schema, function_calling or json_mode.", param="method")
    converted = convert_to_json_schema(schema, strict=strict)
    named: dict[str, Any] = {"name": converted.get("title", "answer"), "schema": converted}
    return {"type": "json_schema", "json_schema": named | ({"strict": strict} if strict is not None else {})}


def _parsed(model: Runnable[Any, Any], parser: Runnable[Any, Any], *, include_raw: bool) -> Runnable[Any, Any]:
    """The parsed answer; with `include_raw` the message and what went wrong beside it."""
    if not include_raw:
        return model | parser
    parse = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parse.with_fallbacks([failed], exception_key="parsing_error")
