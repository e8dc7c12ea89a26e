"""What Capibara adds to the first token: the same llama-server asked directly and through Capibara, in turn.

    .venv/bin/python benchmarks/overhead.py [--calls 200] [--json]

Starts a service of its own with the fleet `tiny` (own data folder, free port), warms both ways up, then asks the
same short question in pairs, direct and through Capibara alternating within each pair, streaming, one at a time.
It is the same question each time, so that llama-server finds it cached both ways: what it takes to read a prompt
varies by more than what is measured here.
Time to first token is from sending the request to the first piece of text. Only ratios and differences of one
run mean anything; the machine is named in the output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

MODEL = "phi-4-mini"
QUESTION = "¿Cuál es la capital de Francia?"
SETTLE = 20


@contextmanager
def service() -> Iterator[str]:
    """The URL of a Capibara that is stopped afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "CAPIBARA_RUNTIME__DATA_DIR": folder, "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}
        command = [str(Path(sys.executable).parent / "capibara"), "serve", "--fleet", "tiny", "--port", "0"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                found = re.search(r"http://\S+", line)
                if found is None:
                    raise SystemExit(f"The service did not start: {line}")
                yield found.group()
            finally:
                process.terminate()
                process.wait(30)


def first_token_s(client: httpx.Client, url: str, model: str, question: str) -> float:
    """Seconds until the first piece of text; the stream is read to its end."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "max_tokens": 4,
        "temperature": 0,
    }
    started = time.perf_counter()
    first = None
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if first is None and line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    first = time.perf_counter() - started
    if first is None:
        raise SystemExit("no token came")
    return first


def measure(url: str, direct: str, key: str, calls: int) -> dict[str, list[float]]:
    """Milliseconds to the first token, each way."""
    took: dict[str, list[float]] = {"direct": [], "capibara": []}
    options: dict[str, Any] = {"timeout": 120, "trust_env": False, "headers": {"connection": "close"}}
    with httpx.Client(**options) as through, httpx.Client(**options) as straight:
        straight.headers["authorization"] = f"Bearer {key}"
        ways = {
            "direct": lambda question: first_token_s(straight, direct, MODEL, question),
            # No model is named: the question is classified and routed, as it would be for a user.
            "capibara": lambda question: first_token_s(through, url, "capibara", question),
        }
        for number in range(calls + SETTLE):
            for way in ("direct", "capibara") if number % 2 else ("capibara", "direct"):
                seconds = ways[way](QUESTION)
                if number >= SETTLE:
                    took[way].append(1000 * seconds)
    return took


def key_of(pid: int) -> str:
    """The API key that this machine room gave its child, from the child's own environment or arguments."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    for flag, value in zip(arguments, [*arguments[1:], b""], strict=True):
        if flag == b"--api-key":
            return value.decode()
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(b"LLAMA_API_KEY="):
            return entry.partition(b"=")[2].decode()
    return ""


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies, by rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with service() as url:
        routed = httpx.post(f"{url}/v1/route", json={"input": QUESTION}, timeout=60).json()["model"]
        if routed != MODEL:
            raise SystemExit(f"The question must be routed to {MODEL}, not to {routed}.")
        httpx.post(
            f"{url}/v1/chat/completions",
            json={"model": "capibara", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1},
            timeout=300,
        ).raise_for_status()
        status = next(m for m in httpx.get(f"{url}/fleet").json()["models"] if m["id"] == MODEL)
        took = measure(url, status["url"], key_of(status["pid"]), options.calls)
    added = [b - a for a, b in zip(took["direct"], took["capibara"], strict=True)]
    result: dict[str, Any] = {
        "calls": options.calls,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "ttft_ms": {
            way: {"p50": round(statistics.median(ms), 1), "p99": round(percentile(ms, 0.99), 1)}
            for way, ms in took.items()
        },
        "added_ms": {"p50": round(statistics.median(added), 1), "p99": round(percentile(added, 0.99), 1)},
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['calls']} pairs on {result['machine']}")
    for name, row in {**result["ttft_ms"], "added, pair by pair": result["added_ms"]}.items():
        print(f"{name:>20}: p50 {row['p50']:7.1f} ms   p99 {row['p99']:7.1f} ms")


if __name__ == "__main__":
    main()
