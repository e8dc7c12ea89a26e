"""The OpenAPI document: every operation says what it does, and its examples are true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from capibara_agents.http.app import build_app
from capibara_agents.http.openapi import told
from tests.asgi import Exchange, post
from tests.fakes import PHI, SPANISH, FakeHouse

THREAD = "5b2f2d3c-0d6e-4b52-9a3a-0c4f4a3f7d10"
VALUES = {"name": PHI, "thread_id": THREAD, "assistant_id": "capibara", "config_hash": "N4XyA", "kind": "responses"}
# The fakes have no machine room that loads, and events never end.
SKIPPED = {"POST /fleet/models/{name}/load", "POST /fleet/models/{name}/unload", "GET /fleet/events"}


def operations(app: Any) -> dict[str, Any]:
    """`METHOD /path` -> its description."""
    paths = app.openapi()["paths"]
    return {f"{method.upper()} {path}": item[method] for path, item in paths.items() for method in item}


def example(operation: Any) -> Any:
    """The body of its example."""
    return operation["requestBody"]["content"]["application/json"]["example"]


def test_every_operation_says_what_it_does(house: FakeHouse) -> None:
    """In a sentence, with an example of what it is sent, and of all errors; nothing is told of what there is not."""
    found = operations(build_app(house))
    assert set(told()) <= set(found)
    for name, operation in found.items():
        assert operation["summary"].endswith("."), name
        assert len(operation["summary"].split()) > 2, name
        if "requestBody" in operation:
            assert example(operation), name
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and "/capibara/" not in name:
                assert response["content"]["application/json"]["example"]["error"]["code"], (name, status)


async def test_examples_are_true(house: FakeHouse) -> None:
    """None that is sent is refused as wrong, though what it names may not be there; answers have the fields shown."""
    app, sent, compared = build_app(house), 0, 0
    house.upstream.otherwise = SPANISH
    await post(app, "/threads", {"thread_id": THREAD}).done()
    for name, operation in operations(app).items():
        shown = told().get(name, {}).get("answer")
        if name in SKIPPED or name.startswith("DELETE") or not ("requestBody" in operation or shown):
            continue
        query = b"query=hola" if name == "GET /api/router/test" else b""
        got = await asked(app, name, example(operation) if "requestBody" in operation else None, query)
        assert got.status is not None
        missing = got.status == 404 and got.json()["error"]["code"] == "not_found"
        assert got.status < 300 or missing, (name, got.body)
        sent += 1
        if shown and not missing:
            compare(name, shown, got.json())
            compared += 1
    assert sent > 50
    assert compared > 25


def compare(name: str, shown: Any, real: Any) -> None:
    """The fields of an example are among the real ones; of the first of a list, where it has any."""
    there = fields(real)
    lists_there = {field.partition(".")[0] for field in there if "." in field}
    wanted = {f for f in fields(shown) if "." not in f or f.partition(".")[0] in lists_there}
    assert wanted <= there, (name, wanted - there)


async def asked(app: Any, name: str, body: Any, query: bytes = b"") -> Exchange:
    """One operation, with values for what its path leaves open."""
    method, _, path = name.partition(" ")
    for key, value in VALUES.items():
        path = path.replace(f"{{{key}}}", value)
    path = path.replace("{update_id}", "1").replace("{", "").replace("}", "")
    raw = b"" if body is None else json.dumps(body).encode()

    async def with_query(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "query_string": query}, receive, send)

    return await Exchange(with_query, method, path, [raw], [("content-type", "application/json")]).done()


def fields(value: Any) -> set[str]:
    """The names of an object's fields; of a list's first object."""
    if isinstance(value, list):
        return fields(value[0]) if value else set()
    if not isinstance(value, dict):
        return set()
    below = {f"{key}.{name}" for key, inner in value.items() if key in ("data", "choices") for name in fields(inner)}
    return set(value) | below


@pytest.mark.parametrize("name", ["POST /v1/chat/completions", "POST /runs/stream", "GET /fleet/events"])
def test_streams_are_described(house: FakeHouse, name: str) -> None:
    """As events, beside the whole answer where there is one."""
    answer = operations(build_app(house))[name]["responses"]["200"]
    assert "text/event-stream" in answer["content"]
