"""One connection: uvicorn's own, closed when a request's head is too large or late, and cut off when nobody reads."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_ANSWER = b"HTTP/1.1 %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def guarded(*, max_header_bytes: int, header_timeout_s: float, read_timeout_s: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with limits on the head of a request, which its parser has none for, and on its reader.

    A reader who takes nothing of what waits for him for `read_timeout_s` loses the connection, whatever face he asked:
    what answers him learns that he is gone, and his socket and his buffer are free.
    """

    class Guarded(HttpToolsProtocol):
        _head_bytes = 0
        _in_head = True
        _alarm: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            self._is_read()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait_for_reader()

        def resume_writing(self) -> None:
            self._is_read()
            super().resume_writing()

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

        def _wait_for_reader(self) -> None:
            waiting = self.transport.get_write_buffer_size()
            self._unread = self.loop.call_later(read_timeout_s, self._look_at_reader, waiting)

        def _look_at_reader(self, before: int) -> None:
            """Cut him off who has taken nothing; one who reads slowly goes on."""
            if self.transport.get_write_buffer_size() < before:
                self._wait_for_reader()
            else:
                self.transport.abort()

        def _is_read(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

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
