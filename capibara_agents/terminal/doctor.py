"""`capibara doctor`: what Capibara needs, what is here, and what to do about the rest."""

from __future__ import annotations

import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import psutil
import typer

from capibara_agents.errors import EngineError
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.fit import misfits
from capibara_agents.runtime.memory import budget_bytes
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.service import at_its_port
from capibara_agents.verify.sandbox import available

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    what: str


def run(settings: Settings, terminal: Terminal, *, as_json: bool) -> None:
    """Look at everything; exit status 1 when something is to be done."""
    findings = list(examine(settings, terminal))
    healthy = all(finding.ok for finding in findings)
    if as_json:
        terminal.print_json({"ok": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = terminal.text("doctor.ok" if finding.ok else "doctor.bad")
            typer.echo(f"[{mark}] {terminal.text('doctor.' + finding.name)}: {finding.what}")
    if not healthy:
        raise typer.Exit(1)


def examine(settings: Settings, terminal: Terminal) -> Iterator[Finding]:
    """The findings, in the order in which things are needed."""
    yield Finding("python", True, platform.python_version())
    engine = _engine(settings, terminal)
    yield engine
    yield _compiler(terminal, engine_built=engine.ok)
    memory = psutil.virtual_memory()
    values = {"available": f"{memory.available / GIB:.1f}", "total": f"{memory.total / GIB:.1f}"}
    yield Finding("memory", True, terminal.text("doctor.memory.values", **values))
    folder = next(p for p in (settings.weights_dir, *settings.weights_dir.parents) if p.exists())
    free = f"{shutil.disk_usage(folder).free / GIB:.1f}"
    yield Finding("disk", True, terminal.text("doctor.disk.values", free=free))
    yield _weights(settings, terminal)
    if engine.ok:
        yield _budget(settings, terminal)
    yield _sandbox(terminal)
    yield _port(settings, terminal)


def _engine(settings: Settings, terminal: Terminal) -> Finding:
    try:
        engine = find_engine(settings)
    except EngineError as error:
        return Finding("engine", False, error.told(terminal.language))
    return Finding("engine", True, f"{engine.binary} ({engine.version})")


def _compiler(terminal: Terminal, *, engine_built: bool) -> Finding:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found:
        return Finding("compiler", True, found)
    if engine_built:
        return Finding("compiler", True, terminal.text("doctor.compiler_not_needed"))
    return Finding("compiler", False, terminal.text("doctor.no_compiler"))


def _weights(settings: Settings, terminal: Terminal) -> Finding:
    store = WeightStore(settings.weights_dir)
    missing = [spec.id for spec in settings.models if not store.is_present(spec)]
    if missing:
        return Finding(
            "weights", False, terminal.text("doctor.weights.missing", fleet=settings.fleet, models=", ".join(missing))
        )
    return Finding("weights", True, terminal.text("doctor.weights.here"))


def _budget(settings: Settings, terminal: Terminal) -> Finding:
    """Whether every model whose weights are here would fit if it were alone."""
    found = misfits(settings, find_engine(settings).version)
    too_large = [terminal.text("fleet.too_large", **one.figures) for one in found]
    values = {"budget": f"{budget_bytes(settings) / 1e9:.1f}"}
    return Finding("budget", not too_large, " ".join(too_large) or terminal.text("doctor.budget.values", **values))


def _sandbox(terminal: Terminal) -> Finding:
    """Whether code of answers can be run; without the kernel's locks it is not, and everything else works."""
    runs, what = available()
    if runs:
        return Finding("sandbox", True, terminal.text("doctor.sandbox.locks", locks=what))
    return Finding("sandbox", True, terminal.text(f"verify.sandbox.{what}"))


def _port(settings: Settings, terminal: Terminal) -> Finding:
    port = settings.server.port
    if (url := at_its_port(settings)) is not None:
        return Finding("port", True, terminal.text("doctor.port_ours", url=url))
    with socket.socket(socket.AF_INET6 if ":" in settings.server.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.server.host, port))
        except OSError:
            return Finding("port", False, terminal.text("doctor.port_taken", port=port))
    return Finding("port", True, terminal.text("doctor.port_free", port=port))
