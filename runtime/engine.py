"""Which llama-server there is, and which flags it knows.

The operator's own binary (`runtime.llama_server`) wins; otherwise the one that was compiled together with
llama-cpp-python, found by its files, because importing that package would load the whole library.

A binary for another kind of machine is asked through the `command_prefix` of the first model: that is how an emulator
runs it, and then it is the emulator that answers for the CPU.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from capibara_agents.config import child_environment
from capibara_agents.errors import EngineError
from capibara_agents.runtime.exits import last_words, signal_name
from capibara_agents.settings import Settings
from capibara_agents.texts import phrase

DISTRIBUTION = "llama-cpp-python"
# `e_machine` in the header of an ELF file.
ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
PROBE_TIMEOUT_S = 30.0
_FLAG = re.compile(r"(?<![\w-])(--?[A-Za-z][\w-]*)")


@dataclass(frozen=True)
class Engine:
    """A llama-server that runs on this machine."""

    binary: Path
    version: str
    flags: frozenset[str]
    prefix: tuple[str, ...] = ()
    """What must stand before the binary for it to run here: an emulator, or nothing."""

    def tool(self, name: str) -> Path | None:
        """Another program of the same build, such as llama-bench; None where it did not come along."""
        file = self.binary.with_name(name)
        return file if os.access(file, os.X_OK) else None


def find_engine(settings: Settings) -> Engine:
    """Locates and probes the binary. Raises EngineError when there is none, or it does not run here."""
    binary = find_binary(settings)
    stat = binary.stat()
    return _probe(binary, _launcher(settings, binary), stat.st_mtime_ns, stat.st_size)


def _launcher(settings: Settings, binary: Path) -> tuple[str, ...]:
    foreign = machine_of(binary) not in (None, platform.machine())
    return settings.models[0].command_prefix if foreign and settings.models else ()


def machine_of(binary: Path) -> str | None:
    """For which machine a binary is made, in the words of platform.machine(); None for a script or what is unknown."""
    with binary.open("rb") as stream:
        header = stream.read(20)
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    return ELF_MACHINES.get(int.from_bytes(header[18:20], "little" if header[5] == 1 else "big"))


def find_binary(settings: Settings) -> Path:
    """The binary's path, not yet tried. Raises EngineError when it is absent or not executable."""
    chosen = settings.runtime.llama_server
    binary = chosen if chosen is not None else _compiled_here()
    if not binary.is_file():
        raise EngineError(phrase("engine.none_chosen" if chosen else "engine.none", binary=binary))
    if not os.access(binary, os.X_OK):
        raise EngineError(phrase("engine.not_executable", binary=binary))
    return binary


def _compiled_here() -> Path:
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineError(phrase("engine.not_installed", package=DISTRIBUTION)) from error
    return Path(str(distribution.locate_file("bin/llama-server")))


@lru_cache(maxsize=8)
def _probe(binary: Path, prefix: tuple[str, ...], _mtime_ns: int, _size_bytes: int) -> Engine:
    """Asks the binary itself; the file's time and size make a rebuilt one be asked again."""
    help_text = _ask(binary, prefix, "--help")
    flags = flags_of(help_text)
    if "--model" not in flags:
        raise EngineError(phrase("engine.no_engine", binary=binary))
    return Engine(binary, version_of(_ask(binary, prefix, "--version")), flags, prefix)


def _ask(binary: Path, prefix: tuple[str, ...], question: str) -> str:
    try:
        done = subprocess.run(
            [*prefix, str(binary), question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            env=child_environment({}),
            check=False,
        )
    except OSError as error:
        raise EngineError(phrase("engine.not_run", binary=binary, error=error.strerror)) from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            phrase("engine.silent", binary=binary, question=question, limit=f"{PROBE_TIMEOUT_S:.0f}")
        ) from error
    output = (done.stdout + done.stderr).decode("utf-8", errors="replace")
    if done.returncode in (-4, 132):
        raise EngineError(phrase("engine.other_cpu", binary=binary))
    if done.returncode != 0:
        code = done.returncode
        how = signal_name(-code) if code < 0 else phrase("engine.exit_code", code=code)
        words = last_words(output)
        raise EngineError(phrase("engine.fails", binary=binary, question=question, how=how, words=words))
    return output


def flags_of(help_text: str) -> frozenset[str]:
    """Every flag that --help defines; one that is only mentioned in an explanation is not defined."""
    found: set[str] = set()
    for line in help_text.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            # Explanations begin after two blanks; flags are separated by a comma and one or more blanks.
            head = re.sub(r",\s+", ",", line).partition("  ")[0]
            found.update(_FLAG.findall(head))
    return frozenset(found)


def version_of(text: str) -> str:
    """The words after `version:`, else the first line."""
    match = re.search(r"version:\s*(.+)", text)
    return (match[1] if match else text.strip().partition("\n")[0]).strip()
