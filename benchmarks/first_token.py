"""How much of a core Capibara takes before the first token, and for what: thread time, which a busy machine bears.

    .venv/bin/python benchmarks/first_token.py [--calls 200] [--json]

The whole application in this process, asked through ASGI, before a stub model in another one, which answers after
20 ms. Counted is the CPU time of the event loop's thread from the request to the first piece of text; what else
adds to a first token (sockets, the fleet's thread, waiting for a core) is in `overhead.py`, which needs a machine at
rest. Time to classify and route alone: exemplars of the package as they are, and joined to 4,000 words.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

QUESTION = "¿Cuál es la capital de Francia?"
SETTLE = 20
SHORT_WORDS, LONG_WORDS = 64, 4_000
ANSWERS_AFTER_S = 0.02


async def stub(scope: Any, receive: Any, send: Any) -> None:
    """A model that takes a moment to its first piece of text, and another to the rest."""
    from load_stub import CHUNKS

    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(ANSWERS_AFTER_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"".join(CHUNKS[:2]), "more_body": True})
    await asyncio.sleep(2 * ANSWERS_AFTER_S)
    await send({"type": "http.response.body", "body": b"".join(CHUNKS[2:]) + b"data: [DONE]\n\n"})


@contextmanager
def upstream() -> Iterator[str]:
    """The stub's address; it ends with the block."""
    with subprocess.Popen([sys.executable, __file__, "stub"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def serve_stub() -> None:
    """The stub's process: it says where it listens."""
    import socket

    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(stub, log_level="error")).run(sockets=[listener])


async def call(app: Any, marks: dict[str, float]) -> None:
    """One streamed question; `marks` gets the thread's time at its start and at the first piece of text."""
    body = {"model": "capibara", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    parts = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Any:
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if b"Madrid" in message.get("body", b""):
            marks.setdefault("text", time.thread_time())

    scope = {
        **{"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "http"},
        **{"method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b""},
        **{"root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)},
        "headers": [(b"content-type", b"application/json")],
    }
    marks["start"] = time.thread_time()
    await app(scope, receive, send)


async def parts_of(house: Any, app: Any, calls: int) -> dict[str, list[float]]:
    """Milliseconds of the thread for each stretch of the way to the first piece of text."""
    marks: dict[str, float] = {}

    def marked(before: str, after: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            marks.setdefault(before, time.thread_time())
            result = function(*args, **kwargs)
            marks.setdefault(after, time.thread_time())
            return result

        return wrapped

    house.classifier.classify = marked("classify", "classified", house.classifier.classify)
    house.models.ask = marked("ask", "asked", house.models.ask)
    stretches = {
        "HTTP, start of the graph": ("start", "classify"),
        "classify": ("classify", "classified"),
        "route, steps of the graph": ("classified", "ask"),
        "model asked, first text back": ("ask", "text"),
        "in all": ("start", "text"),
    }
    took: dict[str, list[float]] = {name: [] for name in stretches}
    for number in range(calls + SETTLE):
        marks.clear()
        await call(app, marks)
        if number >= SETTLE:
            for name, (start, end) in stretches.items():
                took[name].append(1000 * (marks[end] - marks[start]))
    return took


def decisions(house: Any, texts: Sequence[str]) -> list[float]:
    """Milliseconds of the thread to classify and route each text."""
    from langchain_core.messages import HumanMessage

    from capibara_agents.types import Request

    took = []
    for text in texts:
        started = time.thread_time()
        house.decide([HumanMessage(text)], Request())
        took.append(1000 * (time.thread_time() - started))
    return took


def long_texts(contents: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Texts of 4,000 words each."""
    words = " ".join(rng.sample(contents, len(contents))).split()
    starts = [rng.randrange(max(1, len(words) - LONG_WORDS)) for _ in range(count)]
    return [" ".join(words[start : start + LONG_WORDS]) for start in starts]


def measure(calls: int) -> dict[str, list[float]]:
    """All of it, in milliseconds of a core."""
    from capibara_agents.assembly import House, create_app
    from capibara_agents.config import load
    from tests.fakes import FakeFleet

    rng = random.Random(1)
    with upstream() as url, tempfile.TemporaryDirectory() as folder:
        os.environ["CAPIBARA_RUNTIME__DATA_DIR"] = folder
        settings = load(flags={"fleet": "tiny"}).settings
        house = House(settings)
        house.__dict__["fleet"] = FakeFleet(settings, url)
        app = create_app(house=house)

        async def run() -> dict[str, list[float]]:
            async with app.router.lifespan_context(app):
                contents = [exemplar.content for exemplar in house.exemplars.list()]
                short = [text for text in contents if len(text.split()) <= SHORT_WORDS]
                took = {"classify and route, at most 64 words": decisions(house, rng.sample(short, 2 * calls))[calls:]}
                gc.collect()
                took["classify and route, 4,000 words"] = decisions(house, long_texts(contents, calls // 4, rng))
                return await parts_of(house, app, calls) | took

        # As the service runs.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())


def main() -> None:
    """Measure and print."""
    if sys.argv[1:] == ["stub"]:
        serve_stub()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    took = measure(options.calls)
    rows = {name: _percentiles(values) for name, values in took.items()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"calls": options.calls, "machine": machine, "load": before, "cpu_ms": rows}, indent=2))
        return
    print(f"{options.calls} calls on {machine}, load {before:.1f}; milliseconds of a core")
    for name, row in rows.items():
        print(f"{name:>37}: least {row['least']:6.2f}   p50 {row['p50']:6.2f}   p99 {row['p99']:6.2f}")


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    rank = partial(round, ndigits=2)
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"least": rank(ordered[0]), "p50": rank(statistics.median(ordered)), "p99": rank(p99)}


if __name__ == "__main__":
    main()
