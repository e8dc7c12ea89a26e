"""langgraph_sdk and RemoteGraph, sync and async, against a real service."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph_sdk import get_client, get_sync_client
from service_process import MODELS, Service

pytestmark = pytest.mark.servers

INPUT = {"messages": [{"role": "user", "content": "¿Cuál es la capital de Perú?"}]}
SHORT: Any = {"sampling": {"max_tokens": 8, "temperature": 0}}
MODES: Any = ["values", "updates", "messages-tuple", "custom", "events", "debug", "tasks", "checkpoints"]


def test_the_sync_client_waits_and_streams(service: Service) -> None:
    """A real model's words, and something of every mode."""
    client = get_sync_client(url=service.url)
    state = client.runs.wait(None, "capibara", input=INPUT, context=SHORT)
    assert state["messages"][-1]["content"].strip()
    assert state["plan"]["models"][0] in MODELS
    events = list(client.runs.stream(None, "capibara", input=INPUT, context=SHORT, stream_mode=MODES))
    names = {part.event for part in events}
    assert {"metadata", "values", "updates", "messages", "custom", "events", "debug", "end"} <= names


async def test_a_thread_of_the_async_client(service: Service) -> None:
    """Two runs, one conversation, a history that can be gone back in."""
    client = get_client(url=service.url)
    thread = await client.threads.create(metadata={"test": "servers"})
    for _ in range(2):
        await client.runs.wait(thread["thread_id"], "capibara", input=INPUT, context=SHORT)
    history = await client.threads.get_history(thread["thread_id"])
    assert [len(state["values"]["messages"]) for state in history] == [4, 2]
    assert (await client.threads.search(metadata={"test": "servers"}))[0]["thread_id"] == thread["thread_id"]
    await client.threads.delete(thread["thread_id"])
    assert not await client.threads.search(metadata={"test": "servers"})


def test_remote_graph_invokes_streams_and_remembers(service: Service) -> None:
    """As a graph by itself, on a thread, and as a node of another graph."""
    remote = RemoteGraph("capibara", url=service.url)
    config: Any = {"configurable": {"thread_id": str(uuid4())}}
    state = remote.invoke(INPUT, config, context=SHORT)
    assert state["messages"][-1]["content"].strip()
    assert len(remote.get_state(config).values["messages"]) == 2
    pieces = [message for message, _ in remote.stream(INPUT, context=SHORT, stream_mode="messages")]
    assert len(pieces) > 2
    assert {"classify", "verify"} <= set(remote.get_graph().nodes)
    outer = StateGraph(MessagesState)
    outer.add_node("capibara", remote)
    outer.add_edge(START, "capibara")
    answered = outer.compile().invoke({"messages": [HumanMessage("Hola")]}, {"configurable": {"model": "phi-4-mini"}})
    assert answered["messages"][-1].text.strip()


def test_what_is_wrong_is_raised(service: Service) -> None:
    """A model that does not exist is no answer."""
    with pytest.raises((RemoteException, Exception), match="model"):
        RemoteGraph("capibara", url=service.url).invoke(INPUT, context={"model": "gpt-4"})
