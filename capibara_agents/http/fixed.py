"""Bodies that stay the same while the service runs: made, packed and tagged once, and sent in pieces.

Whoever asks for one again costs neither JSON nor gzip, and a large one never fills a connection's buffer at a stroke:
they are open to callers without a key, whom no limit counts.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Body:
    """Bytes as they are and as gzip, and a tag that changes with them."""

    plain: bytes
    packed: bytes
    tag: str

    @classmethod
    def of(cls, plain: bytes, packed: bytes | None = None) -> Body:
        """`packed`: where they are kept as gzip already."""
        tag = hashlib.sha256(plain).hexdigest()[:32]
        return cls(plain, gzip.compress(plain, mtime=0) if packed is None else packed, tag)


class Fixed:
    """A body that is made when it is first asked for, beside the event loop, and then kept."""

    def __init__(self, make: Callable[[], Body], media_type: str, cache_control: str) -> None:
        self._make = make
        self._media_type = media_type
        self._cache_control = cache_control
        self._making = threading.Lock()
        self._body: Body | None = None

    async def answer(self, asked: Headers) -> Response:
        """200 with the body, packed for those who take it so, or 304 for those who have it."""
        body = self._body
        if body is None:
            body = await asyncio.to_thread(self._made)
        packed = takes_gzip(asked.get("accept-encoding", ""))
        # A tag is of the bytes that are sent: those of gzip are others.
        tag = f'"{body.tag}-gzip"' if packed else f'"{body.tag}"'
        headers = {"etag": tag, "vary": "accept-encoding", "cache-control": self._cache_control}
        if _has(asked.get("if-none-match", ""), body.tag):
            return Response(status_code=304, headers=headers)
        if packed:
            headers["content-encoding"] = "gzip"
        return _Pieces(body.packed if packed else body.plain, headers=headers, media_type=self._media_type)

    def _made(self) -> Body:
        with self._making:
            if self._body is None:
                self._body = self._make()
            return self._body


class _Pieces(Response):
    """A response whose body waits for its reader, and lets others run between two pieces."""

    def __init__(self, body: bytes, *, headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(body, headers=headers, media_type=media_type)
        self._whole = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self._whole), PIECE_BYTES):
            piece = self._whole[start : start + PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not to refuse it (RFC 9110, 12.5.3)."""
    for part in accepted.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        if name in ("gzip", "x-gzip"):
            return not any(word.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for word in parameters)
    return False


def _has(known: str, tag: str) -> bool:
    """Whether an If-None-Match names the body, in either of its forms; weakly, as it is compared (RFC 9110, 13.1.2)."""
    names = [name.strip().removeprefix("W/").strip('"') for name in known.split(",")]
    return "*" in names or tag in names or f"{tag}-gzip" in names
