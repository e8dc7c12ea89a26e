"""openai's client as LiteLLM calls it for a llama-server: questions go out as they are, pieces of an answer stay JSON.

The library's own `create` walks through every message by its types before it sends them, and makes an object of models
for every piece; for a model that says 30 tokens that costs more than all the rest of a question. What it knows of HTTP
(errors by status, time limits, event streams, an error in one) is used as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import cache, cached_property
from types import SimpleNamespace, TracebackType
from typing import Any

import httpx
from openai import AsyncOpenAI, AsyncStream

from capibara_agents.loopback import NOWHERE, must_be_whole, transport

Chunk = dict[str, Any]


class LlamaClient(AsyncOpenAI):
    """Streams chat completions and does nothing else."""

    @classmethod
    def at(cls, base_url: str, api_key: str) -> LlamaClient:
        """For the server of one model; all of them share what connects."""
        return cls(base_url=base_url, api_key=api_key, http_client=_connecting(), max_retries=0)

    @cached_property
    def chat(self) -> Any:
        """As much of openai's resources as LiteLLM uses: `chat.completions.with_raw_response.create`."""
        return SimpleNamespace(completions=SimpleNamespace(with_raw_response=SimpleNamespace(create=self._create)))

    async def _create(
        self,
        *,
        timeout: Any = None,  # noqa: ASYNC109  (openai's interface)
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> _Raw:
        stream = await self.post(
            "/chat/completions",
            cast_to=object,
            body={**body, **(extra_body or {})},
            options={"timeout": timeout, "headers": extra_headers or {}},
            stream=True,
            stream_cls=AsyncStream[Chunk],
        )
        return _Raw(stream)

    def _process_response_data(self, *, data: Any, **_: Any) -> Any:
        """A piece of an answer as it came."""
        return data


@cache
def _connecting() -> httpx.AsyncClient:
    # A reused connection to llama-server breaks now and then; a new one on loopback costs 0.1 ms.
    return httpx.AsyncClient(
        transport=transport(),
        timeout=httpx.Timeout(None),
        trust_env=False,
        mounts={NOWHERE: httpx.MockTransport(lambda _: httpx.Response(503))},
        event_hooks={"response": [must_be_whole]},
    )


class _Raw:
    """What openai's `with_raw_response` gives, as far as LiteLLM looks."""

    headers: Mapping[str, str] = {}

    def __init__(self, stream: AsyncStream[Chunk]) -> None:
        self._stream = stream

    def parse(self) -> AsyncStream[Chunk]:
        return self._stream


class Pieces:
    """The stream below LiteLLM's, as the context manager that langchain-openai wants; leaving it ends the connection.

    LiteLLM's own wrapper makes four objects of each piece and copies of them for books that nobody keeps here.
    """

    def __init__(self, stream: AsyncStream[Chunk]) -> None:
        self._stream = stream

    async def __aenter__(self) -> AsyncIterator[Chunk]:
        return self._that_say_something()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stream.close()

    async def _that_say_something(self) -> AsyncIterator[Chunk]:
        async for chunk in self._stream:
            if not _is_greeting(chunk):
                yield chunk


def _is_greeting(chunk: Chunk) -> bool:
    """Whether a piece says nothing but whose turn it is, as each stream's first one does."""
    choices = chunk.get("choices")
    if not choices or chunk.get("usage") or choices[0].get("finish_reason"):
        return False
    return not any(value for name, value in (choices[0].get("delta") or {}).items() if name != "role")
