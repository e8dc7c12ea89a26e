"""What this machine has to compute with: cores and instruction-set features, read from the system."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

CPUINFO = Path("/proc/cpuinfo")
SYSTEM_CPUS = Path("/sys/devices/system/cpu")
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class CpuFacts:
    """`cores` are those this process may keep busy: physical ones, less what affinity and cgroup forbid."""

    architecture: str
    cores: int
    features: frozenset[str]
    core_ids: tuple[int, ...] = ()
    """Their numbers, one for each physical core."""
    part: str = ""
    """Who made the core and which it is, as MIDR has it (`0x41:0xd4f`); empty on x86 and where cores differ."""


def read_cpu() -> CpuFacts:
    """Reads /proc/cpuinfo, the affinity mask and the cgroup's quota; never fails, counts one core at least."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or usable
    cores = max(1, min(physical, usable, _quota_cores() or usable))
    return CpuFacts(platform.machine(), cores, features_of(text), _core_ids()[:cores], part_of(text))


def _core_ids() -> tuple[int, ...]:
    """The first hardware thread of each core this process may use; empty where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    found: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            siblings = (SYSTEM_CPUS / f"cpu{cpu}" / "topology/thread_siblings_list").read_text(encoding="ascii")
        except OSError:
            siblings = str(cpu)
        found.setdefault(siblings.strip(), cpu)
    return tuple(found.values())


def features_of(cpuinfo: str) -> frozenset[str]:
    """The feature words of /proc/cpuinfo: its `flags` line on x86, its `Features` line on ARM."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def part_of(cpuinfo: str) -> str:
    """`implementer:part` of the cores on ARM, lower-case hex; empty on x86, and where the cores are not all alike."""
    found: dict[str, set[str]] = {"CPU implementer": set(), "CPU part": set()}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in found:
            found[key.strip()].add(value.strip().lower())
    implementers, parts = found.values()
    return f"{min(implementers)}:{min(parts)}" if len(implementers) == len(parts) == 1 else ""


def _quota_cores() -> int | None:
    """Whole cores of the cgroup's CPU quota, at least one; None without a quota."""
    try:
        quota, period = CGROUP_CPU_MAX.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))
