"""ChatCapibara over HTTP: LangChain's standard integration tests, as far as the stand-in weights can."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import BaseModel, Field
from service_process import ANSWER_LIMIT_S, Service

from capibara_agents import ChatCapibara

pytestmark = pytest.mark.servers


class TestStandardOverHttp(ChatModelIntegrationTests):
    """The whole suite but tools: the stand-in weights were not made for them."""

    url: str

    @pytest.fixture(autouse=True)
    def _service(self, service: Service) -> None:
        type(self).url = service.url

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatCapibara

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url, "max_tokens": 24, "temperature": 0, "timeout": ANSWER_LIMIT_S}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def model_override_value(self) -> str:
        return "qwen2.5-coder-1.5b"

    @property
    def enable_vcr_tests(self) -> bool:
        return False


class Place(BaseModel):
    """A place."""

    name: str = Field(max_length=20)
    is_capital: bool


def test_a_schema_is_kept(service: Service) -> None:
    """The grammar of the server makes any model keep it."""
    chat = ChatCapibara(base_url=service.url, max_tokens=200, temperature=0, mode="single")
    place = chat.with_structured_output(Place).invoke("Describe Lima.")
    assert isinstance(place, Place)


async def test_it_composes_and_takes_options(service: Service) -> None:
    """prompt | chat | parser; options of the question beside it."""
    chat = ChatCapibara(base_url=f"{service.url}/v1", max_tokens=8, quality="fast")
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | chat | StrOutputParser()
    assert (await chain.ainvoke({"question": "¿Qué es un ayllu?"})).strip()
    answer = await chat.ainvoke("Hola", model="phi4:mini", mode="single")
    assert answer.response_metadata["model_name"] == "phi-4-mini"
