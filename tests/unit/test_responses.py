"""OpenAI's Responses over scripted models, through openai's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from capibara_agents.conversations import IN_MEMORY, Conversations
from capibara_agents.http.app import build_app
from tests.asgi import post
from tests.fakes import ENGLISH, PHI, SPANISH, FakeHouse, Reply

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
CALL = {
    "index": 0,
    "id": "call_7",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Lugo"}'},
}

CALLS = Reply(pieces=(), tool_calls=(CALL,), finish_reason="tool_calls")


@pytest.fixture
async def client(house: FakeHouse) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx.ASGITransport(build_app(house))
    async with httpx.AsyncClient(transport=transport) as http:
        yield openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=http, max_retries=0)


async def test_a_response_is_what_openais_client_expects(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    house.upstream.script(PHI, SPANISH)
    response = await client.responses.create(model="capibara", input="¿Capital de España?", instructions="Sé breve.")
    assert response.output_text == "".join(SPANISH.pieces)
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens > 0
    asked = house.upstream.requests[-1]["messages"]
    assert [m["role"] for m in asked] == ["system", "user"]


async def test_the_events_of_a_stream_tell_the_same_response(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    """Sequence numbers without a gap; the deltas are the text; what is added is done; the last event has it all."""
    house.upstream.script(PHI, SPANISH)
    events = [e async for e in await client.responses.create(model="capibara", input="¿Capital?", stream=True)]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type for e in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[2:4] == ["response.output_item.added", "response.content_part.added"]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text == "".join(SPANISH.pieces)


@pytest.fixture
def tools(house: FakeHouse) -> None:
    """All models call tools."""
    models = tuple(s.model_copy(update={"calls_tools": True}) for s in house.settings.models)
    object.__setattr__(house.settings, "models", models)


@pytest.mark.usefixtures("tools")
async def test_functions_are_called_and_their_results_come_back(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    house.upstream.script(PHI, CALLS, ENGLISH)
    first = await client.responses.create(model="capibara", input="Weather in Lugo?", tools=[TOOL])  # type: ignore[list-item]
    call = first.output[0]
    assert call.type == "function_call"
    assert (call.name, call.call_id, call.arguments) == ("weather", "call_7", '{"city": "Lugo"}')
    given: Any = [{"type": "function_call_output", "call_id": "call_7", "output": "rain"}]
    second = await client.responses.create(
        model="capibara",
        input=given,
        previous_response_id=first.id,
        tools=[TOOL],  # type: ignore[list-item]
    )
    assert second.output_text == "".join(ENGLISH.pieces)
    roles = [m["role"] for m in house.upstream.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "tool"]


@pytest.mark.usefixtures("tools")
async def test_a_streamed_call_of_a_function(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    house.upstream.script(PHI, CALLS)
    stream = await client.responses.create(model="capibara", input="Weather?", tools=[TOOL], stream=True)  # type: ignore[list-item]
    events = [e async for e in stream]
    arguments = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert arguments == '{"city": "Lugo"}' == done[0].arguments
    assert not [e for e in events if e.type == "response.output_text.delta"]


async def test_a_response_follows_another(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    """The conversation comes along; the instructions of the first do not."""
    house.upstream.script(PHI, SPANISH, SPANISH)
    first = await client.responses.create(model="capibara", input="¿Capital de España?", instructions="En verso.")
    await client.responses.create(model="capibara", input="¿Y de Francia?", previous_response_id=first.id)
    asked = house.upstream.requests[-1]["messages"]
    assert [m["role"] for m in asked] == ["user", "assistant", "user"]
    assert (await client.responses.retrieve(first.id)).output_text == first.output_text
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)


async def test_nothing_is_kept_where_the_caller_wants_that(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    house.upstream.script(PHI, SPANISH)
    response = await client.responses.create(model="capibara", input="¿Capital?", store=False)
    with pytest.raises(openai.NotFoundError, match="store: true"):
        await client.responses.create(model="capibara", input="¿Y?", previous_response_id=response.id)


async def test_only_what_was_asked_for_reaches_the_disk(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    house.upstream.script(PHI, SPANISH, SPANISH)
    await client.responses.create(model="capibara", input="¿Capital?")
    assert house.conversations.count() == 0
    await client.responses.create(model="capibara", input="¿Capital?", store=True)
    assert house.conversations.count() == 1


@pytest.mark.parametrize("form", [{}, {"type": None}, {"type": "xml"}, {"type": 7}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_format_of_no_known_type_is_named(house: FakeHouse, form: dict[str, Any], stream: bool) -> None:
    """As a 400 under the name that Responses has for it, and no mistake of the service's."""
    body = {"model": PHI, "input": "x", "text": {"format": form}, "stream": stream}
    got = await post(build_app(house), "/v1/responses", body).done()
    error = got.json()["error"]
    assert (got.status, error["param"]) == (400, "text.format")
    assert error["message"] == "text.format: type must be text, json_object or json_schema."


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "message", "role": "robot", "content": "x"}]}, "input.0.role"),
        ({"input": [{"type": "computer_call"}]}, "input.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input.0.content.0"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
    ],
)
async def test_what_cannot_be_done_is_named(house: FakeHouse, change: dict[str, Any], param: str) -> None:
    exchange = await post(build_app(house), "/v1/responses", {"model": "capibara", "input": "hola", **change}).done()
    assert exchange.status in (400, 404)
    assert exchange.json()["error"]["param"] == param


async def test_a_stream_that_breaks_says_so(house: FakeHouse, client: openai.AsyncOpenAI) -> None:
    """response.failed is the last event; nothing is completed."""
    house.upstream.script(PHI, Reply(pieces=("Ma", "drid"), break_after=1))
    stream = await client.responses.create(model="capibara", input="¿Capital?", stream=True)
    kinds = [e.type async for e in stream]
    assert kinds[-1] == "response.failed"
    assert "response.completed" not in kinds


def test_kept_conversations_run_out(tmp_path: Any) -> None:
    """On disk after their time, in memory when there are too many."""
    now = [1000.0]
    store = Conversations(tmp_path / "kept.sqlite3", keep_s=10, clock=lambda: now[0])
    store.keep("a", [], {}, on_disk=True)
    assert Conversations(tmp_path / "kept.sqlite3", keep_s=10, clock=lambda: now[0]).get("a") is not None
    now[0] += 11
    assert store.get("a") is None
    store.keep("b", [], {}, on_disk=True)
    assert store.count() == 1
    for number in range(IN_MEMORY + 1):
        store.keep(f"m{number}", [], {}, on_disk=False)
    assert store.get("m0") is None
    assert store.get("m1") is not None
    assert store.clear() == IN_MEMORY + 1
