"""OpenAI's face over scripted models: completions, chunks, models, routes, and every refusal."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import openai
import pytest

from capibara_agents.http.app import build_app
from capibara_agents.settings import Settings
from tests.asgi import Exchange, get, post
from tests.fakes import (
    ENGLISH,
    GPT,
    MISTRAL,
    PHI,
    QWEN,
    SPANISH,
    FakeHouse,
    Reply,
    Upstream,
    classification,
    fail,
    say,
    until,
)

CHAT = "/v1/chat/completions"
TEXT = "".join(SPANISH.pieces)
SECRET = "swordfish"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def body(**rest: Any) -> dict[str, Any]:
    return {"model": "capibara", "messages": [{"role": "user", "content": "¿Capital de España?"}], **rest}


def app_of(house: FakeHouse) -> Any:
    return build_app(house)


async def chat(house: FakeHouse, headers: dict[str, str] | None = None, **rest: Any) -> Exchange:
    return await post(app_of(house), CHAT, body(**rest), **(headers or {})).done()


def with_server(house: FakeHouse, **values: Any) -> None:
    server = house.settings.server.model_copy(update=values)
    house.settings = house.settings.model_copy(update={"server": server})


# ---------------------------------------------------------------- answers


async def test_a_completion_in_openais_shape(house: FakeHouse) -> None:
    """Text, finish reason, usage, and the decision in headers; no trace unless asked for."""
    house.upstream.script(PHI, SPANISH)
    got = await chat(house)
    answer = got.json()
    assert got.status == 200
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == PHI
    choice = answer["choices"][0]
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", TEXT)
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert "capibara" not in answer
    shown = {k.removeprefix("x-capibara-"): v for k, v in got.headers.items() if k.startswith("x-capibara-")}
    assert shown == {
        "route": "fast_response",
        "mode": "single",
        "models": PHI,
        "agreement": "1.000",
        "verified": "true",
        "degraded": "false",
    }


async def test_the_trace_comes_when_asked_for(house: FakeHouse) -> None:
    """The whole decision, with every candidate."""
    house.upstream.script(PHI, fail(500))
    house.upstream.script(MISTRAL, SPANISH)
    got = await chat(house, {"x_capibara_trace": "1"})
    trace = got.json()["capibara"]
    assert set(trace) == {"classification", "plan", "candidates", "ballot", "verdict", "timings_ms"}
    assert [c["model"] for c in trace["candidates"]] == [PHI, MISTRAL]
    assert got.headers["x-capibara-degraded"] == "true"
    assert got.headers["x-capibara-models"] == f"{PHI},{MISTRAL}"


async def test_an_unverified_answer_is_still_an_answer(house: FakeHouse) -> None:
    """200, and the header says what it is."""
    house.upstream.otherwise = ENGLISH
    got = await chat(house)
    assert (got.status, got.headers["x-capibara-verified"]) == (200, "false")


async def test_parameters_reach_the_model(house: FakeHouse) -> None:
    """Sampling as the caller wrote it; max_completion_tokens is max_tokens; unknown fields are ignored."""
    house.upstream.script(PHI, SPANISH)
    got = await chat(
        house,
        temperature=0.2,
        top_p=0.9,
        seed=1,
        stop="x",
        max_completion_tokens=9,
        logprobs=True,
        user="u",
        store=True,
    )
    sent = house.upstream.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["stop"], sent["max_tokens"]) == (
        0.2,
        0.9,
        1,
        ["x"],
        9,
    )
    assert "user" not in sent
    assert len(got.json()["choices"][0]["logprobs"]["content"]) == 3


async def test_tool_calls_come_back(house: FakeHouse) -> None:
    """In OpenAI's shape, without content."""
    models = tuple(s.model_copy(update={"calls_tools": True}) for s in house.settings.models)
    object.__setattr__(house.settings, "models", models)
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    reply = say(tool_calls=(call,), finish_reason="tool_calls")
    house.upstream.script(PHI, reply, reply)
    message = (await chat(house, tools=[TOOL])).json()["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [{k: v for k, v in call.items() if k != "index"}]
    chunks = (await chat(house, tools=[TOOL], stream=True)).chunks()
    deltas = [c["choices"][0]["delta"].get("tool_calls") for c in chunks]
    assert next(d for d in deltas if d)[0]["function"]["name"] == "f"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_n_gives_the_ranked_answers_of_a_vote(house: FakeHouse) -> None:
    """The winner first, then who says the same, then the others; a stream has a terminal chunk for each."""
    house.classifier.says = classification(domain="math", reply_language=None)
    voters = {"voters": [PHI, MISTRAL, QWEN]}
    for model, said in ((PHI, "The answer is 7."), (MISTRAL, "The answer is 12."), (QWEN, "It is 12.")):
        house.upstream.script(model, say(said), say(said))
    got = await chat(house, n=3, capibara=voters)
    answer = got.json()
    assert (got.status, got.headers["x-capibara-mode"]) == (200, "consensus")
    assert [c["index"] for c in answer["choices"]] == [0, 1, 2]
    texts = [c["message"]["content"] for c in answer["choices"]]
    assert set(texts[:2]) == {"The answer is 12.", "It is 12."}
    assert texts[2] == "The answer is 7."
    assert answer["usage"]["completion_tokens"] == 3
    chunks = (await chat(house, n=3, stream=True, capibara=voters)).chunks()
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]
    told = {
        i: "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"][0]["index"] == i)
        for i in range(3)
    }
    assert list(told.values()) == texts


async def test_n_counts_the_samples_that_were_asked_for(house: FakeHouse) -> None:
    """One voter, asked three times, gives three choices, and not four."""
    house.classifier.says = classification(domain="math", reply_language=None)
    house.upstream.script(PHI, say("The answer is 7."), say("The answer is 12."), say("It is 12."))
    asked = {"voters": [PHI], "samples": 3}
    got = await chat(house, n=3, capibara=asked)
    assert got.status == 200
    assert [c["index"] for c in got.json()["choices"]] == [0, 1, 2]
    refused = await chat(house, n=4, capibara=asked)
    assert (refused.status, refused.json()["error"]["param"]) == (400, "n")


# ---------------------------------------------------------------- streams


async def test_the_chunks_of_a_stream(house: FakeHouse) -> None:
    """The role once, finish_reason null but on the last, no usage unasked, then [DONE]; headers of the start only."""
    house.upstream.script(PHI, SPANISH)
    got = await chat(house, stream=True)
    chunks = got.chunks()
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.events()[-1] == ("message", "[DONE]")
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, "stop"]
    assert [c["choices"][0]["delta"].get("role") for c in chunks] == ["assistant", None, None, None]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == TEXT
    assert len({c["id"] for c in chunks}) == 1
    assert all(c["object"] == "chat.completion.chunk" and "usage" not in c for c in chunks)
    assert [("capibara" in c) for c in chunks] == [False, False, False, True]
    assert chunks[-1]["capibara"] == {"verified": True, "degraded": False}
    assert "x-capibara-verified" not in got.headers
    assert got.headers["x-capibara-models"] == PHI


async def test_the_usage_chunk_only_when_asked_for(house: FakeHouse) -> None:
    """After the terminal chunk, with empty choices and without the trace, which stays on the terminal chunk."""
    house.upstream.script(PHI, SPANISH)
    got = await chat(house, {"x_capibara_trace": "1"}, stream=True, stream_options={"include_usage": True})
    *_, last, used = got.chunks()
    assert used["choices"] == []
    assert used["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert "capibara" not in used
    assert "plan" in last["capibara"]
    assert got.events()[-1][1] == "[DONE]"


async def test_a_stream_that_fails_before_any_token_is_an_http_error(house: FakeHouse) -> None:
    """Nothing was promised yet."""
    house.upstream.otherwise = fail(503)
    got = await chat(house, stream=True)
    assert (got.status, got.json()["error"]["code"]) == (503, "model_unavailable")
    assert got.headers["retry-after"]
    assert got.headers["content-type"] == "application/json"


async def test_a_stream_that_breaks_ends_with_an_error_event(house: FakeHouse) -> None:
    """The tokens that came, an error, no terminal chunk, no [DONE]."""
    house.upstream.script(PHI, say("La ", "capital", break_after=1))
    got = await chat(house, stream=True)
    kinds = [kind for kind, _ in got.events()]
    assert (got.status, kinds) == (200, ["message", "error"])
    assert json.loads(got.events()[-1][1])["error"]["code"] == "model_crashed"
    assert got.finished
    assert house.upstream.asked() == [PHI]


async def test_a_stream_goes_over_to_the_next_model_before_its_first_token(house: FakeHouse) -> None:
    """The header names who speaks; the terminal chunk says degraded."""
    house.upstream.script(PHI, fail(500))
    house.upstream.script(MISTRAL, SPANISH)
    got = await chat(house, stream=True)
    assert got.headers["x-capibara-models"] == MISTRAL
    assert got.chunks()[-1]["capibara"]["degraded"] is True


async def test_a_verified_stream_holds_back_until_the_checks(house: FakeHouse) -> None:
    """One piece, of the model whose answer passed."""
    house.upstream.script(PHI, ENGLISH)
    house.upstream.script(MISTRAL, SPANISH)
    got = await chat(house, stream=True, capibara={"stream": "verified"})
    chunks = got.chunks()
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, "stop"]
    assert chunks[0]["choices"][0]["delta"]["content"] == TEXT
    assert {c["model"] for c in chunks} == {MISTRAL}


async def test_a_streamed_vote_tells_how_it_stands(house: FakeHouse) -> None:
    """As comments, which clients pass over; then the answer, and how far the voters agreed."""
    house.classifier.says = classification(domain="math", reply_language=None)
    house.upstream.otherwise = say("La respuesta es 84")
    got = await chat(house, stream=True, capibara={"voters": [PHI, QWEN, GPT]})
    comments = [line for line in got.body.decode().split("\n") if line.startswith(": vote")]
    assert [line.rpartition(" answered, ")[2] for line in comments[:2]] == [
        "1 of 3, agreement 1.00",
        "2 of 3, agreement 1.00",
    ]
    assert comments[-1].endswith("agreement 1.00")
    assert not any("84" in line for line in comments)
    chunks = [json.loads(line[6:]) for line in got.body.decode().split("\n") if line.startswith("data: {")]
    assert chunks[0]["choices"][0]["delta"]["content"] == "La respuesta es 84"
    assert chunks[-1]["capibara"] == {"verified": True, "degraded": False, "agreement": 1.0}


async def test_an_eager_vote_says_on_its_last_chunk_whether_it_held(house: FakeHouse) -> None:
    """The leader's words were sent before the others contradicted them."""
    house.classifier.says = classification(domain="math", reply_language=None)
    house.upstream.script(PHI, say("La respuesta es 83"))
    house.upstream.otherwise = say("La respuesta es 84")
    options = {"voters": [PHI, QWEN, GPT], "min_voters": 3, "stream": "eager"}
    got = await chat(house, stream=True, capibara=options)
    chunks = [json.loads(line[6:]) for line in got.body.decode().split("\n") if line.startswith("data: {")]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "La respuesta es 83"
    assert (chunks[-1]["capibara"]["held"], chunks[-1]["capibara"]["verified"]) == (False, False)


async def test_a_streamed_vote_in_which_nobody_answers_is_an_http_error(house: FakeHouse) -> None:
    """Nothing has been sent yet."""
    house.upstream.otherwise = fail(500)
    assert (await chat(house, stream=True, model="capibara-consensus")).status == 503


async def test_a_silent_stream_sends_pings(house: FakeHouse) -> None:
    """Comments while the model thinks; a failure after them is an error event."""
    with_server(house, ping_s=0.1)
    house.upstream.script(PHI, say("La", stall_after=0))
    call = post(app_of(house), CHAT, body(stream=True, capibara={"deadline_s": 1.5}))
    await call.until(lambda c: c.body.count(b": ping") >= 2)
    assert call.status == 200
    await call.done()
    assert [kind for kind, _ in call.events()] == ["error"]
    assert call.chunks()[-1]["error"]["code"] == "model_timeout"


async def test_a_client_that_hangs_up_frees_the_model(house: FakeHouse) -> None:
    """In a stream and without one: the model's connection is closed, the claim given back."""
    patient = tuple(s.model_copy(update={"timeout_s": 1000}) for s in house.settings.models)
    object.__setattr__(house.settings, "models", patient)
    for stream in (True, False):
        house.upstream.script(PHI, say("La ", "capital", stall_after=1))
        call = post(app_of(house), CHAT, body(stream=stream))
        if stream:
            await call.until(lambda c: b"La " in c.body)
        await until(lambda: len(house.upstream.requests) == (1 if stream else 2))  # noqa: B023  (awaited at once)
        call.hang_up()
        await call.done()
        await until(lambda: house.fleet.all_given_back)
        assert await asyncio.to_thread(house.upstream.hung_up.acquire, timeout=10)


async def test_a_client_that_left_before_the_head_frees_the_model(house: FakeHouse) -> None:
    """The run has begun and not one chunk of the response."""
    with_server(house, ping_s=0.2)
    house.upstream.script(PHI, say("La", stall_after=0))
    call = post(app_of(house), CHAT, body(stream=True))
    await until(lambda: house.fleet.held[PHI] == 1)
    call.hang_up()
    await call.done()
    await until(lambda: house.fleet.all_given_back)


async def test_openais_own_client_reads_both(house: FakeHouse) -> None:
    """Whole and streaming, and its exceptions."""
    house.upstream.script(PHI, SPANISH, SPANISH)
    transport = httpx.ASGITransport(app=app_of(house))
    async with openai.AsyncOpenAI(
        api_key="x", base_url="http://capibara/v1", http_client=httpx.AsyncClient(transport=transport), max_retries=0
    ) as client:
        messages: Any = [{"role": "user", "content": "hola"}]
        whole = await client.chat.completions.create(model="capibara", messages=messages)
        assert whole.choices[0].message.content == TEXT
        stream = await client.chat.completions.create(model="capibara", messages=messages, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == TEXT
        with pytest.raises(openai.NotFoundError, match="Known models"):
            await client.chat.completions.create(model="nobody", messages=messages)
        house.upstream.script(PHI, say("La ", "capital", break_after=1))
        with pytest.raises(openai.APIError):
            _ = [
                c async for c in await client.chat.completions.create(model="capibara", messages=messages, stream=True)
            ]


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


# ---------------------------------------------------------------- models and routes


async def test_models_lists_virtual_and_real_ones(house: FakeHouse) -> None:
    """Stand-ins say that they are."""
    data = (await get(app_of(house), "/v1/models").done()).json()["data"]
    assert [m["id"] for m in data[:3]] == ["capibara", "capibara-fast", "capibara-consensus"]
    assert len(data) == 8
    assert all(m["stand_in"] is True and m["weights"].startswith("SmolLM2") for m in data[3:])
    one = (await get(app_of(house), "/v1/models/phi4:mini").done()).json()
    assert (one["id"], one["object"]) == (PHI, "model")


async def test_a_route_without_an_answer(house: FakeHouse) -> None:
    """The decision, its reason in the question's language; nothing is generated."""
    got = (await post(app_of(house), "/v1/route", {"input": "hola"}).done()).json()
    assert {
        "language", "domain", "complexity", "complexity_level", "modality", "model", "tier", "mode", "models",
        "confidence", "neighbours", "reason", "timings_ms",
    } <= got.keys()  # fmt: skip
    assert (got["model"], got["tier"], got["mode"]) == (PHI, "fast_response", "single")
    assert "es el modelo para eso" in got["reason"]
    assert house.fleet.claims == []


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({}, "messages"),
        ({"input": "a", "messages": [{"role": "user", "content": "b"}]}, "messages"),
        ({"messages": []}, "messages"),
        ({"input": 7}, "input"),
        ({"input": "a", "model": "x"}, "model"),
        ({"input": "a", "capibara": {"mode": "x"}}, "capibara.mode"),
    ],
)
async def test_wrong_routes(house: FakeHouse, wrong: dict[str, Any], param: str) -> None:
    """400 (404 for a model) with param."""
    got = await post(app_of(house), "/v1/route", wrong).done()
    assert (got.status, got.json()["error"]["param"]) == (404 if param == "model" else 400, param)


async def test_a_batch_of_routes(house: FakeHouse) -> None:
    """One result an input, up to 256."""
    got = await post(app_of(house), "/v1/route/batch", {"inputs": ["a", "b"]}).done()
    assert len(got.json()["results"]) == 2
    for inputs, words in (([], "must not be empty"), (["a"] * 257, "must have at most 256 items")):
        got = await post(app_of(house), "/v1/route/batch", {"inputs": inputs}).done()
        assert (got.status, got.json()["error"]["message"]) == (400, f"inputs {words}.")


async def test_a_named_model_that_is_loading_is_503(settings: Settings, upstream: Upstream) -> None:
    """With Retry-After in whole seconds; and 200 once another may answer."""
    from capibara_agents.errors import ModelLoading

    house = FakeHouse(settings, upstream)
    house.fleet.refusals[GPT] = ModelLoading("gpt-oss-20b is loading.", model_id=GPT, retry_after_s=2.2)
    got = await chat(house, model=GPT)
    assert (got.status, got.json()["error"]["code"], got.headers["retry-after"]) == (503, "model_loading", "3")
    upstream.script(PHI, SPANISH)
    got = await chat(house, model=GPT, capibara={"fallback": True})
    assert (got.status, got.headers["x-capibara-degraded"]) == (200, "true")
