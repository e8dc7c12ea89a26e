"""LangGraph's own tools over langgraph.json: `langgraph validate`, and `langgraph dev` driven by its SDK."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import langgraph_sdk
import pytest
from service_process import (
    ANSWER_LIMIT_S,
    CHECKOUT,
    MODELS,
    START_LIMIT_S,
    STOP_LIMIT_S,
    environment,
    gone,
    llama_servers,
    marked,
    new_mark,
    until,
)

LANGGRAPH = str(Path(sys.executable).with_name("langgraph"))
OFFLINE = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false"}
SHORT = {"sampling": {"max_tokens": 8, "temperature": 0}}


def asked(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def test_validate_accepts_langgraph_json() -> None:
    """The file names a graph that is there."""
    done = subprocess.run(
        [LANGGRAPH, "validate", "--config", "langgraph.json"],
        cwd=CHECKOUT,
        env=environment(**OFFLINE),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "valid" in done.stdout + done.stderr


def free_port() -> int:
    """For a program that takes no port 0. Below those that the system gives away by itself meanwhile."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, real_servers: None) -> Iterator[str]:
    """`langgraph dev`, started offline as from the checkout; Ctrl-C must end it and every server of its fleet.

    It writes into the folder where it is started, so that is a folder with the same langgraph.json and graphs.
    """
    folder = tmp_path_factory.mktemp("studio")
    shutil.copy(CHECKOUT / "langgraph.json", folder)
    (folder / "graphs").symlink_to(CHECKOUT / "graphs")
    port = free_port()
    mark, output = new_mark(), folder / "output.log"
    settings = {"CAPIBARA_FLEET": "tiny", "CAPIBARA_RUNTIME__DATA_DIR": str(folder / "data")}
    with output.open("wb") as log:
        process = subprocess.Popen(
            [LANGGRAPH, "dev", "--no-browser", "--no-reload", "--port", str(port)],
            cwd=folder,
            env=environment(mark, **OFFLINE, **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        up = until(lambda: process.poll() is not None or _is_up(url), START_LIMIT_S, 0.5)
        assert up, "langgraph dev did not come up"
        assert process.poll() is None, output.read_text(errors="replace")[-4000:]
        yield url
        assert llama_servers(marked(mark)), "no run has reached a real server"
        process.send_signal(signal.SIGINT)
        process.wait(STOP_LIMIT_S)
    finally:
        process.kill()
        process.wait()
        left = gone(mark)
    assert not left, f"left behind: {left}"


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ok", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def client(dev: str) -> langgraph_sdk.client.LangGraphClient:
    return langgraph_sdk.get_client(url=dev, timeout=ANSWER_LIMIT_S)


@pytest.mark.servers
async def test_the_graph_is_an_assistant_with_schemas(client: langgraph_sdk.client.LangGraphClient) -> None:
    """Studio's forms: messages go in, the knobs of a request are the context, the whole state comes out."""
    (assistant,) = await client.assistants.search(graph_id="capibara")
    schemas = await client.assistants.get_schemas(assistant["assistant_id"])
    assert set(schemas["input_schema"]["properties"]) == {"messages"}
    assert {"messages", "plan", "candidates", "verdict"} <= set(schemas["output_schema"]["properties"])
    assert {"model", "mode", "voting", "quality", "sampling"} <= set(schemas["context_schema"]["properties"])
    drawn = await client.assistants.get_graph(assistant["assistant_id"])
    assert {"classify", "route", "generate", "vote", "verify"} <= {node["id"] for node in drawn["nodes"]}


@pytest.mark.servers
async def test_a_run_is_answered_by_a_real_server(client: langgraph_sdk.client.LangGraphClient) -> None:
    """runs.wait gives the final state: the answer is the last message, and the verdict names its candidate."""
    state = await client.runs.wait(None, "capibara", input=asked("¿Cuál es la capital de Perú?"), context=SHORT)
    assert isinstance(state, dict)
    assert "__error__" not in state, state
    assert state["messages"][-1]["type"] == "ai"
    assert state["messages"][-1]["content"].strip()
    assert state["classification"]["language"] == "es"
    chosen = {f"{c['attempt']}:{c['model']}": c for c in state["candidates"]}[state["verdict"]["candidate"]]
    assert chosen["model"] in MODELS
    assert chosen["content"] == state["messages"][-1]["content"]


@pytest.mark.servers
async def test_a_streamed_run_shows_nodes_and_tokens(client: langgraph_sdk.client.LangGraphClient) -> None:
    """Every node reports what it has done, and the model's tokens come as messages."""
    stream = client.runs.stream(
        None,
        "capibara",
        input=asked("What is the capital of Peru?"),
        context={**SHORT, "model": "phi-4-mini"},
        stream_mode=["updates", "messages-tuple"],
    )
    parts = [part async for part in stream]
    assert not [part for part in parts if part.event == "error"]
    nodes = [name for part in parts if part.event == "updates" for name in part.data]
    # Once more round, where the checks refuse what it said.
    round_ = ["route", "generate", "vote", "verify"]
    assert nodes == ["classify", *round_ * (len(nodes) // 4)]
    tokens = [part.data[0]["content"] for part in parts if part.event == "messages"]
    assert len(tokens) > 1
    assert "".join(tokens).strip()


@pytest.mark.servers
async def test_a_thread_remembers_the_conversation(client: langgraph_sdk.client.LangGraphClient) -> None:
    """Two runs on a thread: the second one starts anew, with the first one's messages before it."""
    thread = (await client.threads.create())["thread_id"]
    context = {**SHORT, "model": "phi-4-mini"}
    await client.runs.wait(thread, "capibara", input=asked("My name is Ana."), context=context)
    state = await client.runs.wait(thread, "capibara", input=asked("What is my name?"), context=context)
    assert isinstance(state, dict)
    assert [message["type"] for message in state["messages"]] == ["human", "ai", "human", "ai"]
    assert [candidate["attempt"] for candidate in state["candidates"]] == list(range(1, len(state["candidates"]) + 1))
