"""LangServe's own client, RemoteRunnable, against /capibara of a real service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langserve import RemoteRunnable
from service_process import ANSWER_LIMIT_S, MODELS, Service

pytestmark = pytest.mark.servers

ES, EN = "¿Cuál es la capital de Perú?", "What is the capital of Peru?"


def asked(content: str, **options: Any) -> dict[str, Any]:
    return {"messages": [HumanMessage(content)], "sampling": {"max_tokens": 8, "temperature": 0}, **options}


@pytest.fixture
async def remote(service: Service) -> AsyncIterator[RemoteRunnable]:
    """A client; closed on the loop it was used on."""
    made = RemoteRunnable(f"{service.url}/capibara/", timeout=ANSWER_LIMIT_S)
    yield made
    await made.async_client.aclose()
    made.sync_client.close()


@pytest.mark.parametrize(("question", "language"), [(ES, "es"), (EN, "en")])
def test_invoke_gives_a_message_with_its_decision(remote: RemoteRunnable, question: str, language: str) -> None:
    """The message is revived as LangChain's own, with usage and the whole decision."""
    answer = remote.invoke(asked(question))
    assert isinstance(answer, AIMessage)
    assert answer.text.strip()
    assert answer.usage_metadata is not None
    assert 0 < answer.usage_metadata["output_tokens"] <= 8
    assert answer.response_metadata["model_name"] in MODELS
    assert answer.response_metadata["capibara"]["classification"]["language"] == language


def test_openai_style_messages_are_accepted(remote: RemoteRunnable) -> None:
    """Roles as OpenAI writes them do as well as LangChain's messages."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": EN}]
    assert remote.invoke({"messages": messages, "sampling": {"max_tokens": 4}}).text.strip()


def test_batch_answers_in_order(remote: RemoteRunnable) -> None:
    """Two questions, two answers, each in the place of its question."""
    answers = remote.batch([asked(ES), asked(EN)])
    decided = [answer.response_metadata["capibara"]["classification"]["language"] for answer in answers]
    assert decided == ["es", "en"]
    assert all(answer.text.strip() for answer in answers)


def test_a_stream_adds_up_to_the_answer(remote: RemoteRunnable) -> None:
    """Several pieces; together the text and the decision."""
    pieces = list(remote.stream(asked(ES)))
    assert len(pieces) > 2
    assert all(isinstance(piece, AIMessageChunk) for piece in pieces)
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    assert whole.text.strip()
    assert whole.response_metadata["capibara"]["verdict"]["candidate"]


async def test_the_client_works_async(remote: RemoteRunnable) -> None:
    """ainvoke, abatch and astream do as their synchronous sisters."""
    assert (await remote.ainvoke(asked(EN))).text.strip()
    assert len(await remote.abatch([asked(EN), asked(ES)])) == 2
    assert "".join([piece.text async for piece in remote.astream(asked(EN))]).strip()


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_events_show_the_model_at_work(remote: RemoteRunnable) -> None:
    """Nodes of the graph and the tokens of the model inside it are seen from outside, and the run ends."""
    events = [event async for event in remote.astream_events(asked(ES), version="v2")]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "on_chain_start"
    assert kinds[-1] == "on_chain_end"
    assert "on_chat_model_stream" in kinds
    assert {"classify", "route", "generate", "vote", "verify"} <= {event["name"] for event in events}


def test_the_client_composes(remote: RemoteRunnable) -> None:
    """prompt | remote | parser is a chain like any other."""
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    chain = prompt | (lambda value: {"messages": value.to_messages(), "sampling": {"max_tokens": 6}}) | remote
    text = (chain | StrOutputParser()).invoke({"question": EN})
    assert isinstance(text, str)
    assert text.strip()


def test_an_option_beside_the_messages_chooses_the_model(remote: RemoteRunnable) -> None:
    """A model named in the input is the one that answers."""
    assert remote.invoke(asked(EN, model="qwen_coder")).response_metadata["model_name"] == "qwen2.5-coder-1.5b"


@pytest.mark.parametrize("options", [{"model": "gpt-4"}, {"mode": "guess"}], ids=["model", "mode"])
def test_a_wrong_option_is_an_error_of_the_client(remote: RemoteRunnable, options: dict[str, Any]) -> None:
    """A 4xx with a reason, not an answer and not a failure of the server."""
    with pytest.raises(httpx.HTTPStatusError) as refused:
        remote.invoke(asked(EN, **options))
    assert refused.value.response.status_code in (400, 404, 422)


def test_the_schemas_and_the_playground_are_there(service: Service) -> None:
    """The wire's three schemas, and a page that needs nothing from elsewhere."""
    for name in ("input_schema", "output_schema", "config_schema"):
        response = service.client.get(f"/capibara/{name}")
        assert response.status_code == 200
        jsonschema.Draft202012Validator.check_schema(response.json())
        assert response.json()
    assert "messages" in service.client.get("/capibara/input_schema").text
    page = service.client.get("/capibara/playground/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'src="http' not in page.text
