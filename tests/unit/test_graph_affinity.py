"""Two turns of a conversation over the real graph: the second goes to the model that has read the first."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from capibara_agents.affinity import Affinity
from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http.app import build_app
from capibara_agents.outcome import Answer
from capibara_agents.types import Request
from tests.asgi import post
from tests.fakes import ENGLISH, MISTRAL, PHI, SPANISH, FakeHouse, Reply, classification, fail, say

FIRST = HumanMessage("Traduce al inglés: la capital de España es la ciudad de Madrid.")
LAST = HumanMessage("¿Cuál es la capital de España?")
TRANSLATION, FACT = classification(domain="translation", reply_language="en"), classification()
SLOW = {PHI: 100.0, MISTRAL: 60.0}


@pytest.fixture
def slow(house: FakeHouse) -> FakeHouse:
    """A house whose models read as slowly as on a small machine."""
    house.models.affinity = Affinity(SLOW)
    return house


async def ask(house: FakeHouse, messages: list[BaseMessage], **request: object) -> Answer:
    return await house.capibara.answer(messages, Request.model_validate(request))


async def first_turn(house: FakeHouse, prompt_tokens: int = 3000) -> list[BaseMessage]:
    """A translation, which mistral answers; what comes next is a plain fact, which phi would."""
    house.classifier.says = TRANSLATION
    house.upstream.script(MISTRAL, say(*ENGLISH.pieces, prompt_tokens=prompt_tokens))
    answer = await ask(house, [FIRST])
    assert answer.candidate.model == MISTRAL
    house.classifier.says = FACT
    return [FIRST, AIMessage(answer.candidate.content), LAST]


async def test_a_follow_up_goes_to_the_model_that_has_read_the_conversation(slow: FakeHouse) -> None:
    """Where the same last question in a new conversation goes elsewhere; plan, reason and tokens say why."""
    messages = await first_turn(slow)
    slow.upstream.script(MISTRAL, SPANISH)
    second = await ask(slow, messages)
    assert (second.candidate.model, second.plan.reason.code) == (MISTRAL, "route.read")
    assert second.trace()["plan"]["read_tokens"] == {MISTRAL: 3003}
    slow.upstream.script(PHI, SPANISH)
    fresh = await ask(slow, [LAST])
    assert (fresh.candidate.model, fresh.plan.reason.code, fresh.plan.read_tokens) == (PHI, "route.table", {})


@pytest.mark.parametrize("why", ["short", "restarted", "changed", "template", "nobody said a word"])
async def test_otherwise_it_goes_where_a_new_one_goes(slow: FakeHouse, why: str) -> None:
    """A short one; one whose server is another process; one that is another prefix; one that was never read."""
    if why == "nobody said a word":
        slow.classifier.says = TRANSLATION
        slow.upstream.otherwise = fail(400)
        with pytest.raises(BadQuestion):
            await ask(slow, [FIRST])
        slow.classifier.says, slow.upstream.otherwise = FACT, None
        messages: list[BaseMessage] = [FIRST, AIMessage("".join(ENGLISH.pieces)), LAST]
    else:
        messages = await first_turn(slow, prompt_tokens=100 if why == "short" else 3000)
    if why == "restarted":
        slow.fleet.generation += 1
    if why == "changed":
        messages = [SystemMessage("Sé breve."), *messages]
    slow.upstream.script(PHI, SPANISH)
    second = await ask(slow, messages, template="general" if why == "template" else None)
    assert second.candidate.model == PHI


@pytest.mark.parametrize("refusal", [fail(400), fail(500)])
async def test_a_turn_that_the_server_refuses_changes_nothing(slow: FakeHouse, refusal: Reply) -> None:
    """It has read nothing of it, and still holds what it has read before."""
    messages = await first_turn(slow)
    slow.upstream.otherwise = refusal
    with pytest.raises(CapibaraError):
        await ask(slow, messages)
    slow.upstream.otherwise = None
    slow.upstream.script(MISTRAL, SPANISH)
    assert (await ask(slow, messages)).plan.reason.code == "route.read"


async def test_a_turn_that_is_broken_off_while_it_is_read_is_no_longer_held(slow: FakeHouse) -> None:
    """Nobody knows what the server keeps of it."""
    messages = await first_turn(slow)
    reading = say("", reads=((0, 0, 4000),), break_after=0)
    slow.upstream.script(MISTRAL, reading)
    slow.upstream.script(PHI, SPANISH)
    assert (await ask(slow, messages)).candidate.model == PHI
    slow.upstream.script(PHI, SPANISH)
    assert (await ask(slow, messages)).plan.read_tokens.get(MISTRAL) is None


async def test_a_template_is_part_of_what_was_read(slow: FakeHouse) -> None:
    """The same template in the same language is the same prefix."""
    slow.classifier.says = TRANSLATION.model_copy(update={"reply_language": None})
    slow.upstream.script(MISTRAL, say(*ENGLISH.pieces, prompt_tokens=3000), SPANISH)
    first = await ask(slow, [FIRST], template="general")
    slow.classifier.says = FACT.model_copy(update={"reply_language": None})
    messages = [FIRST, AIMessage(first.candidate.content), LAST]
    assert (await ask(slow, messages, template="general")).plan.reason.code == "route.read"


async def test_the_route_of_a_follow_up_shows_who_has_read_it(slow: FakeHouse) -> None:
    """/v1/route gives tokens by model and says it in the question's language; a trace carries the plan's."""
    messages = await first_turn(slow)
    sent = [{"role": {"human": "user", "ai": "assistant"}[m.type], "content": m.content} for m in messages]
    app = build_app(slow)
    told = (await post(app, "/v1/route", {"messages": sent}).done()).json()
    assert (told["model"], told["reason_code"], told["read_tokens"]) == (MISTRAL, "route.read", {MISTRAL: 3003})
    assert "ya ha leído esta conversación" in told["reason"]
    slow.upstream.script(MISTRAL, SPANISH)
    body = {"model": "capibara", "messages": sent}
    traced = await post(app, "/v1/chat/completions", body, x_capibara_trace="1").done()
    assert traced.json()["capibara"]["plan"]["read_tokens"] == {MISTRAL: 3003}
