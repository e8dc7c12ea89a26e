"""Values on the LangServe wire: what the encoder gives, what a hash and a conversation are read as."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import uuid
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.runnables import RunnableLambda
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, ValidationError

from capibara_agents.errors import ModelLoading
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
