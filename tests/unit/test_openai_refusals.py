"""OpenAI's face over scripted models: every refusal, and failures that leak nothing."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.asgi import Exchange, get, post
from tests.fakes import (
    GPT,
    MISTRAL,
    PHI,
    QWEN,
    SPANISH,
    FakeHouse,
    Reply,
    classification,
    fail,
    say,
)
from tests.openai_face import CHAT, SECRET, TOOL, app_of, body, chat

# ---------------------------------------------------------------- refusals


NO_CONTENT = "messages.0.content must be a text or a list of parts."
NO_ROLE = "messages.0.role must be one of system, developer, user, assistant, tool."
NO_UNICODE = "messages holds text that is not valid Unicode."
NO_FORMAT = "response_format: type must be text, json_object or json_schema."
SCHEMA = "response_format.json_schema.schema"
NO_TOOLS = "tools.0.type must be function; this service has no tools of its own."
NO_NAME = "tools.0.function.name must be 1 to 128 letters, digits, dots, dashes or underscores."
NO_SUCH_TOOL = "tool_choice must be none, auto, required, or a function that tools names."
NO_SCHEMA = "response_format.json_schema.schema is not a valid JSON Schema."
NO_BIAS = "logit_bias names tokens by number, which differ from model to model; ask a model by its own name."
NO_CALL = "messages.0.tool_call_id must name the call that this is the result of."
NO_AUDIO = "messages.0.content.0: this service reads text and images, no input_audio."
NO_REMOTE = "messages.0.content.0.image_url.url must be a data URL, data:image/…;base64,…; nothing is fetched."
REMOTE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret.png"}}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "messages must not be empty."),
    ({"messages": None}, "messages", "messages must be a list."),
    ({"messages": "hola"}, "messages", "messages must be a list."),
    ({"messages": ["hola"]}, "messages.0", "messages.0 must be an object."),
    ({"messages": [{"content": "x"}]}, "messages", "messages: message 0 has no role."),
    ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content", NO_CONTENT),
    ({"messages": [{"role": "boss", "content": "x"}]}, "messages.0.role", NO_ROLE),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages", NO_UNICODE),
    ({"temperature": 3}, "temperature", "temperature must be at most 2."),
    ({"temperature": "hot"}, "temperature", "temperature must be a number."),
    ({"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1."),
    ({"max_tokens": 1.5}, "max_tokens", "max_tokens must be a whole number."),
    ({"stream": "maybe"}, "stream", "stream must be true or false."),
    ({"stream": 0}, "stream", "stream must be true or false."),
    ({"logprobs": "true"}, "logprobs", "logprobs must be true or false."),
    ({"capibara": {"judge": 0}}, "capibara.judge", "capibara.judge must be true or false."),
    ({"stop": 7}, "stop", "stop must be a string or a list."),
    ({"stop": ["a", 7]}, "stop.1", "stop.1 must be a string."),
    ({"model": 7}, "model", "model must be a string."),
    ({"tools": "x"}, "tools", "tools must be a list."),
    ({"tool_choice": 7}, "tool_choice", "tool_choice must be a string or an object."),
    ({"response_format": {"type": "xml"}}, "response_format", NO_FORMAT),
    ({"n": 4}, "n", "n: 3 models vote here, and each gives one choice."),
    ({"n": 2, "model": PHI}, "n", "n: one model answers here, and each gives one choice."),
    ({"functions": [{}]}, "functions", "This service has no functions; use tools."),
    ({"top_k": 3}, "top_k", "This service has no top_k; use top_p."),
    ({"tool_choice": "required"}, "tool_choice", "tool_choice needs tools to choose from."),
    ({"tools": [{"type": "custom"}]}, "tools.0.type", NO_TOOLS),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", NO_NAME),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", NO_SUCH_TOOL),
    ({"response_format": {"type": "json_schema"}}, SCHEMA, f"{SCHEMA} is missing."),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}}, SCHEMA, NO_SCHEMA),
    ({"top_logprobs": 2}, "top_logprobs", "top_logprobs needs logprobs: true."),
    ({"logit_bias": {"5": 1}}, "logit_bias", NO_BIAS),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id", NO_CALL),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0", NO_AUDIO),
    ({"messages": [{"role": "user", "content": [REMOTE]}]}, "messages.0.content.0.image_url.url", NO_REMOTE),
    ({"tools": [TOOL], "logprobs": True}, "logprobs", "logprobs cannot be combined with tools."),
    ({"capibara": {"nope": 1}}, "capibara.nope", "capibara.nope is not known here."),
    ({"capibara": {"mode": "x"}}, "capibara.mode", "capibara.mode must be 'auto', 'single', 'cascade' or 'consensus'."),
    ({"capibara": {"voters": [PHI], "mode": "single"}}, "capibara.voters", "voters vote, and mode single has no vote."),
    ({"capibara": []}, "capibara", "capibara must be an object."),
    ({"capibara": {"deadline_s": -1}}, "capibara.deadline_s", "capibara.deadline_s must be at least 0.001."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "param", "message"), WRONG, ids=[f"{m[:30]}-{i}" for i, (_, _, m) in enumerate(WRONG)]
)
async def test_wrong_requests_are_400_with_param(
    house: FakeHouse, wrong: dict[str, Any], param: str, message: str
) -> None:
    """One sentence that names the field; streaming or not; no model is asked."""
    for stream in (False, True):
        got = await post(app_of(house), CHAT, {**body(stream=stream), **wrong}).done()
        error = got.json()["error"]
        assert (got.status, error["param"], error["message"]) == (400, param, message)
        assert error["type"] == "invalid_request_error"
        assert error["code"] in ("invalid_request", "unsupported_parameter")
        assert got.headers["x-request-id"]
    assert house.upstream.requests == []


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b'{"messages": [' + b"[" * 100_000, b"a=b"]
)
async def test_bodies_that_are_no_json_object(house: FakeHouse, raw: bytes) -> None:
    """400 in OpenAI's shape, whatever the bytes are."""
    got = await Exchange(app_of(house), "POST", CHAT, [raw], [("content-type", "application/json")]).done()
    assert got.status == 400
    assert set(got.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_body_of_another_type_is_told_what_to_send(house: FakeHouse) -> None:
    """curl without its header sends a form."""
    headers = [("content-type", "application/x-www-form-urlencoded")]
    got = await Exchange(app_of(house), "POST", CHAT, [json.dumps(body()).encode()], headers).done()
    assert (got.status, got.json()["error"]["message"]) == (
        400,
        "The body must be a JSON object, sent as application/json.",
    )


async def test_an_unknown_model_is_404_and_lists_the_known_ones(house: FakeHouse) -> None:
    """In a chat and under /v1/models."""
    for got in (await chat(house, model="gpt-4"), await get(app_of(house), "/v1/models/gpt-4").done()):
        error = got.json()["error"]
        assert (got.status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert all(name in error["message"] for name in (PHI, MISTRAL, QWEN, GPT, "capibara-fast"))


async def test_a_prompt_longer_than_any_context_is_400(house: FakeHouse) -> None:
    """OpenAI's code, and the numbers."""
    house.classifier.says = classification(prompt_tokens=100_000)
    error = (got := await chat(house)).json()["error"]
    assert (got.status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "100000" in error["message"]


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (say(""), 502, "no_answer"),
        (fail(429), 502, "no_answer"),
        (fail(503), 503, "model_unavailable"),
        (fail(400), 400, "invalid_request"),
    ],
)
async def test_failures_have_their_status(house: FakeHouse, reply: Reply, status: int, code: str) -> None:
    """Never a 200 for a failure."""
    house.upstream.otherwise = reply
    got = await chat(house)
    assert (got.status, got.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in got.headers) is (status == 503)


async def test_an_unforeseen_error_is_a_500_that_says_nothing(
    house: FakeHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the body nor any log repeats the error's text; the log says where it happened; the id is there."""
    house.classifier.fails = RuntimeError(SECRET)
    for stream in (False, True):
        got = await chat(house, stream=stream)
        assert (got.status, got.json()["error"]["code"]) == (500, "internal_error")
        assert got.headers["x-request-id"]
        assert SECRET not in got.body.decode()
    assert SECRET not in caplog.text
    assert "RuntimeError" in caplog.text
    assert "fakes.py" in caplog.text


async def test_no_prompt_in_logs_or_errors(house: FakeHouse, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever becomes of the question."""
    caplog.set_level(logging.INFO)
    messages = [{"role": "user", "content": SECRET}]
    for reply in (SPANISH, say(""), fail(500, SECRET), fail(400, SECRET), say("a", "b", break_after=1)):
        house.upstream.otherwise = reply
        for stream in (False, True):
            got = await chat(house, {"x_capibara_trace": "1"}, messages=messages, stream=stream)
            assert SECRET not in got.body.decode()
    got = await chat(house, messages=[{"role": SECRET, "content": SECRET}], temperature=SECRET)
    assert SECRET not in got.body.decode()
    assert SECRET not in caplog.text
