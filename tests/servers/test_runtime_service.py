"""Operating a running service: `capibara fleet`, the bounded queue, a new configuration, a stop while answering."""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from service_process import Service, run_capibara, running, start, stop, until

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("real_servers")]
MODEL = "phi-4-mini"
# Without the end-of-answer token it is long enough to be seen under way.
LONG: Any = {"max_tokens": 100, "logit_bias": {"2": -100}}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all services of this file, one after the other: to fill a new one with the exemplars takes time."""
    return tmp_path_factory.mktemp("operated") / "data"


def fleet_command(service: Service, folder: Path, *arguments: str, language: str = "en") -> str:
    """Standard output of one `capibara fleet` command against the service."""
    port = service.url.rpartition(":")[2]
    done = run_capibara("fleet", *arguments, "--port", port, cwd=folder, CAPIBARA_LANGUAGE=language)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_queue_is_503_over_http_and_the_terminal_operates_the_fleet(tmp_path: Path, data_dir: Path) -> None:
    """Nobody may wait here: a cold model answers 503 with Retry-After, and 200 once it was loaded by hand."""
    with running(data_dir, CAPIBARA_RUNTIME__QUEUE_LIMIT="0") as service:
        refused = service.chat("Hi", model=MODEL)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
        assert int(refused.headers["retry-after"]) >= 1
        assert "ready" in fleet_command(service, tmp_path, "load", MODEL)
        assert service.chat("Hi", model=MODEL).status_code == 200
        state = json.loads(fleet_command(service, tmp_path, "status", "--json"))
        assert {m["id"]: m["state"] for m in state["models"]}[MODEL] == "ready"
        assert "listening" in fleet_command(service, tmp_path, "logs", MODEL, "--lines", "1000")
        assert "a demanda" in fleet_command(service, tmp_path, "unload", MODEL, language="es")
        assert service.fleet()[MODEL]["pid"] is None


def test_hangup_reads_the_configuration_again(tmp_path: Path, data_dir: Path) -> None:
    """SIGHUP: a changed model has its new shape at its next start, a mistake changes nothing and is said."""
    file = tmp_path / "capibara.yaml"

    def configure(**models: Any) -> None:
        file.write_text(yaml.safe_dump({"models": models}))

    configure(**{MODEL: {"slots": 2}})
    with running(data_dir, "--config", str(file)) as service:
        assert service.chat("Hi", model=MODEL).status_code == 200
        first = service.pid_of(MODEL)
        configure(**{MODEL: {"slots": 3}})
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.fleet()[MODEL]["slots"] == 3)
        assert service.chat("Hi", model=MODEL).status_code == 200
        assert service.pid_of(MODEL) != first
        configure(**{MODEL: {"slots": "many"}})
        service.process.send_signal(signal.SIGHUP)
        assert until(lambda: "slots" in service.log())
        assert service.fleet()[MODEL]["slots"] == 3
        file.write_text(
            yaml.safe_dump({"server": {"ping_s": 9}, "runtime": {"load_wait_s": 99}, "models": {MODEL: None}})
        )
        service.process.send_signal(signal.SIGHUP)
        assert until(lambda: "server.ping_s, runtime.load_wait_s" in service.log())
        assert until(lambda: service.fleet()[MODEL]["slots"] == 2)


def test_who_watches_is_told_of_the_end(data_dir: Path) -> None:
    """SIGTERM ends an open stream of events in good order, and nothing is said about it."""
    service = start(data_dir)
    lines: list[str] = []
    with service.client.stream("GET", "/fleet/events") as response:
        for line in response.iter_lines():
            if not lines:
                service.process.send_signal(signal.SIGTERM)
            lines.append(line)
    assert lines[0] == "event: snapshot"
    assert stop(service) == 0
    assert "ASGI" not in service.log()
    assert "Traceback" not in service.log()


def test_a_model_that_can_never_fit_is_named_before_it_is_asked(tmp_path: Path, data_dir: Path) -> None:
    """At the start and by `capibara doctor`, with what it needs and what there is."""
    small = {"CAPIBARA_RUNTIME__MEMORY_BUDGET_BYTES": "300000000"}
    told = r"gemma-3-27b-it needs \d\.\d GB and runtime.memory_budget_bytes leaves it 0\.3 GB"
    with running(data_dir, **small) as service:
        assert until(lambda: re.search(told, service.log()))
    doctor = run_capibara("doctor", "--fleet", "tiny", cwd=tmp_path, **small, CAPIBARA_SERVER__PORT="0")
    assert doctor.returncode == 1
    assert re.search(told, doctor.stdout)


def test_stop_lets_the_answer_under_way_finish(data_dir: Path) -> None:
    """SIGTERM during an answer: the answer is whole, then everything is gone."""
    service = start(data_dir)
    assert service.chat("Hi", model=MODEL).status_code == 200
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(service.chat("Tell me a story.", model=MODEL, **LONG)))
    asking.start()
    assert until(lambda: service.fleet()[MODEL]["active"] == 1, every_s=0.01)
    service.process.send_signal(signal.SIGTERM)
    asking.join(60)
    assert found
    assert found[0].status_code == 200
    assert found[0].json()["choices"][0]["message"]["content"]
    assert stop(service) == 0
