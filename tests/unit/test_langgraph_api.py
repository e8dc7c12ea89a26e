"""LangGraph's API with its own clients: runs in every mode, threads with history, errors that are errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph_sdk.client import LangGraphClient

from capibara_agents.errors import ModelUnavailable
from capibara_agents.http.app import build_app
from capibara_agents.types import Request
from tests.asgi import Exchange, get, post
from tests.fakes import PHI, QWEN, SPANISH, FakeHouse, fail, say, until

INPUT = {"messages": [{"role": "user", "content": "¿Cuál es la capital de España?"}]}
ANSWER = "".join(SPANISH.pieces)
MODES = ["values", "updates", "messages", "custom", "debug", "tasks", "checkpoints", "events"]


@pytest.fixture
async def client(house: FakeHouse) -> AsyncIterator[LangGraphClient]:
    """The SDK's client on the application; the threads are let go of on their own loop."""
    house.upstream.otherwise = SPANISH
    transport = httpx.ASGITransport(build_app(house))
    async with httpx.AsyncClient(transport=transport, base_url="http://capibara") as http:
        yield LangGraphClient(http)
    await house.threads.close()


async def test_the_assistant_is_found(client: LangGraphClient) -> None:
    """By search, by its graph's name and by its id; no other."""
    (found,) = await client.assistants.search(graph_id="capibara")
    assert await client.assistants.get(found["assistant_id"]) == await client.assistants.get("capibara")
    assert await client.assistants.search(graph_id="other") == []
    assert await client.assistants.count() == 1
    with pytest.raises(httpx.HTTPStatusError) as wrong:
        await client.assistants.get("other")
    assert wrong.value.response.status_code == 404


async def test_schemas_draw_a_form(client: LangGraphClient) -> None:
    """Every field of the context has a description."""
    schemas = await client.assistants.get_schemas("capibara")
    fields = schemas["context_schema"]["properties"]
    assert set(fields) == set(Request.model_fields)
    assert all(field.get("description") for field in fields.values())
    assert "messages" in schemas["input_schema"]["properties"]
    assert "ballot" in schemas["state_schema"]["properties"]


async def test_the_graph_has_its_five_nodes(client: LangGraphClient) -> None:
    """As the SDK and as RemoteGraph draw it."""
    graph = await client.assistants.get_graph("capibara")
    nodes = {node["id"] for node in graph["nodes"]}
    assert {"classify", "route", "generate", "vote", "verify"} <= nodes
    drawn = await RemoteGraph("capibara", client=client).aget_graph()
    assert set(drawn.nodes) == nodes


async def test_wait_gives_the_state(client: LangGraphClient, house: FakeHouse) -> None:
    """The answer joins the messages; every decision is there; nothing is kept."""
    state = await client.runs.wait(None, "capibara", input=INPUT)
    assert state["messages"][-1]["content"] == ANSWER
    assert state["messages"][-1]["type"] == "ai"
    assert state["verdict"]["accepted"] is True
    assert state["plan"]["models"] == [PHI]
    assert not house.settings.data_dir.joinpath("threads.sqlite3").exists()


async def test_the_context_chooses(client: LangGraphClient) -> None:
    """Fields of Request in the context, or in an older client's configuration; the context wins."""
    state = await client.runs.wait(None, "capibara", input=INPUT, context={"model": "qwen_coder"})
    assert state["plan"]["models"] == [QWEN]
    configurable = {"model": QWEN, "sampling": {"max_tokens": 5}, "anything": 1}
    state = await client.runs.wait(None, "capibara", input=INPUT, config={"configurable": configurable})
    assert state["plan"]["models"] == [QWEN]


async def test_a_stream_in_every_mode(client: LangGraphClient) -> None:
    """Metadata first, end last, and something of every mode between them."""
    stream = client.runs.stream(None, "capibara", input=INPUT, stream_mode=MODES)  # type: ignore[arg-type]
    events = [part async for part in stream]
    names = [part.event for part in events]
    assert (names[0], names[-1]) == ("metadata", "end")
    assert events[0].data["run_id"]
    wanted = {*MODES, "messages/metadata", "messages/partial"} - {"messages", "checkpoints"}
    assert wanted <= set(names)
    kinds = {part.data["event"] for part in events if part.event == "custom"}
    assert {"plan", "candidate", "ballot", "verdict"} <= kinds
    updates = [next(iter(part.data)) for part in events if part.event == "updates"]
    assert updates == ["classify", "route", "generate", "vote", "verify"]
    partial = [part.data[0]["content"] for part in events if part.event == "messages/partial"]
    assert partial[-1] == ANSWER
    assert len(partial) > 2
    assert any(part.data["event"] == "on_chat_model_stream" for part in events if part.event == "events")
    debug = [part.data for part in events if part.event == "debug"]
    assert {entry["type"] for entry in debug} >= {"task", "task_result"}
    values = [part.data for part in events if part.event == "values"]
    assert values[-1]["messages"][-1]["content"] == ANSWER


async def test_pieces_as_tuples(client: LangGraphClient) -> None:
    """The mode messages-tuple gives each token with the node it comes from."""
    stream = client.runs.stream(None, "capibara", input=INPUT, stream_mode="messages-tuple")
    parts = [part.data for part in [p async for p in stream] if part.event == "messages"]
    tokens = [message["content"] for message, meta in parts if meta["langgraph_node"] == "generate"]
    assert "".join(tokens) == ANSWER
    assert len(tokens) > 2


async def test_remote_graph_is_a_graph(client: LangGraphClient) -> None:
    """ainvoke, astream in several modes, messages as tuples."""
    remote = RemoteGraph("capibara", client=client)
    state = await remote.ainvoke(INPUT)
    assert state["messages"][-1]["content"] == ANSWER
    updates = [chunk async for chunk in remote.astream(INPUT, stream_mode="updates")]
    assert [next(iter(update)) for update in updates] == ["classify", "route", "generate", "vote", "verify"]
    pieces = [message async for message, _ in remote.astream(INPUT, stream_mode="messages")]
    assert len(pieces) > 2
    both = {chunk[0] async for chunk in remote.astream(INPUT, stream_mode=["custom", "values"])}
    assert both == {"custom", "values"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": {"messages": []}}, "input.messages"),
        ({"input": {"messages": [{"content": "x"}]}}, "messages"),
        ({"input": {"question": "x"}}, "input"),
        ({"input": INPUT, "context": {"mode": "guess"}}, "context.mode"),
        ({"input": INPUT, "context": {"colour": "red"}}, "context.colour"),
        ({"input": INPUT, "stream_mode": "smoke"}, "stream_mode"),
        ({"input": INPUT, "command": {"resume": 1}}, "command"),
        ({"input": INPUT, "interrupt_before": ["vote"]}, "interrupt_before"),
        ({"input": INPUT, "webhook": "http://x"}, "webhook"),
        ({"input": INPUT, "on_disconnect": "continue"}, "on_disconnect"),
        ({"input": INPUT, "config": {"recursion_limit": 0}}, "config.recursion_limit"),
    ],
)
@pytest.mark.parametrize("path", ["/runs/wait", "/runs/stream"])
async def test_what_cannot_be_done_is_named(house: FakeHouse, path: str, body: dict[str, Any], param: str) -> None:
    """A 400 before anything streams; nothing meaningful is dropped in silence."""
    got = await post(build_app(house), path, {"assistant_id": "capibara", **body}).done()
    assert got.status == 400
    assert got.json()["error"]["param"].startswith(param)
    assert not house.upstream.requests


async def test_too_few_steps_are_the_callers_mistake(house: FakeHouse) -> None:
    """A limit that no answer can keep is a 400."""
    body = {"assistant_id": "capibara", "input": INPUT, "config": {"recursion_limit": 1}}
    got = await post(build_app(house), "/runs/wait", body).done()
    assert (got.status, got.json()["error"]["param"]) == (400, "config.recursion_limit")


async def test_no_answer_is_an_error(client: LangGraphClient, house: FakeHouse) -> None:
    """503 and no state for wait; an error event for a stream that has begun, and an exception of RemoteGraph."""
    for spec in house.settings.models:
        house.fleet.refusals[spec.id] = ModelUnavailable("No weights.", model_id=spec.id)
    with pytest.raises(httpx.HTTPStatusError) as failed:
        await client.runs.wait(None, "capibara", input=INPUT)
    assert failed.value.response.status_code == 503
    stream = client.runs.stream(None, "capibara", input=INPUT, stream_mode="updates")
    events = [part async for part in stream]
    assert events[-1].event == "error"
    assert events[-1].data["error"] == "model_unavailable"
    with pytest.raises(RemoteException):
        await RemoteGraph("capibara", client=client).ainvoke(INPUT)


async def test_a_thread_remembers(client: LangGraphClient, house: FakeHouse) -> None:
    """A second run sees the first one's messages; each run is one state of the history."""
    thread = await client.threads.create(metadata={"user": "ana"})
    thread_id = thread["thread_id"]
    await client.runs.wait(thread_id, "capibara", input=INPUT)
    house.upstream.script(PHI, say("Tiene más de tres millones de habitantes."))
    second = {"messages": [{"role": "user", "content": "¿Cuántos habitantes tiene?"}]}
    state = await client.runs.wait(thread_id, "capibara", input=second)
    assert [message["type"] for message in state["messages"]] == ["human", "ai", "human", "ai"]
    sent = house.upstream.requests[-1]["messages"]
    assert [m["role"] for m in sent][-3:] == ["user", "assistant", "user"]
    assert len(state["candidates"]) == 1
    history = await client.threads.get_history(thread_id)
    assert [len(past["values"]["messages"]) for past in history] == [4, 2]
    assert history[0]["parent_checkpoint"]["checkpoint_id"] == history[1]["checkpoint"]["checkpoint_id"]
    now = await client.threads.get_state(thread_id)
    assert (now["next"], now["checkpoint"]) == ([], history[0]["checkpoint"])
    past = await client.threads.get_state(thread_id, checkpoint=history[1]["checkpoint"])
    assert len(past["values"]["messages"]) == 2
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_threads_outlive_the_process(client: LangGraphClient, house: FakeHouse) -> None:
    """What was written is there after the database was closed and opened again."""
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "capibara", input=INPUT)
    await house.threads.close()
    state = await client.threads.get_state(thread_id)
    assert state["values"]["messages"][-1]["content"] == ANSWER
    assert state["values"]["plan"]["models"] == [PHI]


async def test_a_run_may_start_from_an_earlier_state(client: LangGraphClient) -> None:
    """The conversation branches there."""
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "capibara", input=INPUT)
    await client.runs.wait(thread_id, "capibara", input=INPUT)
    first = (await client.threads.get_history(thread_id))[-1]
    state = await client.runs.wait(thread_id, "capibara", input=INPUT, checkpoint=first["checkpoint"])
    assert len(state["messages"]) == 4


async def test_remote_graph_on_a_thread(client: LangGraphClient) -> None:
    """The thread is made on the way; state, history and writing go through."""
    remote = RemoteGraph("capibara", client=client)
    config: Any = {"configurable": {"thread_id": str(uuid4())}}
    await remote.ainvoke(INPUT, config)
    snapshot = await remote.aget_state(config)
    assert len(snapshot.values["messages"]) == 2
    await remote.aupdate_state(config, {"messages": [{"role": "user", "content": "Gracias."}]})
    snapshot = await remote.aget_state(config)
    assert snapshot.values["messages"][-1]["content"] == "Gracias."
    assert len([s async for s in remote.aget_state_history(config)]) == 2


async def test_messages_may_come_before_the_first_run(client: LangGraphClient) -> None:
    """A conversation that began elsewhere is taken over."""
    thread_id = (await client.threads.create())["thread_id"]
    past = [{"role": "user", "content": "Hola."}, {"role": "assistant", "content": "Buenos días."}]
    await client.threads.update_state(thread_id, {"messages": past})
    state = await client.runs.wait(thread_id, "capibara", input=INPUT)
    assert [m["type"] for m in state["messages"]] == ["human", "ai", "human", "ai"]
    for wrong in ({"plan": {}}, None):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await client.threads.update_state(thread_id, wrong)
        assert refused.value.response.status_code == 400


async def test_threads_are_found_changed_and_removed(client: LangGraphClient) -> None:
    """By metadata, id and status; a removed one is gone with its states."""
    ana = await client.threads.create(metadata={"user": "ana"})
    await client.threads.create(metadata={"user": "eva"})
    found = await client.threads.search(metadata={"user": "ana"})
    assert [thread["thread_id"] for thread in found] == [ana["thread_id"]]
    assert await client.threads.count() == 2
    await client.threads.update(ana["thread_id"], metadata={"topic": "x"})
    assert (await client.threads.get(ana["thread_id"]))["metadata"] == {"user": "ana", "topic": "x"}
    assert (await client.threads.create(thread_id=ana["thread_id"], if_exists="do_nothing"))["metadata"]["topic"]
    with pytest.raises(httpx.HTTPStatusError) as there:
        await client.threads.create(thread_id=ana["thread_id"])
    assert there.value.response.status_code == 409
    await client.runs.wait(ana["thread_id"], "capibara", input=INPUT)
    await client.threads.delete(ana["thread_id"])
    for call in (client.threads.get, client.threads.get_state, client.threads.delete):
        with pytest.raises(httpx.HTTPStatusError) as gone:
            await call(ana["thread_id"])
        assert gone.value.response.status_code == 404
    assert (await client.threads.create(thread_id=ana["thread_id"]))["values"] is None
    assert (await client.threads.get_state(ana["thread_id"]))["values"] == {}


async def test_a_run_on_no_thread_is_not_found(client: LangGraphClient) -> None:
    """Unless it may make one."""
    missing = str(uuid4())
    with pytest.raises(httpx.HTTPStatusError) as gone:
        await client.runs.wait(missing, "capibara", input=INPUT)
    assert gone.value.response.status_code == 404
    await client.runs.wait(missing, "capibara", input=INPUT, if_not_exists="create")
    assert (await client.threads.get(missing))["values"]["messages"]


async def test_old_threads_are_forgotten(client: LangGraphClient, house: FakeHouse) -> None:
    """After the days of the configuration they are not found, and their states go with the next thread made."""
    now_s = 1000.0
    house.threads._clock = lambda: now_s
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "capibara", input=INPUT)
    now_s = 1061.0
    with pytest.raises(httpx.HTTPStatusError):
        await client.threads.get(thread_id)
    await client.threads.create()
    saver = await house.threads.saver()
    assert await saver.aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}) is None


async def test_one_run_at_a_time_on_a_thread(client: LangGraphClient, house: FakeHouse) -> None:
    """A second one waits its turn, or is refused with a 409 when it says so; a reader who leaves frees the thread."""
    app = build_app(house)
    thread_id = (await client.threads.create())["thread_id"]
    house.upstream.script(PHI, say("uno", stall_after=1))
    body = {"assistant_id": "capibara", "input": INPUT}
    first = post(app, f"/threads/{thread_id}/runs/stream", {**body, "stream_mode": "updates"})
    await first.until(lambda exchange: b"route" in exchange.body)
    second = await post(app, f"/threads/{thread_id}/runs/wait", {**body, "multitask_strategy": "reject"}).done()
    assert (second.status, second.json()["error"]["code"]) == (409, "conflict")
    assert (await client.threads.get(thread_id))["status"] == "busy"
    third = post(app, f"/threads/{thread_id}/runs/wait", body)
    first.hang_up()
    await first.done()
    assert (await third.done()).status == 200
    assert (await client.threads.get(thread_id))["status"] == "idle"
    await until(lambda: house.fleet.all_given_back)


async def test_a_failed_run_is_seen_on_its_thread(client: LangGraphClient, house: FakeHouse) -> None:
    """Its status says so, and the next run is not hindered."""
    thread_id = (await client.threads.create())["thread_id"]
    house.upstream.otherwise = fail(500)
    with pytest.raises(httpx.HTTPStatusError):
        await client.runs.wait(thread_id, "capibara", input=INPUT)
    assert (await client.threads.get(thread_id))["status"] == "error"
    house.upstream.otherwise = SPANISH
    assert await client.runs.wait(thread_id, "capibara", input=INPUT)


async def test_paths_are_told_apart(house: FakeHouse) -> None:
    """An id that is none is a path that is not there; another method of a path says which there are."""
    app = build_app(house)
    for path in ("/threads/tortilla", "/threads/tortilla/state", f"/threads/{uuid4()}/state/tortilla"):
        assert (await get(app, path).done()).status == 404
    for path, allowed in (("/threads/search", "POST"), (f"/threads/{uuid4()}/state/checkpoint", "POST")):
        got = await Exchange(app, "PUT", path).done()
        assert (got.status, got.headers["allow"]) == (405, allowed)
