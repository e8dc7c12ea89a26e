"""What the kernel is asked to forbid to code that nobody has read: one function a lock, standard library only.

Linux on x86-64 and aarch64. Each function raises OSError when the kernel does not know its lock or refuses it.
The filter of system calls is the one lock without which nothing runs; all others stand behind it, so that one
mistake is not enough. They are given up in the child itself, so they last until it ends and cannot be undone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import select
import signal
import struct
import tempfile
from pathlib import Path

NOBODY = 65534

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
_CLONE_NEWCGROUP, _CLONE_THREAD = 0x0200_0000, 0x0001_0000
_CLONE_NEW_ANY = (
    _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWCGROUP
)
_PROT_EXEC = 4
_EPERM, _ENOSYS = 1, 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446

# linux/filter.h, linux/seccomp.h, linux/audit.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENTS = 0, 4, 16
_SECCOMP_SET_MODE_FILTER, _SECCOMP_ALL_THREADS = 1, 1
# System calls of the x32 face of an x86-64 kernel begin here.
_X32 = 0x4000_0000

# For each machine: the architecture as seccomp reports it, the number of seccomp(2), and the numbers of all that
# running Python needs once every module is loaded: reading and writing what is open, memory, threads, clocks, the end.
# Nothing opens, names, looks up, connects, signals another process or starts one.
MACHINES: dict[str, tuple[int, int, dict[str, int]]] = {
    "x86_64": (
        0xC000_003E,
        317,
        {
            "read": 0, "write": 1, "futex": 202, "clock_gettime": 228, "munmap": 11, "brk": 12, "madvise": 28,
            "mremap": 25, "close": 3, "fstat": 5, "lseek": 8, "readv": 19, "writev": 20, "getrandom": 318,
            "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131, "sched_yield": 24,
            "nanosleep": 35, "clock_nanosleep": 230, "clock_getres": 229, "gettimeofday": 96, "time": 201,
            "restart_syscall": 219, "getpid": 39, "getppid": 110, "gettid": 186, "getuid": 102, "geteuid": 107,
            "getgid": 104, "getegid": 108, "getrusage": 98, "set_robust_list": 273, "rseq": 334, "exit": 60,
            "exit_group": 231, "mmap": 9, "mprotect": 10, "clone": 56, "clone3": 435,
        },
    ),
    "aarch64": (
        0xC000_00B7,
        277,
        {
            "read": 63, "write": 64, "futex": 98, "clock_gettime": 113, "munmap": 215, "brk": 214, "madvise": 233,
            "mremap": 216, "close": 57, "fstat": 80, "lseek": 62, "readv": 65, "writev": 66, "getrandom": 278,
            "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sigaltstack": 132, "sched_yield": 124,
            "nanosleep": 101, "clock_nanosleep": 115, "clock_getres": 114, "gettimeofday": 169,
            "restart_syscall": 128, "getpid": 172, "getppid": 173, "gettid": 178, "getuid": 174, "geteuid": 175,
            "getgid": 176, "getegid": 177, "getrusage": 165, "set_robust_list": 99, "rseq": 293, "exit": 93,
            "exit_group": 94, "mmap": 222, "mprotect": 226, "clone": 220, "clone3": 435,
        },
    ),
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int) -> None:
    _must(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)), "prctl")


# ---------------------------------------------------------------- system calls


def syscall_filter(machine: str) -> bytes:
    """The program, in the kernel's classic BPF, that decides each system call. KeyError: a machine it is not for.

    Allowed are the calls of MACHINES; of `clone` only new threads, of `mmap` and `mprotect` only memory that cannot be
    executed. `clone3` does not exist, so that the C library falls back to `clone`, whose flags can be seen here.
    All else fails with EPERM, and a call through another architecture's door ends the process.
    """
    arch, _, calls = MACHINES[machine]
    code = [_instruction(_LOAD, _OFFSET_ARCH), _instruction(_JUMP_EQUAL, arch, 1, 0)]
    code += [_instruction(_RETURN, _KILL_PROCESS), _instruction(_LOAD, _OFFSET_NUMBER)]
    code += [_instruction(_JUMP_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _KILL_PROCESS)]
    special = {"mmap", "mprotect", "clone", "clone3"}
    for name, number in calls.items():
        if name not in special:
            code += [_instruction(_JUMP_EQUAL, number, 0, 1), _instruction(_RETURN, _ALLOW)]
    code += [_instruction(_JUMP_EQUAL, calls["clone3"], 0, 1), _instruction(_RETURN, _ERRNO | _ENOSYS)]
    for name in ("mmap", "mprotect"):
        code += [_instruction(_JUMP_EQUAL, calls[name], 0, 4), _instruction(_LOAD, _OFFSET_ARGUMENTS + 2 * 8)]
        code += [_instruction(_JUMP_ANY_BIT, _PROT_EXEC, 1, 0)]
        code += [_instruction(_RETURN, _ALLOW), _instruction(_RETURN, _ERRNO | _EPERM)]
    code += [_instruction(_JUMP_EQUAL, calls["clone"], 0, 4), _instruction(_LOAD, _OFFSET_ARGUMENTS)]
    code += [_instruction(_AND, _CLONE_THREAD | _CLONE_NEW_ANY), _instruction(_JUMP_EQUAL, _CLONE_THREAD, 0, 1)]
    code += [_instruction(_RETURN, _ALLOW), _instruction(_RETURN, _ERRNO | _EPERM)]
    return b"".join(code)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid_syscalls() -> None:
    """From here on only the calls of `syscall_filter` work, in every thread of this process and for ever."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(_ENOSYS, f"no filter of system calls for {machine}")
    code = syscall_filter(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    number = MACHINES[machine][1]
    result = _libc.syscall(number, _SECCOMP_SET_MODE_FILTER, _SECCOMP_ALL_THREADS, ctypes.byref(program))
    if result > 0:
        raise OSError(_EPERM, f"seccomp: thread {result} keeps another filter")
    _must(result, "seccomp")


# ---------------------------------------------------------------- files, network, other processes


def forbid_new_privileges() -> None:
    """No program that is started from here gains rights by its owner or its file."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def landlock() -> None:
    """No file by any path, no TCP port, no abstract socket and no signal beyond this process's own offspring.

    As much of it as this kernel's Landlock knows: files since Linux 5.13, TCP since 6.7, the rest since 6.12.
    """
    abi = _must(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1), "landlock")
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        rights |= (1 << bit) if abi >= since else 0
    fields = [rights] + ([3] if abi >= 4 else []) + ([3] if abi >= 6 else [])
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    size = ctypes.c_size_t(len(attributes))
    rules = _must(_libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, size, 0), "landlock")
    try:
        _must(_libc.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0), "landlock")
    finally:
        os.close(rules)


def own_namespaces() -> None:
    """A network without any device, an own table of mounts, own semaphores and host name.

    As root at once; for others within a user namespace of their own, where the machine allows that.
    """
    own = _CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWUTS
    if os.geteuid() == 0:
        _must(_libc.unshare(own), "unshare")
        return
    uid, gid = os.geteuid(), os.getegid()
    _must(_libc.unshare(own | _CLONE_NEWUSER), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")


def own_processes() -> None:
    """The next child, and those after it, see only each other; they end with the first of them."""
    _must(_libc.unshare(_CLONE_NEWPID), "unshare")


def empty_root() -> None:
    """The root is a folder that is empty and already deleted, so that nothing can be made in it either."""
    folder = tempfile.mkdtemp(prefix="capibara-")
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        Path(folder).rmdir()
        try:
            os.chroot(".")
        except OSError:
            os.fchdir(before)
            raise
    finally:
        os.close(before)


# ---------------------------------------------------------------- one process


def limit_resources(*, cpu_s: int, memory_bytes: int, threads: int = 64) -> None:
    """Seconds of processor, bytes of address space; no file grows, no core is dumped, 16 descriptors."""
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (16, 16),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_NPROC: (threads, threads),
    }
    for which, pair in limits.items():
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, pair if hard == resource.RLIM_INFINITY else (min(pair[0], hard), min(pair[1], hard)))


def drop_privileges() -> None:
    """Root becomes nobody, and every capability goes."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = struct.pack("=Ii", 0x2008_0522, 0)
    _must(_libc.capset(header, bytes(24)), "capset")


def hide_from_debuggers() -> None:
    """Others of the same user may neither trace this process nor read its memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def end_with_parent(parent: int) -> None:
    """SIGKILL when the parent ends; `parent` is its pidfd. A change of user forgets this, so it comes after that."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The kernel only tells of what is still to come.
    if select.select([parent], [], [], 0)[0]:
        os.kill(os.getpid(), signal.SIGKILL)


def be_killed_first() -> None:
    """When memory runs out, the kernel takes this process and its children before any other."""
    Path("/proc/self/oom_score_adj").write_text("1000")
