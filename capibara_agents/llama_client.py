"""What LiteLLM calls as openai's client, for a llama-server: questions go out as they are, pieces stay JSON.

openai's own client walks through every message by its types before it sends them, makes an object of models for every
piece, and goes through httpx; of a question that takes longer than all that Capibara decides about it. This one is
aiohttp's, whose parser is not Python: 1.3 ms of a core for a short answer, in the place of 3.5.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

Chunk = dict[str, Any]

LONGEST_PIECE_BYTES = 1 << 20
LONGEST_REFUSAL_BYTES = 1 << 16


class Refused(Exception):
    """The server answered with an error's status; LiteLLM makes one of its own errors of it, by `status_code`."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class BrokenOff(Exception):
    """An answer that has begun will not be whole."""


class LlamaClient:
    """Streams chat completions and does nothing else; safe to share between event loops.

    Time limits are the caller's: none is kept here.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._url = f"{base_url}/chat/completions"
        self._headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
        completions = SimpleNamespace(with_raw_response=SimpleNamespace(create=self._create))
        self.chat = SimpleNamespace(completions=completions)
        """As much of openai's resources as LiteLLM uses."""

    async def _create(
        self,
        *,
        timeout: Any = None,  # noqa: ASYNC109  (openai's interface)
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> _Raw:
        session = _session()
        try:
            response = await session.post(
                self._url,
                data=json.dumps({"return_progress": True, **body, **(extra_body or {})}).encode(),
                headers={**self._headers, **(extra_headers or {})},
            )
            if response.status != 200:
                refusal = await response.content.read(LONGEST_REFUSAL_BYTES)
                raise Refused(response.status, refusal.decode(errors="replace"))
        # A cancelled call too: the session is given away below, or closed here.
        except BaseException:
            await session.close()
            raise
        return _Raw(Answer(session, response))


def _session() -> aiohttp.ClientSession:
    """For one question: kept between questions it would belong to one event loop.

    A reused connection to llama-server breaks now and then, and holds one of its few threads while nothing is asked.
    """
    return aiohttp.ClientSession(
        connector=_Loopback(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        read_bufsize=LONGEST_PIECE_BYTES,
    )


class _Loopback(aiohttp.BaseConnector):
    """Plain TCP to an address: what aiohttp's own does about names, TLS and several addresses takes 0.2 ms."""

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:  # noqa: ASYNC109
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(partial(_Cut, loop), req.url.raw_host, req.url.port)
        return connection


class _Cut(ResponseHandler):
    """A connection that ends at once: else it waits until what is unsent is read, of a hung server never."""

    def close(self) -> None:
        self.abort()


class Answer:
    """The pieces of an answer as they came; closing it ends the connection."""

    def __init__(self, session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
        self._session = session
        self._response = response

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Raises BrokenOff, aiohttp.ClientError or ValueError where the answer does not come to its [DONE]."""
        async for line in self._response.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            piece = json.loads(data)
            if not isinstance(piece, dict) or piece.get("error"):
                raise BrokenOff("The server failed in the middle of its answer.")
            yield piece
        raise BrokenOff("The stream ended before it was done.")

    async def close(self) -> None:
        self._response.close()
        await self._session.close()


class _Raw:
    """What openai's `with_raw_response` gives, as far as LiteLLM looks."""

    headers: Mapping[str, str] = {}

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def parse(self) -> Answer:
        return self._answer


class Pieces:
    """The stream below LiteLLM's, as the context manager that langchain-openai wants; leaving it ends the connection.

    LiteLLM's own wrapper makes four objects of each piece and copies of them for books that nobody keeps here.
    """

    def __init__(self, answer: Answer, reads: Callable[[int, int], None]) -> None:
        """`reads` is told how many tokens of the prompt are read, of how many, as the server reads them."""
        self._answer = answer
        self._reads = reads

    async def __aenter__(self) -> AsyncIterator[Chunk]:
        return self._that_say_something()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._answer.close()

    async def _that_say_something(self) -> AsyncIterator[Chunk]:
        async for chunk in self._answer:
            if progress := chunk.get("prompt_progress"):
                self._reads(progress["processed"], progress["total"])
            if not _is_greeting(chunk):
                yield chunk


def _is_greeting(chunk: Chunk) -> bool:
    """Whether a piece says nothing but whose turn it is, as each stream's first one does."""
    choices = chunk.get("choices")
    if not choices or chunk.get("usage") or choices[0].get("finish_reason"):
        return False
    return not any(value for name, value in (choices[0].get("delta") or {}).items() if name != "role")
