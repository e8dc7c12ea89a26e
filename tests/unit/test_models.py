"""The door to LiteLLM, against a scripted server on loopback: what comes back, what breaks, what leaks."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from capibara_agents.errors import ModelLoading
from capibara_agents.models import Delta, Inquiry
from capibara_agents.types import Candidate, Sampling
from tests.fakes import GPT, PHI, SPANISH, FakeHouse, Reply, Upstream, fail, say, until

SECRET = "swordfish"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def inquiry(house: FakeHouse, *, limit_s: float = 20, deadline_s: float | None = None, **sampling: Any) -> Inquiry:
    spec = house.settings.spec(PHI).model_copy(update={"timeout_s": limit_s, "slots": 1})
    return Inquiry(
        spec=spec,
        attempt=1,
        messages=[HumanMessage(SECRET)],
        sampling=Sampling.model_validate(sampling),
        deadline_s=deadline_s,
    )


async def ask(house: FakeHouse, *replies: Reply, **knobs: Any) -> Candidate:
    house.upstream.script(PHI, *replies)
    return await house.models.ask(inquiry(house, **knobs))


async def test_an_answer_with_its_usage(house: FakeHouse) -> None:
    """Text, finish reason and the server's own count of tokens; the claim is given back."""
    candidate = await ask(house, SPANISH)
    assert candidate.content == "".join(SPANISH.pieces)
    assert (candidate.error, candidate.finish_reason) == (None, "stop")
    assert (candidate.usage.prompt_tokens, candidate.usage.completion_tokens) == (7, 3)
    assert candidate.has_answer
    assert house.fleet.all_given_back


async def test_the_endpoints_key_and_the_models_limits_go_along(house: FakeHouse, upstream: Upstream) -> None:
    """The claim's key, the model's max_tokens, the caller's sampling; nothing that was not asked for."""
    await ask(house, SPANISH, temperature=0.5, stop=("x",), seed=3, response_format={"type": "json_object"})
    sent = upstream.requests[0]
    assert upstream.headers[0]["authorization"] == f"Bearer key-of-{PHI}"
    assert sent["max_tokens"] == house.settings.spec(PHI).max_tokens
    assert (sent["temperature"], sent["stop"], sent["seed"]) == (0.5, ["x"], 3)
    assert sent["response_format"] == {"type": "json_object"}
    assert not {"tools", "logprobs", "top_p"} & sent.keys()


async def test_pieces_come_as_they_arrive(house: FakeHouse) -> None:
    """Each piece is a delta, reasoning apart from text."""
    house.upstream.script(PHI, say("a", "b", reasoning=("pienso",)))
    deltas: list[Delta] = []
    candidate = await house.models.ask(inquiry(house), on_delta=deltas.append)
    assert [(d.reasoning, d.content) for d in deltas] == [("pienso", ""), ("", "a"), ("", "b")]
    assert (candidate.reasoning, candidate.content, candidate.emitted) == ("pienso", "ab", True)


async def test_log_probabilities_where_asked_for(house: FakeHouse) -> None:
    """One entry a token, and their mean; none when not asked for."""
    with_them = await ask(house, say("a", "b", logprob=-0.5), logprobs=True)
    without = await ask(house, say("a", "b"))
    assert [entry["token"] for entry in with_them.logprobs] == ["a", "b"]
    assert with_them.mean_logprob == pytest.approx(-0.5)
    assert (without.logprobs, without.mean_logprob) == ((), None)


async def test_tools_reach_the_model_and_calls_come_back_whole(house: FakeHouse, upstream: Upstream) -> None:
    """The pieces of a call are put together; the arguments stay the model's own text."""
    pieces = (
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
    )
    candidate = await ask(house, say(tool_calls=pieces, finish_reason="tool_calls"), tools=(TOOL,))
    assert upstream.requests[0]["tools"][0]["function"]["name"] == "f"
    assert candidate.error is None
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert (candidate.tool_calls, candidate.finish_reason) == ((call,), "tool_calls")


async def test_turns_go_out_as_openai_has_them(house: FakeHouse, upstream: Upstream) -> None:
    """A call of a tool without text has no content; an address of an image is an object; no tools, no choice of one."""
    call = {"name": "f", "args": {"a": 1}, "id": "c1"}
    image = {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}
    messages = [
        HumanMessage([image]),
        AIMessage("", tool_calls=[call]),
        ToolMessage("r", tool_call_id="c1"),
    ]
    house.upstream.script(PHI, SPANISH)
    await house.models.ask(replace(inquiry(house, tool_choice="none"), messages=messages))
    sent = upstream.requests[0]
    asked, called, told = sent["messages"]
    assert asked["content"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    assert "content" not in called
    assert called["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert (told["role"], told["tool_call_id"], told["content"]) == ("tool", "c1", "r")
    assert (sent["model"], sent["stream"]) == (PHI, True)
    assert "tool_choice" not in sent


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (fail(400, f"bad {SECRET}"), "invalid_request"),
        (fail(400, "exceed_context_size_error"), "context_length_exceeded"),
        (fail(401), "model_error"),
        (fail(429), "model_error"),
        (fail(500), "model_crashed"),
        (fail(503), "model_crashed"),
        (say("a", "b", break_after=0), "model_crashed"),
        (say("a", "b", break_after=1), "model_crashed"),
        (Reply(raw=b""), "model_crashed"),
        (Reply(raw=b"garbage\r\n\r\n"), "model_crashed"),
        (
            Reply(raw=b'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {"error":{"message":"x"}}\n\n'),
            "model_crashed",
        ),
    ],
)
async def test_every_failure_has_a_code_and_quotes_nobody(house: FakeHouse, reply: Reply, code: str) -> None:
    """A failure is a candidate; its message names the model and repeats neither prompt nor server."""
    candidate = await ask(house, reply)
    assert candidate.error == code
    assert PHI in candidate.error_message
    assert SECRET not in candidate.model_dump_json()
    assert house.fleet.all_given_back
    assert len(house.upstream.requests) == 1, "the chain is the graph's business: nothing is retried here"


async def test_a_stream_that_just_ends_is_no_answer(house: FakeHouse) -> None:
    """Without its [DONE] a text is half of one: no made-up finish reason, no made-up usage."""
    chunk = json.dumps({"id": "a", "choices": [{"index": 0, "delta": {"content": "half"}}]})
    raw = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {chunk}\n\n".encode()
    candidate = await ask(house, Reply(raw=raw))
    assert (candidate.error, candidate.content, candidate.finish_reason) == ("model_crashed", "half", None)
    assert candidate.usage.total_tokens == 0
    assert not candidate.has_answer


@pytest.mark.parametrize("after", [0, 1])
async def test_a_silent_model_is_timed_out_and_its_connection_closed(house: FakeHouse, after: int) -> None:
    """The limit holds for the first token and between tokens."""
    await ask(house, SPANISH)  # what the first call imports counts for nobody's limit
    candidate = await ask(house, say("a", "b", stall_after=after), limit_s=0.8)
    assert candidate.error == "model_timeout"
    assert candidate.content == "a" * after
    assert await asyncio.to_thread(house.upstream.hung_up.acquire, timeout=10)


async def test_a_model_that_reads_on_is_waited_for(house: FakeHouse) -> None:
    """However long its prompt takes, each batch is a sign of life; nothing of that is in the answer."""
    await ask(house, SPANISH)
    reply = say("a", reads=((0, 0, 900), (0.5, 300, 900), (0.5, 600, 900), (0.5, 900, 900)))
    candidate = await ask(house, reply, limit_s=0.8)
    assert (candidate.error, candidate.content) == (None, "a")
    assert candidate.timings.ttft_ms is not None
    assert candidate.timings.ttft_ms > 1400


async def test_a_model_that_stands_still_while_it_reads_is_timed_out(house: FakeHouse) -> None:
    """And so is one that has read all and says nothing."""
    await ask(house, SPANISH)
    for reads in (((0, 0, 9),), ((0, 0, 9000), (0, 9000, 9000))):
        candidate = await ask(house, say("a", stall_after=0, reads=reads), limit_s=0.8)
        assert candidate.error == "model_timeout"
        assert await asyncio.to_thread(house.upstream.hung_up.acquire, timeout=10)


async def test_the_deadline_ends_an_answer(house: FakeHouse) -> None:
    """It is told apart from the model's own limit."""
    await ask(house, SPANISH)
    candidate = await ask(house, say("a", "b", stall_after=1), deadline_s=0.3)
    assert candidate.error == "deadline"
    assert house.fleet.all_given_back


async def test_cancelling_closes_the_connection_and_gives_the_claim_back(house: FakeHouse) -> None:
    """Whoever hangs up frees the slot."""
    house.upstream.script(PHI, say("a", "b", stall_after=1))
    task = asyncio.create_task(house.models.ask(inquiry(house)))
    await until(lambda: bool(house.upstream.requests))
    assert house.fleet.held[PHI] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert house.fleet.all_given_back
    assert await asyncio.to_thread(house.upstream.hung_up.acquire, timeout=10)


async def test_a_refused_claim_is_a_candidate(house: FakeHouse) -> None:
    """The fleet's error keeps its code and its Retry-After; the server is not called."""
    house.fleet.refusals[PHI] = ModelLoading("Loading.", model_id=PHI, retry_after_s=9)
    candidate = await ask(house)
    assert (candidate.error, candidate.retry_after_s) == ("model_loading", 9)
    assert house.upstream.requests == []


async def test_a_model_that_moved_is_found(house: FakeHouse) -> None:
    """A restarted server has another address: the next claim's endpoint is the one that is used."""
    await ask(house, SPANISH)
    with Upstream() as elsewhere:
        house.fleet.url = elsewhere.url
        elsewhere.script(PHI, say("nuevo"))
        candidate = await house.models.ask(inquiry(house))
    assert candidate.content == "nuevo"


async def test_several_models_are_asked_side_by_side(house: FakeHouse) -> None:
    """Two slow answers take the time of one: the second is asked before the first has ended."""
    for model in (PHI, GPT):
        house.upstream.script(model, say("a", stall_after=1))
    other = Inquiry(
        spec=house.settings.spec(GPT), attempt=1, messages=[HumanMessage("x")], sampling=Sampling(), deadline_s=5
    )
    tasks = [asyncio.create_task(house.models.ask(i)) for i in (inquiry(house), other)]
    await until(lambda: set(house.upstream.asked()) == {PHI, GPT})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_logs_carry_no_prompt(house: FakeHouse, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a server echoes in its errors, no line of any logger repeats it."""
    caplog.set_level(logging.INFO)
    for reply in (fail(500, SECRET), fail(400, SECRET), say("a", SECRET, break_after=2), SPANISH):
        await ask(house, reply)
    assert SECRET not in caplog.text
