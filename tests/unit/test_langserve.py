"""The routes of the LangServe face without a network: what they answer, how they refuse, what they never say."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda

from capibara_agents.errors import BadQuestion, ModelLoading, UnknownModel
from capibara_agents.http import langserve
from capibara_agents.http.langserve_input import conversation_schema
from capibara_agents.types import Request

SECRET = "the-password-is-swordfish"
# {"configurable": {"mode": "consensus", "max_voters": 3}, "tags": ["t"]}, packed by lz-string 1.5.0.
PACKED = "N4Igxg9gdgZglgcwK4CcCGAjANgUxALlAFsIATPfcaAZxymqWpABoQi0APAfQDcIAXHCib4AzAF9W-NAhEBtEPxABdcUA"


class Echo(Runnable[Any, AIMessage]):
    """Answers with the last message and remembers what it was given."""

    def __init__(self) -> None:
        self.configs: list[RunnableConfig] = []
        self.inputs: list[Any] = []
        self.kwargs: list[dict[str, Any]] = []

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        self.inputs.append(input)
        self.configs.append(config or {})
        self.kwargs.append(kwargs)
        return AIMessage(input["messages"][-1].content)


async def post(runnable: Runnable[Any, Any], path: str, body: Any, **options: Any) -> httpx.Response:
    app = FastAPI()
    app.include_router(langserve.router(runnable, prefix="/x", **options))
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        if isinstance(body, bytes):
            return await client.post(path, content=body, headers={"content-type": "application/json"})
        return await client.post(path, json=body) if body is not None else await client.get(path)


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    """The events of a stream, read strictly: CRLF, one data line each, comments apart."""
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "\n" not in response.text.replace("\r\n", "")
    assert response.text.endswith("\r\n\r\n")
    events = []
    for block in response.text.split("\r\n\r\n")[:-1]:
        if block.startswith(":"):
            continue
        name, *data = block.split("\r\n")
        assert name.startswith("event: ")
        assert len(data) <= 1
        events.append((name[7:], json.loads(data[0].removeprefix("data: ")) if data else None))
    return events


async def test_invoke_answers_with_output_and_run_id() -> None:
    """The output is the message; the run id is the one the runnable ran under."""
    echo = Echo()
    response = await post(echo, "/x/invoke", {"input": "hola"})
    body = response.json()
    assert body["output"]["content"] == "hola"
    assert body["output"]["type"] == "ai"
    assert body["metadata"] == {"run_id": str(echo.configs[0]["run_id"]), "feedback_tokens": []}


async def test_config_reaches_the_runnable_and_foreign_keys_do_not() -> None:
    """Tags, metadata, run name and knobs arrive in both spellings; a calling graph's own keys are left out."""
    echo = Echo()
    config = {
        "tags": ["a"],
        "metadata": {"k": 1},
        "runName": "mine",
        "recursionLimit": 5,
        "callbacks": [],
        "configurable": {"mode": "single", "thread_id": "t", "__pregel_send": 1, "checkpoint_ns": "n"},
    }
    await post(echo, "/x/invoke", {"input": "x", "config": config, "kwargs": {"quality": "best", "config": 1}})
    seen = echo.configs[0]
    assert seen["tags"] == ["a"]
    assert seen["metadata"]["k"] == 1
    assert seen["run_name"] == "mine"
    assert seen["configurable"] == {"mode": "single", "thread_id": "t"}
    assert "recursion_limit" not in seen
    assert echo.kwargs[0] == {"quality": "best"}


async def test_the_configuration_in_the_path_is_used_and_the_body_wins() -> None:
    """/c/{hash}/ gives the base, the request's config what differs."""
    echo = Echo()
    response = await post(echo, f"/x/c/{PACKED}/invoke", {"input": "x", "config": {"configurable": {"mode": "auto"}}})
    assert response.status_code == 200
    assert echo.configs[0]["configurable"] == {"mode": "auto", "max_voters": 3}
    assert echo.configs[0]["tags"] == ["t"]
    for path in ("stream", "input_schema", "playground/"):
        response = await post(echo, f"/x/c/nonsense!/{path}", {"input": "x"} if path == "stream" else None)
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"


async def test_a_batch_keeps_its_order_and_has_a_config_for_each() -> None:
    """Outputs stand where their inputs stood, whoever was faster."""

    async def wait(value: Any, config: RunnableConfig) -> str:
        text = str(value["messages"][0].content)
        await anyio.sleep(0.02 if text == "a" else 0)
        return text + config["configurable"]["mode"]

    body = {
        "inputs": ["a", "b"],
        "config": [{"configurable": {"mode": "single"}}, {"configurable": {"mode": "cascade"}}],
        "kwargs": [{}, {}],
    }
    answer = (await post(RunnableLambda(wait), "/x/batch", body)).json()
    assert answer["output"] == ["asingle", "bcascade"]
    assert len(set(answer["metadata"]["run_ids"])) == 2
    assert [one["run_id"] for one in answer["metadata"]["responses"]] == answer["metadata"]["run_ids"]


async def test_a_batch_runs_no_more_at_a_time_than_allowed() -> None:
    """The smaller of the server's and the client's limits holds."""
    now = most = 0

    async def count(value: Any) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.01)
        now -= 1
        return most

    await post(RunnableLambda(count), "/x/batch", {"inputs": ["a"] * 8}, max_concurrency=3)
    assert most == 3
    most = 0
    body = {"inputs": ["a"] * 8, "config": {"max_concurrency": 2}}
    await post(RunnableLambda(count), "/x/batch", body, max_concurrency=3)
    assert most == 2


async def test_a_failing_input_fails_its_batch_or_becomes_an_error_object() -> None:
    """Without return_exceptions the batch has the failure's status, with it the failure's place."""

    def answer(value: Any) -> str:
        if value["messages"][0].content == "bad":
            raise UnknownModel("m", ["capibara"])
        return "good"

    body: dict[str, Any] = {"inputs": ["x", "bad", "y"]}
    response = await post(RunnableLambda(answer), "/x/batch", body)
    assert response.status_code == 404
    assert response.json()["code"] == "model_not_found"
    body["kwargs"] = {"return_exceptions": True}
    output = (await post(RunnableLambda(answer), "/x/batch", body)).json()["output"]
    assert output[0] == output[2] == "good"
    assert output[1]["code"] == "model_not_found"


async def test_the_first_failure_of_a_batch_stops_the_others() -> None:
    """Nothing runs on for an answer that nobody gets."""
    cancelled = []

    async def answer(value: Any) -> str:
        if value["messages"][0].content == "bad":
            raise ModelLoading("It is loading.", retry_after_s=7)
        try:
            await anyio.sleep(30)
        except BaseException:
            cancelled.append(1)
            raise
        return ""

    response = await post(RunnableLambda(answer), "/x/batch", {"inputs": ["x", "bad"]})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert cancelled == [1]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", ["body"]),
        (b"{", ["body"]),
        (b"\xff", ["body"]),
        (b"[" * 100_000, ["body"]),
        (b'{"input": NaN}', ["body"]),
        (b'{"input": ' + b"[" * 90 + b"]" * 90 + b"}", ["body"]),
        (b"[]", ["body"]),
        ({}, ["body", "input"]),
        ({"input": 3}, ["body", "input", "messages"]),
        ({"input": [{"role": "wizard", "content": SECRET}]}, ["body", "input", "messages", 0]),
        ({"input": "x", "config": []}, ["body", "config"]),
        ({"input": "x", "config": {"tags": "a"}}, ["body", "config", "tags"]),
        ({"input": "x", "config": {"configurable": {"mode": SECRET}}}, ["body", "config", "configurable", "mode"]),
        ({"input": "x", "kwargs": {"voting": 3}}, ["body", "kwargs", "voting"]),
        ({"input": "x", "kwargs": {"judge": "yes"}}, ["body", "kwargs", "judge"]),
        (
            {"input": {"messages": ["x"], "sampling": {"parallel_tool_calls": 1}}},
            ["body", "input", "sampling", "parallel_tool_calls"],
        ),
        ({"input": "x", "kwargs": []}, ["body", "kwargs"]),
    ],
)
@pytest.mark.parametrize("path", ["invoke", "stream", "stream_log", "stream_events"])
async def test_wrong_requests_are_422_before_anything_runs(path: str, body: Any, place: list[Any]) -> None:
    """LangServe's shape, the place of the fault, none of the caller's text, and no run."""
    echo = Echo()
    response = await post(echo, f"/x/{path}", body)
    assert response.status_code == 422
    answer = response.json()
    assert answer["detail"][0]["loc"] == place
    assert answer["message"]
    assert SECRET not in response.text
    assert echo.inputs == []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"inputs": "x"}, ["body", "inputs"]),
        ({"inputs": ["x", 3]}, ["body", "inputs", 1, "messages"]),
        ({"inputs": ["x"] * 4}, ["body", "inputs"]),
        ({"inputs": ["x"], "config": [{}, {}]}, ["body", "config"]),
        ({"inputs": ["x"], "config": {"max_concurrency": 0}}, ["body", "config", "RunConfig", "max_concurrency"]),
    ],
)
async def test_wrong_batches_are_422(body: Any, place: list[Any]) -> None:
    """One wrong input, too many of them, or configs that do not match."""
    response = await post(Echo(), "/x/batch", body, max_batch=3)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == place


async def test_a_form_or_plain_text_is_415() -> None:
    """Only JSON is taken: a page of another origin cannot post it unasked."""
    app = FastAPI()
    app.include_router(langserve.router(Echo(), prefix="/x"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for headers in ({"content-type": "text/plain"}, {}):
            response = await client.post("/x/invoke", content=b'{"input": "x"}', headers=headers)
            assert response.status_code == 415


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadQuestion("Ask otherwise.", param="messages"), 400, "invalid_request"),
        (UnknownModel("m", ["capibara"]), 404, "model_not_found"),
        (ModelLoading("It is loading.", retry_after_s=2.2), 503, "model_loading"),
        (ValueError(SECRET), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("path", ["invoke", "stream", "stream_log", "stream_events"])
async def test_a_run_that_fails_at_once_is_an_http_error(
    path: str, error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The status of the error table; a foreign exception's text is neither sent nor logged."""

    async def fail(value: Any) -> str:
        raise error

    with caplog.at_level(logging.DEBUG, logger="capibara_agents"):
        response = await post(RunnableLambda(fail), f"/x/{path}", {"input": "x"})
    if path in ("stream_log", "stream_events"):
        # These tell of the run's start before it fails.
        name, data = events_of(response)[-1]
        assert (name, data["status_code"]) == ("error", status)
    else:
        assert response.status_code == status
        assert response.json()["code"] == code
        assert ("retry-after" in response.headers) == (status == 503)
    assert SECRET not in response.text
    assert SECRET not in caplog.text
    assert (status == 500) == ("ValueError" in caplog.text)


async def words(values: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
    async for _ in values:
        pass
    for word in ("uno", " \u2028dos\r\n"):
        yield AIMessageChunk(word)


async def test_a_stream_is_metadata_data_and_end() -> None:
    """The run id comes first, each chunk is an event, and nothing follows the end."""
    response = await post(RunnableGenerator(words), "/x/stream", {"input": "x"})
    events = events_of(response)
    assert [name for name, _ in events] == ["metadata", "data", "data", "end"]
    assert uuid.UUID(events[0][1]["run_id"])
    assert [data["content"] for _, data in events[1:3]] == ["uno", " \u2028dos\r\n"]
    assert response.headers["cache-control"] == "no-store"


async def test_an_error_in_the_middle_is_the_last_event() -> None:
    """What was said stays said; then status and message, and no end."""

    async def break_off(values: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in values:
            yield "uno"
            raise RuntimeError(SECRET)

    response = await post(RunnableGenerator(break_off), "/x/stream", {"input": "x"})
    events = events_of(response)
    assert response.status_code == 200
    assert [name for name, _ in events] == ["metadata", "data", "error"]
    assert events[-1][1] == {"status_code": 500, "message": "Internal Server Error"}
    assert SECRET not in response.text


async def test_silence_is_filled_with_comments() -> None:
    """A stream that waits starts with its metadata and shows that it lives."""

    async def slow(value: Any) -> str:
        await anyio.sleep(0.2)
        return "done"

    response = await post(RunnableLambda(slow), "/x/stream", {"input": "x"}, ping_s=0.02)
    assert response.text.startswith("event: metadata\r\n")
    assert response.text.count(": ping\r\n\r\n") >= 2
    assert events_of(response)[-2:] == [("data", "done"), ("end", None)]


async def test_a_failure_after_a_comment_is_an_event() -> None:
    """Once the head is out, the status can only be told in the stream."""

    async def slow(value: Any) -> str:
        await anyio.sleep(0.5)
        raise ModelLoading("It is loading.")

    events = events_of(await post(RunnableLambda(slow), "/x/stream", {"input": "x"}, ping_s=0.02))
    assert events[-1] == ("error", {"status_code": 503, "message": "It is loading."})


async def test_the_log_ends_with_the_whole_state_unless_diffs_are_asked_for() -> None:
    """Patches in both cases; without diff the last one is the state."""
    for diff, paths in ((True, None), (False, "")):
        events = events_of(await post(RunnableGenerator(words), "/x/stream_log", {"input": "x", "diff": diff}))
        patches = [data["ops"] for name, data in events if name == "data"]
        assert patches[0][0]["path"] == ""
        assert events[-1] == ("end", None)
        if paths == "":
            assert patches[-1][0]["value"]["final_output"]["content"] == "uno \u2028dos\r\n"
        else:
            assert patches[-1][0]["path"] != ""


async def test_events_are_those_of_version_two_and_can_be_filtered() -> None:
    """The run's own events, with the filters of the request."""
    body = {"input": "x", "include_types": ["chain"], "exclude_names": ["words"]}
    everything = events_of(await post(RunnableGenerator(words), "/x/stream_events", {"input": "x"}))
    names = [data["event"] for name, data in everything if name == "data"]
    assert names[0] == "on_chain_start"
    assert "on_chain_stream" in names
    assert names[-1] == "on_chain_end"
    assert "parent_ids" in everything[0][1]
    filtered = events_of(await post(RunnableGenerator(words), "/x/stream_events", body))
    assert [name for name, _ in filtered] == ["end"]


@pytest.mark.parametrize("path", ["invoke", "batch", "stream", "stream_log", "stream_events"])
async def test_a_client_that_goes_away_cancels_the_run(path: str) -> None:
    """However silent the run is, its work ends with its reader."""
    started, cancelled = anyio.Event(), anyio.Event()

    async def work(value: Any) -> str:
        started.set()
        try:
            await anyio.sleep(30)
        except BaseException:
            cancelled.set()
            raise
        return ""

    app = FastAPI()
    app.include_router(langserve.router(RunnableLambda(work), prefix="/x"))
    body = json.dumps({"inputs": ["x"]} if path == "batch" else {"input": "x"}).encode()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await started.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/x/{path}",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
    }
    with anyio.fail_after(10):
        await app(scope, receive, send)
        await cancelled.wait()


async def test_a_body_that_stops_is_no_error() -> None:
    """A client that leaves while it sends leaves nothing behind."""
    app = FastAPI()
    app.include_router(langserve.router(Echo(), prefix="/x"))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x/invoke", "query_string": b"", "root_path": ""}
    await app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)
    assert sent[0]["status"] == langserve.CLIENT_GONE


async def test_schemas_of_a_conversation_and_of_any_runnable() -> None:
    """Capibara's own input and knobs by default, the runnable's where an input function is given."""
    assert (await post(Echo(), "/x/input_schema", None)).json() == conversation_schema(Request)
    knobs = (await post(Echo(), "/x/config_schema", None)).json()["properties"]["configurable"]["properties"]
    assert set(Request.model_fields) <= set(knobs)

    def double(value: int) -> int:
        return 2 * value

    other = RunnableLambda(double)
    options: dict[str, Any] = {"to_input": int, "options": None}
    assert (await post(other, "/x/input_schema", None, **options)).json()["type"] == "integer"
    assert (await post(other, "/x/output_schema", None, **options)).json()["type"] == "integer"
    assert (await post(other, "/x/config_schema", None, **options)).status_code == 200
    assert (await post(other, "/x/invoke", {"input": 4}, **options)).json()["output"] == 8
    wrong = await post(other, "/x/invoke", {"input": SECRET}, **options)
    assert wrong.status_code == 422
    assert SECRET not in wrong.text


async def test_the_playground_needs_nothing_from_elsewhere() -> None:
    """One page, no address in it, and a policy that lets in exactly its own script and style."""
    response = await post(Echo(), "/x/playground/", None)
    page, policy = response.text, response.headers["content-security-policy"]
    assert response.headers["content-type"].startswith("text/html")
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert "navigator.language" in page
    for tag in ("script", "style"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert " style=" not in page
    assert not re.search(r"\son\w+=", page)


def test_openapi_describes_every_route() -> None:
    """Each route under both bases, with its errors and an input schema without dangling references."""
    app = FastAPI()
    app.include_router(langserve.router(Echo()))
    paths = app.openapi()["paths"]
    posts = {"invoke", "batch", "stream", "stream_log", "stream_events"}
    gets = {"input_schema", "output_schema", "config_schema", "playground/"}
    for base in ("/capibara", "/capibara/c/{config_hash}"):
        assert {f"{base}/{path}" for path in posts | gets} <= set(paths)
    operation = paths["/capibara/stream"]["post"]
    assert {"200", "400", "404", "415", "422", "500", "503"} <= set(operation["responses"])
    assert "text/event-stream" in operation["responses"]["200"]["content"]
    media = operation["requestBody"]["content"]["application/json"]
    assert "$ref" not in json.dumps(media)
    assert media["schema"]["required"] == ["input"]
    ids = [operation["operationId"] for item in paths.values() for operation in item.values()]
    assert len(ids) == len(set(ids))
