"""The LangServe face without a network: what it takes, what it gives, how it refuses, what it never says."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import hashlib
import json
import logging
import math
import re
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, ValidationError

from capibara_agents.errors import BadQuestion, ModelLoading, UnknownModel
from capibara_agents.http import langserve
from capibara_agents.http import langserve_encoding as encoding
from capibara_agents.http.langserve_input import conversation, conversation_schema, revived
from capibara_agents.types import Request

SECRET = "the-password-is-swordfish"
# Packed by lz-string 1.5.0's compressToEncodedURIComponent.
PACKED = {
    "N4Igxg9gdgZglgcwK4CcCGAjANgUxALlAFsIATPfcaAZxymqWpABoQi0APAfQDcIAXHCib4AzAF9W-NAhEBtEPxABdcUA": {
        "configurable": {"mode": "consensus", "max_voters": 3},
        "tags": ["t"],
    },
    "N4Igxg9gdgZglgcwK4CcCGAjANgUxALlAA8CQBHtKAEwC+ACQIns7BeDcAA9utTr7n3v-gYLQgAviKA": {
        "configurable": {"x": "ñandú 漢 😀 " + "a" * 56}
    },
}

# ---------------------------------------------------------------- the encoder


class Colour(enum.Enum):
    red = "rojo"


class Level(enum.IntEnum):
    low = 1


@dataclasses.dataclass
class Point:
    x: int
    inner: Any = None


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")
    when: datetime.datetime
    key: SecretStr = SecretStr(SECRET)
    hidden: str = Field(SECRET, exclude=True)


class Names(RootModel[list[str]]):
    pass


class Hostile:
    """Every way to look at it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(SECRET)

    def __repr__(self) -> str:
        raise RuntimeError(SECRET)


class HostileMapping(dict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError(SECRET)


def decoded(value: Any) -> Any:
    text = encoding.encode(value).decode("ascii")
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


MOMENT = datetime.datetime(2026, 11, 22, 13, 5, tzinfo=datetime.UTC)
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (math.nan, None),
        (-math.inf, None),
        (2**2000, hex(2**2000)),
        (Colour.red, "rojo"),
        (Level.low, 1),
        (ID, str(ID)),
        (MOMENT, "2026-11-22T13:05:00+00:00"),
        (MOMENT.date(), "2026-11-22"),
        (datetime.timedelta(minutes=2), 120.0),
        (Decimal("1.10"), "1.10"),
        (b"\xff\x00", "/wA="),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ((1, [2]), [1, [2]]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (
            {2: "a", None: "b", True: "c", ID: "d", Colour.red: "e", (1, 2): "f"},
            {"2": "a", "null": "b", "true": "c", str(ID): "d", "rojo": "e", "[1,2]": "f"},
        ),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Point(1, Point(2)), {"x": 1, "inner": {"x": 2, "inner": None}}),
        (Names(["a"]), ["a"]),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(4), 4),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.datetime64("2026-11-22"), "2026-11-22"),
        (Send("vote", {"k": {1}}), {"node": "vote", "arg": {"k": [1]}}),
        ("a\ud800b", "a\ufffdb"),
        ("😀\u2028\x85", "😀\u2028\x85"),
    ],
)
def test_values_become_plain_json(value: Any, expected: Any) -> None:
    """Each kind of value has one JSON form, the same every time."""
    assert decoded(value) == expected


def test_langgraph_commands_are_encoded_by_their_fields() -> None:
    """A Command keeps update and goto, its Sends included; an Interrupt keeps its value."""
    result = decoded([Command(update={"n": 1}, goto=[Send("vote", {"k": 2})]), Interrupt(value="why?", id="i")])
    assert result[0]["update"] == {"n": 1}
    assert result[0]["goto"] == [{"node": "vote", "arg": {"k": 2}}]
    assert result[1]["value"] == "why?"


def test_line_separators_never_stand_raw_in_the_json() -> None:
    """What the Python client takes for the end of a line is escaped."""
    assert len(encoding.encode("a\x85b\u2028c\u2029d\x0be\x1cf\r\n").decode().splitlines()) == 1


def test_secrets_stay_here() -> None:
    """SecretStr is masked, an excluded field is left out, extra fields are shown."""
    text = encoding.encode(Model(when=MOMENT, more=[ID])).decode()
    assert SECRET not in text
    assert json.loads(text)["more"] == [str(ID)]


def test_exceptions_show_nothing_but_what_is_safe() -> None:
    """A foreign exception gives its class name, one of ours its message."""
    ours, foreign = decoded([ModelLoading("It is loading."), ValueError(SECRET)])
    assert ours == {"type": "error", "code": "model_loading", "message": "It is loading."}
    assert foreign == {"type": "error", "code": "internal_error", "message": "ValueError on the server."}


@pytest.mark.parametrize(
    "make",
    [
        object,
        Hostile,
        lambda: HostileMapping(a=1),
        lambda: RunnableLambda(len),
        lambda: len,
        lambda: Hostile,
        lambda: (x for x in [SECRET]),
    ],
)
def test_what_cannot_be_encoded_is_named_by_its_class(make: Callable[[], Any]) -> None:
    """An unknown or hostile object costs only itself, and shows nothing of its content."""
    value = make()
    result = decoded({"good": 1, "bad": value})
    assert result["good"] == 1
    assert result["bad"]["type"] == "not_implemented"
    assert SECRET not in json.dumps(result)


def test_cycles_depth_and_size_are_bounded() -> None:
    """A value that holds itself, a tower and a mountain all come to an end."""
    loop: list[Any] = [1]
    loop.append({"again": loop})
    assert decoded(loop) == [1, {"again": encoding.CYCLE}]
    tower: Any = "top"
    for _ in range(5000):
        tower = [tower]
    assert encoding.TOO_DEEP in encoding.encode(tower).decode()
    mountain: Any = [1]
    for _ in range(60):
        mountain = [mountain, mountain]
    assert encoding.TOO_LARGE in encoding.encode(mountain).decode()
    assert decoded(range(10**12))[-1] == encoding.TOO_LARGE


def test_the_same_object_twice_is_no_cycle() -> None:
    """Only a container inside itself is one."""
    shared = {"a": [1]}
    assert decoded([shared, shared]) == [shared, shared]


def test_messages_keep_every_field_where_they_are_typed_loosely() -> None:
    """A prompt value and a generation keep their AIMessage whole, though they declare a BaseMessage."""
    message = AIMessage("x", response_metadata={"m": 1}, usage_metadata=None, additional_kwargs={"k": 2})
    prompt, result = decoded(
        [
            ChatPromptValue(messages=[message]),
            LLMResult(generations=[[ChatGenerationChunk(message=AIMessageChunk("y", tool_call_chunks=[]))]]),
        ]
    )
    assert prompt["type"] == "ChatPromptValueConcrete"
    assert prompt["messages"][0] == decoded(message)
    assert decoded(message)["additional_kwargs"] == {"k": 2}
    assert result["type"] == "LLMResult"
    assert result["generations"][0][0]["message"]["tool_call_chunks"] == []


# ---------------------------------------------------------------- configurations in a path


@pytest.mark.parametrize(("packed", "config"), PACKED.items())
def test_packed_configurations_are_read(packed: str, config: dict[str, Any]) -> None:
    """What lz-string packed comes back, beyond the basic plane too."""
    assert encoding.config_of_hash(packed) == config


@pytest.mark.parametrize("packed", ["", "Q", "x", "zzzz", "é", "N4", "NoRgukA", "N4" * 3000, "A" * 4000])
def test_what_is_no_packed_configuration_is_a_value_error(packed: str) -> None:
    """Cut off, invented, empty or not an object: one error."""
    with pytest.raises(ValueError, match=r".+"):
        encoding.config_of_hash(packed)


# ---------------------------------------------------------------- conversations


@pytest.mark.parametrize(
    "value",
    [
        "hola",
        ["hola"],
        [["user", "hola"]],
        {"messages": "hola"},
        {"messages": [("human", "hola")]},
        {"role": "user", "content": "hola"},
        [{"role": "user", "content": "hola"}],
        [{"type": "human", "content": "hola", "additional_kwargs": {}, "example": False}],
        [{"type": "HumanMessageChunk", "content": "hola"}],
        [{"type": "chat", "role": "user", "content": "hola"}],
        [{"lc": 1, "type": "constructor", "id": ["x", "HumanMessage"], "kwargs": {"content": "hola"}}],
        {"type": "ChatPromptValueConcrete", "messages": [{"type": "human", "content": "hola"}]},
        {"lc_kwargs": {}, "lc_namespace": ["x"], "messages": [{"type": "human", "content": "hola"}]},
        {"type": "StringPromptValue", "text": "hola"},
        {"lc_namespace": ["x"], "value": "hola"},
    ],
)
def test_every_form_of_a_conversation_is_one(value: Any) -> None:
    """Text, lists, objects, pairs, constructors and prompt values of both clients say the same."""
    assert conversation(value, Request) == {"messages": [HumanMessage("hola")]}


def test_roles_become_their_message_classes() -> None:
    """Assistant, tool, system and developer keep what belongs to them."""
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "2", "type": "function", "function": {"name": "f", "arguments": "{a"}},
    ]
    messages = conversation(
        [
            {"role": "system", "content": "s"},
            {"role": "developer", "content": "d"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "3"}], "status": "error"},
            {"type": "ai", "content": "x", "tool_calls": [{"name": "g", "args": {}, "id": None}], "id": "m"},
        ]
    )["messages"]
    assert messages[0] == SystemMessage("s")
    assert messages[1].additional_kwargs == {"__openai_role__": "developer"}
    assert messages[2].tool_calls == [{"name": "f", "args": {"a": 1}, "id": "1", "type": "tool_call"}]
    assert messages[2].invalid_tool_calls[0]["args"] == "{a"
    assert messages[3] == ToolMessage([{"type": "text", "text": "3"}], tool_call_id="1", status="error")
    assert messages[4].id == "m"
    assert messages[4].tool_calls[0]["name"] == "g"


def test_options_beside_the_messages_stay() -> None:
    """A field of Request beside the messages reaches the runnable."""
    assert conversation({"messages": "x", "mode": "single"}, Request)["mode"] == "single"


WRONG_INPUTS: list[Any] = [
    None,
    3,
    "",
    [],
    {},
    {"messages": []},
    {"messages": None},
    {"messages": {"messages": 1}},
    {"messages": "x", "colour": "red"},
    {"messages": "x", "mode": "loud"},
    [3],
    [[]],
    [["user"]],
    [["wizard", "x"]],
    [{"content": "x"}],
    [{"role": "user"}],
    [{"role": "wizard", "content": "x"}],
    [{"role": ["user"], "content": "x"}],
    [{"role": "user", "content": 3}],
    [{"role": "user", "content": [3]}],
    [{"role": "tool", "content": "x"}],
    [{"role": "assistant", "tool_calls": [{}]}],
    [{"type": "remove", "id": "x", "content": ""}],
    [{"type": "constructor", "lc": 1, "id": ["os", "system"], "kwargs": {"content": "x"}}],
]


@pytest.mark.parametrize("value", WRONG_INPUTS, ids=str)
def test_what_is_no_conversation_is_refused(value: Any) -> None:
    """Wrong input is a ValidationError with a place in it, never another exception."""
    with pytest.raises(ValidationError) as caught:
        conversation(value, Request)
    assert caught.value.errors()[0]["loc"]


def test_only_known_classes_are_revived() -> None:
    """Messages, prompts and documents inside any JSON become objects; what only looks like one stays JSON."""
    value = {
        "history": [decoded(AIMessage("x", response_metadata={"m": 1}))],
        "prompt": decoded(ChatPromptValue(messages=[HumanMessage("y")])),
        "text": decoded(StringPromptValue(text="z")),
        "found": decoded(Document("d", metadata={"k": 1})),
        "odd": {"type": "human", "content": 3},
        "evil": {"lc": 1, "type": "constructor", "id": ["subprocess", "Popen"], "kwargs": {"args": "ls"}},
    }
    result = revived(value)
    assert result["history"] == [AIMessage("x", response_metadata={"m": 1})]
    assert result["prompt"].to_messages() == [HumanMessage("y")]
    assert result["text"].to_string() == "z"
    assert result["found"] == Document("d", metadata={"k": 1})
    assert result["odd"] == value["odd"]
    assert isinstance(result["evil"], dict)


def test_the_published_schema_says_what_is_taken() -> None:
    """The schema has no references and agrees with the validation on good and wrong inputs."""
    import jsonschema

    schema = conversation_schema(Request)
    assert "$ref" not in json.dumps(schema)
    check = jsonschema.Draft202012Validator(schema)
    for wrong in WRONG_INPUTS:
        assert not check.is_valid(wrong), wrong
    for good in ("x", [["user", "x"]], {"messages": [{"role": "user", "content": "x"}], "mode": "single"}):
        assert check.is_valid(good)


# ---------------------------------------------------------------- the routes


class Echo(Runnable[Any, AIMessage]):
    """Answers with the last message and remembers what it was given."""

    def __init__(self) -> None:
        self.configs: list[RunnableConfig] = []
        self.inputs: list[Any] = []
        self.kwargs: list[dict[str, Any]] = []

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        self.inputs.append(input)
        self.configs.append(config or {})
        self.kwargs.append(kwargs)
        return AIMessage(input["messages"][-1].content)


async def post(runnable: Runnable[Any, Any], path: str, body: Any, **options: Any) -> httpx.Response:
    app = FastAPI()
    app.include_router(langserve.router(runnable, prefix="/x", **options))
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        if isinstance(body, bytes):
            return await client.post(path, content=body, headers={"content-type": "application/json"})
        return await client.post(path, json=body) if body is not None else await client.get(path)


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    """The events of a stream, read strictly: CRLF, one data line each, comments apart."""
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "\n" not in response.text.replace("\r\n", "")
    assert response.text.endswith("\r\n\r\n")
    events = []
    for block in response.text.split("\r\n\r\n")[:-1]:
        if block.startswith(":"):
            continue
        name, *data = block.split("\r\n")
        assert name.startswith("event: ")
        assert len(data) <= 1
        events.append((name[7:], json.loads(data[0].removeprefix("data: ")) if data else None))
    return events


async def test_invoke_answers_with_output_and_run_id() -> None:
    """The output is the message; the run id is the one the runnable ran under."""
    echo = Echo()
    response = await post(echo, "/x/invoke", {"input": "hola"})
    body = response.json()
    assert body["output"]["content"] == "hola"
    assert body["output"]["type"] == "ai"
    assert body["metadata"] == {"run_id": str(echo.configs[0]["run_id"]), "feedback_tokens": []}


async def test_config_reaches_the_runnable_and_foreign_keys_do_not() -> None:
    """Tags, metadata, run name and knobs arrive in both spellings; a calling graph's own keys are left out."""
    echo = Echo()
    config = {
        "tags": ["a"],
        "metadata": {"k": 1},
        "runName": "mine",
        "recursionLimit": 5,
        "callbacks": [],
        "configurable": {"mode": "single", "thread_id": "t", "__pregel_send": 1, "checkpoint_ns": "n"},
    }
    await post(echo, "/x/invoke", {"input": "x", "config": config, "kwargs": {"quality": "best", "config": 1}})
    seen = echo.configs[0]
    assert seen["tags"] == ["a"]
    assert seen["metadata"]["k"] == 1
    assert seen["run_name"] == "mine"
    assert seen["configurable"] == {"mode": "single", "thread_id": "t"}
    assert "recursion_limit" not in seen
    assert echo.kwargs[0] == {"quality": "best"}


async def test_the_configuration_in_the_path_is_used_and_the_body_wins() -> None:
    """/c/{hash}/ gives the base, the request's config what differs."""
    echo = Echo()
    packed = next(iter(PACKED))
    response = await post(echo, f"/x/c/{packed}/invoke", {"input": "x", "config": {"configurable": {"mode": "auto"}}})
    assert response.status_code == 200
    assert echo.configs[0]["configurable"] == {"mode": "auto", "max_voters": 3}
    assert echo.configs[0]["tags"] == ["t"]
    for path in ("stream", "input_schema", "playground/"):
        response = await post(echo, f"/x/c/nonsense!/{path}", {"input": "x"} if path == "stream" else None)
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"


async def test_a_batch_keeps_its_order_and_has_a_config_for_each() -> None:
    """Outputs stand where their inputs stood, whoever was faster."""

    async def wait(value: Any, config: RunnableConfig) -> str:
        text = str(value["messages"][0].content)
        await anyio.sleep(0.02 if text == "a" else 0)
        return text + config["configurable"]["mode"]

    body = {
        "inputs": ["a", "b"],
        "config": [{"configurable": {"mode": "single"}}, {"configurable": {"mode": "cascade"}}],
        "kwargs": [{}, {}],
    }
    answer = (await post(RunnableLambda(wait), "/x/batch", body)).json()
    assert answer["output"] == ["asingle", "bcascade"]
    assert len(set(answer["metadata"]["run_ids"])) == 2
    assert [one["run_id"] for one in answer["metadata"]["responses"]] == answer["metadata"]["run_ids"]


async def test_a_batch_runs_no_more_at_a_time_than_allowed() -> None:
    """The smaller of the server's and the client's limits holds."""
    now = most = 0

    async def count(value: Any) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.01)
        now -= 1
        return most

    await post(RunnableLambda(count), "/x/batch", {"inputs": ["a"] * 8}, max_concurrency=3)
    assert most == 3
    most = 0
    body = {"inputs": ["a"] * 8, "config": {"max_concurrency": 2}}
    await post(RunnableLambda(count), "/x/batch", body, max_concurrency=3)
    assert most == 2


async def test_a_failing_input_fails_its_batch_or_becomes_an_error_object() -> None:
    """Without return_exceptions the batch has the failure's status, with it the failure's place."""

    def answer(value: Any) -> str:
        if value["messages"][0].content == "bad":
            raise UnknownModel("m", ["capibara"])
        return "good"

    body: dict[str, Any] = {"inputs": ["x", "bad", "y"]}
    response = await post(RunnableLambda(answer), "/x/batch", body)
    assert response.status_code == 404
    assert response.json()["code"] == "model_not_found"
    body["kwargs"] = {"return_exceptions": True}
    output = (await post(RunnableLambda(answer), "/x/batch", body)).json()["output"]
    assert output[0] == output[2] == "good"
    assert output[1]["code"] == "model_not_found"


async def test_the_first_failure_of_a_batch_stops_the_others() -> None:
    """Nothing runs on for an answer that nobody gets."""
    cancelled = []

    async def answer(value: Any) -> str:
        if value["messages"][0].content == "bad":
            raise ModelLoading("It is loading.", retry_after_s=7)
        try:
            await anyio.sleep(30)
        except BaseException:
            cancelled.append(1)
            raise
        return ""

    response = await post(RunnableLambda(answer), "/x/batch", {"inputs": ["x", "bad"]})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert cancelled == [1]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", ["body"]),
        (b"{", ["body"]),
        (b"\xff", ["body"]),
        (b"[" * 100_000, ["body"]),
        (b'{"input": NaN}', ["body"]),
        (b'{"input": ' + b"[" * 90 + b"]" * 90 + b"}", ["body"]),
        (b"[]", ["body"]),
        ({}, ["body", "input"]),
        ({"input": 3}, ["body", "input", "messages"]),
        ({"input": [{"role": "wizard", "content": SECRET}]}, ["body", "input", "messages", 0]),
        ({"input": "x", "config": []}, ["body", "config"]),
        ({"input": "x", "config": {"tags": "a"}}, ["body", "config", "tags"]),
        ({"input": "x", "config": {"configurable": {"mode": SECRET}}}, ["body", "config", "configurable", "mode"]),
        ({"input": "x", "kwargs": {"voting": 3}}, ["body", "kwargs", "voting"]),
        ({"input": "x", "kwargs": []}, ["body", "kwargs"]),
    ],
)
@pytest.mark.parametrize("path", ["invoke", "stream", "stream_log", "stream_events"])
async def test_wrong_requests_are_422_before_anything_runs(path: str, body: Any, place: list[Any]) -> None:
    """LangServe's shape, the place of the fault, none of the caller's text, and no run."""
    echo = Echo()
    response = await post(echo, f"/x/{path}", body)
    assert response.status_code == 422
    answer = response.json()
    assert answer["detail"][0]["loc"] == place
    assert answer["message"]
    assert SECRET not in response.text
    assert echo.inputs == []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"inputs": "x"}, ["body", "inputs"]),
        ({"inputs": ["x", 3]}, ["body", "inputs", 1, "messages"]),
        ({"inputs": ["x"] * 4}, ["body", "inputs"]),
        ({"inputs": ["x"], "config": [{}, {}]}, ["body", "config"]),
        ({"inputs": ["x"], "config": {"max_concurrency": 0}}, ["body", "config", "RunConfig", "max_concurrency"]),
    ],
)
async def test_wrong_batches_are_422(body: Any, place: list[Any]) -> None:
    """One wrong input, too many of them, or configs that do not match."""
    response = await post(Echo(), "/x/batch", body, max_batch=3)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == place


async def test_a_form_or_plain_text_is_415() -> None:
    """Only JSON is taken: a page of another origin cannot post it unasked."""
    app = FastAPI()
    app.include_router(langserve.router(Echo(), prefix="/x"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for headers in ({"content-type": "text/plain"}, {}):
            response = await client.post("/x/invoke", content=b'{"input": "x"}', headers=headers)
            assert response.status_code == 415


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadQuestion("Ask otherwise.", param="messages"), 400, "invalid_request"),
        (UnknownModel("m", ["capibara"]), 404, "model_not_found"),
        (ModelLoading("It is loading.", retry_after_s=2.2), 503, "model_loading"),
        (ValueError(SECRET), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("path", ["invoke", "stream", "stream_log", "stream_events"])
async def test_a_run_that_fails_at_once_is_an_http_error(
    path: str, error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The status of the error table; a foreign exception's text is neither sent nor logged."""

    async def fail(value: Any) -> str:
        raise error

    with caplog.at_level(logging.DEBUG, logger="capibara_agents"):
        response = await post(RunnableLambda(fail), f"/x/{path}", {"input": "x"})
    if path in ("stream_log", "stream_events"):
        # These tell of the run's start before it fails.
        name, data = events_of(response)[-1]
        assert (name, data["status_code"]) == ("error", status)
    else:
        assert response.status_code == status
        assert response.json()["code"] == code
        assert ("retry-after" in response.headers) == (status == 503)
    assert SECRET not in response.text
    assert SECRET not in caplog.text
    assert (status == 500) == ("ValueError" in caplog.text)


async def words(values: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
    async for _ in values:
        pass
    for word in ("uno", " \u2028dos\r\n"):
        yield AIMessageChunk(word)


async def test_a_stream_is_metadata_data_and_end() -> None:
    """The run id comes first, each chunk is an event, and nothing follows the end."""
    response = await post(RunnableGenerator(words), "/x/stream", {"input": "x"})
    events = events_of(response)
    assert [name for name, _ in events] == ["metadata", "data", "data", "end"]
    assert uuid.UUID(events[0][1]["run_id"])
    assert [data["content"] for _, data in events[1:3]] == ["uno", " \u2028dos\r\n"]
    assert response.headers["cache-control"] == "no-store"


async def test_an_error_in_the_middle_is_the_last_event() -> None:
    """What was said stays said; then status and message, and no end."""

    async def break_off(values: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in values:
            yield "uno"
            raise RuntimeError(SECRET)

    response = await post(RunnableGenerator(break_off), "/x/stream", {"input": "x"})
    events = events_of(response)
    assert response.status_code == 200
    assert [name for name, _ in events] == ["metadata", "data", "error"]
    assert events[-1][1] == {"status_code": 500, "message": "Internal Server Error"}
    assert SECRET not in response.text


async def test_silence_is_filled_with_comments() -> None:
    """A stream that waits starts with its metadata and shows that it lives."""

    async def slow(value: Any) -> str:
        await anyio.sleep(0.2)
        return "done"

    response = await post(RunnableLambda(slow), "/x/stream", {"input": "x"}, ping_s=0.02)
    assert response.text.startswith("event: metadata\r\n")
    assert response.text.count(": ping\r\n\r\n") >= 2
    assert events_of(response)[-2:] == [("data", "done"), ("end", None)]


async def test_a_failure_after_a_comment_is_an_event() -> None:
    """Once the head is out, the status can only be told in the stream."""

    async def slow(value: Any) -> str:
        await anyio.sleep(0.1)
        raise ModelLoading("It is loading.")

    events = events_of(await post(RunnableLambda(slow), "/x/stream", {"input": "x"}, ping_s=0.02))
    assert events[-1] == ("error", {"status_code": 503, "message": "It is loading."})


async def test_the_log_ends_with_the_whole_state_unless_diffs_are_asked_for() -> None:
    """Patches in both cases; without diff the last one is the state."""
    for diff, paths in ((True, None), (False, "")):
        events = events_of(await post(RunnableGenerator(words), "/x/stream_log", {"input": "x", "diff": diff}))
        patches = [data["ops"] for name, data in events if name == "data"]
        assert patches[0][0]["path"] == ""
        assert events[-1] == ("end", None)
        if paths == "":
            assert patches[-1][0]["value"]["final_output"]["content"] == "uno \u2028dos\r\n"
        else:
            assert patches[-1][0]["path"] != ""


async def test_events_are_those_of_version_two_and_can_be_filtered() -> None:
    """The run's own events, with the filters of the request."""
    body = {"input": "x", "include_types": ["chain"], "exclude_names": ["words"]}
    everything = events_of(await post(RunnableGenerator(words), "/x/stream_events", {"input": "x"}))
    names = [data["event"] for name, data in everything if name == "data"]
    assert names[0] == "on_chain_start"
    assert "on_chain_stream" in names
    assert names[-1] == "on_chain_end"
    assert "parent_ids" in everything[0][1]
    filtered = events_of(await post(RunnableGenerator(words), "/x/stream_events", body))
    assert [name for name, _ in filtered] == ["end"]


@pytest.mark.parametrize("path", ["invoke", "batch", "stream", "stream_log", "stream_events"])
async def test_a_client_that_goes_away_cancels_the_run(path: str) -> None:
    """However silent the run is, its work ends with its reader."""
    started, cancelled = anyio.Event(), anyio.Event()

    async def work(value: Any) -> str:
        started.set()
        try:
            await anyio.sleep(30)
        except BaseException:
            cancelled.set()
            raise
        return ""

    app = FastAPI()
    app.include_router(langserve.router(RunnableLambda(work), prefix="/x"))
    body = json.dumps({"inputs": ["x"]} if path == "batch" else {"input": "x"}).encode()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await started.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/x/{path}",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
    }
    with anyio.fail_after(10):
        await app(scope, receive, send)
        await cancelled.wait()


async def test_a_body_that_stops_is_no_error() -> None:
    """A client that leaves while it sends leaves nothing behind."""
    app = FastAPI()
    app.include_router(langserve.router(Echo(), prefix="/x"))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x/invoke", "query_string": b"", "root_path": ""}
    await app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)
    assert sent[0]["status"] == langserve.CLIENT_GONE


async def test_schemas_of_a_conversation_and_of_any_runnable() -> None:
    """Capibara's own input and knobs by default, the runnable's where an input function is given."""
    assert (await post(Echo(), "/x/input_schema", None)).json() == conversation_schema(Request)
    knobs = (await post(Echo(), "/x/config_schema", None)).json()["properties"]["configurable"]["properties"]
    assert set(Request.model_fields) <= set(knobs)

    def double(value: int) -> int:
        return 2 * value

    other = RunnableLambda(double)
    options: dict[str, Any] = {"to_input": int, "options": None}
    assert (await post(other, "/x/input_schema", None, **options)).json()["type"] == "integer"
    assert (await post(other, "/x/output_schema", None, **options)).json()["type"] == "integer"
    assert (await post(other, "/x/config_schema", None, **options)).status_code == 200
    assert (await post(other, "/x/invoke", {"input": 4}, **options)).json()["output"] == 8
    wrong = await post(other, "/x/invoke", {"input": SECRET}, **options)
    assert wrong.status_code == 422
    assert SECRET not in wrong.text


async def test_the_playground_needs_nothing_from_elsewhere() -> None:
    """One page, no address in it, and a policy that lets in exactly its own script and style."""
    response = await post(Echo(), "/x/playground/", None)
    page, policy = response.text, response.headers["content-security-policy"]
    assert response.headers["content-type"].startswith("text/html")
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert "navigator.language" in page
    for tag in ("script", "style"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert " style=" not in page
    assert not re.search(r"\son\w+=", page)


def test_openapi_describes_every_route() -> None:
    """Each route under both bases, with its errors and an input schema without dangling references."""
    app = FastAPI()
    app.include_router(langserve.router(Echo()))
    paths = app.openapi()["paths"]
    posts = {"invoke", "batch", "stream", "stream_log", "stream_events"}
    gets = {"input_schema", "output_schema", "config_schema", "playground/"}
    for base in ("/capibara", "/capibara/c/{config_hash}"):
        assert {f"{base}/{path}" for path in posts | gets} <= set(paths)
    operation = paths["/capibara/stream"]["post"]
    assert {"200", "400", "404", "415", "422", "500", "503"} <= set(operation["responses"])
    assert "text/event-stream" in operation["responses"]["200"]["content"]
    media = operation["requestBody"]["content"]["application/json"]
    assert "$ref" not in json.dumps(media)
    assert media["schema"]["required"] == ["input"]
    ids = [operation["operationId"] for item in paths.values() for operation in item.values()]
    assert len(ids) == len(set(ids))
