"""What the tests against real llama.cpp servers share: one service for all of them, and nothing left at the end."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator

import pytest
from service_process import MARK, Service, gone, run_capibara, running


@pytest.fixture(scope="session", autouse=True)
def _nothing_left() -> Iterator[None]:
    """Everything that is started from here on carries the mark, and must be gone when the last test is over."""
    before = {name: os.environ.get(name) for name in (MARK, "NO_PROXY")}
    os.environ[MARK] = f"tests-{uuid.uuid4().hex}"
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    yield
    left = gone(os.environ[MARK])
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    assert not left, f"left behind by these tests: {left}"


@pytest.fixture(scope="session")
def real_servers(tmp_path_factory: pytest.TempPathFactory, _nothing_left: None) -> None:
    """Skips where there is no llama-server or no weights, and says which: `make test` brings both."""
    done = run_capibara("doctor", "--fleet", "tiny", "--json", cwd=tmp_path_factory.mktemp("doctor"))
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    for name in ("engine", "weights"):
        if not findings[name]["ok"]:
            pytest.skip(f"no {name} for the fleet tiny: {findings[name]['what']}")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, real_servers: None) -> Iterator[Service]:
    """One service with the tiny fleet for the whole session."""
    with running(tmp_path_factory.mktemp("service") / "data") as started:
        yield started
