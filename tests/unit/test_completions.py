"""OpenAI's older text completions over scripted models, through openai's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from capibara_agents.http.app import build_app
from tests.asgi import post
from tests.fakes import PHI, SPANISH, FakeHouse

TEXT = "".join(SPANISH.pieces)


@pytest.fixture
async def client(house: FakeHouse) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app(house))) as http:
        yield openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=http, max_retries=0)


async def test_a_completion(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    """The prompt is the question; what is said of sampling reaches the model."""
    house.upstream.script(PHI, SPANISH)
    got = await client.completions.create(model="capibara", prompt="¿Capital?", max_tokens=9, echo=True, stop="X")
    assert got.choices[0].text == "¿Capital?" + TEXT
    assert got.choices[0].finish_reason == "stop"
    asked = house.upstream.requests[-1]
    assert (asked["max_tokens"], asked["stop"]) == (9, ["X"])
    assert asked["messages"] == [{"role": "user", "content": "¿Capital?"}]


async def test_a_stream_of_completions(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    house.upstream.script(PHI, SPANISH)
    stream = await client.completions.create(
        model="capibara", prompt=["¿Capital?"], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == TEXT
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 3}, "logprobs"),
        ({"n": 4}, "n"),
    ],
)
async def test_what_cannot_be_done_is_named(house: FakeHouse, change: dict[str, Any], param: str) -> None:
    exchange = await post(build_app(house), "/v1/completions", {"model": "capibara", "prompt": "hola", **change}).done()
    assert exchange.status == 400
    assert exchange.json()["error"]["param"] == param
