"""The sandbox as a machine: what running code shows, its nursery, and what is left when it ends."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from capibara_agents.texts import catalogue
from capibara_agents.verify import sandbox as sandbox_module
from capibara_agents.verify.prints import settle_print_question as settle
from capibara_agents.verify.sandbox import REASONS, Sandbox
from capibara_agents.verify.sandbox_talk import frame
from tests.sandboxes import ADD, LIMITS, TEST_ADD, check, offspring

# ---------------------------------------------------------------- running code for what it shows


def test_code_is_run_for_its_value_and_its_output(sandbox: Sandbox) -> None:
    result = sandbox.evaluate("def f(x):\n    print('é', x)\n    return [x]\nif __name__ == '__main__': f(1)", "f(2)")
    assert (result.outcome, result.value, result.output) == ("passed", "[2]", "é 1\né 2\n")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "raised"),
        ("while True: print(1)", "output"),
        ("import os; os._exit(0)", "exited"),
        ("open('/etc/passwd')", "forbidden"),
        ("while True: pass", "cpu"),
    ],
)
def test_code_that_goes_wrong_shows_nothing(sandbox: Sandbox, source: str, reason: str) -> None:
    result = sandbox.evaluate(source, "1", LIMITS)
    assert (result.reason, result.value) == (reason, "")


def test_a_question_about_what_code_does_is_settled_by_running_it(sandbox: Sandbox) -> None:
    assert settle("What does this print?\n```\nfor i in range(3):\n    print(i, end=',')\n```") == "0,1,2,"
    assert settle("```python\ndef f(s):\n    return s[::-1]\n```\n¿Qué devuelve f('año')?") == "'oña'"
    assert settle("What does this print?\n```\nprint(1 / 0)\n```") is None
    assert settle("What does this print?\n```\nprint(input())\n```") is None


def test_the_order_of_a_set_of_strings_settles_nothing(sandbox: Sandbox) -> None:
    """It hangs on the hashes of one process; that of small numbers does not."""
    letters = ", ".join(repr(letter) for letter in "abcdefgh")
    assert settle(f"What does this print?\n```\nprint(list({{{letters}}}))\n```") is None
    assert settle(f"What does this print?\n```\nprint(sorted({{{letters}}})[:2])\n```") == "['a', 'b']"
    assert settle("What does `print({3, 1})` print?") == "{1, 3}"


# ---------------------------------------------------------------- the machinery


def test_runs_side_by_side_do_not_mix(sandbox: Sandbox) -> None:
    def one(number: int) -> bool:
        result = check(sandbox, f"def f(): return {number}", f"assert f() == {number}")
        return result.outcome == "passed"

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(24)))


def test_a_nursery_that_died_is_started_again() -> None:
    with Sandbox() as one:
        one.start()
        assert one._nursery is not None
        os.kill(one._nursery.pid, signal.SIGKILL)
        one._nursery.wait()
        assert check(one, ADD).outcome == "passed"


def test_an_answer_that_ends_before_its_tests_begin(sandbox: Sandbox) -> None:
    """The kernel then refuses to start the process of the tests."""
    job = {"limits": LIMITS.model_dump(), "given": "", "source": "import os\nos._exit(0)"}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert sandbox._control is not None
        socket.send_fds(sandbox._control, [b"r"], [theirs.fileno()])
        ours.sendall(frame(job))
        threading.Event().wait(0.5)
        ours.sendall(frame({"tests": TEST_ADD, "examples": [], "entry_point": None}))
        report = sandbox_module._receive(ours, 20)
    assert sandbox_module._read_report(report, LIMITS).reason == "exited"


def test_nothing_survives_a_closed_sandbox() -> None:
    one = Sandbox()
    one.start()
    assert one._nursery is not None
    pid, sleeper = one._nursery.pid, "import time\ntime.sleep(1000)"
    runner = threading.Thread(target=check, args=(one, sleeper, TEST_ADD, LIMITS.model_copy(update={"wall_s": 300})))
    runner.start()
    for _ in range(100):
        if len(offspring(one)) == 3:
            break
        threading.Event().wait(0.05)
    children = psutil.Process(pid).children(recursive=True)
    one.close()
    runner.join(30)
    assert not runner.is_alive()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert children
    assert not alive


def test_a_nursery_outlives_the_thread_that_started_it(sandbox: Sandbox) -> None:
    """To the kernel a process's parent is a thread; pools of threads come and go."""
    with Sandbox() as one:
        starter = threading.Thread(target=one.start)
        starter.start()
        starter.join()
        first = one._nursery
        assert check(one, ADD).outcome == "passed"
        assert one._nursery is first


def test_the_nursery_ends_with_its_parent() -> None:
    """Also when the parent is killed and can tell nobody."""
    program = (
        "import os, sys\nfrom capibara_agents.verify.sandbox import Sandbox\n"
        "one = Sandbox()\none.start()\nprint(one._nursery.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    nursery = int(found.stdout)
    for _ in range(100):
        if not psutil.pid_exists(nursery) or psutil.Process(nursery).status() == psutil.STATUS_ZOMBIE:
            break
        threading.Event().wait(0.05)
    else:
        pytest.fail("the nursery outlived its parent")


def test_a_program_too_long_is_not_tried(sandbox: Sandbox) -> None:
    result = check(sandbox, "#" * 17_000_000)
    assert (result.outcome, result.reason) == ("unknown", "too_long")


@pytest.mark.parametrize(
    ("what", "value", "reason"), [("platform", "darwin", "no_linux"), ("machine", "riscv64", "no_filter")]
)
def test_where_it_cannot_be_locked_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, what: str, value: str, reason: str
) -> None:
    if what == "platform":
        monkeypatch.setattr(sandbox_module.sys, "platform", value)
    else:
        monkeypatch.setattr(sandbox_module.platform, "machine", lambda: value)
    one = Sandbox()
    result = check(one, ADD)
    assert (result.outcome, result.reason) == ("unknown", reason)
    assert one._nursery is None


def test_a_system_without_the_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nursery tries its locks out before it serves; here the filter does nothing."""
    broken = "import capibara_agents.verify.sandbox_locks as locks\nlocks.forbid_syscalls = lambda: None\n"
    child = sandbox_module._CHILD.replace(
        "from capibara_agents.verify.sandbox_child", broken + "from capibara_agents.verify.sandbox_child"
    )
    monkeypatch.setattr(sandbox_module, "_CHILD", child)
    result = check(Sandbox(), ADD)
    assert (result.outcome, result.reason) == ("unknown", "not_locked")


def test_every_reason_has_a_text() -> None:
    for code, outcome in REASONS.values():
        assert code in catalogue("es")
        assert outcome in ("passed", "failed", "unknown")
    assert [reason for reason, (_, outcome) in REASONS.items() if outcome == "passed"] == ["passed"]


def test_descriptors_are_not_leaked(sandbox: Sandbox) -> None:
    check(sandbox, ADD)
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        check(sandbox, ADD)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
