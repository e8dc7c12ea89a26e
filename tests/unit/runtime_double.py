"""A stand-in for llama-server, run as a process by the fleet's tests: speaks /health and one kind of chat answer.

Knobs come as arguments (a model's `extra_args`): --double-load-s S, --double-exit CODE (says --double-say first),
--double-deaf (does not read its stdin, ignores SIGTERM), --double-log FILE (one line a start),
--double-hang FILE (while the file is there, a question gets no answer and its slot no token; /health stays green),
--double-mute (never says that it is ready, and /health accepts the connection without ever answering).
Standard library only.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HELP = "-m,    --model FNAME   file\n-a,    --alias STRING  name\n--metrics              counters\n"


def knob(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


class Handler(BaseHTTPRequestHandler):
    loaded = False
    asked = 0
    answered = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if "--double-mute" in sys.argv:
            time.sleep(3600)
        if self.path == "/slots":
            working = Handler.asked > Handler.answered
            return self.answer(200, [{"is_processing": working, "next_token": [{"n_decoded": Handler.answered}]}])
        return self.answer(200 if Handler.loaded else 503, {"status": "ok" if Handler.loaded else "loading"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {os.environ['LLAMA_API_KEY']}":
            return self.answer(401, {})
        Handler.asked += 1
        while knob("--double-hang") and Path(knob("--double-hang")).exists():
            time.sleep(0.02)
        Handler.answered += 1
        return self.answer(200, {"choices": [{"message": {"role": "assistant", "content": f"pid {os.getpid()}"}}]})


def leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def say_state(state: str, **payload: object) -> None:
    print("cmd_child_to_router:state:" + json.dumps({"state": state, "payload": payload}), flush=True)


def main() -> None:
    if "--help" in sys.argv or "--version" in sys.argv:
        print(HELP if "--help" in sys.argv else "version: double 1")
        return
    if knob("--double-log"):
        with Path(knob("--double-log")).open("a") as log:
            log.write(f"{os.getpid()} {knob('--alias')}\n")
    if "--double-deaf" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        threading.Thread(target=leave_with_parent, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say_state("loading", stages=["text_model"], current="text_model", value=0.5)
    time.sleep(float(knob("--double-load-s", "0")))
    if knob("--double-exit"):
        print(knob("--double-say"), file=sys.stderr, flush=True)
        sys.stderr.flush()
        os._exit(int(knob("--double-exit")))
    Handler.loaded = True
    if "--double-mute" not in sys.argv:
        say_state("ready", id=knob("--alias"))
    while True:
        time.sleep(3600)


main()
