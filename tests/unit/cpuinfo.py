"""What /proc/cpuinfo says on one CPU of each family, shortened to the lines and words that are read."""

from __future__ import annotations

from capibara_agents.runtime.cpu import CpuFacts, features_of, part_of

ARM_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
ARM_82 = f"{ARM_BASE} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"


def arm(features: str, implementer: str, *parts: str) -> str:
    """One block for each part."""
    blocks = (
        f"processor\t: {number}\nBogoMIPS\t: 2000.00\nFeatures\t: {features}\nCPU implementer\t: {implementer}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 1\n"
        for number, part in enumerate(parts)
    )
    return "\n".join(blocks)


def x86(flags: str) -> str:
    return (
        f"processor\t: 0\nvendor_id\t: GenuineExample\nmodel name\t: Example\nflags\t\t: {flags}\nbogomips\t: 5000.00\n"
    )


V2_WORDS = f"{ARM_82} sha3 sha512 sve asimdfhm dit sve2 sveaes svei8mm svebf16 i8mm bf16 rng bti"
V1_WORDS = f"{ARM_82} sha3 sha512 sve asimdfhm dit svei8mm svebf16 i8mm bf16 rng"
V3_WORDS = "fpu sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c bmi1 avx2 bmi2"
V4_WORDS = f"{V3_WORDS} avx512f avx512dq avx512cd avx512bw avx512vl"

RECORDED = {
    "neoverse-v2": ("aarch64", arm(V2_WORDS, "0x41", "0xd4f", "0xd4f")),
    "neoverse-v1": ("aarch64", arm(V1_WORDS, "0x41", "0xd40", "0xd40")),
    "neoverse-n1": ("aarch64", arm(ARM_82, "0x41", "0xd0c")),
    "armv8-6": ("aarch64", arm(V2_WORDS, "0x41", "0xd49")),
    "armv8-2": ("aarch64", arm(ARM_82, "0x48", "0xd01")),
    "armv8-0": ("aarch64", arm(ARM_BASE, "0x41", "0xd08", "0xd03")),
    "x86-64-v4": ("x86_64", x86(f"{V4_WORDS} avx512_vnni")),
    "x86-64-v3": ("x86_64", x86(f"{V3_WORDS} avx_vnni")),
    "generic": ("x86_64", x86("fpu sse sse2 ssse3 sse4_1 sse4_2")),
}


def facts(family: str, cores: int = 32) -> CpuFacts:
    """That CPU with so many cores."""
    architecture, text = RECORDED[family]
    return CpuFacts(architecture, cores, features_of(text), part=part_of(text))
