"""One connection: uvicorn's own, closed when a request is malformed, large or late, and cut off when nobody reads."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from capibara_agents.errors import BadQuestion
from capibara_agents.http.errors import body_of, status_of

_ANSWER = (
    b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: req_%s\r\n"
    b"x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n\r\n%s"
)
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}
# So much longer than the application itself waits for a body, which has more to say about it.
_LEEWAY_S = 2.0


def guarded(
    *, max_header_bytes: int, header_timeout_s: float, body_timeout_s: float, read_timeout_s: float
) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with limits on the head of a request, which its parser has none for, its body and its reader.

    What the application never sees is refused in the shape of its own errors. A body that nobody reads has to arrive
    too. A reader who takes nothing of what waits for him for `read_timeout_s` loses the connection, whatever face he
    asked: what answers him learns that he is gone, and his socket and his buffer are free.
    """

    class Guarded(HttpToolsProtocol):
        _head_bytes = 0
        _in_head = True
        _alarm: asyncio.TimerHandle | None = None
        _body_alarm: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # Whatever waits for its reader is watched, not from 64 KiB on: closing would wait for him for ever.
            transport.set_write_buffer_limits(high=0)
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            self._is_whole()
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
                self._refuse(f"The headers are larger than {max_header_bytes} bytes.", "headers_too_large")
            # The rest of a request that is answered, or an empty line, has ended uvicorn's wait for the next one.
            elif self._in_head and self._alarm is None and self._is_idle():
                self._wait_for_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head = True
            if self._alarm is None:
                self._wait_for_head()

        def on_headers_complete(self) -> None:
            self._rest()
            self._wait_for_body()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._is_whole()
            super().on_message_complete()
            self._head_bytes = 0
            self._in_head = True

        def send_400_response(self, msg: str) -> None:
            self._refuse("The request is not valid HTTP/1.1.", "invalid_request")

        def _wait_for_head(self) -> None:
            self._alarm = self.loop.call_later(header_timeout_s, self._look_at_head)

        def _look_at_head(self) -> None:
            """Cut him off who does not send it; nobody is told who has not begun another request."""
            if self.cycle is not None and not self._head_bytes:
                self.transport.close()
            else:
                self._refuse(f"The headers did not arrive within {header_timeout_s:g} s.", "request_timeout")

        def _wait_for_body(self) -> None:
            self._is_whole()
            self._body_alarm = self.loop.call_later(body_timeout_s + _LEEWAY_S, self._look_at_body)

        def _look_at_body(self) -> None:
            """Cut him off who does not send it; one who is not listened to for now may wait."""
            if self.flow.read_paused:
                self._wait_for_body()
            else:
                # Who is answered would take more for the answer to what he asks next; another is not answered here.
                self.transport.close()

        def _wait_for_reader(self) -> None:
            waiting = self.transport.get_write_buffer_size()
            self._unread = self.loop.call_later(read_timeout_s, self._look_at_reader, waiting)

        def _look_at_reader(self, before: int) -> None:
            """Cut him off who has taken nothing; one who reads slowly goes on."""
            if self.transport.get_write_buffer_size() < before:
                self._wait_for_reader()
            else:
                self.transport.abort()

        def _is_idle(self) -> bool:
            return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

        def _is_read(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _is_whole(self) -> None:
            if self._body_alarm is not None:
                self._body_alarm.cancel()
                self._body_alarm = None

        def _rest(self) -> None:
            self._in_head = False
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

        def _refuse(self, message: str, code: str) -> None:
            in_head = self._in_head
            self._rest()
            self._is_whole()
            transport: Any = self.transport
            if transport.is_closing():
                return
            # In the middle of an answer, or before one that waits its turn, there is no room for another; nor for a
            # second one, to a request whose body goes wrong after its answer.
            if in_head and self._is_idle():
                transport.write(_refusal(message, code))
            transport.close()

    return Guarded


def _refusal(message: str, code: str) -> bytes:
    error = BadQuestion(message, code=code)
    body, status = json.dumps(body_of(error)).encode(), status_of(error)
    return _ANSWER % (status, _REASONS[status], len(body), uuid.uuid4().hex.encode(), body)
