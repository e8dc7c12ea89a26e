"""OpenAI's face over a scripted house, as its tests ask it."""

from __future__ import annotations

from typing import Any

from capibara_agents.http.app import build_app
from tests.asgi import Exchange, post
from tests.fakes import SPANISH, FakeHouse

CHAT = "/v1/chat/completions"
TEXT = "".join(SPANISH.pieces)
SECRET = "swordfish"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def body(**rest: Any) -> dict[str, Any]:
    return {"model": "capibara", "messages": [{"role": "user", "content": "¿Capital de España?"}], **rest}


def app_of(house: FakeHouse) -> Any:
    return build_app(house)


async def chat(house: FakeHouse, headers: dict[str, str] | None = None, **rest: Any) -> Exchange:
    return await post(app_of(house), CHAT, body(**rest), **(headers or {})).done()


def with_server(house: FakeHouse, **values: Any) -> None:
    server = house.settings.server.model_copy(update=values)
    house.settings = house.settings.model_copy(update={"server": server})
