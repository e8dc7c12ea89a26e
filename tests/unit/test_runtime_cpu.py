"""Reading the CPU: what /proc/cpuinfo says about cores and what they can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from capibara_agents.runtime import cpu
from tests.unit.cpuinfo import ARM_BASE, RECORDED, arm, facts


@pytest.mark.parametrize(
    ("family", "part", "has", "lacks"),
    [
        ("neoverse-v2", "0x41:0xd4f", {"asimddp", "i8mm", "sve2"}, {"avx2"}),
        ("neoverse-v1", "0x41:0xd40", {"asimddp", "i8mm", "sve"}, {"sve2"}),
        ("neoverse-n1", "0x41:0xd0c", {"asimddp"}, {"i8mm", "sve"}),
        ("armv8-0", "", {"asimd"}, {"asimddp"}),
        ("x86-64-v4", "", {"avx2", "avx512f", "avx512_vnni"}, {"asimddp"}),
    ],
)
def test_parts_and_features(family: str, part: str, has: set[str], lacks: set[str]) -> None:
    """The maker and the part name a uniform ARM CPU; the features are those of its lines."""
    read = facts(family)
    assert read.part == part
    assert has <= read.features
    assert not lacks & read.features


def test_different_cores_have_no_common_part() -> None:
    """Big and little cores side by side are nobody's family; two makers of one part neither."""
    assert cpu.part_of(arm(ARM_BASE, "0x41", "0xd4f", "0xd46")) == ""
    assert cpu.part_of(arm(ARM_BASE, "0x41", "0xd4f") + arm(ARM_BASE, "0x51", "0xd4f")) == ""
    assert cpu.part_of("CPU implementer : 0x41\nCPU part : 0xD4F\n") == "0x41:0xd4f"


def test_this_machine_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded text stands in for the real file; without any file there is still one core at least."""
    file = tmp_path / "cpuinfo"
    file.write_text(RECORDED["neoverse-v2"][1])
    monkeypatch.setattr(cpu, "CPUINFO", file)
    assert cpu.read_cpu().part == "0x41:0xd4f"
    file.unlink()
    read = cpu.read_cpu()
    assert (read.part, read.features) == ("", frozenset())
    assert read.cores >= 1
