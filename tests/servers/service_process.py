"""A Capibara service as its user starts it: `capibara serve` as a child process, its own data folder, a free port.

Every process that is started from here carries MARK in its environment, and hands it on to its own children: what
is left of a test is found by it, orphan or not.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

CAPIBARA = str(Path(sys.executable).with_name("capibara"))
CHECKOUT = Path(__file__).resolve().parents[2]
MARK = "STARTED_BY_TESTS"
# Generous: the machine may be busy with other things. Nothing waits longer than it must.
START_LIMIT_S = 150.0
STOP_LIMIT_S = 30.0
ANSWER_LIMIT_S = 120.0
T = TypeVar("T")
MODELS = ("phi-4-mini", "qwen2.5-coder-1.5b", "mistral-7b-instruct-v0.2", "gemma-3-27b-it", "gpt-oss-20b")


def until(condition: Callable[[], T], limit_s: float = 30.0, every_s: float = 0.1) -> T:
    """The first true value of the condition, or its last one when the time is over."""
    end = time.monotonic() + limit_s
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(every_s)
    return value


def environment(mark: str | None = None, **variables: str) -> dict[str, str]:
    """The variables of a child: none of Capibara's but those given; English texts; nothing goes through a proxy."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CAPIBARA_", "LC_"))}
    fixed = {"LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1"}
    return {**inherited, **fixed, **({MARK: mark} if mark else {}), **variables}


def marked(mark: str) -> list[psutil.Process]:
    """The living processes that carry the mark, this one not among them."""
    found = []
    for process in psutil.process_iter():
        try:
            carries = process.environ().get(MARK, "").startswith(mark) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if carries and process.pid != os.getpid():
            found.append(process)
    return found


def described(processes: list[psutil.Process]) -> list[str]:
    lines = []
    for process in processes:
        try:
            lines.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            continue
    return lines


def llama_servers(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are llama-server by now, and not about to become it."""
    found = []
    for process in processes:
        try:
            if process.name().startswith("llama-server"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_all(processes: list[psutil.Process]) -> None:
    """The last resort of a failed test: exactly these processes."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue


@dataclass
class Service:
    """A running `capibara serve`."""

    process: subprocess.Popen[bytes]
    url: str
    output: Path
    mark: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=ANSWER_LIMIT_S, trust_env=False)

    def chat(self, content: str, **body: Any) -> httpx.Response:
        """One question through /v1/chat/completions; answers are short unless the test says otherwise."""
        return self.client.post("/v1/chat/completions", json=chat_body(content, **body))

    def fleet(self) -> dict[str, dict[str, Any]]:
        """GET /fleet, by model id."""
        return {model["id"]: model for model in self.client.get("/fleet").json()["models"]}

    def pid_of(self, model: str) -> int:
        """The process of a model that has one."""
        pid = self.fleet()[model]["pid"]
        assert isinstance(pid, int), f"{model} has no process"
        return pid

    def log(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


def chat_body(content: str, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "capibara", "messages": messages, "max_tokens": 12, "temperature": 0, **body}


def new_mark() -> str:
    """A mark below the session's own, so that the session finds it too."""
    return f"{os.environ[MARK]}-{uuid.uuid4().hex}"


def start(data_dir: Path, *arguments: str, **variables: str) -> Service:
    """`capibara serve --fleet tiny --port 0`; returns once it has printed its URL."""
    mark, output = new_mark(), data_dir.parent / f"{data_dir.name}-{uuid.uuid4().hex[:8]}.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [CAPIBARA, "serve", "--fleet", "tiny", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=data_dir.parent,
            env=environment(mark, CAPIBARA_RUNTIME__DATA_DIR=str(data_dir), **variables),
        )

    def said() -> re.Match[str] | bool | None:
        return re.search(r"http://[^\s/]+:\d+", output.read_text(errors="replace")) or process.poll() is not None

    found = until(said, START_LIMIT_S)
    if not isinstance(found, re.Match):
        process.kill()
        process.wait()
        raise AssertionError(f"the service did not start: {output.read_text(errors='replace')[-2000:]}")
    return Service(process, found.group(), output, mark)


def stop(service: Service, number: signal.Signals = signal.SIGTERM) -> int:
    """Ends the service as its user would; its exit code. Fails when anything of it is left."""
    service.client.close()
    try:
        service.process.send_signal(number)
        code = service.process.wait(STOP_LIMIT_S)
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()
        left = gone(service.mark)
    assert not left, f"left behind: {left}"
    return code


def gone(mark: str, limit_s: float = 10.0) -> list[str]:
    """Empty once nothing with the mark runs; otherwise what does, which is then killed."""
    until(lambda: not marked(mark), limit_s)
    left = marked(mark)
    words = described(left)
    kill_all(left)
    return words


@contextmanager
def running(data_dir: Path, *arguments: str, **variables: str) -> Iterator[Service]:
    """A service for the length of a block; nothing of it may be left afterwards."""
    service = start(data_dir, *arguments, **variables)
    try:
        yield service
    finally:
        stop(service)


def run_capibara(
    *arguments: str, cwd: Path, limit_s: float = 120.0, typed: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """One command of the terminal, to its end. Fails when it leaves a process behind."""
    mark = new_mark()
    done = subprocess.run(
        [CAPIBARA, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(mark, **variables),
        timeout=limit_s,
        check=False,
    )
    left = gone(mark)
    assert not left, f"left behind: {left}"
    return done
