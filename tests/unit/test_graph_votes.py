"""Votes in the state machine: who is asked, when asking ends, what running code settles, what the caller sees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from capibara_agents.errors import BadQuestion, ModelCrashed, ModelTimeout, ModelUnavailable
from capibara_agents.outcome import Answer
from capibara_agents.settings import Settings
from capibara_agents.types import Request
from capibara_agents.verify import sandbox
from tests.fakes import (
    GEMMA,
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
)

ALL = [PHI, MISTRAL, QWEN, GEMMA, GPT]
QUESTION = "¿Cuál es la capital de España?"
MATH = classification(domain="math", reply_language=None)
CODE = classification(domain="coding", reply_language=None)
needs_sandbox = pytest.mark.skipif(not sandbox.available()[0], reason="code cannot be run safely on this system")


async def ask(house: FakeHouse, question: str = QUESTION, **request: Any) -> Answer:
    return await house.capibara.answer([HumanMessage(question)], Request.model_validate(request))


async def events_of(house: FakeHouse, question: str = QUESTION, **request: Any) -> Sequence[Any]:
    watching = house.capibara.watch([HumanMessage(question)], Request.model_validate(request))
    return [event async for event in watching]


@pytest.fixture
def by_turns(settings: Settings, upstream: Upstream, imported: None) -> FakeHouse:
    """A house with one core: voters are asked one after the other."""
    return FakeHouse(settings, upstream, cores=1)


@pytest.mark.parametrize("dead", [0, 1, 2])
async def test_a_vote_lives_with_whoever_answers(house: FakeHouse, dead: int) -> None:
    """Three voters, some of them dead: the rest decides; a vote of fewer is degraded."""
    voters = [PHI, MISTRAL, QWEN]
    for model in voters:
        house.upstream.script(model, fail(500) if model in voters[:dead] else SPANISH)
    answer = await ask(house, model="capibara-consensus")
    assert (answer.plan.mode, answer.verdict.accepted) == ("consensus", True)
    assert set(answer.ballot.absent) == set(voters[:dead])
    assert len(answer.ballot.votes) + len(answer.ballot.spared) == 3 - dead
    assert answer.verdict.degraded is (dead > 0)


async def test_a_vote_in_which_nobody_answers_goes_to_the_chain(house: FakeHouse) -> None:
    """The models that did not vote are asked one by one, then it is an error."""
    house.upstream.otherwise = fail(500)
    with pytest.raises(ModelUnavailable):
        await ask(house, mode="consensus")
    assert sorted(house.upstream.asked()) == sorted(ALL)
    house.upstream.requests.clear()
    house.upstream.script(GEMMA, SPANISH)
    answer = await ask(house, mode="consensus")
    assert (answer.candidate.model, answer.verdict.degraded) == (GEMMA, True)


async def test_the_majority_wins(house: FakeHouse) -> None:
    """Two against one, with the agreement."""
    house.classifier.says = classification(domain="math", reply_language=None)
    for model, text in ((PHI, "83"), (QWEN, "Son 84"), (GPT, "La respuesta es 84")):
        house.upstream.script(model, say(text))
    answer = await ask(house, voters=[PHI, QWEN, GPT])
    assert answer.candidate.model == GPT
    assert answer.ballot.agreement == pytest.approx(2 / 3, abs=1e-3)


async def test_a_vote_by_confidence_asks_for_log_probabilities(house: FakeHouse) -> None:
    """It needs them, whether the caller wanted to see them or not; until runs have shown a slope they move nothing."""
    house.classifier.says = classification(domain="math", reply_language=None)
    house.upstream.script(PHI, say("1", logprob=-3))
    house.upstream.script(GPT, say("2", logprob=-0.01))
    answer = await ask(house, voters=[PHI, GPT], voting="confidence")
    assert {vote.weight for vote in answer.ballot.votes} == {1.0}
    assert all(request["logprobs"] for request in house.upstream.requests)
    assert not any(candidate.logprobs for candidate in answer.candidates)


async def test_the_deadline_lets_those_who_have_answered_decide(house: FakeHouse) -> None:
    """A silent voter is absent and is not waited for."""
    house.upstream.script(MISTRAL, SPANISH)
    await ask(house, model=MISTRAL)
    house.upstream.script(PHI, say("La", stall_after=0))
    house.upstream.script(MISTRAL, SPANISH)
    answer = await ask(house, voters=[PHI, MISTRAL], deadline_s=1.5)
    assert (answer.candidate.model, answer.verdict.degraded) == (MISTRAL, True)
    assert answer.ballot.absent == {PHI: "deadline"}
    assert house.fleet.all_given_back


async def test_a_deadline_that_nobody_kept_is_a_timeout(house: FakeHouse) -> None:
    """No other model is asked when the time is over."""
    house.upstream.script(PHI, SPANISH)
    await ask(house)
    house.upstream.requests.clear()
    house.upstream.script(PHI, say("La", stall_after=0))
    with pytest.raises(ModelTimeout):
        await ask(house, deadline_s=0.4)
    assert house.upstream.asked() == [PHI]


@pytest.mark.parametrize("again", [PHI, "phi4:mini"])
async def test_a_voter_that_is_named_twice_is_refused(house: FakeHouse, again: str) -> None:
    """By its name or by an alias; nobody is asked."""
    with pytest.raises(BadQuestion) as refused:
        await ask(house, voters=[PHI, again])
    assert (refused.value.param, house.upstream.asked()) == ("capibara.voters", [])


# ---------------------------------------------------------------- when asking ends


async def test_by_turns_asking_ends_when_the_rest_cannot_change_the_outcome(by_turns: FakeHouse) -> None:
    """Two of three agree: the third is spared, and that is not a failure."""
    by_turns.classifier.says = MATH
    for model in (PHI, QWEN):
        by_turns.upstream.script(model, say("La respuesta es 84"))
    answer = await ask(by_turns, voters=[PHI, QWEN, GPT])
    assert by_turns.upstream.asked() == [PHI, QWEN]
    assert answer.plan.schedule == "turns"
    assert (answer.ballot.spared, answer.ballot.absent) == ((GPT,), {})
    assert (answer.verdict.accepted, answer.verdict.degraded) == (True, False)


async def test_by_turns_all_are_asked_while_it_is_open(by_turns: FakeHouse) -> None:
    """They disagree, so the third decides."""
    by_turns.classifier.says = MATH
    for model, text in ((PHI, "83"), (QWEN, "84"), (GPT, "84")):
        by_turns.upstream.script(model, say(f"La respuesta es {text}"))
    events = await events_of(by_turns, voters=[PHI, QWEN, GPT])
    assert by_turns.upstream.asked() == [PHI, QWEN, GPT]
    assert events[-1].candidate.content == "La respuesta es 84"
    assert [e["ballot"]["agreement"] for e in events[:-1] if e["event"] == "ballot"] == [1.0, 0.5, 0.6667]
    told = [(e["answered"], e["asked"]) for e in events[:-1] if e["event"] == "candidate"]
    assert told == [(1, 3), (2, 3), (3, 3)]


async def test_side_by_side_the_rest_is_called_off_when_it_is_decided(house: FakeHouse) -> None:
    """The silent voter's connection is closed; nobody waits for it."""
    house.classifier.says = MATH
    for model in (PHI, QWEN):
        house.upstream.script(model, say("La respuesta es 84"))
    house.upstream.script(GPT, say("La", stall_after=0))
    answer = await ask(house, voters=[PHI, QWEN, GPT])
    assert answer.plan.schedule == "together"
    assert (answer.ballot.spared, answer.verdict.degraded) == ((GPT,), False)
    assert house.fleet.all_given_back


async def test_fewer_than_min_voters_never_decide(by_turns: FakeHouse) -> None:
    """Three must answer, so three are asked though two agree."""
    by_turns.classifier.says = MATH
    by_turns.upstream.otherwise = say("La respuesta es 84")
    await ask(by_turns, voters=[PHI, QWEN, GPT], min_voters=3)
    assert by_turns.upstream.asked() == [PHI, QWEN, GPT]


async def test_a_deadline_ends_the_turns(by_turns: FakeHouse) -> None:
    """Who has answered until then decides; the rest is not asked any more."""
    by_turns.upstream.script(PHI, SPANISH)
    await ask(by_turns, model=PHI)
    by_turns.classifier.says = MATH
    by_turns.upstream.script(PHI, say("La respuesta es 84"))
    by_turns.upstream.script(QWEN, say("La", stall_after=0))
    answer = await ask(by_turns, voters=[PHI, QWEN, GPT], deadline_s=1.5)
    assert (answer.candidate.model, answer.ballot.absent) == (PHI, {QWEN: "deadline", GPT: "deadline"})
    assert by_turns.upstream.asked() == [PHI, PHI, QWEN]
    assert answer.verdict.degraded


# ---------------------------------------------------------------- what running code settles

ADD = "Escribe una función `add(a, b)` en Python que sume dos números."
RIGHT = "```python\ndef add(a, b):\n    return a + b\n```"
RIGHT_TOO = "```python\ndef add(a, b):\n    total = b\n    total += a\n    return total\n```"
WRONG = "```python\ndef add(a, b):\n    return a - b\n```"
TESTS = "assert add(1, 2) == 3"


@needs_sandbox
async def test_code_that_passes_the_tests_outweighs_a_majority(house: FakeHouse) -> None:
    """Two write the same wrong code, one the right one."""
    house.classifier.says = CODE
    for model, text in ((PHI, WRONG), (QWEN, RIGHT), (GPT, WRONG)):
        house.upstream.script(model, say(text))
    answer = await ask(house, ADD, voters=[PHI, QWEN, GPT], min_voters=3, tests=TESTS)
    assert (answer.candidate.model, answer.verdict.accepted) == (QWEN, True)
    assert {v.model: v.weight for v in answer.ballot.votes} == {PHI: 0.01, QWEN: 5.0, GPT: 0.01}


@needs_sandbox
async def test_code_that_does_the_same_is_the_same_answer(house: FakeHouse) -> None:
    """However it is written."""
    house.classifier.says = CODE
    for model, text in ((PHI, RIGHT), (QWEN, RIGHT_TOO), (GPT, WRONG)):
        house.upstream.script(model, say(text))
    answer = await ask(house, ADD, voters=[PHI, QWEN, GPT], min_voters=3, tests=TESTS)
    assert [v.cluster for v in answer.ballot.votes] == [0, 0, 1]


@needs_sandbox
async def test_a_single_answer_whose_code_fails_is_asked_again_with_the_reason(house: FakeHouse) -> None:
    """The next model is told what failed, and its answer is checked too."""
    house.classifier.says = CODE
    house.upstream.script(QWEN, say(WRONG))
    house.upstream.otherwise = say(RIGHT)
    answer = await ask(house, ADD, tests=TESTS)
    assert (answer.verdict.accepted, len(answer.candidates)) == (True, 2)
    assert "pruebas" in house.upstream.requests[-1]["messages"][-1]["content"]


@pytest.mark.parametrize("text", ["No sé programar, pero la suma es fácil.", "def add(a, b):\n    return a +"])
async def test_an_answer_without_code_does_not_pass_tests(house: FakeHouse, text: str) -> None:
    """Whoever sends tests wants code: prose, and what does not parse, is rejected and never called verified."""
    house.classifier.says = CODE
    house.upstream.otherwise = say(text)
    answer = await ask(house, ADD, tests=TESTS)
    assert not answer.verdict.accepted
    assert [(c.name, c.reason) for c in answer.verdict.checks if not c.passed][-1] == ("runs", "verify.no_code")


@needs_sandbox
async def test_voters_whose_code_failed_do_not_end_the_asking(house: FakeHouse) -> None:
    """Two agree on code that fails the tests: the third is waited for, and is right."""
    house.classifier.says = CODE
    for model, reply in ((PHI, say(WRONG)), (QWEN, say(WRONG)), (GPT, say(RIGHT, delay_s=0.5))):
        house.upstream.script(model, reply)
    answer = await ask(house, ADD, voters=[PHI, QWEN, GPT], tests=TESTS)
    assert (answer.candidate.model, answer.verdict.accepted) == (GPT, True)


@needs_sandbox
async def test_an_answer_that_names_every_number_is_not_proven_by_it(house: FakeHouse) -> None:
    """Only a clear statement is evidence."""
    house.classifier.says = CODE
    question = "What does this code print?\n```python\nprint(len('hola'))\n```"
    for model, text in ((PHI, "0 1 2 3 4 5 6 7 8 9"), (QWEN, "It prints 4."), (GPT, "It prints 4.")):
        house.upstream.script(model, say(text))
    answer = await ask(house, question, voters=[PHI, QWEN, GPT], min_voters=3)
    weights = {v.model: v.weight for v in answer.ballot.votes}
    assert weights[PHI] < weights[QWEN] == weights[GPT]


@needs_sandbox
async def test_what_code_prints_is_settled_by_running_it(house: FakeHouse) -> None:
    """The majority is wrong about it."""
    house.classifier.says = CODE
    question = "What does this code print?\n```python\nprint(sum(range(5)))\n```"
    for model, text in ((PHI, "It prints 15."), (QWEN, "It prints 10."), (GPT, "It prints 15.")):
        house.upstream.script(model, say(text))
    answer = await ask(house, question, voters=[PHI, QWEN, GPT], min_voters=3)
    assert (answer.candidate.model, answer.verdict.accepted) == (QWEN, True)
    assert [check.name for check in answer.verdict.checks][-1] == "prints"


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize(("others", "held"), [("84", True), ("85", False)])
async def test_an_eager_stream_says_at_its_end_whether_the_vote_held(house: FakeHouse, others: str, held: bool) -> None:
    """The leader's words are the answer, as they have been read; only its own."""
    house.classifier.says = MATH
    house.upstream.script(PHI, say("La respuesta ", "es 84"))
    for model in (QWEN, GPT):
        house.upstream.script(model, say(f"La respuesta es {others}"))
    events = await events_of(house, voters=[PHI, QWEN, GPT], min_voters=3, stream="eager")
    assert {e["model"] for e in events[:-1] if e["event"] == "delta"} == {PHI}
    assert events[-1].candidate.model == PHI
    assert (events[-1].verdict.held, events[-1].verdict.accepted) == (held, held)


async def test_a_leader_that_breaks_off_ends_the_stream_with_an_error(house: FakeHouse) -> None:
    """The others' answers are not sent after half of its own."""
    house.classifier.says = MATH
    house.upstream.script(PHI, say("La respuesta ", "es 84", break_after=1))
    for model in (QWEN, GPT):
        house.upstream.script(model, say("La respuesta es 84"))
    with pytest.raises(ModelCrashed):
        await events_of(house, voters=[PHI, QWEN, GPT], min_voters=3, stream="eager")


async def test_without_eager_a_vote_streams_its_progress_and_no_words(house: FakeHouse) -> None:
    """Who has answered, of how many."""
    house.classifier.says = MATH
    house.upstream.otherwise = say("La respuesta es 84")
    events = await events_of(house, voters=[PHI, QWEN, GPT], min_voters=3, stream="auto")
    told = [e for e in events[:-1] if e["event"] == "candidate"]
    assert [(e["answered"], e["asked"], e["agreement"]) for e in told] == [(1, 3, 1.0), (2, 3, 1.0), (3, 3, 1.0)]
    assert not [e for e in events[:-1] if e["event"] == "delta"]


# ---------------------------------------------------------------- a synthesis and a judge

FREE = classification(domain="creative_writing")
POEMS = ("El mar canta en la orilla de la tarde.", "La tarde se duerme en el mar tranquilo.")


async def test_a_synthesis_is_written_by_the_strongest_voter(house: FakeHouse) -> None:
    """Out of all answers; the voters' own words stay in the trace."""
    house.classifier.says = FREE
    house.upstream.script(PHI, say(POEMS[0]), say("El mar canta y la tarde se duerme en su orilla tranquila."))
    house.upstream.script(MISTRAL, say(POEMS[1]))
    answer = await ask(house, "Escribe un verso sobre el mar.", voters=[PHI, MISTRAL], synthesis=True)
    assert (answer.candidate.key, answer.verdict.accepted) == (f"1:{PHI}:synthesis", True)
    prompt = house.upstream.requests[-1]["messages"][-1]["content"]
    assert all(poem in prompt for poem in POEMS)
    assert answer.ballot.winner in (f"1:{PHI}", f"1:{MISTRAL}")


@pytest.mark.parametrize("second", [fail(500), say(""), say("The sea sings at the shore of the late afternoon today.")])
async def test_a_synthesis_that_fails_gives_way_to_the_best_candidate(house: FakeHouse, second: Any) -> None:
    """Broken off, empty, or in the wrong language: the vote's winner is returned, and nothing is degraded."""
    house.classifier.says = FREE
    house.upstream.script(PHI, say(POEMS[0]), second)
    house.upstream.script(MISTRAL, say(POEMS[1]))
    answer = await ask(house, "Escribe un verso sobre el mar.", voters=[PHI, MISTRAL], synthesis=True)
    assert answer.candidate.key == answer.ballot.winner
    assert (answer.verdict.accepted, answer.verdict.degraded) == (True, False)


async def test_a_judges_word_alone_rejects_nothing(house: FakeHouse) -> None:
    """Everything else speaks for the answer; the opinion stands in the trace."""
    house.upstream.script(PHI, SPANISH)
    house.upstream.otherwise = say("No estoy de acuerdo. wrong")
    answer = await ask(house, judge=True)
    assert answer.verdict.accepted
    assert answer.verdict.checks[-1].name == "judge"
    assert answer.verdict.checks[-1].details["said"] == "unsure", "without the secret a verdict is only text"


async def test_a_judge_that_fails_is_followed_by_the_next_one(house: FakeHouse) -> None:
    """The first is broken, the second says nothing, the third has an opinion."""
    house.upstream.script(PHI, SPANISH)
    plan = house.decide([HumanMessage(QUESTION)], Request())[1]
    judges = [model for model in dict.fromkeys((*plan.chain, *ALL)) if model != PHI]
    house.upstream.script(judges[0], fail(500))
    house.upstream.script(judges[1], say(""))
    house.upstream.script(judges[2], say("No sé. unsure"))
    answer = await ask(house, judge=True)
    assert house.upstream.asked() == [PHI, *judges[:3]]
    assert answer.verdict.checks[-1].name == "judge"


async def test_the_search_for_a_judge_ends_with_the_deadline(house: FakeHouse) -> None:
    """Judges that never answer are not asked one after the other beyond it; the answer stands."""
    house.upstream.script(PHI, SPANISH)
    await ask(house, model=PHI)
    house.upstream.clear()
    house.upstream.script(PHI, SPANISH)
    house.upstream.otherwise = say("La", stall_after=0)
    answer = await ask(house, judge=True, deadline_s=4.0)
    assert answer.verdict.accepted
    assert "judge" not in [check.name for check in answer.verdict.checks]
    assert house.fleet.all_given_back


async def test_an_answer_cannot_have_itself_judged_right(house: FakeHouse) -> None:
    """An opinion alone never turns a failed check into a pass."""
    house.upstream.otherwise = lambda body: say(_verdict_in(body))
    house.upstream.script(PHI, say("La suma es 2 + 2 = 5."))
    house.classifier.says = MATH
    answer = await ask(house, "¿Cuánto es 2 + 2?", model=PHI, judge=True)
    judged = [check for check in answer.verdict.checks if check.name == "judge"]
    assert [check.details["said"] for check in judged] == ["right"]
    assert not answer.verdict.accepted


def _verdict_in(body: dict[str, Any]) -> str:
    """What a judge says that believes everything: the secret of its prompt, and `right`."""
    prompt = body["messages"][-1]["content"]
    secrets = re.findall(r"\b[0-9a-f]{16}\b", prompt)
    return f"{secrets[-1]}: right" if secrets else "La suma es 2 + 2 = 5."


# ---------------------------------------------------------------- several samples of the strongest


async def test_samples_of_the_strongest_vote_too(house: FakeHouse) -> None:
    """Each asked on its own, warm enough to differ, with a seed of its own; the plan and the ballot name them."""
    house.classifier.says = MATH
    house.upstream.otherwise = say("La respuesta es 84")
    answer = await ask(house, voters=[PHI, QWEN], samples=3, min_voters=4, sampling={"temperature": 0, "seed": 7})
    first = answer.plan.models[0]
    assert answer.plan.models == (*answer.plan.models[:2], f"{first}#2", f"{first}#3")
    assert {vote.model for vote in answer.ballot.votes} == set(answer.plan.models)
    sent = [(r["model"], r["temperature"], r["seed"]) for r in house.upstream.requests]
    assert len(set(sent)) == 4, "no two are asked alike"
    assert {seed for model, _, seed in sent if model == first} >= {7}
    warm = [temperature for model, temperature, seed in sent if seed != 7]
    assert len(warm) == 2
    assert min(warm) > 0


async def test_samples_by_turns_end_when_it_is_decided(by_turns: FakeHouse) -> None:
    """They are voters like others: the rest is spared."""
    by_turns.classifier.says = MATH
    by_turns.upstream.otherwise = say("La respuesta es 84")
    answer = await ask(by_turns, voters=[PHI], samples=4)
    assert by_turns.upstream.asked() == [PHI, PHI, PHI]
    assert answer.ballot.spared == (f"{PHI}#4",)


async def test_a_sample_that_fails_is_absent(house: FakeHouse) -> None:
    """The others decide, and the ballot says that it is degraded."""
    house.classifier.says = MATH
    house.upstream.script(PHI, say("La respuesta es 84"), fail(500), say("La respuesta es 84"))
    answer = await ask(house, voters=[PHI], samples=3, min_voters=3)
    assert (answer.candidate.model, len(answer.ballot.absent), answer.ballot.degraded) == (PHI, 1, True)
    assert answer.verdict.degraded


@pytest.mark.parametrize("request_of", [{"mode": "single"}, {"model": "capibara-fast"}, {"model": PHI}])
async def test_samples_need_a_vote(house: FakeHouse, request_of: dict[str, str]) -> None:
    """Where one model answers once they are refused, by name."""
    with pytest.raises(BadQuestion) as refused:
        await ask(house, samples=2, **request_of)
    assert refused.value.param == "capibara.samples"


async def test_a_judge_that_cannot_be_asked_changes_nothing(house: FakeHouse) -> None:
    """The answer stands as it was judged."""
    house.upstream.script(PHI, SPANISH)
    answer = await ask(house, judge=True)
    assert answer.verdict.accepted
    assert "judge" not in [check.name for check in answer.verdict.checks]
