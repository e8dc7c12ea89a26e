"""Processes that `load.py` starts: a stub model, and Capibara before it.

python benchmarks/load_stub.py stub PORT | capibara PORT STUB_URL FOLDER
"""

from __future__ import annotations

import json
import sys
from functools import cached_property
from typing import Any

import uvicorn

PIECES = ("Madrid", " no;", " la", " capital", " es", " París.")


async def stub(scope: Any, receive: Any, send: Any) -> None:
    """OpenAI's chat completions, with the least work that is possible."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    streams = bool(body) and json.loads(body).get("stream")
    kind = b"text/event-stream" if streams else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if not streams:
        await send({"type": "http.response.body", "body": WHOLE})
        return
    for chunk in CHUNKS:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    base = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1, "model": "phi-4-mini"}
    return b"data: " + json.dumps({**base, "choices": [choice]}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 12, "completion_tokens": len(PIECES), "total_tokens": 12 + len(PIECES)}
CHUNKS = [_chunk({"role": "assistant", "content": ""}), *(_chunk({"content": piece}) for piece in PIECES)]
CHUNKS.append(_chunk({}, "stop"))
CHUNKS.append(
    b"data: "
    + json.dumps(
        {
            "id": "chatcmpl-stub",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "phi-4-mini",
            "choices": [],
            "usage": USAGE,
        }
    ).encode()
    + b"\n\n"
)
WHOLE = json.dumps(
    {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 1,
        "model": "phi-4-mini",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "".join(PIECES)}, "finish_reason": "stop"}
        ],
        "usage": USAGE,
    }
).encode()


def capibara(url: str, folder: str) -> Any:
    """The application, its fleet handing out the stub for every model."""
    from capibara_agents.assembly import House, create_app
    from capibara_agents.config import load
    from tests.fakes import FakeFleet

    class Stubbed(House):
        @cached_property
        def fleet(self) -> Any:
            return FakeFleet(self.settings, url)

    flags = {"fleet": "tiny", "runtime": {"data_dir": f"{folder}/data"}, "server": {"port": 0}}
    return create_app(house=Stubbed(load(flags=flags, environ={}).settings))


def main() -> None:
    """Serve until a signal."""
    what, port, *rest = sys.argv[1:]
    app = stub if what == "stub" else capibara(*rest)
    lifespan: Any = "off" if what == "stub" else "on"
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False, lifespan=lifespan)


if __name__ == "__main__":
    main()
