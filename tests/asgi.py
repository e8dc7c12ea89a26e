"""An HTTP client without a network that sees chunks as they are sent and can hang up at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]


class Exchange:
    """One request to an ASGI application, running in a task of its own."""

    def __init__(
        self, app: App, method: str, path: str, body: Sequence[bytes] = (), headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.finished = False
        self._parts = list(body) or [b""]
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._parts:
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.finished = not message.get("more_body", False)
        self._changed.set()

    async def until(self, condition: Callable[[Exchange], bool]) -> None:
        """Wait for what the application sends; fails after a minute."""
        async with asyncio.timeout(60):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    def hang_up(self) -> None:
        """The client goes away."""
        self._gone.set()

    async def done(self) -> Exchange:
        """Wait for the end of the application's work on it."""
        await asyncio.wait_for(asyncio.shield(self.task), 120)
        return self

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[str, str]]:
        """(event name, data) of every server-sent event; comments are left out."""
        found = []
        for block in self.body.decode().replace("\r\n", "\n").split("\n\n"):
            fields = [line.partition(": ") for line in block.split("\n") if line and not line.startswith(":")]
            values = {name: value for name, _, value in fields}
            if "data" in values:
                found.append((values.get("event", "message"), values["data"]))
        return found

    def chunks(self) -> list[Any]:
        """The JSON of all events but [DONE]."""
        return [json.loads(data) for _, data in self.events() if data != "[DONE]"]


def post(app: App, path: str, body: Any, **headers: str) -> Exchange:
    """A POST of JSON."""
    given = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Exchange(app, "POST", path, [json.dumps(body).encode()], [("content-type", "application/json"), *given])


def get(app: App, path: str, **headers: str) -> Exchange:
    """A GET."""
    return Exchange(app, "GET", path, (), [(name.replace("_", "-"), value) for name, value in headers.items()])
