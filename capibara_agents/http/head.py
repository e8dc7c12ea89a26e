"""HEAD: what GET would say, without what it would show."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EVENTS = "text/event-stream"


class Head:
    """Answers HEAD wherever GET is answered. A stream of events, which has no end, ends at its head."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        ended = False

        async def without_body(message: Message) -> None:
            nonlocal ended
            if ended:
                return
            if message["type"] == "http.response.start":
                await send(message)
                ended = Headers(raw=message["headers"]).get("content-type", "").startswith(EVENTS)
            else:
                ended = not message.get("more_body", False)
            if ended:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def nothing_more() -> Message:
            return {"type": "http.disconnect"} if ended else await receive()

        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, nothing_more, without_body)
        finally:
            # What was found for it, by which it is counted.
            scope.update({**asked, "method": "HEAD"})
