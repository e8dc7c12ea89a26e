"""Clients that vanish, stall and send garbage, for minutes: does Capibara keep its memory, its slots and its count?

    .venv/bin/python benchmarks/soak_clients.py [--minutes 10] [--clients 32] [--warm-s 60] [--json]

Starts `capibara serve --fleet tiny` with a data folder of its own and lets clients behave by turns in every way of
KINDS, each over a connection of its own. After the warm-up and at the end it stops them, waits until nothing is under
way, and then looks at the process: resident memory, open files, threads. Every request whose head arrived must be in
`/metrics`, by number; no model may have a request left; each model must still answer. Exit status 1 when one of these
does not hold, or when a status came that no client may see.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

KEY = "the-key-of-the-soak"
START_LIMIT_S, REST_LIMIT_S, ANSWER_LIMIT_S = 300.0, 120.0, 300.0
STALL_S = 4.0
HEADER_BOMB_BYTES = 200_000
MAX_GROWTH = 0.05
# What a client may see: answers, refusals of what is wrong, and what is too much for a small machine.
FINE = frozenset({200, 400, 401, 404, 405, 408, 413, 429, 431, 503, 504})
# Left out of the count: how the count itself is asked for.
ASKED_BY_US = ("/metrics", "/fleet")


@dataclass
class Seen:
    """What the clients saw. `counted`: requests whose head the service has read for certain, `unsure`: perhaps."""

    statuses: Counter[str] = field(default_factory=Counter)
    counted: int = 0
    unsure: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """A running service."""

    host: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class Connection:
    """One connection, by hand: client libraries behave too well."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen, kind: str) -> None:
        self._reader, self._writer, self._seen, self._kind = reader, writer, seen, kind

    async def send(self, data: bytes) -> None:
        """Bytes, as they are; that the other side has closed is found out when reading."""
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def first(self) -> bytes:
        """The first piece of an answer; empty when there is none."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(ANSWER_LIMIT_S):
                return await self._reader.read(4096)
        return b""

    async def answer(self) -> None:
        """The whole answer, noted."""
        got = piece = await self.first()
        with contextlib.suppress(ConnectionError):
            while piece:
                piece = await self._reader.read(65536)
                got += piece
        self.note(got)

    def note(self, got: bytes) -> None:
        """Count an answer, or that there was none. One without a request id was refused before it was a request."""
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", got)
        status = int(found[1]) if found else 0
        self._seen.statuses[f"{self._kind} {status or 'none'}"] += 1
        self._seen.counted += b"\r\nx-request-id:" in got.lower()
        if found and status not in FINE:
            self._seen.wrong.append(f"{self._kind}: {got[:300]!r}")
        if not found and self._kind not in QUIET:
            self._seen.wrong.append(f"{self._kind}: no answer")


def head(method: str, path: str, *, length: int = 0, key: str = KEY, extra: str = "") -> bytes:
    """The head of a request."""
    return (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n{extra}\r\n"
    ).encode()


def question(*, stream: bool = False, max_tokens: int = 8, **more: Any) -> bytes:
    """A whole request for an answer."""
    messages = [{"role": "user", "content": f"Cuenta hasta {random.randint(3, 99)}."}]
    body = json.dumps(
        {"model": "capibara-fast", "messages": messages, "max_tokens": max_tokens, "stream": stream, **more}
    ).encode()
    return head("POST", "/v1/chat/completions", length=len(body)) + body


# ---------------------------------------------------------------- how clients behave


async def behaves(connection: Connection, seen: Seen) -> None:
    """Asks and reads."""
    await connection.send(question(stream=random.random() < 0.5))
    await connection.answer()


async def vanishes(connection: Connection, seen: Seen) -> None:
    """Leaves after the first piece of a stream."""
    await connection.send(question(stream=True, max_tokens=200))
    connection.note(await connection.first())


async def vanishes_at_once(connection: Connection, seen: Seen) -> None:
    """Leaves before there is any answer."""
    await connection.send(question(max_tokens=200, stream=random.random() < 0.5))
    seen.unsure += 1
    await asyncio.sleep(random.random() * 0.5)


async def stalls(connection: Connection, seen: Seen) -> None:
    """Asks for a long stream, reads nothing of it for a while, and leaves."""
    await connection.send(question(stream=True, max_tokens=400))
    seen.unsure += 1
    await asyncio.sleep(STALL_S)


async def sends_half_a_body(connection: Connection, seen: Seen) -> None:
    """Promises more than it sends, and leaves."""
    await connection.send(head("POST", "/v1/chat/completions", length=500) + b'{"model": "capi')
    seen.unsure += 1
    await asyncio.sleep(0.2)


async def sends_half_a_json(connection: Connection, seen: Seen) -> None:
    """A body that is whole and no JSON."""
    body = question()[-40:]
    await connection.send(head("POST", random.choice(("/v1/responses", "/runs/wait", "/api/chat")), length=40) + body)
    await connection.answer()


async def sends_garbage(connection: Connection, seen: Seen) -> None:
    """No HTTP at all."""
    await connection.send(random.randbytes(2000))
    await connection.answer()


async def sends_a_header_bomb(connection: Connection, seen: Seen) -> None:
    """Headers over every limit."""
    await connection.send(head("GET", "/v1/models", extra=f"x-bomb: {'x' * HEADER_BOMB_BYTES}\r\n"))
    await connection.answer()


async def asks_for_nothing(connection: Connection, seen: Seen) -> None:
    """Unknown paths, wrong methods, wrong keys, empty conversations."""
    await connection.send(
        random.choice(
            (
                head("GET", "/nothing"),
                head("PUT", "/v1/chat/completions"),
                head("GET", "/v1/models", key=KEY.upper()),
                question(messages=[]),
                question(model="gpt-4"),
            )
        )
    )
    await connection.answer()


Kind = Callable[[Connection, Seen], Awaitable[None]]
KINDS: tuple[Kind, ...] = (
    behaves,
    vanishes,
    vanishes_at_once,
    stalls,
    sends_half_a_body,
    sends_half_a_json,
    sends_garbage,
    sends_a_header_bomb,
    asks_for_nothing,
)
# No answer need be seen by: whoever leaves, and whoever still sends when the connection is closed.
QUIET = frozenset({"vanishes", "sends_garbage", "sends_a_header_bomb"})


async def one(target: Target, kind: Kind, seen: Seen) -> None:
    """One client, once."""
    try:
        reader, writer = await asyncio.open_connection(target.host, target.port)
    except OSError as error:
        seen.wrong.append(f"no connection: {type(error).__name__}")
        await asyncio.sleep(0.5)
        return
    # Small buffers, so that a stream that nobody reads is felt at the other end.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    try:
        await kind(Connection(reader, writer, seen, kind.__name__), seen)
    finally:
        if random.random() < 0.5:
            # A reset instead of a farewell.
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def clients(target: Target, seconds: float, count: int, seen: Seen) -> None:
    """So many at a time, each in every way by turns."""
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            await one(target, KINDS[turn % len(KINDS)], seen)
            turn += 1

    await asyncio.gather(*(client(number) for number in range(count)))


# ---------------------------------------------------------------- what is looked at


@dataclass(frozen=True)
class Look:
    """The process at rest."""

    rss_bytes: int
    files: int
    threads: int
    requests: int


class Watch:
    """Asks the service about itself, over one connection that stays."""

    def __init__(self, target: Target) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        self._client = httpx.Client(base_url=target.url, headers=headers, timeout=ANSWER_LIMIT_S, trust_env=False)
        self._process = psutil.Process(target.pid)

    def busy(self) -> dict[str, int]:
        """Requests that models still work on or have waiting, by model."""
        text = self._client.get("/metrics").text
        found: Counter[str] = Counter()
        for name, labels, value in re.findall(
            r"^capibara_model_(queued_requests|active_requests)\{(.*)\} (\S+)$", text, re.M
        ):
            found[f"{labels} {name}"] += int(float(value))
        return {name: count for name, count in found.items() if count}

    def at_rest(self) -> Look:
        """Waits until no model has anything to do and no connection is left, then looks."""
        end = time.monotonic() + REST_LIMIT_S
        while (self.busy() or self._connections() > 1) and time.monotonic() < end:
            time.sleep(0.5)
        time.sleep(1.0)
        with self._process.oneshot():
            return Look(
                self._process.memory_info().rss, self._process.num_fds(), self._process.num_threads(), self.requests()
            )

    def _connections(self) -> int:
        """Clients that the process still has open; Watch itself is one."""
        own = {c.laddr.port for c in self._process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        open_ = [c for c in self._process.net_connections("tcp") if c.laddr.port in own and c.raddr]
        return len(open_)

    def requests(self) -> int:
        """All that were counted, but for those of this class."""
        text = self._client.get("/metrics").text
        lines = re.findall(r"^http_server_request_duration_seconds_count\{(.*)\} (\S+)$", text, re.M)
        return sum(
            int(float(value)) for labels, value in lines if not any(f'"{path}"' in labels for path in ASKED_BY_US)
        )

    def answers(self) -> dict[str, int]:
        """The status of one short question to each model that is loaded."""
        loaded = [m["id"] for m in self._client.get("/fleet").json()["models"] if m["state"] == "ready"]
        body = {"messages": [{"role": "user", "content": "hola"}], "max_tokens": 2}
        return {model: self._answer({**body, "model": model}) for model in loaded}

    def _answer(self, body: dict[str, Any]) -> int:
        """The status, once it is no "not yet" any more: a model may have been put aside meanwhile."""
        end = time.monotonic() + REST_LIMIT_S
        while True:
            status = self._client.post("/v1/chat/completions", json=body).status_code
            if status not in (503, 504) or time.monotonic() > end:
                return status
            time.sleep(1)


def soak(target: Target, *, seconds: float, warm_s: float, count: int) -> dict[str, Any]:
    """Let clients loose, and say what became of the service."""
    watch, warm, seen = Watch(target), Seen(), Seen()
    asyncio.run(clients(target, warm_s, count, warm))
    before = watch.at_rest()
    asyncio.run(clients(target, seconds, count, seen))
    after = watch.at_rest()
    return {
        "statuses": dict(sorted(seen.statuses.items())),
        "requests": {
            "counted_by_clients": [seen.counted, seen.counted + seen.unsure],
            "counted_by_service": after.requests - before.requests,
        },
        "rss_mb": [round(look.rss_bytes / 2**20, 1) for look in (before, after)],
        "growth_percent": round(100 * (after.rss_bytes / before.rss_bytes - 1), 2),
        "files": [before.files, after.files],
        "threads": [before.threads, after.threads],
        "left_under_way": watch.busy(),
        "answers_afterwards": watch.answers(),
        "wrong": warm.wrong[:10] + seen.wrong[:10],
    }


def complaints(found: dict[str, Any]) -> list[str]:
    """What must not be, growth left aside (`leaks`): that says something after minutes only."""
    least, most = found["requests"]["counted_by_clients"]
    said = list(found["wrong"])
    if not least <= found["requests"]["counted_by_service"] <= most:
        said.append(f"requests are not accounted for: {found['requests']}")
    if found["left_under_way"]:
        said.append(f"slots are lost: {found['left_under_way']}")
    said += [f"{model} answers {status}" for model, status in found["answers_afterwards"].items() if status != 200]
    return said


def leaks(found: dict[str, Any]) -> list[str]:
    """What has grown."""
    said = []
    if found["growth_percent"] > 100 * MAX_GROWTH:
        said.append(f"memory grew by {found['growth_percent']} %")
    for what in ("files", "threads"):
        before, after = found[what]
        if after > before + 8:
            said.append(f"{what} stay: {before}, then {after}")
    return said


@contextmanager
def service(folder: Path) -> Iterator[Target]:
    """`capibara serve` with the tiny fleet."""
    log = folder / "service.log"
    variables = {
        "CAPIBARA_RUNTIME__DATA_DIR": str(folder / "data"),
        "CAPIBARA_SERVER__API_KEYS": json.dumps([KEY]),
        "NO_PROXY": "127.0.0.1",
    }
    command = [str(Path(sys.executable).with_name("capibara")), "serve", "--fleet", "tiny", "--port", "0"]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT, cwd=folder
        ) as process,
    ):
        try:
            end = time.monotonic() + START_LIMIT_S
            while not (found := re.search(r"http://([^\s/:]+):(\d+)", log.read_text(errors="replace"))):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the service did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.2)
            yield Target(found[1], int(found[2]), process.pid)
        finally:
            process.terminate()
            process.wait(60)


def main() -> None:
    """Measure, print, complain."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--warm-s", type=float, default=60.0)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    load = [round(value, 2) for value in os.getloadavg()]
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as target:
        found = soak(target, seconds=60 * given.minutes, warm_s=given.warm_s, count=given.clients)
    found |= {"machine": f"{platform.machine()}, {os.cpu_count()} CPUs", "load_before": load}
    said = complaints(found) + leaks(found)
    print(json.dumps(found, indent=2 if not given.json else None))
    print("\n".join(said) or "nothing to complain about", file=sys.stderr)
    raise SystemExit(1 if said else 0)


if __name__ == "__main__":
    main()
