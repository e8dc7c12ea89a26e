"""However a Capibara ends, its llama-servers end with it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from service_process import (
    STOP_LIMIT_S,
    Service,
    chat_body,
    environment,
    gone,
    llama_servers,
    marked,
    new_mark,
    run_capibara,
    start,
)

pytestmark = pytest.mark.servers

# A killed parent's children are gone within about two seconds, those of one that ended by itself at once; the rest is
# for a busy machine.
ORPHAN_LIMIT_S, END_LIMIT_S = 20.0, 2.0


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, real_servers: None) -> Path:
    """One data folder for all services of this file, one after the other: what one leaves, the next one finds."""
    return tmp_path_factory.mktemp("orphans") / "data"


def load_two(service: Service) -> list[int]:
    """Loads two models; their processes."""
    for model in ("phi-4-mini", "qwen2.5-coder-1.5b"):
        assert service.chat("Hi", model=model, max_tokens=1).status_code == 200
    pids = sorted(model["pid"] for model in service.fleet().values() if model["pid"])
    assert sorted(process.pid for process in llama_servers(marked(service.mark))) == pids
    assert len(pids) == 2
    return pids


def ended(service: Service, number: signal.Signals | None = None) -> int:
    """Sends the signal and waits for the end; the status. Fails when anything of the service is left."""
    if number is not None:
        service.process.send_signal(number)
    try:
        code = service.process.wait(STOP_LIMIT_S)
    finally:
        service.process.kill()
        service.process.wait()
        left = gone(service.mark, ORPHAN_LIMIT_S if number is signal.SIGKILL else END_LIMIT_S)
    assert not left, f"left behind: {left}"
    return code


def test_servers_die_with_a_killed_service(data_dir: Path) -> None:
    """SIGKILL gives the service no chance to clean up, and yet nothing is left.

    Before that, a second service on the same data folder is refused in one sentence, and does not touch the first.
    """
    service = start(data_dir)
    try:
        pids = load_two(service)
        second = run_capibara(
            *("serve", "--fleet", "tiny", "--port", "0"), cwd=data_dir.parent, CAPIBARA_RUNTIME__DATA_DIR=str(data_dir)
        )
        assert second.returncode == 2
        assert str(data_dir) in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1, second.stderr
        assert load_two(service) == pids
    finally:
        code = ended(service, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not any(_runs(pid) for pid in pids)


def test_a_crash_is_cleaned_up_after_and_sigterm_ends_in_good_order(data_dir: Path) -> None:
    """The folder of a killed service serves again. A noted process that still runs is ended at the start; one that
    merely has the same number is not. SIGTERM then ends everything, with status 0 and nothing alarming said.
    """
    noted, other = (subprocess.Popen(["sleep", "300"], start_new_session=True) for _ in range(2))
    started = psutil.Process(noted.pid).create_time()
    run = data_dir / "run"
    run.mkdir(parents=True, exist_ok=True)
    (run / "phi-4-mini.json").write_text(json.dumps({"pid": noted.pid, "started": started}))
    (run / "gpt-oss-20b.json").write_text(json.dumps({"pid": other.pid, "started": started - 3600}))
    try:
        service = start(data_dir)
        try:
            assert noted.wait(30) == -signal.SIGKILL
            assert other.poll() is None
            load_two(service)
        finally:
            code = ended(service, signal.SIGTERM)
    finally:
        for process in (noted, other):
            process.kill()
            process.wait()
    assert code == 0
    assert "Traceback" not in service.log()


def test_ctrl_c_ends_a_service_in_the_middle_of_a_stream(data_dir: Path) -> None:
    """SIGINT does not wait for an answer of three thousand tokens, and the stream does not pretend to be complete."""
    service = start(data_dir, CAPIBARA_SERVER__DRAIN_S="3")
    body = chat_body("Count.", model="phi-4-mini", stream=True, max_tokens=3000, logit_bias={"2": -100})
    lines: list[str] = []
    try:
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            service.client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            for line in response.iter_lines():
                lines.append(line)
                if len(lines) == 1:
                    service.process.send_signal(signal.SIGINT)
    finally:
        code = ended(service)
    assert code == 0
    assert "data: [DONE]" not in lines
    assert "Traceback" not in service.log()


PROGRAM = """
from capibara_agents import Capibara
capibara = Capibara.from_config(fleet="tiny")
print(capibara.invoke({"messages": "Hi", "model": "phi-4-mini", "sampling": {"max_tokens": 1}}).type, flush=True)
raise RuntimeError("oh")
"""


def test_servers_end_with_a_program_that_does_not_close(data_dir: Path) -> None:
    """A script without a context manager that fails leaves no server either."""
    mark = new_mark()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=data_dir.parent,
        env=environment(mark, CAPIBARA_RUNTIME__DATA_DIR=str(data_dir)),
        timeout=150,
        check=False,
    )
    left = gone(mark, ORPHAN_LIMIT_S)
    assert not left, f"left behind: {left}"
    assert done.stdout.strip() == "ai", done.stderr
    assert done.returncode == 1


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
