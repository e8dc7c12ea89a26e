"""Any one to four of five voters dead, slow or talking garbage, in runs with seeds: what the caller may rely on."""

from __future__ import annotations

import os
import random
import time

import pytest
from langchain_core.messages import HumanMessage

from capibara_agents.errors import ModelError
from capibara_agents.settings import Settings
from capibara_agents.types import Request
from tests.fakes import GEMMA, GPT, MISTRAL, PHI, QWEN, FakeHouse, Reply, Upstream, classification, fail, say

ALL = [PHI, MISTRAL, QWEN, GEMMA, GPT]
RIGHT = say("La respuesta ", "es 84")
DEADLINE_S = 1.0
RUNS = int(os.environ.get("CAPIBARA_TEST_VOTE_RUNS", "60"))
BLOCKS = 4
# What a loaded machine may add to a deadline.
SLACK_S = 8.0


def broken(draw: random.Random) -> Reply:
    """One of the ways to go wrong."""
    return draw.choice(
        [
            fail(500),
            fail(503),
            say("La", "respuesta", break_after=draw.randint(0, 2)),
            say("La", stall_after=draw.randint(0, 1)),
            Reply(raw=b"HTTP/1.1 200 OK\r\n\r\n<html>\x00\xff"),
            Reply(raw=b""),
            say(""),
            say("ja " * 400),
            say("\x00\ufffd{{{ ]] <|im_start|>"),
        ]
    )


@pytest.mark.parametrize("block", range(BLOCKS))
async def test_whatever_breaks_the_caller_gets_an_answer_or_the_truth(
    settings: Settings, upstream: Upstream, block: int
) -> None:
    """Answered or refused (any other error fails), in time, a missing voter is told, and no claim is left behind."""
    FakeHouse(settings, upstream).models.warm()
    for seed in range(block * RUNS // BLOCKS, (block + 1) * RUNS // BLOCKS):
        draw = random.Random(seed)
        upstream.clear()
        house = FakeHouse(settings, upstream, cores=draw.choice([1, 8]))
        house.classifier.says = classification(domain="math", reply_language=None)
        ill = set(draw.sample(ALL, draw.randint(1, 4)))
        for model in ALL:
            upstream.script(model, broken(draw) if model in ill else RIGHT)
        upstream.otherwise = fail(500)
        request = Request.model_validate({"voters": ALL, "min_voters": draw.randint(1, 4), "deadline_s": DEADLINE_S})
        began = time.monotonic()
        try:
            answer = await house.capibara.answer([HumanMessage("¿Cuánto es 12*7?")], request)
        except ModelError:
            pass  # the truth: nobody could answer
        else:
            failed = [c for c in answer.candidates if c.error and not c.was_spared]
            assert answer.candidate.has_answer, seed
            assert answer.verdict.degraded or not failed, seed
            assert not answer.verdict.accepted or answer.candidate.content == "".join(RIGHT.pieces), seed
            told = set(answer.ballot.absent) | {v.model for v in answer.ballot.votes} | set(answer.ballot.spared)
            assert told == set(ALL), seed
        assert time.monotonic() - began < DEADLINE_S + SLACK_S, seed
        assert house.fleet.all_given_back, seed
