"""GET, POST and DELETE /v1/exemplars over a real store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from capibara_agents.http.app import build_app
from tests.asgi import Exchange, post
from tests.fakes import FakeHouse, classification

MINE = {"content": "Ordena la tabla de ventas por fecha", "domain": "sql"}


def delete(house: FakeHouse, path: str, body: Any = None) -> Exchange:
    sent = [json.dumps(body).encode()] if body is not None else []
    return Exchange(build_app(house), "DELETE", path, sent, [("content-type", "application/json")])


async def added(house: FakeHouse, body: Any) -> Exchange:
    return await post(build_app(house), "/v1/exemplars", body).done()


async def listed(house: FakeHouse, **query: Any) -> Any:
    words = "&".join(f"{name}={value}" for name, value in query.items())
    return (await Query(build_app(house), words).done()).json()


class Query(Exchange):
    """A GET with a query string."""

    def __init__(self, app: Any, words: str) -> None:
        async def with_query(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "query_string": words.encode()}, receive, send)

        super().__init__(with_query, "GET", "/v1/exemplars")


async def test_one_is_added_and_what_it_leaves_open_is_filled_in(house: FakeHouse) -> None:
    """Language and complexity are the classifier's; the id comes from the content, so that twice is once."""
    house.classifier.says = classification(language="es", complexity=0.456)
    first, second = await added(house, MINE), await added(house, MINE)
    assert first.status == second.status == 201
    assert first.json()["added"] == 1
    assert first.json()["ids"] == second.json()["ids"]
    found = await listed(house, origin="user")
    assert found["total"] == 1
    assert found["data"][0] | {"id": ""} == {**MINE, "id": "", "language": "es", "complexity": 0.46, "origin": "user"}


@pytest.mark.parametrize("shape", [list, lambda items: {"exemplars": items}])
async def test_several_are_added_at_once(house: FakeHouse, shape: Any) -> None:
    """As a list, or under `exemplars`."""
    other = {"content": "a haiku about rain", "domain": "creative_writing", "language": "en", "complexity": 0.3}
    got = await added(house, shape([MINE, other]))
    assert (got.status, got.json()["added"]) == (201, 2)
    assert (await listed(house, language="en", domain="creative_writing"))["total"] == 1


async def test_a_list_is_paged_and_narrowed(house: FakeHouse) -> None:
    """limit and offset walk over what matches; total counts all of it."""
    everything = await listed(house, limit=1000)
    assert everything["total"] == len(everything["data"]) == 10
    first, second = await listed(house, limit=6), await listed(house, limit=6, offset=6)
    assert [*first["data"], *second["data"]] == everything["data"]
    assert first["total"] == 10
    assert (await listed(house, domain="math"))["data"] == []
    assert (await listed(house, limit=0))["total"] == 10


async def test_removal_by_ids(house: FakeHouse) -> None:
    """In the body or in the path; unknown ones are a 404."""
    ids = (await added(house, [MINE, {**MINE, "content": "otra"}])).json()["ids"]
    got = await delete(house, "/v1/exemplars", {"ids": [ids[0], "nobody"]}).done()
    assert (got.status, got.json()) == (200, {"removed": 1})
    got = await delete(house, f"/v1/exemplars/{ids[1]}").done()
    assert (got.status, got.json()) == (200, {"removed": 1})
    for got in (
        await delete(house, "/v1/exemplars", {"ids": ids}).done(),
        await delete(house, f"/v1/exemplars/{ids[1]}").done(),
    ):
        assert (got.status, got.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "content"),
        ({"content": "x"}, "domain"),
        ({"content": "", "domain": "sql"}, "content"),
        ({"content": " \n", "domain": "sql"}, "content"),
        ({"content": "x", "domain": "poetry"}, "domain"),
        ({"content": "x", "domain": "sql", "complexity": 2}, "complexity"),
        ({"content": "x", "domain": "sql", "language": "fr"}, "language"),
        ({"content": 7, "domain": "sql"}, "content"),
        ({"content": "\ud800", "domain": "sql"}, "content"),
        ({"content": "x" * 20_001, "domain": "sql"}, "content"),
        ({"exemplars": []}, "exemplars"),
        ([], "exemplars"),
        ([MINE, {"content": "x"}], "exemplars.1.domain"),
        ([MINE] * 1001, "exemplars"),
        ("x", None),
        (7, None),
    ],
)
async def test_wrong_additions_are_a_400_that_names_the_field(house: FakeHouse, body: Any, param: str | None) -> None:
    """And nothing is added, not even the right ones beside it."""
    got = await added(house, body)
    assert (got.status, got.json()["error"]["param"]) == (400, param)
    assert (await listed(house, origin="user"))["total"] == 0


async def test_a_shipped_exemplar_is_not_taken_over(house: FakeHouse) -> None:
    """Given back unchanged it is passed over; another content under its id is a 400."""
    shipped = (await listed(house, limit=1))["data"][0]
    assert (await added(house, shipped)).json()["added"] == 0
    got = await added(house, {**shipped, "content": "otra cosa"})
    assert (got.status, got.json()["error"]["param"]) == (400, "id")


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": -1}, "limit"), ({"limit": 1001}, "limit"), ({"offset": "x"}, "offset"),
     ({"domain": "poetry"}, "domain"), ({"language": "fr"}, "language")],
)  # fmt: skip
async def test_wrong_wishes_are_a_400(house: FakeHouse, query: dict[str, Any], param: str) -> None:
    """The parameter is named."""
    got = await listed(house, **query)
    assert got["error"]["param"] == param


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": [7]}, {"ids": "x"}, None])
async def test_wrong_removals_are_a_400(house: FakeHouse, body: Any) -> None:
    """ids must be a list of strings, and not empty."""
    got = await delete(house, "/v1/exemplars", body).done()
    assert got.status == 400
    assert got.json()["error"]["param"].startswith("ids")
