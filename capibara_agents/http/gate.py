"""The front door, before any face: request ids, API keys, body size, as one plain ASGI layer."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http.errors import internal, respond
from capibara_agents.journal import REQUEST_ID

# The playground is a page without data; what it calls asks for the key.
OPEN_PATHS = frozenset({"/health/live", "/capibara/playground/"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class _TooLarge(HTTPException):
    """Raised through the application while it reads the body. FastAPI lets this kind pass, and calls others a 400."""

    def __init__(self, message: str) -> None:
        super().__init__(413, message)


class Gate:
    """Gives every answer an x-request-id; refuses a wrong key (401) and a body over the limit (413)."""

    def __init__(self, app: ASGIApp, *, api_keys: Iterable[str], max_body_bytes: int) -> None:
        self._app = app
        self._key_hashes = [_digest(key) for key in api_keys]
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST_ID.set(request_id)
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await respond(refusal)(scope, receive, tagged)
            return
        try:
            await self._app(scope, self._counted(receive), tagged)
        except Exception as error:  # noqa: BLE001  (nothing stands further out but servers that log whole errors)
            answer = internal(error)
            if not started:
                await respond(answer)(scope, receive, tagged)

    def _refusal(self, scope: Scope, headers: Headers) -> CapibaraError | None:
        if self._key_hashes and scope["path"] not in OPEN_PATHS and not self._knows(headers):
            return BadQuestion("No valid API key. Send it as `Authorization: Bearer KEY`.", code="invalid_api_key")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            return self._too_large()
        return None

    def _knows(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _digest(key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        # All are compared, so that the time taken says nothing about which one matched.
        return sum(hmac.compare_digest(given, known) for known in self._key_hashes) > 0

    def _too_large(self) -> BadQuestion:
        return BadQuestion(f"The body is larger than {self._max_body_bytes} bytes.", code="request_too_large")

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body_bytes:
                raise _TooLarge(self._too_large().message)
            return message

        return counted


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
