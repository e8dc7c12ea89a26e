"""ChatCapibara: LangChain's standard suites, and what is its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel

from capibara_agents import ChatCapibara
from capibara_agents.errors import BadQuestion, ModelUnavailable, UnknownModel
from capibara_agents.settings import Settings
from tests.fakes import PHI, QWEN, SPANISH, FakeHouse, Reply, Upstream, say


def answering(body: dict[str, Any]) -> Reply:
    """What a capable model would say: a tool is called with what its schema asks for, a schema is kept."""
    last = body["messages"][-1]
    if body.get("tools") and last["role"] != "tool" and body.get("tool_choice") != "none":
        choice = body.get("tool_choice")
        named = choice["function"]["name"] if isinstance(choice, dict) else body["tools"][0]["function"]["name"]
        tool = next(tool["function"] for tool in body["tools"] if tool["function"]["name"] == named)
        arguments = json.dumps(value_of(tool.get("parameters", {}), last.get("content")), ensure_ascii=False)
        call = {
            "index": 0,
            "id": f"call_{len(body['messages'])}",
            "type": "function",
            "function": {"name": named, "arguments": arguments},
        }
        return Reply(pieces=(), tool_calls=(call,), finish_reason="tool_calls")
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return say(json.dumps(value_of(wanted["json_schema"]["schema"], last.get("content"))))
    if wanted.get("type") == "json_object":
        return say('{"setup": "¿Por qué?", ', '"punchline": "Porque sí."}')
    return say("This is ", "a plain answer ", "with several pieces.")


def value_of(schema: dict[str, Any], text: Any, name: str = "") -> Any:  # noqa: PLR0911
    """The smallest value of a schema; the number and the text that the suite asks for where they fit."""
    kind = schema.get("type")
    if "anyOf" in schema:
        return value_of(schema["anyOf"][0], text, name)
    if kind == "object" or "properties" in schema:
        return {key: value_of(inner, text, key) for key, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [value_of(schema.get("items", {}), text, name)]
    if kind in ("integer", "number"):
        return 3
    if kind == "boolean":
        return True
    if "enum" in schema:
        return schema["enum"][0]
    if foreign := re.findall(r"[\u3040-\u9fff]+", str(text)):
        return "".join(foreign)
    return "San Francisco" if name == "location" else "a text"


def with_tools(settings: Settings) -> Settings:
    """Settings whose models all call tools."""
    models = tuple(spec.model_copy(update={"calls_tools": True}) for spec in settings.models)
    return settings.model_copy(update={"models": models})


@pytest.fixture
def able(settings: Settings, upstream: Upstream) -> Iterator[FakeHouse]:
    """A house whose models can do everything."""
    upstream.otherwise = answering
    house = FakeHouse(with_tools(settings), upstream)
    yield house
    house.close()


class TestStandardUnit(ChatModelUnitTests):
    """LangChain's standard unit tests."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatCapibara

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"fleet": "tiny"}


class TestStandardIntegration(ChatModelIntegrationTests):
    """LangChain's standard integration tests, in this process, against models that can do everything."""

    house: FakeHouse

    @pytest.fixture(autouse=True)
    def _house(self, able: FakeHouse) -> None:
        type(self).house = able

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatCapibara

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # One model at a time: a rejected answer would be asked of another.
        return {"capibara": self.house.capibara, "mode": "single"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return QWEN

    @property
    def enable_vcr_tests(self) -> bool:
        return False


@pytest.fixture
def chat(house: FakeHouse) -> ChatCapibara:
    """A chat model in this process."""
    house.upstream.otherwise = SPANISH
    return ChatCapibara(capibara=house.capibara)


def test_an_answer_carries_its_decision(chat: ChatCapibara) -> None:
    """Words, usage, the model's name, and everything that was decided."""
    answer = chat.invoke("¿Cuál es la capital de España?")
    assert isinstance(answer, AIMessage)
    assert answer.text == "".join(SPANISH.pieces)
    assert answer.response_metadata["model_name"] == PHI
    assert answer.response_metadata["capibara"]["plan"]["models"] == [PHI]
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3


async def test_what_was_set_is_sent(chat: ChatCapibara, house: FakeHouse) -> None:
    """Sampling and options of the object, and those of one call, which win."""
    asked = chat.model_copy(update={"temperature": 0.5, "max_tokens": 9, "mode": "consensus", "stop": "FIN"})
    answer = await asked.ainvoke("Hola", temperature=0.1, max_voters=2, model="capibara", seed=4)
    assert {(r["temperature"], r["max_tokens"], r["seed"]) for r in house.upstream.requests} == {(0.1, 9, 4)}
    assert all(r["stop"] == ["FIN"] for r in house.upstream.requests)
    assert len(answer.response_metadata["capibara"]["plan"]["models"]) == 2


async def test_a_stream_adds_up(chat: ChatCapibara) -> None:
    """Pieces as they come, sync and async; the decision on the last; the chat model's own events."""
    pieces = list(chat.stream("Hola"))
    assert "".join(piece.text for piece in pieces) == "".join(SPANISH.pieces)
    assert len([piece async for piece in chat.astream("Hola")]) == len(pieces) > 2
    assert any("capibara" in piece.response_metadata for piece in pieces)
    names = {event["event"] async for event in chat.astream_events("Hola", version="v2")}
    assert {"on_chat_model_start", "on_chat_model_stream", "on_chat_model_end"} <= names


def test_wrong_options_are_named(chat: ChatCapibara) -> None:
    """A model, an option or a tool that does not exist is the caller's mistake, in our words."""
    with pytest.raises(UnknownModel):
        chat.invoke("Hola", model="gpt-4")
    with pytest.raises(BadQuestion, match="colour"):
        chat.invoke("Hola", colour="red")
    with pytest.raises(BadQuestion, match="tool_choice"):
        chat.bind_tools([{"type": "function", "function": {"name": "one"}}], tool_choice="two")
    with pytest.raises(ValueError, match="colour"):
        ChatCapibara(colour="red")  # type: ignore[call-arg]


def test_no_answer_is_an_error(chat: ChatCapibara, house: FakeHouse) -> None:
    """Never a text instead."""
    for spec in house.settings.models:
        house.fleet.refusals[spec.id] = ModelUnavailable("No weights.", model_id=spec.id)
    with pytest.raises(ModelUnavailable):
        chat.invoke("Hola")


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_by_every_method(able: FakeHouse, method: Any) -> None:
    """A value of the class, and with include_raw the message beside it."""
    chat = ChatCapibara(capibara=able.capibara, mode="single")
    assert isinstance(chat.with_structured_output(Joke, method=method).invoke("Un chiste"), Joke)
    raw = chat.with_structured_output(Joke, method=method, include_raw=True).invoke("Un chiste")
    assert isinstance(raw, dict)
    assert isinstance(raw["parsed"], Joke)
    assert isinstance(raw["raw"], AIMessage)
    assert raw["parsing_error"] is None


def test_what_cannot_be_parsed_is_told(able: FakeHouse) -> None:
    """With include_raw the error is a value."""
    able.upstream.otherwise = say('{"setup": ', '"x"}')
    chat = ChatCapibara(capibara=able.capibara, mode="single")
    raw = chat.with_structured_output(Joke, method="json_mode", include_raw=True).invoke([HumanMessage("Un chiste")])
    assert isinstance(raw, dict)
    assert raw["parsed"] is None
    assert raw["parsing_error"] is not None
