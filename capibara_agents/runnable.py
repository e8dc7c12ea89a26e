"""The graph as a LangChain Runnable: messages in, an AIMessage out; sync and async, also inside a running loop.

The graph's nodes are async only. Sync calls run on one background event loop, which is started at the first of
them; async calls run on the caller's own loop.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import DEFAULT_RECURSION_LIMIT, ensure_config
from langgraph.graph.state import CompiledStateGraph
from pydantic import ValidationError

from capibara_agents.errors import BadQuestion
from capibara_agents.outcome import Answer, settle
from capibara_agents.texts import phrase
from capibara_agents.types import Request
from capibara_agents.validation import explain_first

_SURROGATES = re.compile(r"[\ud800-\udfff]")

T = TypeVar("T")
Event = dict[str, Any]
Input = Any  # str | PromptValue | sequence of messages | {"messages": …, any field of Request}


class GraphRunnable(Runnable[Input, AIMessage]):
    """Answers conversations by running the graph.

    Fields of `Request` can be bound: `capibara.bind(mode="consensus")`, or come with the input beside
    `messages`, or in `config["configurable"]`; the input's win, then the bound ones.
    """

    def __init__(self, graph: Callable[[], CompiledStateGraph[Any, Any, Any, Any]]) -> None:
        self._graph = graph
        self._portal: BlockingPortal | None = None
        self._portal_context: Any = None
        self._portal_lock = threading.Lock()

    # ------------------------------------------------------------ for the faces

    async def answer(
        self, messages: Sequence[BaseMessage], request: Request, config: RunnableConfig | None = None
    ) -> Answer:
        """Run the graph to its end. Raises the error that explains why there is no answer."""
        # Nobody sees pieces of this answer, so a rejected one may still be asked again.
        whole = _checked(messages, request).model_copy(update={"stream": "off"})
        state = await self._graph().ainvoke(
            {"messages": list(messages)}, _run_config(config), context=whole, stream_mode="values"
        )
        return settle(state)

    async def watch(
        self, messages: Sequence[BaseMessage], request: Request, config: RunnableConfig | None = None
    ) -> AsyncGenerator[Event | Answer]:
        """The run as it happens: every decision and piece of text as an event, the Answer last.

        Events: plan, delta, candidate, ballot, verdict. Leaving the iteration cancels the run.
        """
        state: dict[str, Any] = {}
        stream = self._graph().astream(
            {"messages": list(messages)},
            _run_config(config),
            context=_checked(messages, request),
            stream_mode=["custom", "values"],
        )
        async with aclosing(cast(AsyncGenerator[Any], stream)) as parts:
            async for mode, part in parts:
                if mode == "custom":
                    yield part
                else:
                    state = part
        yield settle(state)

    # ------------------------------------------------------------ Runnable, async

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """The answer; the decision is in its response_metadata["capibara"]."""
        return await self._acall_with_config(self._answer_message, input, config, **kwargs)

    async def _answer_message(self, input: Input, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> AIMessage:
        messages, request = _read(input, config, kwargs)
        return (await self.answer(messages, request, config)).message()

    async def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessage]:
        """The answer piece by piece; the last chunk carries the decision and the usage."""
        async for chunk in self.atransform(_one(input), config, **kwargs):
            yield chunk

    async def atransform(
        self, input: AsyncIterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessage]:
        """As astream, over the last input."""
        async for chunk in self._atransform_stream_with_config(input, self._chunks, config, **kwargs):
            yield chunk

    async def _chunks(
        self, inputs: AsyncIterator[Input], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        input: Input = None
        async for input in inputs:  # noqa: B007  (the last one counts)
            pass
        messages, request = _read(input, config, {"stream": "auto", **kwargs})
        said = False
        async with aclosing(self.watch(messages, request, config)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    yield _last_chunk(event, whole=not said)
                elif event["event"] == "delta":
                    said = True
                    yield _delta_chunk(event)

    # ------------------------------------------------------------ Runnable, sync

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """As ainvoke, from sync code."""

        def call(input: Input, run_manager: Any, config: RunnableConfig) -> AIMessage:
            return self._on_portal(self._answer_message(input, run_manager, config, **kwargs))

        return self._call_with_config(call, input, config)

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[AIMessage]:
        """As astream, from sync code."""
        yield from self.transform(iter([input]), config, **kwargs)

    def transform(
        self, input: Iterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessage]:
        """As atransform, from sync code."""

        def chunks(inputs: Iterator[Input], run_manager: Any, config: RunnableConfig) -> Iterator[AIMessageChunk]:
            pieces = self._chunks(_several(inputs), run_manager, config, **kwargs)
            try:
                while (piece := self._on_portal(_next_or_none(pieces))) is not None:
                    yield piece
            finally:
                self._on_portal(_close(pieces))

        yield from self._transform_stream_with_config(input, chunks, config)

    def _on_portal(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._portal_lock:
            if self._portal is None:
                self._portal_context = start_blocking_portal()
                self._portal = self._portal_context.__enter__()
            portal = self._portal
        result: T = portal.call(_awaited, coroutine)
        return result

    def close(self) -> None:
        """End the background loop, if there is one."""
        with self._portal_lock:
            context, self._portal, self._portal_context = self._portal_context, None, None
        if context is not None:
            context.__exit__(None, None, None)


async def _awaited(coroutine: Coroutine[Any, Any, T]) -> T:
    return await coroutine


async def _next_or_none(pieces: AsyncIterator[T]) -> T | None:
    return await anext(pieces, None)


async def _close(pieces: AsyncIterator[Any]) -> None:
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()


async def _one(item: T) -> AsyncIterator[T]:
    yield item


async def _several(items: Iterator[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def read_request(values: Mapping[str, Any]) -> Request:
    """Fields of Request, checked; BadQuestion names the first wrong one."""
    try:
        return Request.model_validate(values)
    except ValidationError as error:
        path, sentence = explain_first(error.errors(include_url=False))
        raise BadQuestion(sentence, param=path or None) from None


def read_messages(value: Any) -> list[BaseMessage]:
    """A conversation from whatever LangChain or OpenAI callers pass for one; BadQuestion when it is none."""
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if isinstance(value, str | BaseMessage):
        value = [value]
    try:
        messages = convert_to_messages(value)
    except (ValueError, TypeError, KeyError, NotImplementedError):
        # The cause would carry the conversation into whatever logs this error.
        raise BadQuestion(phrase("messages.no_list"), param="messages") from None
    for message in messages:
        if not _is_text(message.content):
            raise BadQuestion(phrase("messages.no_unicode"), param="messages")
        if _would_be_fetched(message.content):
            # An address could lie behind this machine's own door.
            raise BadQuestion(phrase("messages.no_address"), param="messages")
    return [_as_system(message) for message in messages]


def _as_system(message: BaseMessage) -> BaseMessage:
    """OpenAI's role `developer` is its newer name for `system`; chat templates know the older one."""
    if message.additional_kwargs.get("__openai_role__") != "developer":
        return message
    return message.model_copy(update={"additional_kwargs": {}})


def _would_be_fetched(content: Any) -> bool:
    """Whether a part of it is an image that a model's server would have to fetch."""
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    images = [part["image_url"] for part in parts if "image_url" in part]
    urls = [image.get("url") if isinstance(image, Mapping) else image for image in images]
    return any(not isinstance(url, str) or not url.startswith("data:") for url in urls)


def _is_text(content: Any) -> bool:
    """Whether all strings in it can be sent: JSON may carry half of a surrogate pair, UTF-8 cannot."""
    if isinstance(content, str):
        return content.isascii() or not _SURROGATES.search(content)
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    return all(_is_text(part) for part in parts)


def _run_config(config: RunnableConfig | None) -> RunnableConfig | None:
    """The config without LangChain's own default of a step limit: the graph knows how many steps it may take."""
    if config is None or config.get("recursion_limit") != DEFAULT_RECURSION_LIMIT:
        return config
    return cast(RunnableConfig, {key: value for key, value in config.items() if key != "recursion_limit"})


def _checked(messages: Sequence[BaseMessage], request: Request) -> Request:
    if not messages:
        raise BadQuestion(phrase("messages.empty"), param="messages")
    return request


def _read(input: Input, config: RunnableConfig, bound: Mapping[str, Any]) -> tuple[list[BaseMessage], Request]:
    beside: dict[str, Any] = {}
    if isinstance(input, Mapping):
        beside = {key: value for key, value in input.items() if key != "messages"}
        if "messages" not in input:
            raise BadQuestion(phrase("messages.none"), param="messages")
        input = input["messages"]
    knobs = (ensure_config(config).get("configurable") or {}).items()
    configured = {key: value for key, value in knobs if key in Request.model_fields}
    messages = read_messages(input)
    return messages, read_request({**configured, **bound, **beside})


def _delta_chunk(event: Event) -> AIMessageChunk:
    extra = {"reasoning_content": event["reasoning"]} if event["reasoning"] else {}
    calls = [
        {
            "name": call["function"].get("name"),
            "args": call["function"].get("arguments"),
            "id": call.get("id"),
            "index": call["index"],
            "type": "tool_call_chunk",
        }
        for call in event["tool_calls"]
    ]
    return AIMessageChunk(content=event["content"], additional_kwargs=extra, tool_call_chunks=calls)


def _last_chunk(answer: Answer, *, whole: bool) -> AIMessageChunk:
    """The decision and the usage; the text too, when none of it has been sent."""
    message = answer.message()
    return AIMessageChunk(
        content=message.content if whole else "",
        additional_kwargs=message.additional_kwargs if whole else {},
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )
