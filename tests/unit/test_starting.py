"""A service that is up before what answers is there: it lives, is not ready, and lets nobody go away empty-handed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from capibara_agents.assembly import House, create_app
from capibara_agents.errors import StoreError
from capibara_agents.settings import Settings
from tests.asgi import get


class SlowHouse(House):
    """Warm when it is told so."""

    def __init__(self, settings: Settings, failure: Exception | None = None) -> None:
        super().__init__(settings)
        self.go = threading.Event()
        self.failure = failure
        self.closed = False

    def warm(self) -> None:
        self.go.wait(60)
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.closed = True


async def test_it_lives_first_and_is_ready_when_it_can_answer(settings: Settings) -> None:
    """Readiness is refused at once; other questions wait, and are answered."""
    house, told = SlowHouse(settings), list[Any]()
    app = create_app(house=house, begun=told.append)
    async with app.router.lifespan_context(app):
        assert (await get(app, "/health/live").done()).json() == {"status": "alive"}
        for path in ("/docs", "/v1/models"):
            assert (await get(app, path).done()).status == 200
        ready = await get(app, "/health/ready").done()
        assert (ready.status, ready.json()["error"]["code"]) == (503, "starting")
        assert int(ready.headers["retry-after"]) >= 1
        templates = get(app, "/api/consensus/templates")
        await asyncio.sleep(0)
        assert templates.status is None
        assert not told
        house.go.set()
        assert (await templates.done()).status == 200
        assert told == [None]
    assert house.closed


async def test_what_keeps_it_from_starting_is_told_and_nobody_waits_on(settings: Settings) -> None:
    """Those who waited are refused, and who started it has the error."""
    failure = StoreError("No exemplar store can be made.")
    house, told = SlowHouse(settings, failure), list[Any]()
    app = create_app(house=house, begun=told.append)
    async with app.router.lifespan_context(app):
        templates = get(app, "/api/consensus/templates")
        await asyncio.sleep(0)
        house.go.set()
        assert (await templates.done()).status == 503
        assert templates.json()["error"]["code"] == "closing"
    assert told == [failure]
    assert house.closed


async def test_a_wrong_key_is_refused_before_anything_is_waited_for(settings: Settings) -> None:
    """As it is afterwards."""
    server = settings.server.model_copy(update={"api_keys": ("llave",)})
    house = SlowHouse(settings.model_copy(update={"server": server}))
    app = create_app(house=house, begun=lambda _: None)
    async with app.router.lifespan_context(app):
        assert (await get(app, "/api/consensus/templates").done()).status == 401
        house.go.set()


@pytest.mark.parametrize("failure", [None, StoreError("No.")])
async def test_without_being_told_it_is_warm_before_it_is_up(settings: Settings, failure: Exception | None) -> None:
    """As any other server of ASGI has it."""
    house = SlowHouse(settings, failure)
    house.go.set()
    app = create_app(house=house)
    if failure is None:
        async with app.router.lifespan_context(app):
            assert (await get(app, "/api/consensus/templates").done()).status == 200
    else:
        with pytest.raises(StoreError):
            async with app.router.lifespan_context(app):
                pass
    assert house.closed
