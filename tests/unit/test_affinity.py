"""Who has read what: digests and no text, a server's generation, what its slots and cache can hold, what it reports."""

from __future__ import annotations

import asyncio
import gc
import pickle
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from capibara_agents.affinity import (
    LAST,
    LONG_CHARS,
    LONG_MESSAGES,
    MOST_CONVERSATIONS,
    Affinity,
    Turn,
    takes_long,
)
from capibara_agents.runnable import read_messages
from capibara_agents.types import Endpoint, FleetSnapshot, Keeps, ModelStatus, Sampling, ServerState, Usage
from tests.fakes import GPT, PHI, until

QUESTION = HumanMessage("¿Qué dice el manual de la caldera sobre la presión?")
ANSWER = "Que no pase de dos bar."
ON = HumanMessage("¿Y sobre la temperatura?")


def fleet(generation: int = 1, state: str = "ready", *models: str) -> FleetSnapshot:
    statuses = [
        ModelStatus(id=model, state=ServerState(state), generation=generation) for model in models or (PHI, GPT)
    ]
    return FleetSnapshot(models=tuple(statuses))


def endpoint(model: str = PHI, generation: int = 1, **keeps: int) -> Endpoint:
    return Endpoint(model_id=model, url="http://x", api_key="k", generation=generation, keeps=Keeps(**keeps))


def turn(messages: Sequence[BaseMessage], tokens: int = 1000, model: str = PHI, **more: Any) -> Turn:
    values: dict[str, Any] = {
        "sampling": Sampling(),
        "first_s": 1.0,
        "usage": Usage(prompt_tokens=tokens, completion_tokens=20),
        "content": ANSWER,
    }
    return Turn(model=model, messages=messages, **{**values, **more})


def read(affinity: Affinity, messages: Sequence[BaseMessage], **sampling: Any) -> dict[str, int]:
    return affinity.read(messages, Sampling(**sampling), fleet())


def follow_up(messages: Sequence[BaseMessage] = (QUESTION,), answer: str = ANSWER) -> list[BaseMessage]:
    return [*messages, AIMessage(answer), ON]


def test_a_follow_up_has_been_read_as_far_as_it_is_the_same() -> None:
    """The prompt and the answer; only the prompt where the answer comes back changed; nothing of another one."""
    affinity = Affinity()
    assert read(affinity, [QUESTION]) == {}
    affinity.answered(turn([QUESTION]), endpoint())
    assert read(affinity, follow_up()) == {PHI: 1020}
    assert read(affinity, follow_up(answer="Otra cosa.")) == {PHI: 1000}
    assert read(affinity, [QUESTION, AIMessage([{"type": "text", "text": ANSWER}]), ON]) == {PHI: 1020}
    assert read(affinity, [HumanMessage("¿Qué dice el manual de la caldera?"), ON]) == {}
    assert read(affinity, [AIMessage(str(QUESTION.content))]) == {}, "who says it counts"


def test_it_counts_as_the_conversation_grows() -> None:
    """Each turn takes the place of the one before it, and two models may have read one conversation."""
    affinity = Affinity()
    affinity.answered(turn([QUESTION]), endpoint())
    affinity.answered(turn(follow_up(), 1100), endpoint())
    affinity.answered(turn([QUESTION], 900, GPT), endpoint(GPT))
    longer = follow_up(follow_up())
    assert read(affinity, longer) == {PHI: 1120, GPT: 920}
    assert len(affinity._held[PHI]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": ({"type": "function", "function": {"name": "f"}},)},
        {"response_format": {"type": "json_object"}},
        {"tools": ({"type": "function", "function": {"name": "f"}},), "tool_choice": "none"},
    ],
)
def test_tools_and_formats_are_part_of_the_prefix(changes: dict[str, Any]) -> None:
    """They stand before the first message, so with others nothing has been read."""
    affinity = Affinity()
    affinity.answered(turn([QUESTION], sampling=Sampling(**changes)), endpoint())
    assert read(affinity, follow_up(), **changes) == {PHI: 1020}
    assert read(affinity, follow_up()) == {}
    assert read(affinity, follow_up(), **changes, temperature=0.1) == {PHI: 1020}, "sampling changes no prompt"


def test_a_system_prompt_that_differs_is_another_prefix_and_a_shared_one_is_shared() -> None:
    """In proportion to its length, and only where llama-server would use it again."""
    system = SystemMessage("Eres una ayuda para calderas. " * 100)
    affinity = Affinity()
    affinity.answered(turn([system, QUESTION], 1000), endpoint())
    shared = read(affinity, [system, HumanMessage("¿Cuándo se purga?")])
    assert 900 < shared[PHI] < 1000
    assert read(affinity, [SystemMessage("Otro."), *follow_up()]) == {}


def test_another_process_has_read_nothing() -> None:
    """A server that was restarted, is being loaded, or is gone."""
    affinity = Affinity()
    affinity.answered(turn([QUESTION]), endpoint(generation=3))
    for generation, state, known in (
        (3, "ready", {PHI: 1020}),
        (4, "ready", {}),
        (3, "stopped", {}),
        (4, "starting", {}),
    ):
        assert affinity.read(follow_up(), Sampling(), fleet(generation, state)) == known
    affinity.answered(turn([HumanMessage("Hola.")], 10), endpoint(generation=4, slots=4))
    assert affinity.read(follow_up(), Sampling(), fleet(3)) == {}, "forgotten, not only passed over"


@pytest.mark.parametrize(
    ("keeps", "others", "held"),
    [
        ({"slots": 2}, 1, True),
        ({"slots": 2}, 2, False),
        ({"slots": 1, "tokens": 3500}, 2, True),
        ({"slots": 1, "tokens": 3500}, 3, False),
        ({"slots": 1, "tokens": 3500, "prompt_tokens": 500}, 2, False),
    ],
)
def test_it_is_forgotten_when_slots_and_cache_have_gone_to_others(
    keeps: dict[str, int], others: int, held: bool
) -> None:
    """Each other conversation that the model has answered since takes a place and its tokens."""
    affinity = Affinity()
    affinity.answered(turn([QUESTION]), endpoint(**keeps))
    for number in range(others):
        affinity.answered(turn([HumanMessage(f"Otra pregunta, la {number}.")]), endpoint(**keeps))
    assert (PHI in read(affinity, follow_up())) == held
    affinity.answered(turn([HumanMessage("A otro modelo.")], model=GPT), endpoint(GPT))
    assert (PHI in read(affinity, follow_up())) == held, "what others answer takes no place"


def test_a_question_that_gave_no_token_takes_a_place_too() -> None:
    """Its server was busy with it, and nobody knows how far it came."""
    affinity = Affinity()
    affinity.answered(turn([QUESTION]), endpoint())
    other = [HumanMessage("Otra.")]
    affinity.answered(turn(other, first_s=None, usage=Usage(), content=""), endpoint())
    assert read(affinity, follow_up()) == read(affinity, other) == {}


def test_what_was_broken_off_has_been_read() -> None:
    """After its first token the prompt is there; without a count its tokens are estimated."""
    affinity = Affinity()
    long = HumanMessage("palabra " * 475)
    affinity.answered(turn([long], usage=Usage(), content="Que no"), endpoint())
    assert 950 < read(affinity, [long, ON])[PHI] < 1050


def test_thoughts_are_not_in_the_next_prompt() -> None:
    """So what was said after them has to be read again."""
    affinity = Affinity()
    affinity.answered(turn([QUESTION], has_reasoned=True), endpoint())
    assert read(affinity, follow_up()) == {PHI: 1000}


def test_calls_of_tools_come_back_as_they_were_made() -> None:
    """As OpenAI's clients send them; arguments that are no JSON are no answer that could."""
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}
    affinity = Affinity()
    affinity.answered(turn([QUESTION], content="", tool_calls=(call,)), endpoint())
    sent = [
        {"role": "user", "content": QUESTION.content},
        {"role": "assistant", "content": None, "tool_calls": [{k: call[k] for k in ("id", "type", "function")}]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    assert read(affinity, read_messages(sent)) == {PHI: 1020}
    assert read(affinity, [QUESTION, AIMessage(""), ToolMessage("3", tool_call_id="c1")]) == {PHI: 1000}
    broken = {**call, "function": {"name": "f", "arguments": '{"b'}}
    affinity.answered(turn([ON], content="", tool_calls=(broken,)), endpoint(slots=2))
    assert read(affinity, [ON, AIMessage("")]) == {PHI: 1000}


def test_images_are_told_apart_by_their_ends_and_length() -> None:
    """Megabytes of them cost nothing."""

    def shown(image: str) -> list[BaseMessage]:
        url = f"data:image/png;base64,{image}"
        return [HumanMessage([{"type": "text", "text": "¿Qué es?"}, {"type": "image_url", "image_url": {"url": url}}])]

    image = "A" * 50_000
    affinity = Affinity()
    affinity.answered(turn(shown(image)), endpoint())
    assert read(affinity, follow_up(shown(image))) == {PHI: 1020}
    for other in ("B" + image[1:], image[:-1] + "B", image + "A"):
        assert read(affinity, follow_up(shown(other))) == {}


def test_what_a_server_reports_corrects_what_is_believed() -> None:
    """One that does not use its cache again is soon believed little, and again when it does."""
    affinity = Affinity()
    messages: list[BaseMessage] = [QUESTION]
    affinity.answered(turn(messages), endpoint())
    believed = []
    for cached in (0, 0, 0, 0, 1100, 1100, 1100):
        messages = follow_up(messages)
        believed.append(read(affinity, messages)[PHI])
        affinity.answered(turn(messages, 1200, usage=Usage(prompt_tokens=1200, cached_tokens=cached)), endpoint())
    assert believed[0] > 900
    assert believed[4] < 400 < believed[6]


def test_the_pace_is_measured_on_what_was_read_anew() -> None:
    """Not on a few tokens, nor where the time says something else; measured before, until then."""
    affinity = Affinity({GPT: 40.0})
    assert affinity.speeds() == {GPT: 40.0}
    few = Usage(prompt_tokens=1000, cached_tokens=990)
    unknown = Usage(prompt_tokens=1000)
    for usage in (few, unknown):
        affinity.answered(turn([QUESTION], model=GPT, usage=usage), endpoint(GPT))
    assert affinity.speeds() == {GPT: 40.0}
    half = Usage(prompt_tokens=1000, cached_tokens=500)
    affinity.answered(turn([QUESTION], model=GPT, usage=half, first_s=25.0), endpoint(GPT))
    assert affinity.speeds() == {GPT: 20.0}


def test_nothing_that_was_said_is_kept() -> None:
    """Neither words nor a key that others could have: equal conversations look different in another process."""
    first, second = Affinity(), Affinity()
    for affinity in (first, second):
        affinity.answered(turn([SystemMessage("clave-secreta"), QUESTION]), endpoint())
    held = pickle.dumps([vars(c) for c in first._held[PHI]])
    for word in ("secreta", "caldera", "bar", "presi"):
        assert word.encode() not in held
    assert not any(isinstance(o, BaseMessage) for o in gc.get_referents(first, *vars(first).values()))
    assert first._known.keys().isdisjoint(second._known.keys())


async def test_it_stays_small() -> None:
    """However many conversations and however long; a long one is taken in by a thread."""
    affinity = Affinity()
    for number in range(3 * MOST_CONVERSATIONS):
        affinity.answered(turn([HumanMessage(f"La {number}.")], 1), endpoint(slots=1000, tokens=10**6))
    assert len(affinity._held[PHI]) == MOST_CONVERSATIONS
    assert len(affinity._known) <= 2 * MOST_CONVERSATIONS
    long: list[BaseMessage] = [HumanMessage(f"Mensaje {number}.") for number in range(2000)]
    affinity.answered(turn(long, 20_000), endpoint(GPT))
    affinity.answered(turn(long, 20_000, GPT), endpoint(GPT))
    await until(lambda: GPT in affinity._held)
    assert len(affinity._held[GPT][0].marks) < 2 * LAST
    assert len(long) > LONG_MESSAGES
    assert read(affinity, [*long, AIMessage(ANSWER), ON])[GPT] == 20_020


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_it_may_be_used_from_threads_and_loops_at_once() -> None:
    """No turn is lost, no error, and what is indexed is what is held."""
    affinity, errors = Affinity(), list[BaseException]()
    system = SystemMessage("Eres una ayuda.")

    def talk(who: int) -> None:
        async def on_a_loop() -> None:
            for number in range(150):
                messages = [system, HumanMessage(f"{who} {number}")]
                affinity.answered(turn(messages, 10), endpoint(slots=4, tokens=100))
                read(affinity, messages)
                affinity.speeds()
                await asyncio.sleep(0)

        try:
            asyncio.run(on_a_loop())
        except BaseException as error:  # noqa: BLE001  (of a thread: told below)
            errors.append(error)

    threads = [threading.Thread(target=talk, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    held = {id(c) for conversations in affinity._held.values() for c in conversations}
    indexed = {id(c) for holders in affinity._known.values() for c in holders}
    assert held == indexed
    assert len(held) == 4


@pytest.mark.parametrize("said", [str, lambda text: [{"type": "text", "text": text}], lambda text: [text]])
def test_a_long_text_is_long_in_parts_too(said: Any) -> None:
    """And an image, of which little is looked at, is not."""
    assert takes_long([HumanMessage(said("a" * (LONG_CHARS + 1)))])
    assert not takes_long([HumanMessage(said("a" * 1000))])
    assert not takes_long([HumanMessage([{"type": "image_url", "image_url": {"url": "a" * (LONG_CHARS + 1)}}])])
