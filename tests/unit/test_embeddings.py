"""OpenAI's embeddings, through openai's own client, with the real embedder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from capibara_agents.embedder import Embedder
from capibara_agents.http.app import build_app
from tests.asgi import post
from tests.fakes import FakeHouse

TEXTS = ["El gato duerme en el sofá.", "The cat sleeps on the sofa.", "Los tipos de interés suben otra vez."]


@pytest.fixture
async def client(house: FakeHouse) -> AsyncIterator[openai.AsyncOpenAI]:
    house.embedder = Embedder()  # type: ignore[assignment]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app(house))) as http:
        yield openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=http, max_retries=0)


async def test_vectors_of_like_texts_are_alike(client: openai.AsyncOpenAI) -> None:
    """Across languages; of unit length; the client's own base64 and plain numbers say the same."""
    packed = await client.embeddings.create(model="capibara", input=TEXTS)
    plain = await client.embeddings.create(model="capibara", input=TEXTS, encoding_format="float")
    vectors = np.array([row.embedding for row in packed.data])
    assert vectors.shape == (3, 512)
    assert np.allclose(vectors, [row.embedding for row in plain.data])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6 > vectors[0] @ vectors[2]
    assert packed.usage.prompt_tokens > 15


async def test_a_long_text_is_read_to_its_end(client: openai.AsyncOpenAI) -> None:
    """Texts that differ only in the middle have different vectors."""
    filler = "palabra " * 300
    got = await client.embeddings.create(
        model="capibara", input=[f"{filler} gato {filler}", f"{filler} deuda {filler}"]
    )
    assert got.data[0].embedding != got.data[1].embedding


@pytest.mark.parametrize(
    ("change", "param", "status"),
    [
        ({"model": "phi-4-mini"}, "model", 404),
        ({"input": []}, "input", 400),
        ({"input": ""}, "input", 400),
        ({"input": ["a", ""]}, "input", 400),
        ({"input": [1, 2]}, "input", 400),
        ({"input": ["x"] * 257}, "input", 400),
        ({"dimensions": 256}, "dimensions", 400),
        ({"encoding_format": "hex"}, "encoding_format", 400),
    ],
)
async def test_what_cannot_be_done_is_named(house: FakeHouse, change: dict[str, Any], param: str, status: int) -> None:
    sent = {"model": "capibara", "input": "hola", **change}
    exchange = await post(build_app(house), "/v1/embeddings", sent).done()
    assert exchange.status == status
    assert exchange.json()["error"]["param"] == param
