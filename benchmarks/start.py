"""What a start takes: processor time of the process until it says its address, and until its first answer.

    .venv/bin/python benchmarks/start.py [--runs 5] [--json]

Starts `capibara serve --fleet tiny` on a data folder that an earlier start has filled, asks one question as soon as
/health/live answers, and stops it; then `capibara ask` with the same question, its whole life. Processor time is of
Capibara's own process, all its threads (the models' servers are not counted), least and median of the runs. Seconds on
the clock mean something only where nothing else runs; the machine is named in the output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

QUESTION = "¿Cuál es la capital de Francia?"
CAPIBARA = str(Path(sys.executable).parent / "capibara")
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT_S = 120.0


def cpu_s(pid: int) -> float:
    """Processor time of a process and its threads until now, children not counted."""
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def serve(folder: str) -> dict[str, float]:
    """Processor and clock seconds until the service lives, and until it has answered."""
    port, found = free_port(), {}
    env = {**os.environ, "CAPIBARA_RUNTIME__DATA_DIR": folder}
    started = time.monotonic()
    command = [CAPIBARA, "serve", "--fleet", "tiny", "--port", str(port)]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S, trust_env=False) as client:
                while not lives(client):
                    if process.poll() is not None or time.monotonic() - started > LIMIT_S:
                        raise SystemExit("The service did not start.")
                    time.sleep(0.02)
                found |= {"live_cpu": cpu_s(process.pid), "live_clock": time.monotonic() - started}
                body = {"model": "capibara", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8}
                client.post("/v1/chat/completions", json=body).raise_for_status()
                found |= {"answer_cpu": cpu_s(process.pid), "answer_clock": time.monotonic() - started}
        finally:
            process.terminate()
            process.wait(30)
    return found


def lives(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.HTTPError:
        return False


def ask(folder: str) -> dict[str, float]:
    """Of `capibara ask` from its start to its end, on a port where nobody listens."""
    env = {**os.environ, "CAPIBARA_RUNTIME__DATA_DIR": folder, "CAPIBARA_SERVER__PORT": str(free_port())}
    started = time.monotonic()
    command = [CAPIBARA, "ask", "--fleet", "tiny", "--max-tokens", "8", "--json", QUESTION]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # It stays as a zombie, and its figures with it, until it is waited for.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        used = cpu_s(process.pid)
    return {"ask_cpu": used, "ask_clock": time.monotonic() - started}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serve(folder)
        runs = [serve(folder) | ask(folder) for _ in range(chosen.runs)]
    result = {name: [min(r[name] for r in runs), statistics.median(r[name] for r in runs)] for name in runs[0]}
    if chosen.json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), "runs": chosen.runs, "s": result}))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {chosen.runs} runs")
    for name, (least, middle) in result.items():
        print(f"{name:14s}{least:7.2f}{middle:7.2f} s")


if __name__ == "__main__":
    main()
