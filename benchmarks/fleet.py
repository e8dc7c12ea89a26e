"""The fleet beside llama.cpp's own router mode: same binary, same files, same flags, same run.

    .venv/bin/python benchmarks/fleet.py [--part router|kills] [--rounds 5] [--idle-s 20] [--json]

Both get five names for the stand-in's file (links to one file of the fleet `tiny`, one thread, two slots, the
stand-in's context) and are asked over HTTP for one token at a time:

cold      from "nothing runs" to an answer, with the file in the page cache
recovery  from kill -9 of a ready server to the next answer
switch    two models of which only one is allowed at a time (a budget here, --models-max 1 there), asked in turn
idle      CPU time and memory of the supervising process, with five ready servers and nobody asking; ours is a
          process of its own for this, that holds the machine room and nothing else

Only the two columns of one run may be compared; the machine is named in the output.

kills     a Capibara service of its own with the fleet `tiny`, eight clients that never pause and ask its models by
          name, without streaming: each server in turn is unloaded, which gives its cold start (from `starting` to
          `ready` in /fleet/events), and then killed with SIGKILL, which gives its recovery (from the signal to
          `ready`), as often as there are rounds. Whatever is not answered with 200 is a failed request
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
from overhead import service

from capibara_agents.config import load
from capibara_agents.errors import EngineError
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.runtime.gguf import read_gguf
from capibara_agents.runtime.memory import predict
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings

NAMES = ("one", "two", "three", "four", "five")
LIMIT_S = 60.0
Ask = Callable[[str], Awaitable[None]]
BODY = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}


async def post(client: httpx.AsyncClient, url: str, name: str, key: str = "") -> None:
    """One token; raises for anything but 200."""
    headers = {"Connection": "close", **({"Authorization": f"Bearer {key}"} if key else {})}
    answer = await client.post(f"{url}/v1/chat/completions", json={"model": name, **BODY}, headers=headers)
    answer.raise_for_status()


class Ours:
    """Capibara's fleet in this process."""

    label = "capibara"

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self.settings, self.client = settings, client
        self.fleet = LlamaFleet(settings)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.fleet.start)
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.fleet.close)

    async def ask(self, name: str) -> None:
        async with self.fleet.claim(name, LIMIT_S) as endpoint:
            await post(self.client, endpoint.url, name, endpoint.api_key)

    def pids(self) -> list[int]:
        return [model.pid for model in self.fleet.snapshot().models if model.pid]


ROOM = """
import sys
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.settings import Settings
settings = Settings.model_validate_json(sys.stdin.readline())
with LlamaFleet(settings) as fleet:
    for spec in settings.models:
        fleet.load(spec.id).result()
    print("ready", flush=True)
    sys.stdin.read()
"""


class Room:
    """Capibara's fleet in a process that does nothing else, with all its servers ready."""

    label = Ours.label

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-c", ROOM]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)  # noqa: ASYNC220
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(self.settings.model_dump_json() + "\n")
        self.process.stdin.flush()
        if await asyncio.to_thread(self.process.stdout.readline) != "ready\n":
            raise SystemExit("the machine room did not start")
        self.supervisor = psutil.Process(self.process.pid)
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.process.communicate, "")


class Router:
    """llama-server without a model, over a folder of models."""

    label = "llama.cpp router"

    def __init__(self, binary: Path, models: Path, most: int, flags: list[str], client: httpx.AsyncClient) -> None:
        self.command = [str(binary), "--models-dir", str(models), "--models-max", str(most), "--port", "0", *flags]
        self.client = client
        self.log = models.parent / f"router-{most}.log"

    async def __aenter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: ASYNC220
        self.supervisor = psutil.Process(self.process.pid)
        async with asyncio.timeout(LIMIT_S):
            while not (ports := self._ports()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        self.url = f"http://127.0.0.1:{ports[0]}"
        return self

    def _ports(self) -> list[int]:
        sockets = self.supervisor.net_connections(kind="tcp")
        return [one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN]

    async def __aexit__(self, *error: object) -> None:
        children = self.supervisor.children(recursive=True)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for process in (*children, self.supervisor):
            with suppress(psutil.Error):
                process.kill()
        self.process.wait(10)

    async def ask(self, name: str) -> None:
        await post(self.client, self.url, name)

    def pids(self) -> list[int]:
        return [child.pid for child in self.supervisor.children()]


async def timed(work: Awaitable[None]) -> float:
    """Seconds it took."""
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def answered(side: Ours | Router, name: str) -> tuple[float, int]:
    """Seconds until an answer came, and how many tries failed before it."""
    began, failed = time.monotonic(), 0
    while time.monotonic() - began < LIMIT_S:
        try:
            await side.ask(name)
        except httpx.HTTPError:
            failed += 1
            await asyncio.sleep(0.02)
        else:
            return time.monotonic() - began, failed
    return LIMIT_S, failed


async def recovery(side: Ours | Router) -> tuple[float, int]:
    """Kill -9 of the one ready server, then ask until there is an answer."""
    await side.ask(NAMES[0])
    for pid in side.pids():
        os.kill(pid, signal.SIGKILL)
    return await answered(side, NAMES[0])


async def idle(side: Room | Router, seconds: float) -> dict[str, float]:
    """Share of one core and bytes of the supervisor, with five servers ready."""
    if isinstance(side, Router):
        for name in NAMES:
            await side.ask(name)
    await asyncio.sleep(2)
    before = side.supervisor.cpu_times()
    await asyncio.sleep(seconds)
    after = side.supervisor.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return {
        "cpu_percent": round(100 * used_s / seconds, 2),
        "rss_mb": round(side.supervisor.memory_info().rss / 1e6, 1),
    }


def prepared(folder: Path) -> tuple[Settings, Path]:
    """Five models on links to the stand-in's file, and the folder of those links."""
    tiny = load(flags={"fleet": "tiny"}).settings
    spec = tiny.models[0]
    file = WeightStore(tiny.weights_dir).require(spec).weights
    models = folder / "models"
    models.mkdir()
    for name in NAMES:
        (models / f"{name}.gguf").symlink_to(file)
    keys = {"tier": spec.tier, "max_tokens": 8, "timeout_s": 60, "threads": 1, "slots": 2, "context_tokens": 4096}
    specs = [{"id": n, "weights": {"source": f"file://{models / n}.gguf"}, **keys} for n in NAMES]
    runtime = {"data_dir": folder / "data", "weights_dir": folder / "weights"}
    return Settings.model_validate({"models": specs, "runtime": runtime}), models


def with_room_for(settings: Settings, count: int, folder: Path) -> Settings:
    """The same settings with a budget for so many servers, and a data folder of their own."""
    file = WeightStore(settings.weights_dir).require(settings.models[0]).weights
    need = predict(settings.models[0], read_gguf(file)).total_bytes
    update = {"memory_budget_bytes": int((count + 0.5) * need), "data_dir": folder / f"data-{count}"}
    return settings.model_copy(update={"runtime": settings.runtime.model_copy(update=update)})


async def measure(rounds: int, idle_s: float) -> dict[str, Any]:
    """All figures of both sides; the sides take turns within each round."""
    found: dict[str, dict[str, Any]] = {
        side.label: {"cold_s": [], "recovery_s": [], "failed_tries": []} for side in (Ours, Router)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings, models = prepared(folder)
        binary = find_engine(settings).binary
        flags = ["--threads", "1", "--parallel", "2", "--ctx-size", "8192", "--cache-ram", "256", "--offline"]
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:

            def sides(count: int) -> tuple[Ours | Router, ...]:
                ours = Ours(with_room_for(settings, count, folder), client)
                return ours, Router(binary, models, count, flags, client)

            for _ in range(rounds):
                for side in sides(1):
                    async with side:
                        found[side.label]["cold_s"].append(await timed(side.ask(NAMES[0])))
                        seconds, failed = await recovery(side)
                        found[side.label]["recovery_s"].append(seconds)
                        found[side.label]["failed_tries"].append(failed)
            async with AsyncExitStack() as stack:
                both: list[Ours | Router] = [await stack.enter_async_context(side) for side in sides(1)]
                for side in both:
                    await side.ask(NAMES[0])
                    found[side.label]["switch_s"] = []
                for number in range(2 * rounds):
                    for side in both:
                        found[side.label]["switch_s"].append(await timed(side.ask(NAMES[(number + 1) % 2])))
            for side in sides(5):
                resting = Room(side.settings) if isinstance(side, Ours) else side
                async with resting:
                    found[resting.label]["idle"] = await idle(resting, idle_s)
    return found


# ------------------------------------------------------------ kills under load

CLIENTS = 8
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16}


class Events:
    """What /fleet/events says, as (seconds, model, state, pid)."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.seen: list[tuple[float, str, str, int | None]] = []

    async def listen(self) -> None:
        """Until it is cancelled."""
        async with self.client.stream("GET", "/fleet/events", timeout=None) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    said = json.loads(line.removeprefix("data:"))
                    for model in said.get("models", [said]):
                        if "state" in model:
                            self.seen.append((time.monotonic(), model["id"], model["state"], model["pid"]))

    async def next(self, model_id: str, state: str, since: float) -> tuple[float, int | None]:
        """When the model was next in the state after that moment, and its process then."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for at, name, what, pid in self.seen:
                    if at > since and (name, what) == (model_id, state):
                        return at, pid
                await asyncio.sleep(0.005)


async def press(client: httpx.AsyncClient, models: list[str], codes: list[int], over: asyncio.Event) -> None:
    """One client: asks one model after the other until it is `over`, and notes each status."""
    for model_id in itertools.cycle(models):
        if over.is_set():
            return
        answer = await client.post("/v1/chat/completions", json={"model": model_id, **QUESTION})
        codes.append(answer.status_code)


async def kills(rounds: int) -> dict[str, Any]:
    """Cold starts and recoveries by model, in seconds, and the status of every answer."""
    with service() as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=2 * LIMIT_S) as client:
            models = [model["id"] for model in (await client.get("/fleet")).json()["models"]]
            events, codes, over = Events(client), list[int](), asyncio.Event()
            listening = asyncio.create_task(events.listen())
            turns = [models[n % len(models) :] + models[: n % len(models)] for n in range(CLIENTS)]
            clients = [asyncio.create_task(press(client, turn, codes, over)) for turn in turns]
            found: dict[str, Any] = {m: {"cold_s": [], "recovery_s": []} for m in models}
            for model_id in models:
                await events.next(model_id, "ready", 0.0)
            for model_id in rounds * models:
                cold_s, pid = await cold_start(client, events, model_id)
                found[model_id]["cold_s"].append(cold_s)
                found[model_id]["recovery_s"].append(await recover(events, model_id, pid))
            over.set()
            await asyncio.gather(*clients)
            listening.cancel()
    return {"models": found, "answers": len(codes), "failed": sum(code != 200 for code in codes)}


async def cold_start(client: httpx.AsyncClient, events: Events, model_id: str) -> tuple[float, int]:
    """Seconds from the start of the next process to its being ready, and that process."""
    asked = time.monotonic()
    (await client.post(f"/fleet/models/{model_id}/unload", params={"wait_s": LIMIT_S})).raise_for_status()
    began, _ = await events.next(model_id, "starting", asked)
    ready, pid = await events.next(model_id, "ready", began)
    assert pid is not None
    return ready - began, pid


async def recover(events: Events, model_id: str, pid: int) -> float:
    """Seconds from SIGKILL, in the middle of the work, to being ready again."""
    await asyncio.sleep(1.0)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    # `ready` alone could be the old process's last word.
    began, _ = await events.next(model_id, "starting", killed)
    ready, _ = await events.next(model_id, "ready", began)
    return ready - killed


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return {"cpu": model or platform.machine(), "cores": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()]}


def report(found: dict[str, Any]) -> None:
    """The figures as a Markdown table."""
    ours, theirs = (found[label] for label in (Ours.label, Router.label))
    print(f"| | {Ours.label} | {Router.label} |\n|---|---|---|")
    for key in ("cold_s", "recovery_s", "switch_s"):
        cells = [f"{statistics.median(s[key]):.2f} ({min(s[key]):.2f}–{max(s[key]):.2f})" for s in (ours, theirs)]
        print(f"| {key} | {cells[0]} | {cells[1]} |")
    print(f"| failed tries during recovery | {sum(ours['failed_tries'])} | {sum(theirs['failed_tries'])} |")
    ratios = [statistics.median(s["recovery_s"]) / statistics.median(s["cold_s"]) for s in (ours, theirs)]
    print(f"| recovery / cold | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    for key in ("cpu_percent", "rss_mb"):
        print(f"| idle {key} | {ours['idle'][key]} | {theirs['idle'][key]} |")


def report_kills(found: dict[str, Any]) -> None:
    """The figures of the kills as a Markdown table."""
    print(f"\n{found['answers']} answers, {found['failed']} failed\n")
    print("| | cold start, s | recovery, s | ratio |\n|---|---|---|---|")
    for model_id, times in found["models"].items():
        cold_s, recovery_s = (statistics.median(times[key]) for key in ("cold_s", "recovery_s"))
        print(f"| {model_id} | {cold_s:.2f} | {recovery_s:.2f} | {recovery_s / cold_s:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=("router", "kills"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    try:
        if options.part != "kills":
            found["router"] = asyncio.run(measure(options.rounds, options.idle_s))
        if options.part != "router":
            found["kills"] = asyncio.run(kills(options.rounds))
    except EngineError as error:
        sys.exit(error.message)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(found["machine"])
    if "router" in found:
        report(found["router"])
    if "kills" in found:
        report_kills(found["kills"])


if __name__ == "__main__":
    main()
