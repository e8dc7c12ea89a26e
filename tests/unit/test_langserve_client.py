"""The LangServe face over a real socket, driven by the clients that exist: langserve.RemoteRunnable, and plain HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import cycle
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
from langchain_core.tracers.log_stream import RunLogPatch
from langserve import RemoteRunnable
from langserve.lzstring import LZString

from capibara_agents.errors import BadQuestion, ModelLoading
from capibara_agents.http import langserve
from capibara_agents.http import langserve_encoding as encoding

pytestmark = pytest.mark.filterwarnings("ignore:astream_log is deprecated")

TEXT = "Hola \u2028 mundo \x85 qué tal 😀"
ANSWER = AIMessage(
    TEXT,
    response_metadata={"model_name": "m", "capibara": {"plan": {"mode": "single"}, "candidates": [{"model": "m"}]}},
    additional_kwargs={"reasoning_content": "hm"},
    tool_calls=[{"name": "f", "args": {"a": 1}, "id": "1", "type": "tool_call"}],
    usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
)
SECRET = "the-password-is-swordfish"
WAIT_S = 20.0
Connect = Callable[[str], RemoteRunnable]


def talk() -> Runnable[Any, AIMessage]:
    """A model that always says ANSWER, behind a conversation."""
    model = GenericFakeChatModel(messages=cycle([ANSWER]))
    return RunnableLambda[Any, Any](lambda value: value["messages"]).with_config(run_name="messages") | model


def echo(value: dict[str, Any], config: RunnableConfig) -> AIMessage:
    kinds = [f"{message.type}:{message.text}" for message in value["messages"]]
    knobs = config.get("configurable", {})
    return AIMessage("|".join(kinds), response_metadata={"knobs": {k: v for k, v in knobs.items() if k == "mode"}})


async def break_off(values: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
    async for _ in values:
        yield AIMessageChunk("uno")
        raise RuntimeError(SECRET)


def refuse(value: Any) -> str:
    raise BadQuestion("Ask otherwise.")


def loading(value: Any) -> str:
    raise ModelLoading("It is loading.", retry_after_s=3)


class Endless:
    """Speaks until it is cancelled, and tells when that happens."""

    def __init__(self) -> None:
        self.begun, self.cancelled = threading.Semaphore(0), threading.Semaphore(0)

    async def speak(self, values: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
        async for _ in values:
            self.begun.release()
            try:
                yield AIMessageChunk("uno")
                await anyio.sleep(600)
            except BaseException:
                self.cancelled.release()
                raise


ENDLESS = Endless()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The face over several runnables, on an ephemeral port of this machine."""
    app = FastAPI()
    for prefix, runnable in {
        "/capibara": talk(),
        "/echo": RunnableLambda(echo),
        "/broken": RunnableGenerator(break_off),
        "/refuse": RunnableLambda(refuse),
        "/loading": RunnableLambda(loading),
        "/endless": RunnableGenerator(ENDLESS.speak),
    }.items():
        app.include_router(langserve.router(runnable, prefix=prefix, ping_s=0.2))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        end = time.monotonic() + WAIT_S
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(WAIT_S)


@pytest.fixture
async def connect(base: str) -> AsyncIterator[Connect]:
    """Clients of the face; closed on the loop they were used on, which their own finalizer does not know."""
    remotes: list[RemoteRunnable] = []

    def connected(path: str) -> RemoteRunnable:
        remotes.append(RemoteRunnable(f"{base}/{path}"))
        return remotes[-1]

    yield connected
    for remote in remotes:
        await remote.async_client.aclose()
        remote.sync_client.close()


@pytest.fixture
def remote(connect: Connect) -> RemoteRunnable:
    return connect("capibara/")


def test_invoke_revives_the_whole_message(remote: RemoteRunnable) -> None:
    """Text, metadata, extras, tool calls and usage are those of the server's message."""
    answer = remote.invoke({"messages": [HumanMessage("hola")]})
    assert isinstance(answer, AIMessage)
    assert answer.model_dump(exclude={"id"}) == ANSWER.model_dump(exclude={"id"})


async def test_ainvoke_takes_every_form_of_a_conversation(connect: Connect) -> None:
    """Serialised messages, roles, pairs, prompt values and a text arrive as the same conversation."""
    remote = connect("echo")
    prompt = ChatPromptTemplate.from_messages([("system", "s"), ("human", "{q}")])
    for value in (
        {"messages": [SystemMessage("s"), HumanMessage("q")]},
        [SystemMessage("s"), HumanMessage("q")],
        {"messages": [("system", "s"), ("user", "q")]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
        prompt.invoke({"q": "q"}),
    ):
        assert (await remote.ainvoke(value)).content == "system:s|human:q"
    assert (await remote.ainvoke("q")).content == "human:q"
    calls = [{"name": "f", "args": {}, "id": "1"}]
    turn = [HumanMessage("q"), AIMessage("", tool_calls=calls), ToolMessage("3", tool_call_id="1"), AIMessageChunk("x")]
    assert (await remote.ainvoke(turn)).content == "human:q|ai:|tool:3|ai:x"


def test_config_travels_along(connect: Connect) -> None:
    """Knobs in configurable reach the runnable, from the request and from the path."""
    config: RunnableConfig = {"configurable": {"mode": "consensus"}, "tags": ["t"], "metadata": {"k": 1}}
    assert connect("echo").invoke("q", config).response_metadata == {"knobs": {"mode": "consensus"}}
    packed = LZString.compressToEncodedURIComponent(json.dumps({"configurable": {"mode": "single"}}))
    remote = connect(f"echo/c/{packed}")
    assert remote.invoke("q").response_metadata == {"knobs": {"mode": "single"}}
    assert remote.invoke("q", config).response_metadata == {"knobs": {"mode": "consensus"}}


async def test_batch_and_abatch_keep_the_order(connect: Connect) -> None:
    """One answer for each input, where its input stood; configs for all and for each."""
    remote = connect("echo")
    inputs = [f"q{n}" for n in range(12)]
    expected = [f"human:q{n}" for n in range(12)]
    assert [answer.content for answer in remote.batch(inputs)] == expected
    assert [answer.content for answer in await remote.abatch(inputs, {"max_concurrency": 2})] == expected
    configs: list[RunnableConfig] = [{"configurable": {"mode": mode}} for mode in ("single", "cascade")]
    answers = remote.batch(["a", "b"], configs)  # type: ignore[arg-type]
    assert [answer.response_metadata["knobs"]["mode"] for answer in answers] == ["single", "cascade"]
    assert remote.batch([]) == []


def test_stream_gives_chunks_that_add_up(remote: RemoteRunnable) -> None:
    """Every piece is an AIMessageChunk; together they are the answer, line separators included."""
    chunks = list(remote.stream("hola"))
    assert len(chunks) > 3
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == TEXT
    assert whole.additional_kwargs["reasoning_content"] == "hm"


async def test_astream_composes(remote: RemoteRunnable) -> None:
    """A remote runnable between a prompt and a parser streams like a local one."""
    chain = ChatPromptTemplate.from_messages([("human", "{q}")]) | remote | StrOutputParser()
    pieces = [piece async for piece in chain.astream({"q": "hola"})]
    assert len(pieces) > 3
    assert "".join(pieces) == TEXT


async def test_astream_log_adds_up_to_the_state(remote: RemoteRunnable) -> None:
    """The patches, applied one after another, hold the final output and the model's run."""
    state: Any = None
    async for patch in remote.astream_log("hola"):
        assert isinstance(patch, RunLogPatch)
        state = patch if state is None else state + patch
    assert state.state["final_output"].content == TEXT
    assert "GenericFakeChatModel" in state.state["logs"]


async def test_astream_events_tell_of_the_tokens(remote: RemoteRunnable) -> None:
    """Start, tokens and end of the model come as events v2, and the filters hold."""
    events = [event async for event in remote.astream_events("hola", version="v2")]
    names = [event["event"] for event in events]
    assert names[0] == "on_chain_start"
    assert names[-1] == "on_chain_end"
    tokens = [event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(token.content for token in tokens) == TEXT
    assert all(isinstance(token, AIMessageChunk) for token in tokens)
    only = [event async for event in remote.astream_events("hola", include_types=["chat_model"])]
    assert {event["event"].split("_model")[0] for event in only} == {"on_chat"}


@pytest.mark.parametrize("value", [3, {"messages": []}, [{"role": "wizard", "content": SECRET}]])
async def test_wrong_input_raises_422_everywhere(remote: RemoteRunnable, value: Any) -> None:
    """The same status from invoke, batch and each stream, and none of the input in it."""

    async def events() -> None:
        [_ async for _ in remote.astream_events(value)]

    async def log() -> None:
        [_ async for _ in remote.astream_log(value)]

    for call in (events, log, lambda: remote.ainvoke(value), lambda: remote.abatch([value])):
        with pytest.raises(httpx.HTTPStatusError) as caught:
            await call()
        assert caught.value.response.status_code == 422
        assert SECRET not in str(caught.value)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        list(remote.stream(value))
    assert caught.value.response.status_code == 422


def test_errors_keep_their_status(connect: Connect) -> None:
    """An error of ours has its status and message, from invoke, batch and stream alike."""
    for prefix, status, message in (("refuse", 400, "Ask otherwise."), ("loading", 503, "It is loading.")):
        remote = connect(f"{prefix}")
        for call in (lambda r=remote: r.invoke("x"), lambda r=remote: r.batch(["x"])):
            with pytest.raises(httpx.HTTPStatusError, match=message) as caught:
                call()
            assert caught.value.response.status_code == status
        with pytest.raises(httpx.HTTPStatusError) as caught:
            list(remote.stream("x"))
        assert caught.value.response.status_code == status


async def test_an_error_in_the_middle_of_a_stream_raises_after_the_first_chunk(connect: Connect) -> None:
    """What came before the error came; the error has a status and nothing of the exception."""
    remote = connect("broken")
    chunks = remote.stream("x")
    assert next(chunks).content == "uno"
    with pytest.raises(httpx.HTTPStatusError, match="Internal Server Error") as caught:
        next(chunks)
    assert caught.value.response.status_code == 500
    assert SECRET not in str(caught.value)
    for stream in (remote.astream("x"), remote.astream_log("x"), remote.astream_events("x")):
        with pytest.raises(httpx.HTTPStatusError, match="Internal Server Error"):
            [_ async for _ in stream]


@pytest.mark.parametrize("path", ["invoke", "batch", "stream", "stream_log", "stream_events"])
async def test_a_client_that_disconnects_cancels_the_run(base: str, path: str) -> None:
    """Closing the connection ends the work behind it, on every route, while it is silent."""
    body = {"inputs": ["x"]} if path == "batch" else {"input": "x"}
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        if path in ("invoke", "batch"):
            asking = asyncio.create_task(client.post(f"{base}/endless/{path}", json=body))
            assert await anyio.to_thread.run_sync(lambda: ENDLESS.begun.acquire(timeout=WAIT_S))
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        else:
            async with client.stream("POST", f"{base}/endless/{path}", json=body) as response:
                assert response.status_code == 200
                async for line in response.aiter_lines():
                    if "uno" in line:
                        break
            assert ENDLESS.begun.acquire(timeout=WAIT_S)
    assert await anyio.to_thread.run_sync(lambda: ENDLESS.cancelled.acquire(timeout=WAIT_S))


def test_many_streams_side_by_side_do_not_mix(connect: Connect) -> None:
    """Twenty clients get their own answers, each whole."""
    remote = connect("echo")
    found: list[str] = []

    def ask(number: int) -> None:
        found.append("".join(chunk.content for chunk in remote.stream(f"q{number}")))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(found) == sorted(f"human:q{number}" for number in range(20))


def test_whatever_a_client_packs_is_unpacked() -> None:
    """Random configurations, with characters of one, two and four bytes, survive the path."""
    chance = random.Random(7)
    for _ in range(100):
        text = "".join(chance.choices('aañ漢😀 \n"', k=chance.randrange(200)))
        config = {"configurable": {"template": text, "n": chance.randrange(10**6)}}
        units = json.dumps(config, ensure_ascii=False).encode("utf-16-le")
        # JavaScript counts in units of 16 bits, and so does the packing.
        script = "".join(chr(units[n] | units[n + 1] << 8) for n in range(0, len(units), 2))
        assert encoding.config_of_hash(LZString.compressToEncodedURIComponent(script)) == config


def test_a_packed_bomb_is_stopped() -> None:
    """A short hash that unpacks to very much is refused before it does."""
    bomb = LZString.compressToEncodedURIComponent(json.dumps({"a": "x" * 500_000}))
    assert len(bomb) < 4000
    with pytest.raises(ValueError, match="too long"):
        encoding.config_of_hash(bomb)
