"""Connections whose other side sends garbage, stops, or does not read: told where it can be, and cut."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from capibara_agents.http.connection import guarded
from tests.upstream import serving

LIMITED = guarded(max_header_bytes=4096, header_timeout_s=0.5, body_timeout_s=0.5, read_timeout_s=0.5)
LIMIT_S = 60
ended = threading.Semaphore(0)


class Watched(LIMITED):  # type: ignore[misc,valid-type]
    """Says when a connection is over."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        ended.release()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads no body; says as many letters as the path's length in thousands."""
    body = b"x" * 1000 * len(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def door() -> Iterator[tuple[str, int]]:
    while ended.acquire(blocking=False):
        pass
    with serving(app, send_buffer_bytes=4096, http=Watched) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def told(connection: socket.socket) -> tuple[bytes, dict[str, str], dict[str, Any]]:
    """Status line, headers and error of an answer, after which the connection ends."""
    connection.settimeout(LIMIT_S)
    got = b""
    while piece := connection.recv(65536):
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.decode().split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    return status, headers, json.loads(body)["error"]


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"HOLA\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET a b c\r\n\r\n"],
)
def test_what_is_no_http_is_refused_as_everything_else(door: tuple[str, int], garbage: bytes) -> None:
    """OpenAI's shape and a request id, without a word of what was sent."""
    with socket.create_connection(door) as connection:
        connection.sendall(garbage)
        status, headers, error = told(connection)
    assert status == b"HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_request", None)


def test_a_head_too_large_or_late_is_told_in_the_same_shape(door: tuple[str, int]) -> None:
    """431 and 408."""
    with socket.create_connection(door) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nx: " + b"y" * 4090)
        status, _, error = told(connection)
    assert (status, error["code"]) == (b"HTTP/1.1 431 Request Header Fields Too Large", "headers_too_large")
    with socket.create_connection(door) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\n")
        status, _, error = told(connection)
    assert (status, error["code"]) == (b"HTTP/1.1 408 Request Timeout", "request_timeout")


def test_a_body_that_goes_wrong_after_its_answer_is_not_answered_again(door: tuple[str, int]) -> None:
    """Its sender would take that for the answer to what he asks next."""
    with socket.create_connection(door) as connection:
        connection.settimeout(LIMIT_S)
        connection.sendall(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        got = connection.recv(65536)
        while not got.endswith(b"x" * 2000):
            got += connection.recv(65536)
        connection.sendall(b"no length\r\n")
        assert connection.recv(65536) == b""
    assert got.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("more", [b"{", b""])
def test_a_body_that_stops_holds_no_connection(door: tuple[str, int], more: bytes) -> None:
    """Small, not asked for by what answers, which has answered long ago; with and without a last piece."""
    with socket.create_connection(door) as connection:
        connection.settimeout(LIMIT_S)
        connection.sendall(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
        connection.sendall(more)
        got = b""
        while piece := connection.recv(65536):
            got += piece
        assert ended.acquire(timeout=LIMIT_S)
    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(b"\r\n\r\n" + b"x" * 2000), "one answer to one request"


@pytest.mark.parametrize("rest", [b"\r\n", b"{}"])
def test_a_request_that_does_not_follow_holds_no_connection(door: tuple[str, int], rest: bytes) -> None:
    """After an empty line, and after the end of a body that came later than its answer."""
    with socket.create_connection(door) as connection:
        connection.settimeout(LIMIT_S)
        length = 2 if rest == b"{}" else 0
        connection.sendall(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % length)
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
        connection.sendall(rest)
        assert ended.acquire(timeout=LIMIT_S)


def test_a_small_answer_that_nobody_reads_is_cut(door: tuple[str, int]) -> None:
    """40 kB, which uvicorn would have waited with until its reader comes back."""
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(door)
        lazy.sendall(b"GET /%s HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 39))
        assert ended.acquire(timeout=LIMIT_S)


def test_several_requests_in_good_order_are_answered(door: tuple[str, int]) -> None:
    """One connection, whole bodies, and one request behind the other."""
    one = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
    with socket.create_connection(door) as connection:
        connection.settimeout(LIMIT_S)
        connection.sendall(one * 3)
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 3 or not got.endswith(b"x" * 2000):
            piece = connection.recv(65536)
            assert piece
            got += piece
