"""Each lock by itself: a child that has only this one cannot do what it forbids. Real child processes."""

from __future__ import annotations

import errno
import os
import platform
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from capibara_agents.verify import sandbox_locks
from capibara_agents.verify.sandbox_locks import MACHINES, syscall_filter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

# One lock each, then what it forbids: prints `held`, or `missing` where this system does not have the lock.
CHILD = f"""
import errno, os, resource, signal, socket, sys, time
sys.path.insert(0, {str(Path(sandbox_locks.__file__).parent)!r})
import sandbox_locks as locks

def refused(attempt, *numbers):
    try:
        attempt()
    except MemoryError:
        return errno.ENOMEM in numbers
    except OSError as error:
        return error.errno in numbers
    return False

try:
    LOCK
except OSError as error:
    print("missing", error)
    raise SystemExit
print("held" if (ATTEMPT) else "open")
"""


def try_out(lock: str, attempt: str) -> str:
    program = CHILD.replace("LOCK", lock).replace("ATTEMPT", attempt)
    found = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    return found.stdout.strip() or f"status {found.returncode}: {found.stderr[-300:]}"


FILTER = "locks.forbid_new_privileges(); locks.forbid_syscalls()"
LANDLOCK = "locks.forbid_new_privileges(); locks.landlock()"
LIMITS = "locks.limit_resources(cpu_s=1, memory_bytes=256 << 20, threads=8)"


@pytest.mark.parametrize(
    ("lock", "attempt"),
    [
        pytest.param(FILTER, "refused(lambda: open('/etc/passwd'), errno.EPERM)", id="filter: open"),
        pytest.param(FILTER, "refused(lambda: os.stat('/'), errno.EPERM)", id="filter: stat"),
        pytest.param(FILTER, "refused(lambda: socket.socket(), errno.EPERM)", id="filter: socket"),
        pytest.param(FILTER, "refused(os.fork, errno.EPERM)", id="filter: fork"),
        pytest.param(FILTER, "refused(lambda: os.kill(os.getppid(), 0), errno.EPERM)", id="filter: kill"),
        pytest.param(FILTER, "refused(lambda: os.execv('/bin/true', ['x']), errno.EPERM)", id="filter: exec"),
        pytest.param(FILTER, "refused(lambda: os.setsid(), errno.EPERM)", id="filter: session"),
        pytest.param(FILTER, "locks._libc.ptrace(0, 0, 0, 0) == -1", id="filter: ptrace"),
        pytest.param(
            FILTER, "locks._libc.mmap(None, 4096, 7, 0x22, -1, 0) == -1", id="filter: executable memory"
        ),
        pytest.param(LANDLOCK, "refused(lambda: open('/etc/passwd'), errno.EACCES)", id="landlock: open"),
        pytest.param(LANDLOCK, "refused(lambda: os.listdir('/'), errno.EACCES)", id="landlock: list"),
        pytest.param(LANDLOCK, "refused(lambda: open('/tmp/harm', 'w'), errno.EACCES)", id="landlock: write"),
        pytest.param(LANDLOCK, "refused(lambda: os.execv('/bin/true', ['x']), errno.EACCES)", id="landlock: exec"),
        pytest.param(
            "locks.own_namespaces()", "refused(lambda: socket.create_connection(('127.0.0.1', 1)), errno.ENETUNREACH)",
            id="namespaces: not even this machine is reachable",
        ),
        pytest.param("locks.own_namespaces()", "[n for _, n in socket.if_nameindex()] == ['lo']",
                     id="namespaces: no device"),
        pytest.param(
            "locks.own_namespaces(); locks.own_processes(); child = os.fork(); child or os._exit(os.getpid())",
            "os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1", id="processes: a table of its own",
        ),
        pytest.param("locks.empty_root()", "os.listdir('/') == []", id="empty root: nothing in it"),
        pytest.param("locks.empty_root()", "refused(lambda: open('/etc/passwd'), errno.ENOENT)", id="empty root: open"),
        pytest.param("locks.empty_root()", "refused(lambda: open('/harm', 'w'), errno.ENOENT)", id="empty root: write"),
        pytest.param(LIMITS, "refused(lambda: bytes(1 << 30), errno.ENOMEM)", id="limits: memory"),
        pytest.param(LIMITS, "resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)", id="limits: no core"),
        pytest.param(LIMITS, "refused(lambda: [os.dup(0) for _ in range(20)], errno.EMFILE)", id="limits: descriptors"),
        pytest.param(
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); file = open('/tmp/capibara-' + str(os.getpid()), 'wb', 0);"
            "os.unlink(file.name); " + LIMITS, "refused(lambda: file.write(b'x'), errno.EFBIG)", id="limits: file size",
        ),
        pytest.param("locks.drop_privileges()",
                     "os.getuid() != 0 and 'CapEff:\\t' + '0' * 16 in open('/proc/self/status').read()",
                     id="privileges: none"),
        pytest.param("locks.drop_privileges()", "refused(lambda: os.chroot('/tmp'), errno.EPERM)",
                     id="privileges: chroot"),
        pytest.param("locks.forbid_new_privileges()", "'NoNewPrivs:\\t1' in open('/proc/self/status').read()",
                     id="no new privileges"),
        pytest.param("locks.hide_from_debuggers()", "locks._libc.prctl(3, 0, 0, 0, 0) == 0", id="not to be traced"),
        pytest.param("locks.be_killed_first()", "open('/proc/self/oom_score_adj').read() == '1000\\n'",
                     id="killed first"),
    ],
)  # fmt: skip
def test_a_lock_by_itself(lock: str, attempt: str) -> None:
    said = try_out(lock, attempt)
    if said.startswith("missing"):
        pytest.skip(f"this system does not grant the lock: {said}")
    assert said == "held"


def test_processor_time_is_limited() -> None:
    assert try_out(LIMITS, "all(iter(lambda: 1, 0))").startswith("status -24")


def test_processes_are_limited_for_nobody() -> None:
    if os.geteuid() != 0:
        pytest.skip("counts all processes of the user, who has others when it is not nobody")
    bomb = "[os.fork() or os.execv('/bin/sleep', ['sleep', '1']) for _ in range(100)]"
    assert try_out(f"{LIMITS}; locks.drop_privileges()", f"refused(lambda: {bomb}, errno.EAGAIN)") == "held"


def test_a_child_ends_with_its_parent() -> None:
    program = (
        "own = os.pidfd_open(os.getpid()); child = os.fork(); "
        "child or (locks.end_with_parent(own), time.sleep(60)); print(child, flush=True)"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", CHILD.replace("LOCK", program).replace("ATTEMPT", "os.kill(os.getpid(), 9)")],
        stdout=subprocess.PIPE, text=True, check=False, timeout=30,
    )  # fmt: skip
    # communicate() returned: nobody holds the pipe any more.
    assert found.returncode == -9


# ---------------------------------------------------------------- the filter, as the kernel would read it


ALLOW, KILL, EPERM, ENOSYS = 0x7FFF_0000, 0x8000_0000, 0x0005_0000 | errno.EPERM, 0x0005_0000 | errno.ENOSYS


def decide(program: bytes, arch: int, number: int, *args: int) -> int:
    """What classic BPF, of which the filter uses seven instructions, makes of a call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *[*args, *[0] * 6][:6])
    accumulator, place = 0, 0
    jumps: dict[int, Callable[[int, int], bool]] = {
        0x15: lambda a, k: a == k, 0x35: lambda a, k: a >= k, 0x45: lambda a, k: bool(a & k),
    }  # fmt: skip
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, place * 8)
        place += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return int(value)
        else:
            place += if_true if jumps[code](accumulator, value) else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_on_each_machine(machine: str) -> None:
    """Also on the one that this test does not run on."""
    arch, _, calls = MACHINES[machine]
    program = syscall_filter(machine)
    special = {"mmap", "mprotect", "clone", "clone3"}
    allowed = {number for name, number in calls.items() if name not in special}
    for number in range(600):
        if number not in calls.values():
            assert decide(program, arch, number) == EPERM, number
    assert all(decide(program, arch, number) == ALLOW for number in allowed)
    assert decide(program, arch, calls["clone3"]) == ENOSYS
    for name in ("mmap", "mprotect"):
        assert decide(program, arch, calls[name], 0, 0, 3) == ALLOW
        assert decide(program, arch, calls[name], 0, 0, 5) == EPERM
    threads, fork, namespace = 0x3D0F00, 0x1200011, 0x10000 | 0x1000_0000
    assert decide(program, arch, calls["clone"], threads) == ALLOW
    assert decide(program, arch, calls["clone"], fork) == EPERM
    assert decide(program, arch, calls["clone"], namespace) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_has_no_door(machine: str) -> None:
    arch, _, calls = MACHINES[machine]
    program = syscall_filter(machine)
    for other in (0x4000_0003, 0x4000_0028, *(row[0] for row in MACHINES.values() if row[0] != arch)):
        assert decide(program, other, calls["read"]) == KILL
    assert decide(program, arch, 0x4000_0000 | calls["write"]) == KILL


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_are_those_of_the_kernel(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} is not here")
    text = Path(header).read_text(encoding="utf-8")
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    _, seccomp, calls = MACHINES[machine]
    assert {name: numbers[name] for name in calls} == calls
    assert numbers["seccomp"] == seccomp


def test_no_filter_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child it would lock this very test; the machine is asked for first."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="riscv64"):
        sandbox_locks.forbid_syscalls()
