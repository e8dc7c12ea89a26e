"""Every error that docs/http.md lists is reachable over OpenAI's chat, in OpenAI's shape; and odd conversations."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.errors import ModelLoading, ModelUnavailable
from capibara_agents.http.app import build_app
from capibara_agents.http.errors import TABLE
from tests.asgi import Exchange, get, post
from tests.fakes import GPT, PHI, SPANISH, FakeHouse, classification, say

DOCS = Path(__file__).resolve().parents[2] / "docs" / "http.md"
CHAT = "/v1/chat/completions"
SECRET = "swordfish-4711"
MESSAGES = [{"role": "user", "content": SECRET}]
BODY = {"model": "capibara", "messages": MESSAGES}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
Case = Callable[[FakeHouse], Awaitable[Exchange]]


def app_of(house: FakeHouse, **server: Any) -> Any:
    changed = house.settings.server.model_copy(update=server)
    house.settings = house.settings.model_copy(update={"server": changed})
    return build_app(house)


def asking(**rest: Any) -> Case:
    """A chat with these fields."""

    async def case(house: FakeHouse) -> Exchange:
        return await post(app_of(house), CHAT, {**BODY, **rest}).done()

    return case


async def too_long(house: FakeHouse) -> Exchange:
    house.classifier.says = classification(prompt_tokens=1_000_000)
    return await asking()(house)


async def an_image(house: FakeHouse) -> Exchange:
    house.classifier.says = classification(modality="image")
    return await asking(messages=[{"role": "user", "content": [IMAGE]}])(house)


async def without_a_key(house: FakeHouse) -> Exchange:
    return await post(app_of(house, api_keys=("one",)), CHAT, BODY).done()


async def of_another_site(house: FakeHouse) -> Exchange:
    return await post(app_of(house), CHAT, BODY, origin="http://elsewhere.example").done()


async def nowhere(house: FakeHouse) -> Exchange:
    return await get(app_of(house), "/v1/nothing").done()


async def by_another_method(house: FakeHouse) -> Exchange:
    return await get(app_of(house), CHAT).done()


async def thread_again(house: FakeHouse) -> Exchange:
    app, thread = app_of(house), {"thread_id": "5b2f2d3c-0d6e-4b52-9a3a-0c4f4a3f7d10"}
    assert (await post(app, "/threads", thread).done()).status == 200
    return await post(app, "/threads", thread).done()


class Stopping(Exchange):
    """A client that sends the first part of a body and then nothing."""

    async def _receive(self) -> Any:
        if self._parts:
            return {"type": "http.request", "body": self._parts.pop(0), "more_body": True}
        await self._gone.wait()
        return {"type": "http.disconnect"}


async def half_a_body(house: FakeHouse) -> Exchange:
    headers = [("content-type", "application/json")]
    return await Stopping(app_of(house, body_timeout_s=0.1), "POST", CHAT, [b'{"model": '], headers).done()


async def too_large(house: FakeHouse) -> Exchange:
    return await post(app_of(house, max_body_bytes=100), CHAT, {**BODY, "user": "x" * 200}).done()


async def header_bomb(house: FakeHouse) -> Exchange:
    return await post(app_of(house, max_header_bytes=1024), CHAT, BODY, x_bomb="x" * 2000).done()


async def too_often(house: FakeHouse) -> Exchange:
    app = app_of(house, requests_per_minute=1)
    await post(app, "/v1/route", {"input": "hola"}).done()
    return await post(app, CHAT, BODY).done()


def while_another_runs(**limits: Any) -> Case:
    """Asked while a stream of somebody else is under way."""

    async def case(house: FakeHouse) -> Exchange:
        app = app_of(house, **limits)
        house.upstream.otherwise = say("La ", "capital", stall_after=1)
        first = post(app, CHAT, {**BODY, "stream": True})
        await first.until(lambda c: b"La" in c.body)
        second = await post(app, CHAT, BODY).done()
        first.hang_up()
        await first.done()
        return second

    return case


async def closing(house: FakeHouse) -> Exchange:
    app = app_of(house)
    app.state.traffic.closing = True
    return await post(app, CHAT, BODY).done()


async def while_it_starts(house: FakeHouse) -> Exchange:
    app = app_of(house)
    app.state.traffic.begun.clear()
    return await get(app, "/health/ready").done()


async def silent_models(house: FakeHouse) -> Exchange:
    house.upstream.otherwise = say("")
    return await asking()(house)


def refused(error: Exception) -> Case:
    """A named model that its fleet does not hand out."""

    async def case(house: FakeHouse) -> Exchange:
        house.fleet.refusals[GPT] = error
        return await asking(model=GPT)(house)

    return case


async def says_nothing_in_time(house: FakeHouse) -> Exchange:
    house.upstream.otherwise = say("La", stall_after=0)
    return await asking(model=PHI, capibara={"deadline_s": 1.0})(house)


async def a_mistake_of_ours(house: FakeHouse) -> Exchange:
    house.classifier.fails = RuntimeError(SECRET)
    return await asking()(house)


CASES: dict[str, Case] = {
    "invalid_request": asking(temperature=3),
    "unsupported_parameter": asking(top_k=3),
    "context_length_exceeded": too_long,
    "image_not_supported": an_image,
    "tools_not_supported": asking(tools=[TOOL]),
    "invalid_api_key": without_a_key,
    "origin_not_allowed": of_another_site,
    "model_not_found": asking(model="gpt-4"),
    "not_found": nowhere,
    "method_not_allowed": by_another_method,
    "conflict": thread_again,
    "request_timeout": half_a_body,
    "request_too_large": too_large,
    "headers_too_large": header_bomb,
    "rate_limit_exceeded": too_often,
    "too_many_requests": while_another_runs(requests_at_once=1),
    "overloaded": while_another_runs(requests_in_all=1),
    "closing": closing,
    "starting": while_it_starts,
    "no_answer": silent_models,
    "model_loading": refused(ModelLoading("gpt-oss-20b is loading.", model_id=GPT, retry_after_s=2)),
    "model_unavailable": refused(ModelUnavailable("gpt-oss-20b is not up.", model_id=GPT)),
    "model_timeout": says_nothing_in_time,
    "internal_error": a_mistake_of_ours,
}


# A model that dies before it has said anything is unavailable, and another is asked.
IN_A_STREAM = "model_crashed"


def documented() -> dict[str, set[int]]:
    """Code -> statuses, of the table of docs/http.md."""
    table = DOCS.read_text(encoding="utf-8").partition("\n## Errors")[2]
    found: dict[str, set[int]] = {}
    for statuses, codes in re.findall(r"^\| ([\d, ]+) \| ([a-z_, ]+) \|", table, re.M):
        for code in codes.split(", "):
            found.setdefault(code.strip(), set()).update(int(status) for status in statuses.split(", "))
    return found


def test_every_documented_error_has_a_case() -> None:
    """And every case is documented; the table of the code has nothing that is in neither."""
    assert set(documented()) == {*CASES, IN_A_STREAM}
    assert set(TABLE) - set(documented()) == {"template_error"}


@pytest.mark.parametrize("code", CASES)
async def test_the_error_is_reached(house: FakeHouse, code: str) -> None:
    """Its status, OpenAI's four fields, Retry-After and Allow where they belong, and nothing of the question."""
    got = await CASES[code](house)
    error = got.json()["error"]
    assert error["code"] == code
    assert got.status in documented()[code]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    assert ("retry-after" in got.headers) is (got.status in (429, 503))
    assert ("allow" in got.headers) is (got.status == 405)
    assert got.headers["x-request-id"]
    assert SECRET not in got.body.decode()


async def test_a_model_that_dies_in_the_middle_of_a_stream(house: FakeHouse) -> None:
    """The status is long sent: the last event is the error, in the same shape, and there is no [DONE]."""
    house.upstream.otherwise = say("La ", "capital", break_after=1)
    got = await post(app_of(house), CHAT, {**BODY, "stream": True}).done()
    name, data = got.events()[-1]
    error = json.loads(data)["error"]
    assert (got.status, name, error["code"], error["type"]) == (200, "error", IN_A_STREAM, "server_error")
    assert "[DONE]" not in got.body.decode()


@pytest.mark.parametrize("key", ["ONE", "One", "one ", " one", "on", "onee"])
async def test_a_key_in_another_case_is_no_key(house: FakeHouse, key: str) -> None:
    """Letters count as they are; spaces around a key do not."""
    got = await get(app_of(house, api_keys=("one",)), "/v1/models", authorization=f"Bearer {key}").done()
    assert got.status == (200 if key.strip() == "one" else 401)


async def test_two_thousand_messages_are_kept_in_their_order(house: FakeHouse) -> None:
    """All of them reach the model, roles and texts as they came."""
    house.upstream.script(PHI, SPANISH)
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"turno {n}"} for n in range(1999)]
    got = await post(app_of(house), CHAT, {"model": PHI, "messages": turns}).done()
    assert got.status == 200
    sent = [m for m in house.upstream.requests[-1]["messages"] if m["role"] != "system"]
    assert [(m["role"], m["content"]) for m in sent] == [(m["role"], m["content"]) for m in turns]
