"""One connection: uvicorn's own, that is closed when a request's head is too large or does not arrive."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_ANSWER = b"HTTP/1.1 %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def guarded(*, max_header_bytes: int, header_timeout_s: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with limits on the head of a request, which its parser has none for."""

    class Guarded(HttpToolsProtocol):
        _head_bytes = 0
        _in_head = True
        _alarm: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                self._head_bytes += len(data)
            super().data_received(data)
            # What came with the end of the head may be body: only a head that is still open is too large.
            if self._in_head and self._head_bytes > max_header_bytes:
                self._refuse(431, b"Request Header Fields Too Large")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head = True
            if self._alarm is None:
                self._wait_for_head()

        def on_headers_complete(self) -> None:
            self._rest()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._head_bytes = 0
            self._in_head = True

        def _wait_for_head(self) -> None:
            self._alarm = self.loop.call_later(header_timeout_s, self._refuse, 408, b"Request Timeout")

        def _rest(self) -> None:
            self._in_head = False
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

        def _refuse(self, status: int, reason: bytes) -> None:
            self._rest()
            transport: Any = self.transport
            if not transport.is_closing():
                transport.write(_ANSWER % (status, reason))
                transport.close()

    return Guarded
