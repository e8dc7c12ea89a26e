"""OpenAI's embeddings: POST /v1/embeddings, for the model `capibara`."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from capibara_agents.embedder import DIMENSIONS, Vector
from capibara_agents.errors import BadQuestion, UnknownModel
from capibara_agents.http.house import House
from capibara_agents.validation import Whole

MODEL = "capibara"
LIMIT = 256


class EmbeddingsBody(BaseModel):
    """POST /v1/embeddings. Unknown fields are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str
    input: str | list[Any] = Field(min_length=1)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Whole | None = Field(None, ge=1)


def router(house: House) -> APIRouter:
    """/v1/embeddings."""
    routes = APIRouter(prefix="/v1", tags=["openai"])

    @routes.post("/embeddings")
    async def embed(body: EmbeddingsBody) -> dict[str, Any]:
        texts = texts_of(body)
        vectors, tokens = await run_in_threadpool(house.embedder.embed_whole, texts)
        used = sum(tokens)
        return {
            "object": "list",
            "model": MODEL,
            "data": [
                {"object": "embedding", "index": index, "embedding": _coded(vector, body.encoding_format)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }

    return routes


def texts_of(body: EmbeddingsBody) -> list[str]:
    """The texts to embed. Raises UnknownModel, and BadQuestion for what is no text or too much."""
    if body.model != MODEL:
        raise UnknownModel(body.model, [MODEL])
    if body.dimensions not in (None, DIMENSIONS):
        message = f"Vectors have {DIMENSIONS} dimensions here; leave dimensions out."
        raise BadQuestion(message, param="dimensions", code="unsupported_parameter")
    texts = [body.input] if isinstance(body.input, str) else body.input
    if len(texts) > LIMIT:
        raise BadQuestion(f"input holds {len(texts)} texts; at most {LIMIT} are embedded at once.", param="input")
    for text in texts:
        if not isinstance(text, str) or not text:
            raise BadQuestion("input must be a text or a list of texts, none of them empty.", param="input")
    return texts


def _coded(vector: Vector, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
    return [float(value) for value in vector]
