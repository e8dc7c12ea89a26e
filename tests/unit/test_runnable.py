"""Capibara as a LangChain Runnable: every way of calling it, and what is refused before anything runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.runnable import read_messages, read_request
from tests.fakes import ENGLISH, GPT, MISTRAL, PHI, QWEN, SPANISH, FakeHouse, say, until

TEXT = "".join(SPANISH.pieces)


@pytest.mark.parametrize(
    "value",
    [
        "hola",
        HumanMessage("hola"),
        [("user", "hola")],
        [{"role": "user", "content": "hola"}],
        {"messages": [{"role": "user", "content": "hola"}]},
        {"messages": "hola"},
        ChatPromptTemplate.from_messages([("user", "{x}")]).invoke({"x": "hola"}),
    ],
)
async def test_every_shape_of_input(house: FakeHouse, value: Any) -> None:
    """Texts, messages, prompts and mappings mean the same."""
    house.upstream.script(PHI, SPANISH)
    message = await house.capibara.ainvoke(value)
    assert message.content == TEXT
    assert house.upstream.requests[0]["messages"] == [{"role": "user", "content": "hola"}]
    assert message.response_metadata["capibara"]["verdict"]["accepted"] is True


@pytest.mark.parametrize(
    "value", [{}, {"messages": []}, [], 7, {"messages": [{"role": "user"}]}, [{"role": "x"}], None]
)
async def test_what_is_no_conversation_is_refused(house: FakeHouse, value: Any) -> None:
    """BadQuestion names messages; no model is asked."""
    with pytest.raises(BadQuestion) as caught:
        await house.capibara.ainvoke(value)
    assert caught.value.param == "messages"
    assert house.upstream.requests == []


def test_half_a_surrogate_pair_is_no_text() -> None:
    """It cannot be sent to any model: the caller is told, also inside parts."""
    for content in ("a\ud800b", [{"type": "text", "text": "\udfff"}]):
        with pytest.raises(BadQuestion, match="Unicode"):
            read_messages([{"role": "user", "content": content}])
    assert read_messages("ñandú 😀")[0].content == "ñandú 😀"


def test_the_role_developer_is_the_system() -> None:
    """Chat templates know the older name only."""
    message = read_messages([{"role": "developer", "content": "Sé breve."}])[0]
    assert (message.type, message.additional_kwargs) == ("system", {})


@pytest.mark.parametrize(
    ("values", "param", "words"),
    [
        ({"mode": "vote"}, "mode", "must be 'auto', 'single', 'cascade' or 'consensus'"),
        ({"min_voters": 9}, "min_voters", "must be at most 5"),
        ({"min_voters": "x"}, "min_voters", "must be a whole number"),
        ({"deadline_s": 0}, "deadline_s", "must be at least 0.001"),
        ({"nope": 1}, "nope", "is not known here"),
        ({"sampling": {"temperature": 3}}, "sampling.temperature", "must be at most 2"),
        ({"voters": "x"}, "voters", "must be a list"),
    ],
)
def test_wrong_options_are_one_clear_sentence(values: dict[str, Any], param: str, words: str) -> None:
    """The field and what it must be, in one sentence; never the value itself."""
    with pytest.raises(BadQuestion) as caught:
        read_request(values)
    assert caught.value.param == param
    assert caught.value.message == f"{param} {words}."


def test_invoke_from_sync_code(house: FakeHouse) -> None:
    """Several times, on the one background loop."""
    house.upstream.script(PHI, SPANISH, SPANISH)
    assert [house.capibara.invoke("hola").content for _ in range(2)] == [TEXT, TEXT]


async def test_invoke_inside_a_running_loop(house: FakeHouse) -> None:
    """As in a notebook; calls on the own loop work before and after it."""
    house.upstream.script(PHI, SPANISH, SPANISH, SPANISH)
    assert (await house.capibara.ainvoke("hola")).content == TEXT
    assert house.capibara.invoke("hola").content == TEXT
    assert (await house.capibara.ainvoke("hola")).content == TEXT


def test_batch(house: FakeHouse) -> None:
    """Outputs in the order of the inputs; a failure can be an output."""
    house.upstream.script(QWEN, say("uno dos tres"))
    house.upstream.script(GPT, say("cuatro cinco seis"))
    inputs = [{"messages": "a", "model": QWEN}, {"messages": "b", "model": GPT}, {"messages": []}]
    outputs: list[Any] = house.capibara.batch(inputs, return_exceptions=True)
    assert [o.content for o in outputs[:2]] == ["uno dos tres", "cuatro cinco seis"]
    assert isinstance(outputs[2], BadQuestion)


async def test_abatch(house: FakeHouse) -> None:
    """The same on the caller's loop."""
    house.upstream.otherwise = SPANISH
    assert [m.content for m in await house.capibara.abatch(["a", "b"])] == [TEXT, TEXT]


async def test_astream(house: FakeHouse) -> None:
    """The pieces as they come; their sum is the message, with decision and usage from the last chunk."""
    house.upstream.script(PHI, SPANISH)
    chunks = [chunk async for chunk in house.capibara.astream("hola")]
    assert [c.content for c in chunks] == [*SPANISH.pieces, ""]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk  # type: ignore[assignment,operator]
    assert whole.content == TEXT
    assert isinstance(whole, AIMessageChunk)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 3
    assert whole.response_metadata["capibara"]["plan"]["models"] == [PHI]


def test_stream_from_sync_code(house: FakeHouse) -> None:
    """As astream."""
    house.upstream.script(PHI, SPANISH)
    assert "".join(c.text for c in house.capibara.stream("hola")) == TEXT


def test_leaving_a_sync_stream_frees_the_model(house: FakeHouse) -> None:
    """A `break` closes the connection and gives the claim back."""
    house.upstream.script(PHI, say("uno", "dos", stall_after=1))
    stream = house.capibara.stream("hola")
    assert next(stream).content == "uno"
    stream.close()  # type: ignore[attr-defined]
    asyncio.run(until(lambda: house.fleet.all_given_back))
    assert house.upstream.hung_up.acquire(timeout=10)


async def test_leaving_an_async_stream_frees_the_model(house: FakeHouse) -> None:
    """As the sync one."""
    house.upstream.script(PHI, say("uno", "dos", stall_after=1))
    stream = house.capibara.astream("hola")
    assert (await anext(stream)).content == "uno"
    await stream.aclose()  # type: ignore[attr-defined]
    await until(lambda: house.fleet.all_given_back)


async def test_a_verified_stream_comes_in_one_piece(house: FakeHouse) -> None:
    """Nothing before the checks; a rejected answer is asked again."""
    house.upstream.script(PHI, ENGLISH)
    house.upstream.script(MISTRAL, SPANISH)
    chunks = [c async for c in house.capibara.bind(stream="verified").astream("hola")]
    assert [c.content for c in chunks] == [TEXT]


async def test_tool_calls_stream_and_add_up(house: FakeHouse) -> None:
    """Pieces of a call become the call."""
    models = tuple(s.model_copy(update={"calls_tools": True}) for s in house.settings.models)
    object.__setattr__(house.settings, "models", models)
    calls = (
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    )
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    reply = say(tool_calls=calls, finish_reason="tool_calls")
    house.upstream.script(PHI, reply, reply, reply)
    bound = house.capibara.bind(sampling={"tools": [tool]})
    eager = [c async for c in bound.astream("hola")]
    verified = [c async for c in bound.bind(stream="verified").astream("hola")]
    for chunks in (eager, verified):
        whole: Any = chunks[0]
        for chunk in chunks[1:]:
            whole = whole + chunk
        assert [(c["name"], c["args"], c["id"]) for c in whole.tool_calls] == [("f", {"a": 1}, "c1")]
    message = await bound.ainvoke("hola")
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [("f", {"a": 1})]


async def test_invoke_is_never_a_stream(house: FakeHouse) -> None:
    """With stream bound, a rejected answer is still asked again: nobody has seen it."""
    house.upstream.script(PHI, ENGLISH)
    house.upstream.script(MISTRAL, SPANISH)
    message = await house.capibara.bind(stream="eager").ainvoke("hola")
    assert message.content == TEXT


async def test_it_composes(house: FakeHouse) -> None:
    """prompt | capibara | parser, sync and async, whole and streaming."""
    house.upstream.otherwise = SPANISH
    chain = ChatPromptTemplate.from_messages([("user", "{x}")]) | house.capibara | StrOutputParser()
    assert await chain.ainvoke({"x": "hola"}) == TEXT
    assert chain.invoke({"x": "hola"}) == TEXT
    pieces = [piece async for piece in chain.astream({"x": "hola"})]
    assert "".join(pieces) == TEXT
    assert len([p for p in pieces if p]) == 3, "the parser passes pieces on"


async def test_options_can_be_bound_configured_or_given(house: FakeHouse) -> None:
    """What comes with the input wins over what is bound, and that over the config."""
    house.upstream.otherwise = SPANISH
    bound = house.capibara.bind(model=QWEN)
    config: Any = {"configurable": {"model": GPT, "thread_id": "t"}}
    await house.capibara.ainvoke("hola", config)
    await bound.ainvoke("hola", config)
    await bound.ainvoke({"messages": "hola", "model": PHI}, config)
    assert house.upstream.asked() == [GPT, QWEN, PHI]
    message = await house.capibara.bind(mode="consensus", max_voters=2).ainvoke("hola")
    assert message.response_metadata["capibara"]["plan"]["mode"] == "consensus"


async def test_events_show_the_chat_models_tokens(house: FakeHouse) -> None:
    """astream_events reaches into the graph: nodes, and on_chat_model_stream with every piece."""
    house.upstream.script(PHI, SPANISH)
    events = [event async for event in house.capibara.astream_events("hola", version="v2")]
    tokens = [e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream"]  # type: ignore[typeddict-item]
    assert "".join(tokens) == TEXT
    names = {e["name"] for e in events if e["event"] == "on_chain_start"}
    assert {"classify", "route", "generate", "vote", "verify"} <= names
    assert isinstance(events[-1]["data"]["output"], AIMessage)  # type: ignore[typeddict-item]


def test_errors_come_through_the_background_loop(house: FakeHouse) -> None:
    """Sync callers get the same errors."""
    house.upstream.otherwise = say("")
    with pytest.raises(CapibaraError):
        house.capibara.invoke("hola")
    with pytest.raises(CapibaraError):
        list(house.capibara.stream("hola"))


def test_closing_twice_is_fine(house: FakeHouse) -> None:
    """And a call after closing opens the loop again."""
    house.upstream.otherwise = SPANISH
    house.capibara.invoke("hola")
    house.capibara.close()
    house.capibara.close()
    assert house.capibara.invoke("hola").content == TEXT


def test_its_schemas_can_be_made(house: FakeHouse) -> None:
    """LangServe and Studio ask for them."""
    assert house.capibara.get_input_jsonschema() is not None
    assert house.capibara.get_output_jsonschema()["title"]
