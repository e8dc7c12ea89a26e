"""OpenAI's face over scripted models: completions, chunks, models, routes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from capibara_agents.settings import Settings
from tests.asgi import get, post
from tests.fakes import (
    ENGLISH,
    GPT,
    MISTRAL,
    PHI,
    QWEN,
    SPANISH,
    FakeHouse,
    Upstream,
    classification,
    fail,
    say,
    until,
)
from tests.openai_face import CHAT, TEXT, TOOL, app_of, body, chat, with_server

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


async def test_a_whole_number_may_be_written_with_a_point(house: FakeHouse) -> None:
    """64.0 is one in JSON; some clients know no other numbers."""
    house.upstream.script(PHI, SPANISH)
    got = await post(app_of(house), CHAT, body(max_tokens=64.0, capibara={"max_voters": 2.0})).done()
    assert got.status == 200
    assert house.upstream.requests[-1]["max_tokens"] == 64


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "¿Qué tal?"}]}),
        ("/v1/completions", {"prompt": "¿Qué tal?"}),
        ("/v1/responses", {"input": "¿Qué tal?"}),
    ],
)
async def test_a_stream_of_null_is_none(house: FakeHouse, path: str, asked: dict[str, Any]) -> None:
    """As OpenAI's description of its own faces has it."""
    house.upstream.otherwise = SPANISH
    got = await post(app_of(house), path, {"model": "capibara", "stream": None, **asked}).done()
    assert (got.status, got.headers["content-type"]) == (200, "application/json")


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


async def test_a_stream_that_waits_for_a_long_prompt_tells_how_far_it_is_read(house: FakeHouse) -> None:
    """As a comment, once the response has begun."""
    changed = house.settings.server.model_copy(update={"ping_s": 0.05})
    house.settings = house.settings.model_copy(update={"server": changed})
    house.upstream.script(PHI, replace(SPANISH, reads=((0, 0, 1300), (1.0, 512, 1300), (1.0, 1024, 1300))))
    got = await chat(house, stream=True)
    body = got.body.decode()
    assert f": reading: {PHI} 1024 of 1300 tokens\n" in body
    assert body.index(": reading") < body.index("data: {")
    assert (
        "".join(
            json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
            for line in body.split("\n")
            if line.startswith("data: {")
        )
        == TEXT
    )


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
