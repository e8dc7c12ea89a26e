"""A short soak: clients that vanish, stall and send garbage leave nothing behind. The long one is a benchmark."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from service_process import CHECKOUT, running

pytestmark = pytest.mark.servers

SECONDS, WARM_S, CLIENTS = 9.0, 2.0, 9


@pytest.fixture
def soak_clients(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/soak_clients.py."""
    spec = importlib.util.spec_from_file_location("soak_clients", CHECKOUT / "benchmarks" / "soak_clients.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    monkeypatch.setitem(sys.modules, "soak_clients", module)
    spec.loader.exec_module(module)
    return module


def test_clients_of_every_kind_leave_nothing_behind(
    tmp_path: Path, real_servers: None, soak_clients: ModuleType
) -> None:
    """No status that a client may not see, every request in /metrics, no slot lost, every model answers afterwards."""
    with running(tmp_path / "data", CAPIBARA_SERVER__API_KEYS=json.dumps([soak_clients.KEY])) as service:
        host, _, port = service.url.removeprefix("http://").partition(":")
        target = soak_clients.Target(host, int(port), service.process.pid)
        found = soak_clients.soak(target, seconds=SECONDS, warm_s=WARM_S, count=CLIENTS)
        log = service.log()
    assert soak_clients.complaints(found) == []
    kinds = {seen.partition(" ")[0] for seen in found["statuses"]}
    assert {"behaves", "vanishes", "sends_half_a_json", "asks_for_nothing"} <= kinds
    assert found["answers_afterwards"]
    assert "Traceback" not in log
    assert "internal error" not in log
