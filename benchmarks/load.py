"""Capibara and the LiteLLM proxy before one stub model: requests per second, and time added to the first token.

    .venv/bin/python benchmarks/load.py [--seconds 10] [--calls 300] [--llama] [--json]

Four processes on loopback: a stub model that answers at once, Capibara with its whole graph and one process, the
LiteLLM proxy with one worker (in an environment of its own that uv makes), and this one, which asks. What is asked
alternates between the ways, so that a busy machine is busy for all of them. Requests per second: 32 clients, whole
answers. Time added: streams, 1, 8 and 32 at a time, until the first piece of text, less the median of the stub asked
directly at the same number. The machine and its load are named in the output: nothing measured on a loaded machine
counts.

`--llama`: instead of the stub, one llama-server with the stand-in weights and 32 slots, which all three ways ask the
same question, for 16 tokens. Time added is then less the median of that server asked directly; requests per second
say more of it than of who stands before it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = 32
STREAMS = (1, 8, 32)
WARM_CALLS = 64
ROUNDS = 5
KEY = "sk-benchmark"
LITELLM = "litellm[proxy]==1.106.2"
START_LIMIT_S = 180.0
# The first text that is not empty, in a chunk as in a whole answer.
TEXT = re.compile(rb'"content": ?"[^"]')
QUESTION = "¿Cuál es la capital de Francia?"


@dataclass(frozen=True)
class Way:
    """One way to the stub: whom to ask, and as which model."""

    name: str
    url: str
    model: str


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--seconds", type=float, default=10.0, help="of each way, for requests per second")
    options.add_argument("--calls", type=int, default=300, help="streams of each way at each number of streams")
    options.add_argument("--llama", action="store_true", help="before a real llama-server instead of the stub")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    before = os.getloadavg()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = stack.enter_context((llama_server if given.llama else stub_model)(folder))
        ways = (
            Way("direct", stub, "phi-4-mini"),
            Way("capibara", stack.enter_context(capibara(folder, stub)), "capibara"),
            Way("litellm proxy", stack.enter_context(proxy(folder, stub)), "phi-4-mini"),
        )
        found = asyncio.run(measured(ways, given.seconds, given.calls))
    found |= {"machine": machine(), "load_before": [round(load, 2) for load in before]}
    print(json.dumps(found, indent=2) if given.json else table(found))


def machine() -> str:
    """What this was measured on."""
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


# ---------------------------------------------------------------- asking


async def measured(ways: Sequence[Way], seconds: float, calls: int) -> dict[str, Any]:
    """Everything, by way."""
    for way in ways:
        await in_parallel(way, WARM_CALLS, 8, stream=True)
        await in_parallel(way, WARM_CALLS, 8, stream=False)
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            rates[way.name].append(await rate(way, seconds / ROUNDS))
    waits: dict[str, dict[int, list[float]]] = {way.name: {n: [] for n in STREAMS} for way in ways}
    for streams in STREAMS:
        for _ in range(ROUNDS):
            for way in ways:
                waits[way.name][streams] += await in_parallel(way, max(calls // ROUNDS, streams), streams, stream=True)
    base = {streams: quantile(waits["direct"][streams], 0.5) for streams in STREAMS}
    added = {
        way.name: {
            str(streams): {
                name: round(1000 * (quantile(waits[way.name][streams], q) - base[streams]), 2)
                for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99))
            }
            for streams in STREAMS
        }
        for way in ways
    }
    return {
        "requests_per_s": {name: round(sum(some) / len(some), 1) for name, some in rates.items()},
        "added_to_first_token": added,
        "direct_p50_ms": {str(streams): round(1000 * value, 2) for streams, value in base.items()},
    }


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share q of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


async def rate(way: Way, seconds: float) -> float:
    """Whole answers per second with all clients asking without a pause."""
    count = 0
    end = time.monotonic() + seconds

    async def ask() -> None:
        nonlocal count
        while time.monotonic() < end:
            await call(way, stream=False)
            count += 1

    started = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return count / (time.monotonic() - started)


async def in_parallel(way: Way, calls: int, streams: int, *, stream: bool) -> list[float]:
    """Seconds to the first text of so many calls, so many at a time."""
    found: list[float] = []

    async def ask(count: int) -> None:
        for _ in range(count):
            found.append(await call(way, stream=stream))

    await asyncio.gather(*(ask(calls // streams) for _ in range(streams)))
    return found


async def call(way: Way, *, stream: bool) -> float:
    """One question over a connection of its own, by hand: a client library costs more than what is measured."""
    body = json.dumps(
        {"model": way.model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16, "stream": stream}
    ).encode()
    address = way.url.removeprefix("http://")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    host, port = address.split(":")
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body)
    got, first = b"", 0.0
    while piece := await reader.read(65536):
        got += piece
        if not first and TEXT.search(got):
            first = time.monotonic() - started
    writer.close()
    if not first or not got.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{way.name} did not answer: {got[:500]!r}")
    return first


# ---------------------------------------------------------------- those who are asked


@contextmanager
def running(command: Sequence[str], log: Path, **variables: str) -> Iterator[None]:
    """A process that is ended afterwards."""
    fixed = {"NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            list(command), env={**os.environ, **fixed, **variables}, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def up(url: str, log: Path) -> str:
    """The URL, once something answers there."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        try:
            httpx.get(url + "/health/liveliness", timeout=2, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return url
    raise SystemExit(f"nothing answers at {url}: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A port that nobody has now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def stub_model(folder: Path) -> Iterator[str]:
    """The model: one sentence in six pieces, at once."""
    port, log = free_port(), folder / "stub.log"
    with running([sys.executable, __file__.replace("load.py", "load_stub.py"), "stub", str(port)], log):
        yield up(f"http://127.0.0.1:{port}", log)


@contextmanager
def llama_server(folder: Path) -> Iterator[str]:
    """One server with the stand-in weights of the fleet `tiny`, a slot for each client."""
    from capibara_agents.config import load

    capibara = str(Path(sys.executable).with_name("capibara"))
    shown = subprocess.run([capibara, "engine", "show", "--fleet", "tiny", "--json"], check=True, capture_output=True)
    weights = sorted(load(flags={"fleet": "tiny"}).settings.weights_dir.glob("SmolLM2-135M-Instruct*.gguf"))
    if not weights:
        raise SystemExit("there are no weights: make weights")
    port, log = free_port(), folder / "llama-server.log"
    command = [json.loads(shown.stdout)["engine"]["binary"], "--model", str(weights[0]), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--parallel", str(CLIENTS), "--ctx-size", str(CLIENTS * 512), "--threads", "1"]
    with running(command, log):
        up(f"http://127.0.0.1:{port}", log)
        # It listens while it still loads.
        end = time.monotonic() + START_LIMIT_S
        while httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code != 200:
            if time.monotonic() > end:
                raise SystemExit(f"llama-server does not load: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def capibara(folder: Path, stub: str) -> Iterator[str]:
    """The whole service but for the machine room, whose place the stub takes."""
    port, log = free_port(), folder / "capibara.log"
    command = [sys.executable, __file__.replace("load.py", "load_stub.py"), "capibara", str(port), stub, str(folder)]
    with running(command, log):
        yield up(f"http://127.0.0.1:{port}", log)


@contextmanager
def proxy(folder: Path, stub: str) -> Iterator[str]:
    """The LiteLLM proxy, one worker, in an environment of its own."""
    port, log, venv = free_port(), folder / "proxy.log", folder / "venv"
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", str(venv / "bin" / "python"), LITELLM], check=True)
    config = folder / "proxy.yaml"
    model = {"model": "openai/phi-4-mini", "api_base": f"{stub}/v1", "api_key": "none"}
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "phi-4-mini", "litellm_params": model}],
                "general_settings": {"master_key": KEY},
                "litellm_settings": {"telemetry": False},
            }
        )
    )
    command = [str(venv / "bin" / "litellm"), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    with running([*command, "--num_workers", "1"], log):
        yield up(f"http://127.0.0.1:{port}", log)


def table(found: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{found['machine']}; load before: {found['load_before']}", ""]
    lines += ["| way | requests/s at 32 | " + " | ".join(f"added ms at {n}, p50 / p99" for n in STREAMS) + " |"]
    lines += ["|---|---|" + "---|" * len(STREAMS)]
    for name, rate_per_s in found["requests_per_s"].items():
        cells = [found["added_to_first_token"][name][str(n)] for n in STREAMS]
        shown = " | ".join(f"{cell['p50_ms']} / {cell['p99_ms']}" for cell in cells)
        lines.append(f"| {name} | {rate_per_s} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
