"""What takes the processor for long is not done on the event loop: others wait for it.

Each test blocks one piece of work until a heartbeat on the loop has beaten: on the loop itself that never happens.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from capibara_agents import verify as checking
from capibara_agents import vote as voting
from capibara_agents.embedder import Vector
from capibara_agents.graphs import counting
from capibara_agents.outcome import Answer
from capibara_agents.types import Request
from capibara_agents.verify import sandbox
from tests.fakes import GPT, MISTRAL, PHI, QWEN, SPANISH, FakeHouse, classification, say

WAIT_S = 20.0
MATH = classification(domain="math", reply_language=None)
CODE = classification(domain="coding", reply_language=None)
LONG = "La respuesta sale de sumar los dos números que da el problema, uno tras otro. " * 20


class Heart:
    """Beats on the loop; `blocked` makes a function wait for its next beat and remembers whether that came."""

    def __init__(self) -> None:
        self.beats = threading.Semaphore(0)
        self.waited: list[bool] = []

    async def beat(self) -> None:
        while True:
            self.beats.release()
            await asyncio.sleep(0.001)

    def blocked(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*args: Any, **kwargs: Any) -> Any:
            while self.beats.acquire(blocking=False):
                pass
            self.waited.append(self.beats.acquire(timeout=WAIT_S))
            return work(*args, **kwargs)

        return waiting


async def asked(house: FakeHouse, heart: Heart, question: str, **request: Any) -> Answer:
    beating = asyncio.create_task(heart.beat())
    try:
        return await house.capibara.answer([HumanMessage(question)], Request.model_validate(request))
    finally:
        beating.cancel()


def beat_all_the_while(heart: Heart) -> bool:
    return bool(heart.waited) and all(heart.waited)


async def test_free_texts_are_embedded_beside_the_loop(house: FakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """While voters are still out, and for the ballot."""
    heart = Heart()
    house.classifier.says = classification(domain="creative_writing")
    embed: Callable[[Sequence[str]], Vector] = house.embedder.embed_many
    monkeypatch.setattr(house.embedder, "embed_many", heart.blocked(embed))
    house.upstream.script(PHI, say("El mar canta en la orilla de la tarde."))
    house.upstream.script(MISTRAL, say("La tarde se duerme en el mar tranquilo."))
    await asked(house, heart, "Escribe un verso sobre el mar.", voters=[PHI, MISTRAL])
    assert beat_all_the_while(heart)


@pytest.mark.parametrize("cores", [1, 8])
async def test_answers_are_read_beside_the_loop(
    settings: Any, upstream: Any, imported: None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By turns and side by side: for the ballot, how it stands, and who is asked next."""
    house, heart = FakeHouse(settings, upstream, cores=cores), Heart()
    house.classifier.says = MATH
    for name in ("count", "said"):
        monkeypatch.setattr(counting.voting, name, heart.blocked(getattr(voting, name)))
    upstream.otherwise = say("La respuesta es 84")
    await asked(house, heart, "¿Cuánto es 12 * 7?", voters=[PHI, QWEN, GPT])
    assert beat_all_the_while(heart)


@pytest.mark.parametrize(
    ("says", "text", "question", "sampling"),
    [
        (MATH, "Es 12 * 7 = 84.", "¿Cuánto es 12 * 7?", {}),
        (CODE, "```python\ndef suma(a, b):\n    return a + b\n```", "Escribe suma(a, b).", {}),
        (classification(domain="sql", reply_language=None), "SELECT 1", "Escribe una consulta.", {}),
        (MATH, '{"a": 1}', "Dame un objeto.", {"response_format": {"type": "json_object"}}),
        (MATH, LONG, "¿Cómo se hace?", {}),
    ],
    ids=["equation", "code", "sql", "json", "long"],
)
async def test_costly_checks_run_beside_the_loop(
    house: FakeHouse, monkeypatch: pytest.MonkeyPatch, says: Any, text: str, question: str, sampling: dict[str, Any]
) -> None:
    """What computes, parses or compiles, and what is long."""
    heart = Heart()
    house.classifier.says = says
    house.upstream.otherwise = say(text)
    monkeypatch.setattr(checking, "judge", heart.blocked(checking.judge))
    await asked(house, heart, question, sampling=sampling)
    assert beat_all_the_while(heart)


async def test_a_long_question_is_classified_beside_the_loop(house: FakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedding one takes ten milliseconds."""
    heart = Heart()
    house.upstream.otherwise = SPANISH
    monkeypatch.setattr(house.classifier, "classify", heart.blocked(house.classifier.classify))
    await asked(house, heart, LONG)
    assert beat_all_the_while(heart)


@pytest.mark.skipif(not sandbox.available()[0], reason="code cannot be run safely on this system")
async def test_code_runs_beside_the_loop(house: FakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is waited for in a thread."""
    heart = Heart()
    house.classifier.says = CODE
    house.upstream.otherwise = say("```python\ndef add(a, b):\n    return a + b\n```")
    monkeypatch.setattr(sandbox, "run", heart.blocked(sandbox.run))
    answer = await asked(house, heart, "Escribe add(a, b).", tests="assert add(1, 2) == 3")
    assert answer.verdict.accepted
    assert beat_all_the_while(heart)


async def test_recorded_votes_are_learned_from_beside_the_loop(
    house: FakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request asks for the weights, which are then learned out of all that was recorded."""
    heart = Heart()
    house.upstream.otherwise = SPANISH
    monkeypatch.setattr(house.learning, "_weigh", heart.blocked(house.learning._weigh))
    await asked(house, heart, "¿Cuál es la capital de España?")
    assert beat_all_the_while(heart)
