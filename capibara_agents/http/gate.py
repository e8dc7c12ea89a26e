"""The front door, before any face: request ids, API keys, sizes, times and numbers, as one plain ASGI layer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import time
import uuid
from contextlib import AbstractContextManager, nullcontext
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http.errors import internal, respond
from capibara_agents.http.traffic import Traffic, starting
from capibara_agents.journal import REQUEST_ID
from capibara_agents.settings import HASHED, ServerSettings

# Pages without data, and what they are made of: what they call asks for the key.
OPEN_PATHS = frozenset({"/health/live", "/capibara/playground/", "/docs", "/openapi.json", "/graph"})
# What can be told before what answers is there; the terminal finds a service that starts by its models.
NEEDS_NOTHING = (OPEN_PATHS - {"/graph"}) | {"/v1/models"}
OPEN_FOLDER = "/assets/"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# What browsers are told about every answer; an answer of data is no page at all.
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
NO_PAGE = "default-src 'none'; frame-ancestors 'none'"


class _TooLarge(HTTPException):
    """Raised through the application while it reads the body. FastAPI lets this kind pass, and calls others a 400."""

    def __init__(self, message: str) -> None:
        super().__init__(413, message)


class _TooSlow(HTTPException):
    """As `_TooLarge`, for a body that does not arrive."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(408, f"The body did not arrive within {limit_s:g} s.")


class Gate:
    """Tags every answer with an x-request-id and what browsers must know.

    Refuses a wrong key (401), another site's page (403), headers (431) and bodies (413) over their limits, a body
    that does not arrive (408), and what is too much (429, 503).
    """

    def __init__(self, app: ASGIApp, *, limits: ServerSettings, traffic: Traffic | None = None) -> None:
        self._app = app
        self._limits = limits
        self._traffic = traffic or Traffic(limits)
        self._key_hashes = [_known(key) for key in limits.api_keys]

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
                _tag(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            with self._admission(scope, headers):
                await self._begun(scope["path"])
                await self._app(scope, self._counted(receive), tagged)
        except CapibaraError as refusal:
            await respond(refusal)(scope, receive, tagged)
        except Exception as error:  # noqa: BLE001  (nothing stands further out but servers that log whole errors)
            answer = internal(error)
            if not started:
                await respond(answer)(scope, receive, tagged)

    def _admission(self, scope: Scope, headers: Headers) -> AbstractContextManager[None]:
        """Room for the request while it lasts; raises what refuses it."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.max_header_bytes:
            message = f"The headers are larger than {self._limits.max_header_bytes} bytes."
            raise BadQuestion(message, code="headers_too_large")
        given = _digest(_key(headers))
        if self._key_hashes and not _is_open(scope) and not self._knows(given):
            raise BadQuestion("No valid API key. Send it as `Authorization: Bearer KEY`.", code="invalid_api_key")
        if not self._key_hashes and _is_foreign(scope, headers, self._limits):
            message = "A page of another site may not ask here; server.cors_origins names those that may."
            raise BadQuestion(message, code="origin_not_allowed")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.max_body_bytes:
            raise BadQuestion(self._size_told(), code="request_too_large")
        if scope["method"] in SAFE_METHODS:
            return nullcontext()
        return self._traffic.admitted(given if self._key_hashes else b"")

    async def _begun(self, path: str) -> None:
        """Wait until there is what answers. Refused: to who asks whether there is, and when there will be none."""
        if self._traffic.begun.is_set() or path in NEEDS_NOTHING or path.startswith(OPEN_FOLDER):
            return
        if path == "/health/ready":
            raise starting("The service is starting; requests wait until it can answer them.")
        await self._traffic.until_begun()

    def _knows(self, given: bytes) -> bool:
        # All are compared, so that the time taken says nothing about which one matched.
        return sum(hmac.compare_digest(given, known) for known in self._key_hashes) > 0

    def _size_told(self) -> str:
        return f"The body is larger than {self._limits.max_body_bytes} bytes."

    def _counted(self, receive: Receive) -> Receive:
        """The body, within its size and its time."""
        seen, whole = 0, False
        ends_s = time.monotonic() + self._limits.body_timeout_s

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout(max(ends_s - time.monotonic(), 0)):
                    message = await receive()
            except TimeoutError:
                raise _TooSlow(self._limits.body_timeout_s) from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self._limits.max_body_bytes:
                raise _TooLarge(self._size_told())
            return message

        return counted


def _is_open(scope: Scope) -> bool:
    """Whether it is only looked at, and says nothing of anybody's questions, models or settings."""
    path = scope["path"]
    return scope["method"] in SAFE_METHODS and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER))


def _tag(headers: MutableHeaders, request_id: str) -> None:
    headers["x-request-id"] = request_id
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if not headers.get("content-type", "").startswith("text/html"):
        headers.setdefault("content-security-policy", NO_PAGE)
        headers.setdefault("cache-control", "no-store")


def _is_foreign(scope: Scope, headers: Headers, limits: ServerSettings) -> bool:
    """Whether a browser asks for a page that is not ours, where no key tells such pages from their owner.

    A page elsewhere can send a browser here without being able to read the answer; one whose name was made to point
    here could read it, too, but has a host name of its own.
    """
    origin = headers.get("origin")
    if origin is None and "sec-fetch-site" not in headers:
        return False
    if origin in limits.cors_origins:
        return False
    host = headers.get("host", "")
    if not _is_address(host):
        return True
    same = origin is None or urlsplit(origin).netloc == host
    return not same and scope["method"] not in SAFE_METHODS


def _is_address(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def _key(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _known(key: str) -> bytes:
    """The hash of a configured key, which may stand there as its hash already."""
    return bytes.fromhex(key.removeprefix(HASHED)) if key.startswith(HASHED) else _digest(key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
