"""Capibara inside a program: one LangChain Runnable over real servers, sync and async, and nothing left after it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from service_process import MODELS, until

from capibara_agents import Capibara
from capibara_agents.errors import BadQuestion, UnknownModel

pytestmark = pytest.mark.servers

ES, EN = "¿Cuál es la capital de Perú?", "What is the capital of Peru?"


def asked(content: str, **options: Any) -> dict[str, Any]:
    return {"messages": [HumanMessage(content)], "sampling": {"max_tokens": 8, "temperature": 0}, **options}


def own_servers() -> list[psutil.Process]:
    """The llama-servers that are children of this very process."""
    children = psutil.Process(os.getpid()).children()
    return [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE and "llama" in p.name()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inside")


@pytest.fixture(scope="module")
def capibara(folder: Path, real_servers: None) -> Iterator[Capibara]:
    """One Capibara in this process; leaving its context must stop every server it has started."""
    with Capibara.from_config(fleet="tiny", runtime={"data_dir": str(folder / "data")}) as made:
        yield made
        assert own_servers()
    assert until(lambda: not own_servers(), 10), own_servers()


def test_invoke_answers_with_its_decision(capibara: Capibara) -> None:
    """A text alone is a question; the answer carries model, usage and the whole trace."""
    answer = capibara.invoke(asked(ES))
    assert isinstance(answer, AIMessage)
    assert answer.text.strip()
    assert answer.response_metadata["model_name"] in MODELS
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0
    trace = answer.response_metadata["capibara"]
    assert trace["classification"]["language"] == "es"
    assert trace["plan"]["models"]


def test_a_plain_text_is_a_question(capibara: Capibara) -> None:
    """invoke("…") works, with options bound beforehand."""
    assert capibara.bind(sampling={"max_tokens": 4}).invoke(EN).text.strip()


def test_batch_keeps_its_order(capibara: Capibara) -> None:
    """Two questions side by side, each answer in its place."""
    answers = capibara.batch([asked(ES), asked(EN)])
    languages = [answer.response_metadata["capibara"]["classification"]["language"] for answer in answers]
    assert languages == ["es", "en"]


def test_a_stream_adds_up_to_the_answer(capibara: Capibara) -> None:
    """Pieces as they come, the decision with the last one."""
    pieces = list(capibara.stream(asked(EN)))
    assert len(pieces) > 2
    assert all(isinstance(piece, AIMessageChunk) for piece in pieces)
    assert "".join(piece.text for piece in pieces).strip()
    assert pieces[-1].response_metadata["capibara"]["verdict"]["candidate"]


async def test_async_answers_and_streams(capibara: Capibara) -> None:
    """ainvoke, abatch and astream on the caller's own loop."""
    assert (await capibara.ainvoke(asked(EN))).text.strip()
    assert len(await capibara.abatch([asked(EN), asked(ES)])) == 2
    assert "".join([piece.text async for piece in capibara.astream(asked(ES))]).strip()


async def test_sync_calls_work_inside_a_running_loop(capibara: Capibara) -> None:
    """As in a notebook: invoke and stream do not need the caller's loop to be free."""
    assert asyncio.get_running_loop().is_running()
    assert capibara.invoke(asked(EN)).text.strip()
    assert "".join(piece.text for piece in capibara.stream(asked(EN))).strip()


async def test_events_show_the_tokens_of_the_model(capibara: Capibara) -> None:
    """on_chat_model_stream comes from the model inside the graph, and its text is the answer's."""
    events = [event async for event in capibara.astream_events(asked(EN, model="phi-4-mini"), version="v2")]
    tokens = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(tokens).strip()
    assert {"classify", "route", "generate", "vote", "verify"} <= {event["name"] for event in events}
    assert events[-1]["event"] == "on_chain_end"


def test_it_composes_with_a_prompt_and_a_parser(capibara: Capibara) -> None:
    """prompt | capibara | parser gives a text, whole and in pieces."""
    prompt = ChatPromptTemplate.from_messages([("system", "Responde en una frase."), ("human", "{question}")])
    chain = prompt | capibara.bind(sampling={"max_tokens": 6}) | StrOutputParser()
    assert chain.invoke({"question": ES}).strip()
    assert "".join(chain.stream({"question": ES})).strip()


def test_a_named_model_answers(capibara: Capibara) -> None:
    """By an alias, given in the config as a caller of a chain would."""
    config: Any = {"configurable": {"model": "phi4:mini", "sampling": {"max_tokens": 4}}}
    assert capibara.invoke(EN, config).response_metadata["model_name"] == "phi-4-mini"


def test_wrong_questions_raise_errors_that_name_the_mistake(capibara: Capibara) -> None:
    """No messages, an unknown model, an unknown mode."""
    with pytest.raises(BadQuestion) as empty:
        capibara.invoke({"messages": []})
    assert empty.value.param == "messages"
    with pytest.raises(UnknownModel, match="phi-4-mini"):
        capibara.invoke(asked(EN, model="gpt-4"))
    with pytest.raises(BadQuestion):
        capibara.invoke(asked(EN, mode="guess"))
