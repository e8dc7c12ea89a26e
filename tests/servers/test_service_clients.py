"""The clients people have, against a real service: openai's SDK and langchain-openai, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from service_process import ANSWER_LIMIT_S as LIMIT_S
from service_process import MODELS, Service

pytestmark = pytest.mark.servers

ES, EN = "¿Cuál es la capital de Perú?", "What is the capital of Peru?"


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=LIMIT_S) as made:
        yield made


@pytest.fixture
async def aclient(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=LIMIT_S) as made:
        yield made


@pytest.fixture
def chat(service: Service) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{service.url}/v1", api_key="none", model="capibara", max_tokens=8, max_retries=0, timeout=LIMIT_S
    )


@pytest.mark.parametrize("question", [ES, EN])
def test_openai_gets_an_answer(client: openai.OpenAI, question: str) -> None:
    """The SDK reads text, usage and the model that answered."""
    answer = client.chat.completions.create(
        model="capibara", messages=[{"role": "user", "content": question}], max_tokens=8
    )
    assert (answer.choices[0].message.content or "").strip()
    assert answer.model in MODELS
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 8


def test_openai_streams(client: openai.OpenAI) -> None:
    """The SDK's stream ends by itself, with one finish_reason and the usage last."""
    chunks = list(
        client.chat.completions.create(
            model="capibara",
            messages=[{"role": "user", "content": ES}],
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip()
    assert len([c for c in chunks if c.choices and c.choices[0].finish_reason]) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_openai_async_answers_and_streams(aclient: openai.AsyncOpenAI) -> None:
    """The asynchronous SDK does both."""
    answer = await aclient.chat.completions.create(
        model="capibara-fast", messages=[{"role": "user", "content": EN}], max_tokens=8
    )
    assert (answer.choices[0].message.content or "").strip()
    stream = await aclient.chat.completions.create(
        model="capibara-fast", messages=[{"role": "user", "content": EN}], max_tokens=8, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces).strip()


def test_openai_shows_the_decision_as_an_extra_field(client: openai.OpenAI) -> None:
    """The trace asked for by a header survives the SDK's parsing, and so do the response's headers."""
    raw = client.chat.completions.with_raw_response.create(
        model="capibara",
        messages=[{"role": "user", "content": ES}],
        max_tokens=4,
        extra_headers={"X-Capibara-Trace": "1"},
    )
    trace = (raw.parse().model_extra or {})["capibara"]
    assert trace["classification"]["language"] == "es"
    assert raw.headers["x-capibara-route"] == trace["plan"]["tier"]


def test_openai_lists_and_retrieves_models(client: openai.OpenAI) -> None:
    """The virtual models and the five; one of them by its alias too."""
    ids = [model.id for model in client.models.list()]
    assert set(MODELS) | {"capibara", "capibara-fast", "capibara-consensus"} == set(ids)
    assert client.models.retrieve("phi4:mini").id == "phi-4-mini"


def test_openai_raises_its_own_errors(client: openai.OpenAI) -> None:
    """An unknown model is a NotFoundError that lists the known ones; a refused parameter names itself."""
    with pytest.raises(openai.NotFoundError, match="phi-4-mini") as unknown:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hi"}])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="capibara", messages=[{"role": "user", "content": "hi"}], n=9)
    assert refused.value.param == "n"


def test_chat_openai_invokes(chat: ChatOpenAI) -> None:
    """LangChain's chat model gets text, usage and a finish reason."""
    answer = chat.invoke([SystemMessage("Be brief."), HumanMessage(ES)])
    assert answer.text.strip()
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["model_name"] in MODELS


def test_chat_openai_streams(chat: ChatOpenAI) -> None:
    """The pieces add up to a message that has an end."""
    pieces = list(chat.stream(EN))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    assert len(pieces) > 2
    assert whole.text.strip()
    assert whole.response_metadata["finish_reason"] in ("stop", "length")


async def test_chat_openai_works_async(chat: ChatOpenAI) -> None:
    """ainvoke and astream do as their synchronous sisters."""
    assert (await chat.ainvoke(EN)).text.strip()
    assert "".join([piece.text async for piece in chat.astream(ES)]).strip()
