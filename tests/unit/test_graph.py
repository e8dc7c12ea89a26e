"""The state machine over scripted models: fallback, re-asking, votes, deadlines, threads, and that it always ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from capibara_agents.errors import (
    BadQuestion,
    CapibaraError,
    ModelLoading,
    ModelUnavailable,
    NoAnswer,
)
from capibara_agents.graphs.capibara import drawing
from capibara_agents.outcome import Answer
from capibara_agents.settings import Settings
from capibara_agents.types import Request
from tests.fakes import (
    ENGLISH,
    GEMMA,
    GPT,
    MISTRAL,
    PHI,
    QWEN,
    SPANISH,
    FakeHouse,
    Reply,
    Upstream,
    fail,
    say,
    until,
)

ALL = [PHI, MISTRAL, QWEN, GEMMA, GPT]
QUESTION = "¿Cuál es la capital de España?"


async def ask(house: FakeHouse, config: Any = None, **request: Any) -> Answer:
    return await house.capibara.answer([HumanMessage(QUESTION)], Request.model_validate(request), config)


async def test_the_chosen_model_answers(house: FakeHouse) -> None:
    """One question, one model, accepted, nothing degraded."""
    house.upstream.script(PHI, SPANISH)
    answer = await ask(house)
    assert (answer.candidate.model, answer.candidate.content) == (PHI, "".join(SPANISH.pieces))
    assert (answer.verdict.accepted, answer.verdict.degraded) == (True, False)
    assert house.upstream.asked() == [PHI]
    assert {"classify", "route", "vote", "verify"} < answer.timings_ms.keys()


async def test_a_failed_model_hands_over_to_the_next(house: FakeHouse) -> None:
    """The fallback order is walked; the answer says that it is degraded."""
    house.upstream.script(PHI, fail(500))
    house.fleet.refusals[MISTRAL] = ModelUnavailable("No weights.", model_id=MISTRAL)
    house.upstream.script(QWEN, SPANISH)
    answer = await ask(house)
    assert [(c.attempt, c.model) for c in answer.candidates] == [(1, PHI), (2, MISTRAL), (3, QWEN)]
    assert answer.candidate.model == QWEN
    assert (answer.verdict.accepted, answer.verdict.degraded) == (True, True)


@pytest.mark.parametrize("reply", [fail(500), say("La", break_after=1), Reply(raw=b"")])
async def test_when_all_fail_each_was_asked_once(house: FakeHouse, reply: Reply) -> None:
    """No loop: five models, five calls, one error that says to come back."""
    house.upstream.otherwise = reply
    with pytest.raises(ModelUnavailable) as caught:
        await ask(house)
    assert house.upstream.asked() == ALL
    assert caught.value.retry_after_s
    assert house.fleet.all_given_back


async def test_a_long_chain_is_walked_to_its_end(settings: Settings, upstream: Upstream) -> None:
    """Nine models that fail are no endless loop, however small LangChain's own limit of steps is."""
    spec = settings.spec(PHI)
    more = tuple(spec.model_copy(update={"id": f"m{i}", "aliases": ()}) for i in range(9))
    house = FakeHouse(settings.model_copy(update={"models": more}), upstream)
    upstream.otherwise = fail(503)
    for call in (ask(house), house.capibara.ainvoke("hola", {"tags": ["t"]})):
        upstream.requests.clear()
        with pytest.raises(ModelUnavailable):
            await call
        assert sorted(upstream.asked()) == sorted(s.id for s in more)


async def test_rejected_answers_are_asked_again_at_most_max_attempts(house: FakeHouse) -> None:
    """Three answers in the wrong language: the first of them comes back, unverified."""
    house.upstream.otherwise = ENGLISH
    answer = await ask(house)
    assert house.upstream.asked() == ALL[: house.settings.routing.max_attempts]
    assert (answer.candidate.model, answer.verdict.accepted) == (PHI, False)
    assert answer.verdict.degraded is False, "nobody failed"


async def test_a_later_answer_that_passes_is_taken(house: FakeHouse) -> None:
    """Rejected once, accepted then."""
    house.upstream.script(PHI, ENGLISH)
    house.upstream.script(MISTRAL, SPANISH)
    answer = await ask(house)
    assert (answer.candidate.key, answer.verdict.accepted) == (f"2:{MISTRAL}", True)


async def test_the_best_text_is_returned_when_the_others_are_empty_or_broken(house: FakeHouse) -> None:
    """Some text is better than none: it comes back with verified false."""
    house.upstream.script(PHI, say("  "))
    house.upstream.script(MISTRAL, fail(500))
    house.upstream.script(QWEN, ENGLISH)
    house.upstream.script(GEMMA, say(""))
    answer = await ask(house)
    assert (answer.candidate.model, answer.verdict.accepted, answer.verdict.degraded) == (QWEN, False, True)


async def test_only_empty_answers_are_an_error(house: FakeHouse) -> None:
    """No model gave any text: NoAnswer, after max_attempts."""
    house.upstream.otherwise = say("")
    with pytest.raises(NoAnswer):
        await ask(house)
    assert len(house.upstream.requests) == house.settings.routing.max_attempts


async def test_a_refused_parameter_is_asked_of_nobody_else(house: FakeHouse) -> None:
    """A 400 of a server is the caller's to mend."""
    house.upstream.script(PHI, fail(400))
    with pytest.raises(BadQuestion):
        await ask(house)
    assert house.upstream.asked() == [PHI]


async def test_a_prompt_too_long_for_the_first_model_goes_on(house: FakeHouse) -> None:
    """The estimate was too low; another model has room."""
    house.upstream.script(PHI, fail(400, "exceed_context_size_error"))
    house.upstream.script(MISTRAL, SPANISH)
    assert (await ask(house)).candidate.model == MISTRAL


# ---------------------------------------------------------------- a model by its name


async def test_a_named_model_is_repeated_once_after_a_crash(house: FakeHouse) -> None:
    """The restarted server answers; that it had crashed shows."""
    house.upstream.script(PHI, say("La", break_after=1), SPANISH)
    answer = await ask(house, model="phi4_fast")
    assert (answer.candidate.key, answer.verdict.degraded) == (f"2:{PHI}", True)
    assert house.upstream.asked() == [PHI, PHI]


async def test_a_named_model_that_stays_down_is_unavailable(house: FakeHouse) -> None:
    """Two crashes, then 503 with Retry-After; nobody else is asked."""
    house.upstream.otherwise = fail(503)
    with pytest.raises(ModelUnavailable) as caught:
        await ask(house, model=PHI)
    assert house.upstream.asked() == [PHI, PHI]
    assert caught.value.retry_after_s


async def test_a_named_model_that_loads_is_not_repeated(house: FakeHouse) -> None:
    """The fleet's guess is the caller's Retry-After."""
    house.fleet.refusals[PHI] = ModelLoading("Loading.", model_id=PHI, retry_after_s=7)
    with pytest.raises(ModelLoading) as caught:
        await ask(house, model=PHI)
    assert (caught.value.retry_after_s, house.fleet.claims) == (7, [PHI])


async def test_a_named_model_may_fall_back(house: FakeHouse) -> None:
    """With fallback the next model of the order answers."""
    house.upstream.script(GPT, fail(500))
    house.upstream.script(PHI, SPANISH)
    answer = await ask(house, model=GPT, fallback=True)
    assert (answer.candidate.model, answer.verdict.degraded) == (PHI, True)


@pytest.mark.parametrize(("second", "accepted"), [(ENGLISH, False), (SPANISH, True)])
async def test_a_named_model_is_told_once_what_was_wrong(house: FakeHouse, second: Reply, accepted: bool) -> None:
    """The reason stands at the end of the question; if that does not help the answer comes back unverified."""
    house.upstream.script(PHI, ENGLISH, second)
    answer = await ask(house, model=PHI)
    assert (answer.verdict.accepted, house.upstream.asked()) == (accepted, [PHI, PHI])
    first, again = (request["messages"] for request in house.upstream.requests)
    assert [m["role"] for m in again] == ["user"]
    assert first[0]["content"] == QUESTION
    assert again[0]["content"].startswith(QUESTION)
    assert "no está en español" in again[0]["content"]


# ---------------------------------------------------------------- cascades


async def test_a_cascade_climbs_until_an_answer_passes(house: FakeHouse) -> None:
    """Small first; nothing of a rejected draft is streamed."""
    house.upstream.script(PHI, ENGLISH)
    house.upstream.script(MISTRAL, SPANISH)
    request = Request(mode="cascade", stream="eager")
    events: list[Any] = [event async for event in house.capibara.watch([HumanMessage(QUESTION)], request)]
    assert house.upstream.asked() == [PHI, MISTRAL]
    assert events[-1].candidate.model == MISTRAL
    assert not [e for e in events[:-1] if e["event"] == "delta"]


async def test_an_unsure_draft_is_taken_over(house: FakeHouse) -> None:
    """By the log-probabilities of its words, which are asked for and, unasked by the caller, not shown."""
    house.upstream.script(PHI, say(*SPANISH.pieces, logprob=-2.5))
    house.upstream.script(MISTRAL, SPANISH)
    answer = await ask(house, mode="cascade")
    assert house.upstream.asked() == [PHI, MISTRAL]
    assert [c.mean_logprob for c in answer.candidates] == [-2.5, -0.25]
    assert not any(c.logprobs for c in answer.candidates)
    assert answer.plan.reason.code == "route.after_draft"
    assert (answer.candidate.model, answer.verdict.accepted) == (MISTRAL, True)


async def test_a_template_stands_before_the_conversation(house: FakeHouse) -> None:
    """As one system message; the conversation of the thread is not changed by it."""
    house.upstream.script(PHI, SPANISH)
    answer = await ask(house, template="technical")
    sent = house.upstream.requests[0]["messages"]
    assert [m["role"] for m in sent] == ["system", "user"]
    assert "Spanish" in sent[0]["content"]
    assert answer.verdict.accepted


# ---------------------------------------------------------------- streams


async def test_a_run_is_told_as_it_happens(house: FakeHouse) -> None:
    """plan, delta…, candidate, ballot, verdict, and the answer last; a candidate event holds no text."""
    house.upstream.script(PHI, SPANISH)
    events: list[Any] = [e async for e in house.capibara.watch([HumanMessage(QUESTION)], Request(stream="eager"))]
    kinds = [e["event"] for e in events[:-1]]
    assert kinds == ["plan", "delta", "delta", "delta", "candidate", "ballot", "verdict"]
    assert "".join(e["content"] for e in events[1:4]) == events[-1].candidate.content
    assert "content" not in events[4]["candidate"]


async def test_how_far_a_long_prompt_is_read_is_told(house: FakeHouse) -> None:
    """Between its batches; a prompt of one batch has none."""
    house.upstream.script(PHI, replace(SPANISH, reads=((0, 0, 1300), (0, 512, 1300), (0, 1024, 1300), (0, 1300, 1300))))
    events: list[Any] = [e async for e in house.capibara.watch([HumanMessage(QUESTION)], Request())]
    assert [e for e in events[:-1] if e["event"] == "reading"] == [
        {"event": "reading", "model": PHI, "read_tokens": read, "prompt_tokens": 1300} for read in (512, 1024)
    ]


async def test_a_stream_that_fell_over_before_its_first_token_goes_on_with_another(house: FakeHouse) -> None:
    """Nothing has been seen, so the next model may speak."""
    house.upstream.script(PHI, say("La", break_after=0))
    house.upstream.script(MISTRAL, SPANISH)
    events: list[Any] = [e async for e in house.capibara.watch([HumanMessage(QUESTION)], Request(stream="eager"))]
    assert {e["model"] for e in events[:-1] if e["event"] == "delta"} == {MISTRAL}
    assert events[-1].verdict.degraded


async def test_a_stream_that_broke_is_not_told_again_by_another(house: FakeHouse) -> None:
    """Tokens have been seen: it ends with an error."""
    house.upstream.script(PHI, say("La", "capital", break_after=1))
    with pytest.raises(CapibaraError):
        _ = [e async for e in house.capibara.watch([HumanMessage(QUESTION)], Request(stream="eager"))]
    assert house.upstream.asked() == [PHI]


async def test_leaving_a_stream_cancels_the_model(house: FakeHouse) -> None:
    """The connection is closed and the claim given back."""
    house.upstream.script(PHI, say("La", "capital", stall_after=1))
    watching = house.capibara.watch([HumanMessage(QUESTION)], Request(stream="eager"))
    async for event in watching:
        if isinstance(event, dict) and event["event"] == "delta":
            break
    await watching.aclose()
    await until(lambda: house.fleet.all_given_back)
    assert await asyncio.to_thread(house.upstream.hung_up.acquire, timeout=10)


# ---------------------------------------------------------------- threads and drawing


async def test_runs_on_a_thread_share_messages_and_nothing_else(settings: Settings, upstream: Upstream) -> None:
    """The second run sees the conversation, plans anew, and returns none of the first one's candidates."""
    house = FakeHouse(settings, upstream, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    upstream.script(PHI, ENGLISH, SPANISH)
    upstream.script(MISTRAL, SPANISH)
    first = await ask(house, config)
    second = await ask(house, config)
    assert first.candidate.model == MISTRAL
    assert [(c.attempt, c.model) for c in second.candidates] == [(1, PHI)]
    assert "generate:2:" + MISTRAL not in second.timings_ms
    roles = [m["role"] for m in upstream.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]


async def test_a_run_after_one_that_was_broken_off_plans_anew(settings: Settings, upstream: Upstream) -> None:
    """An unfinished verdict left on the thread does not make the next question a second attempt."""
    house = FakeHouse(settings, upstream, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    upstream.script(PHI, ENGLISH, SPANISH)
    upstream.script(MISTRAL, say("La", stall_after=1))
    task = asyncio.create_task(ask(house, config))
    await until(lambda: upstream.asked() == [PHI, MISTRAL])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answer = await ask(house, config)
    assert (answer.plan.attempt, [c.key for c in answer.candidates]) == (1, [f"1:{PHI}"])


async def test_the_answer_joins_the_conversation(house: FakeHouse) -> None:
    """Chat clients find it as the last message of the state."""
    house.upstream.script(PHI, SPANISH)
    state = await house.graph.ainvoke({"messages": [HumanMessage(QUESTION)]}, context=Request())
    assert isinstance(state["messages"][-1], AIMessage)
    assert state["messages"][-1].content == "".join(SPANISH.pieces)


async def test_the_graph_runs_without_a_context(house: FakeHouse) -> None:
    """Studio may give none."""
    house.upstream.script(PHI, SPANISH)
    state = await house.graph.ainvoke({"messages": [("user", "hola")]})
    assert state["verdict"].accepted


def test_the_drawing_needs_no_services() -> None:
    """Five nodes and the way back."""
    mermaid = drawing()
    assert all(node in mermaid for node in ("classify", "route", "generate", "vote", "verify"))
    assert "verify -.-> route" in mermaid
