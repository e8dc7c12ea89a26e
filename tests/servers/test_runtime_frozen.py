"""A llama-server that is stopped in the middle of an answer: seen from outside, replaced, and its queue moves on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest
from langchain_core.messages import HumanMessage
from service_process import until
from test_runtime_real import MODEL, chat, endless, settings

from capibara_agents.models import Inquiry, Models
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.types import Sampling, ServerState

pytestmark = pytest.mark.servers


async def ask(fleet: LlamaFleet) -> tuple[str, int]:
    async with fleet.claim(MODEL, 120) as endpoint:
        return await chat(endpoint), endpoint.generation


async def test_a_frozen_server_is_replaced_and_who_waits_is_answered(tmp_path: Path) -> None:
    """SIGSTOP while it writes: after its idle limit it is a hang, not a crash, and the next in the queue is served."""
    errors: set[str] = set()
    with LlamaFleet(settings(tmp_path, slots=1, timeout_s=3)) as fleet:
        fleet.listen(lambda snapshot: errors.add(snapshot.get(MODEL).error or ""))
        async with fleet.claim(MODEL, 120) as endpoint:
            answer = asyncio.create_task(endless(endpoint))
            # It has to be seen at work first: a second look shows tokens.
            await asyncio.to_thread(until, lambda: fleet.snapshot().get(MODEL).tokens_per_second, 60)
            assert not answer.done()
            frozen = fleet.snapshot().get(MODEL).pid
            assert frozen
            waiting = asyncio.create_task(ask(fleet))
            await asyncio.to_thread(until, lambda: fleet.snapshot().get(MODEL).queue == 1)
            os.kill(frozen, signal.SIGSTOP)
            with pytest.raises(httpx.HTTPError):
                await answer
        text, generation = await waiting
    assert text
    assert generation == 2
    assert fleet.snapshot().get(MODEL).restarts == 1
    assert [error for error in errors if "gave no token any more" in error]


async def test_a_server_that_reads_a_long_prompt_is_not_taken_for_frozen(tmp_path: Path) -> None:
    """No token for longer than the idle limit, but CPU time: the answer comes, from the same process."""
    with LlamaFleet(settings(tmp_path, slots=1, timeout_s=1)) as fleet:
        async with fleet.claim(MODEL, 120) as endpoint, httpx.AsyncClient(trust_env=False, timeout=120) as client:
            response = await client.post(
                f"{endpoint.url}/v1/chat/completions",
                headers={"Authorization": f"Bearer {endpoint.api_key}"},
                json={"messages": [{"role": "user", "content": "number " * 1500}], "max_tokens": 1},
            )
            assert response.status_code == 200
        assert fleet.snapshot().get(MODEL).restarts == 0
        assert fleet.snapshot().get(MODEL).state is ServerState.ready


async def test_a_model_that_reads_a_long_prompt_answers_after_its_limit(tmp_path: Path) -> None:
    """Batch after batch is a sign of life, and told as such; the answer comes however long that takes."""
    told: list[tuple[int, int]] = []
    chosen = settings(tmp_path, slots=1, timeout_s=1, batch_tokens=64)
    with LlamaFleet(chosen) as fleet:
        models = Models(fleet, load_wait_s=120)
        await asyncio.to_thread(models.warm)
        sampling = Sampling(max_tokens=1)
        question = Inquiry(chosen.spec(MODEL), 1, [HumanMessage("number " * 1500)], sampling)
        candidate = await models.ask(question, on_reading=lambda *tokens: told.append(tokens))
        assert (candidate.error, candidate.usage.completion_tokens) == (None, 1)
        assert told == sorted(told)
        assert len(told) > 5
        assert told[-1][0] < told[-1][1] == candidate.usage.prompt_tokens
