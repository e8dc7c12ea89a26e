"""SIGTERM to a real service: streams under way are finished, nothing new begins."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import httpx
import pytest
from service_process import STOP_LIMIT_S, chat_body, gone, start, until

pytestmark = pytest.mark.servers


def test_sigterm_lets_a_stream_be_finished_and_refuses_new_ones(tmp_path: Path, real_servers: None) -> None:
    """The stream has its [DONE]; whoever comes meanwhile gets a 503 with Retry-After; then everything is gone."""
    service = start(tmp_path / "data", CAPIBARA_SERVER__DRAIN_S="240")
    try:
        service.chat("Say hello", model="phi-4-mini", max_tokens=1)
        # The end-of-answer token is forbidden: the stream is still under way when somebody comes late.
        longer = {"max_tokens": 300, "logit_bias": {"2": -100}}
        body = chat_body("Tell me a long story about the sea", model="phi-4-mini", stream=True, **longer)
        lines: list[str] = []
        with service.client.stream("POST", "/v1/chat/completions", json={**body, "ignored": 1}) as response:
            rows = response.iter_lines()
            while not lines or '"content"' not in lines[-1]:
                lines.append(next(rows))
            service.process.send_signal(signal.SIGTERM)
            refused: list[httpx.Response] = []

            def come_late() -> None:
                until(lambda: _late(service.url, refused), limit_s=60, every_s=0.05)

            late = threading.Thread(target=come_late)
            late.start()
            lines.extend(rows)
            late.join()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert data[-1] == "[DONE]"
        ends = [json.loads(one)["choices"][0]["finish_reason"] for one in data[:-1]]
        assert ends[-1] in ("stop", "length")
        assert refused
        assert refused[0].json()["error"]["code"] == "closing"
        assert refused[0].headers["retry-after"]
        assert service.process.wait(STOP_LIMIT_S) == 0
    finally:
        service.client.close()
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()
        left = gone(service.mark)
    assert not left


def _late(url: str, refused: list[httpx.Response]) -> bool:
    """Whether someone who comes now is refused, or nobody listens any more."""
    try:
        response = httpx.post(f"{url}/v1/route", json={"input": "hola"}, trust_env=False)
    except httpx.TransportError:
        return True
    if response.status_code == 503:
        refused.append(response)
    return response.status_code == 503
