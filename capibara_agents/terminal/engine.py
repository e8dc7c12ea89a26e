"""`capibara engine`: which llama-server there is, which kernels it has and its models use, and how fast they are."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import typer
from rich.table import Table

from capibara_agents.errors import EngineError, WeightsError
from capibara_agents.runtime import bench as benching
from capibara_agents.runtime.bandwidth import Bandwidth, bytes_per_token, read_bandwidth
from capibara_agents.runtime.cpu import CpuFacts, read_cpu
from capibara_agents.runtime.engine import Engine, find_engine
from capibara_agents.runtime.kernels import Kernels, ModelCheck, ask_build, check_model, missing_kernels
from capibara_agents.runtime.profiles import threads_for
from capibara_agents.runtime.tuning import (
    Measured,
    MeasuredModel,
    cpu_identity,
    profile_for,
    read_measured,
    size_class,
    tuned,
    weights_identity,
    weights_size,
    write_measured,
)
from capibara_agents.runtime.weights import LocalFiles, WeightStore
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.paper import paper

MIB, GB = 2**20, 1e9
# A model is not started for a check when its weights would take more of the free memory than this.
MEMORY_SHARE = 0.9
# Above so much other work for each core, figures say more about that work than about the engine.
BUSY_SHARE = 0.25
TUNED_KEYS = ("threads", "flash_attention", "batch_tokens", "cache_type_k", "cache_type_v")


@dataclass(frozen=True)
class Here:
    """What every command looks at first."""

    settings: Settings
    engine: Engine
    cpu: CpuFacts
    build: Kernels

    @classmethod
    def look(cls, settings: Settings) -> Here:
        """Raises EngineError when there is no llama-server that runs here and tells what it is."""
        engine = find_engine(settings)
        return cls(settings, engine, read_cpu(), ask_build(engine))

    @property
    def missing(self) -> tuple[str, ...]:
        return missing_kernels(self.cpu, self.build)

    def as_json(self) -> dict[str, Any]:
        profile = profile_for(self.cpu)
        return {
            "engine": {"binary": str(self.engine.binary), "version": self.engine.version},
            "cpu": {
                "architecture": self.cpu.architecture,
                "part": self.cpu.part,
                "cores": self.cpu.cores,
                "family": profile.family,
            },
            "build": {
                "features": dict(self.build.features),
                "variant": self.build.variant,
                "missing": list(self.missing),
            },
        }


# ---------------------------------------------------------------- show


def show(settings: Settings, terminal: Terminal, *, as_json: bool) -> None:
    """The engine, the CPU, and how each model would be run on it."""
    here = Here.look(settings)
    measured = read_measured(settings.data_dir, here.cpu, here.engine.version)
    rows = [_tuning_row(spec, here.cpu, measured) for spec in settings.models]
    if as_json:
        made = {"made": measured.made, "chosen_by": measured.chosen_by} if measured else None
        terminal.print_json({**here.as_json(), "measured": made, "models": rows})
        return
    _say_build(here, terminal)
    if measured:
        terminal.say("engine.measured", made=measured.made)
    columns = ("table.model", "engine.size", *(f"engine.key.{key}" for key in TUNED_KEYS))
    table = _table(terminal, columns)
    for row in rows:
        values = [
            f"{row[key]}{'*' if row['from'][key] == 'measured' else '+' if row['from'][key] == 'model' else ''}"
            for key in TUNED_KEYS
        ]
        table.add_row(row["id"], row["size"], *values)
    paper().print(table)
    terminal.say("engine.marks")


def _tuning_row(spec: ModelSpec, cpu: CpuFacts, measured: Measured | None) -> dict[str, Any]:
    weights_bytes = weights_size(spec)
    full = tuned(spec, cpu, weights_bytes, measured)
    full = full.model_copy(update={"threads": threads_for(full, cpu, weights_bytes)})
    values = {key: getattr(full, key) for key in TUNED_KEYS}
    found = measured.of(spec) if measured else None

    def origin(key: str) -> str:
        if key in spec.model_fields_set and getattr(spec, key) is not None:
            return "model"
        return "measured" if found and key in ("threads", "flash_attention") else "profile"

    return {
        "id": spec.id,
        "size": size_class(weights_bytes),
        **values,
        "from": {key: origin(key) for key in TUNED_KEYS},
    }


def _say_build(here: Here, terminal: Terminal) -> None:
    profile = profile_for(here.cpu)
    terminal.say("engine.binary", binary=here.engine.binary, version=here.engine.version)
    terminal.say("engine.cpu", title=profile.title, family=profile.family, cores=here.cpu.cores)
    if here.build.variant:
        terminal.say("engine.variant", variant=here.build.variant)
    named = (name if value == 1 else f"{name}={value}" for name, value in here.build.features.items())
    terminal.say("engine.kernels", kernels=" ".join(named))


# ---------------------------------------------------------------- check


def check(settings: Settings, names: Sequence[str], terminal: Terminal, *, as_json: bool) -> None:
    """Prove the kernels. Exit status 1, with one sentence, for a build or a model that is not on the fast ones."""
    here = Here.look(settings)
    if not as_json:
        _say_build(here, terminal)
    # A build that lacks kernels lacks them for every model: no need to load any.
    rows = [] if here.missing else list(_check_models(here, _chosen(settings, names), terminal, aloud=not as_json))
    reason = _reason(here, rows, terminal)
    if as_json:
        terminal.print_json({"good": not reason, "reason": reason or None, **here.as_json(), "models": rows})
        if reason:
            raise typer.Exit(1)
        return
    if reason:
        raise EngineError(reason)
    terminal.say("engine.good")


def _reason(here: Here, rows: Sequence[dict[str, Any]], terminal: Terminal) -> str:
    if here.missing:
        binary = here.engine.binary
        return terminal.text("engine.lacks", binary=binary, kernels=", ".join(here.missing))
    for row in rows:
        if row["good"] is False:
            return str(row["error"]) if row["error"] else terminal.text("engine.unused", model=row["id"])
    return ""


def _check_models(
    here: Here, specs: Sequence[ModelSpec], terminal: Terminal, *, aloud: bool
) -> Iterator[dict[str, Any]]:
    """One row a model; models that share weights share a start."""
    store, seen = WeightStore(here.settings.weights_dir), dict[Path, ModelCheck]()
    for spec in specs:
        row: dict[str, Any] = {"id": spec.id, "good": None, "error": None}
        try:
            files = store.require(spec)
        except WeightsError:
            yield row | {"error": terminal.text("weights.missing")}
            continue
        size = files.weights.stat().st_size
        if size > MEMORY_SHARE * psutil.virtual_memory().available:
            yield row | {"error": terminal.text("engine.no_room")}
            continue
        if files.weights not in seen:
            seen[files.weights] = _check_one(here, spec, files)
        result = seen[files.weights]
        if aloud:
            typer.echo(f"{spec.id}: {_told(result, terminal)}")
        yield row | _as_row(result)


def _check_one(here: Here, spec: ModelSpec, files: LocalFiles) -> ModelCheck:
    size = files.weights.stat().st_size
    ready = tuned(spec, here.cpu, size)
    ready = ready.model_copy(update={"threads": threads_for(ready, here.cpu, size)})
    with tempfile.TemporaryDirectory(prefix="capibara-") as folder:
        return check_model(ready, files, here.engine, here.cpu, Path(folder) / "server.log")


def _as_row(result: ModelCheck) -> dict[str, Any]:
    return {
        "good": result.good,
        "error": result.exit.sentence if result.exit else None,
        "variant": result.kernels.variant,
        "formats": dict(result.kernels.tensors),
        "buffers": dict(result.kernels.buffers),
        "expected": list(result.expected),
        "rearranged_share": round(result.rearranged_share, 3),
    }


def _told(result: ModelCheck, terminal: Terminal) -> str:
    if result.exit:
        return result.exit.sentence
    buffers = ", ".join(f"{name} {size / MIB:.1f} MiB" for name, size in result.kernels.buffers.items())
    if result.kernels.rearranged:
        return terminal.text("engine.uses", buffers=buffers, share=f"{100 * result.rearranged_share:.0f}")
    if result.expected:
        return terminal.text("engine.uses_none", buffers=buffers, formats=", ".join(result.expected))
    able = ", ".join(result.able) or terminal.text("engine.no_format")
    return terminal.text("engine.no_kernel", buffers=buffers, format=result.kernels.main_format or "?", able=able)


# ---------------------------------------------------------------- bench


def bench(
    settings: Settings, names: Sequence[str], terminal: Terminal, *, minutes: float, quick: bool, as_json: bool
) -> None:
    """Measure the models whose weights are here, print the tables, write the measured profile (not when quick)."""
    here, store = Here.look(settings), WeightStore(settings.weights_dir)
    specs = _distinct([spec for spec in _chosen(settings, names) if store.is_present(spec)])
    if not specs:
        raise WeightsError(
            terminal.text("weights.get", fleet=settings.fleet, models=", ".join(s.id for s in _chosen(settings, names)))
        )
    specs = specs[:1] if quick and not names else specs
    busy = os.getloadavg()[0]
    if busy > BUSY_SHARE * here.cpu.cores:
        terminal.note("warning", text=terminal.text("engine.busy", load=f"{busy:.1f}", cores=here.cpu.cores))
    memory = read_bandwidth(here.cpu.cores, quick=quick)
    results = [_bench_one(here, spec, store, memory, terminal, minutes=minutes, quick=quick) for spec in specs]
    models = {weights_identity(result.spec): found for result in results if (found := result.chosen)}
    written = None
    if models and not quick:
        chosen_by = f"shortest time for {benching.USUAL_PROMPT} prompt and {benching.USUAL_ANSWER} answer tokens"
        made = datetime.now(UTC).isoformat(timespec="seconds")
        identity, version = cpu_identity(here.cpu), here.engine.version
        measured = Measured(made, identity, version, chosen_by, memory.bytes_per_s, round(busy, 2), models)
        written = write_measured(settings.data_dir, measured, here.cpu)
    if as_json:
        figures = [result.as_json(memory) for result in results]
        values = {"bandwidth": asdict(memory), "load_average": busy, "models": figures}
        terminal.print_json({**here.as_json(), **values, "written": str(written) if written else None})
        return
    _say_build(here, terminal)
    rate, size = f"{memory.bytes_per_s / GB:.1f}", memory.bytes_each // MIB
    terminal.say("engine.bandwidth", rate=rate, threads=memory.threads, size=size, rounds=memory.rounds)
    for result in results:
        _print_result(result, memory, terminal)
    if written:
        terminal.say("engine.written", file=written)


@dataclass(frozen=True)
class Result:
    """One model's figures."""

    spec: ModelSpec
    report: benching.Report
    token_bytes: int
    chosen: MeasuredModel | None

    def ratio(self, memory: Bandwidth) -> float | None:
        """The fastest decoding as a part of what memory allows."""
        best = benching.best_decode(self.report.rows)
        return best / benching.decode_limit(memory, self.token_bytes) if best is not None else None

    def as_json(self, memory: Bandwidth) -> dict[str, Any]:
        ratio = self.ratio(memory)
        return {
            "id": self.spec.id,
            "weights": self.spec.weights_name,
            "rows": [asdict(row) for row in self.report.rows],
            "unfinished": [asdict(job) for job in self.report.unfinished],
            "took_s": round(self.report.took_s, 1),
            "token_bytes": self.token_bytes,
            "decode_limit": round(benching.decode_limit(memory, self.token_bytes), 1),
            "best_decode": benching.best_decode(self.report.rows),
            "ratio": round(ratio, 3) if ratio is not None else None,
            "chosen": {"threads": self.chosen.threads, "flash_attention": self.chosen.flash_attention}
            if self.chosen
            else None,
        }


def _bench_one(
    here: Here,
    spec: ModelSpec,
    store: WeightStore,
    memory: Bandwidth,
    terminal: Terminal,
    *,
    minutes: float,
    quick: bool,
) -> Result:
    weights = store.require(spec).weights
    todo = benching.plan(here.cpu, weights.stat().st_size, quick=quick)

    def told(number: int, count: int, job: benching.Job) -> None:
        lengths = ", ".join(map(str, job.prompts))
        values = {"threads": job.setting.threads, "flash": job.setting.flash_attention, "prompts": lengths}
        terminal.note("engine.measuring", model=spec.id, number=number + 1, count=count, **values)

    report = benching.run(here.engine, weights, todo, 60 * minutes, told)
    return Result(spec, report, bytes_per_token(weights), benching.measured_model(report.rows))


def _print_result(result: Result, memory: Bandwidth, terminal: Terminal) -> None:
    rows = result.report.rows
    typer.echo()
    typer.echo(f"{result.spec.id} ({result.spec.weights_name})")
    lengths = sorted({row.prompt_tokens for row in rows} - {0})
    table = _table(terminal, ("engine.key.threads", "engine.key.flash_attention"))
    for name in (
        *(terminal.text("engine.prompt", tokens=length) for length in lengths),
        terminal.text("engine.decode"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    by_setting = {(row.threads, row.flash_attention, row.prompt_tokens): row for row in rows}
    for threads, flash in sorted({(row.threads, row.flash_attention) for row in rows}):
        cells = [by_setting.get((threads, flash, length)) for length in (*lengths, 0)]
        table.add_row(str(threads), flash, *(_speed(row) if row else "-" for row in cells))
    paper().print(table)
    ratio, best = result.ratio(memory), benching.best_decode(rows)
    if ratio is not None and best is not None:
        limit = f"{benching.decode_limit(memory, result.token_bytes):.0f}"
        values = {"limit": limit, "size": f"{result.token_bytes / GB:.3f}"}
        terminal.say("engine.limit", best=f"{best:.1f}", ratio=f"{100 * ratio:.0f}", **values)
    if result.chosen:
        terminal.say("engine.best", threads=result.chosen.threads, flash=result.chosen.flash_attention)
    if result.report.unfinished:
        terminal.say("engine.unfinished", count=len(result.report.unfinished))


def _speed(row: benching.Row) -> str:
    digits = 0 if row.tokens_per_s >= 100 else 1
    return f"{row.tokens_per_s:.{digits}f} ±{row.spread:.{digits}f}"


# ---------------------------------------------------------------- what they share


def _chosen(settings: Settings, names: Sequence[str]) -> list[ModelSpec]:
    return [settings.spec(name) for name in names] if names else list(settings.models)


def _distinct(specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """One model for each weights file."""
    return list({weights_identity(spec): spec for spec in reversed(specs)}.values())[::-1]


def _table(terminal: Terminal, columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for code in columns:
        table.add_column(terminal.text(code), overflow="fold")
    return table
