"""What suits a model on this CPU: profiles as data, measured profiles before them, a model's own keys before both.

profiles_data/*.yaml   one file for each CPU family, each value under the reason for it
data_dir/measured.json what `capibara engine bench` found on this machine, for this engine and these weights

    the model's own key (fleet file or configuration)
      > measured.json, if it is of this CPU and this engine
        > the profile of the CPU family, of the model's size
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from capibara_agents.runtime.cpu import CpuFacts
from capibara_agents.runtime.sources import parse_source
from capibara_agents.settings import ModelSpec, Settings

GIB = 2**30
MEASURED_NAME = "measured.json"
SizeClass = Literal["tiny", "small", "medium", "large"]
# (weights of at most so many GiB, the class's name in the profiles); what is larger is `large`.
SIZES: tuple[tuple[float, SizeClass], ...] = ((0.5, "tiny"), (3.0, "small"), (13.0, "medium"))


@dataclass(frozen=True)
class Tuning:
    """How one model is run. `threads` None: all cores."""

    threads: int | None = None
    flash_attention: str = "auto"
    batch_tokens: int | None = None
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    repacked: tuple[str, ...] = ()
    """The tensor formats whose weights llama.cpp rearranges for this CPU, named as it names them (`q4_K`)."""


@dataclass(frozen=True)
class Profile:
    """What is known about one CPU family. `rank`: of several that match, the lowest is taken."""

    family: str
    title: str
    rank: int
    architecture: str
    parts: frozenset[str]
    features: frozenset[str]
    sizes: dict[str, Tuning] = field(repr=False)

    def matches(self, cpu: CpuFacts) -> bool:
        """A named part must be this one; a profile without parts takes whatever has the features."""
        if self.architecture not in ("", cpu.architecture) or not self.features <= cpu.features:
            return False
        return not self.parts or cpu.part in self.parts


@dataclass(frozen=True)
class MeasuredModel:
    """The best way found to run one weights file, and from what it was chosen."""

    threads: int
    flash_attention: str
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """One run of the bench, with where it comes from; `models` by the identity of their weights.

    `load_average` tells how much other work there was when it began.
    """

    made: str = ""
    cpu: str = ""
    engine: str = ""
    chosen_by: str = ""
    read_bytes_per_s: float = 0.0
    load_average: float = 0.0
    models: dict[str, MeasuredModel] = field(default_factory=dict)

    def of(self, spec: ModelSpec) -> MeasuredModel | None:
        return self.models.get(weights_identity(spec))


@cache
def profiles() -> tuple[Profile, ...]:
    """All profiles that ship, the most particular first."""
    folder = resources.files(__package__).joinpath("profiles_data")
    found = [_read_profile(file.name.removesuffix(".yaml"), file.read_text("utf-8")) for file in folder.iterdir()]
    return tuple(sorted(found, key=lambda profile: profile.rank))


def profile_for(cpu: CpuFacts) -> Profile:
    """The profile of this CPU; the last one matches every CPU."""
    return next(profile for profile in profiles() if profile.matches(cpu))


def size_class(weights_bytes: int) -> SizeClass:
    """Which part of a profile a model of this size takes."""
    return next((name for limit_gib, name in SIZES if weights_bytes <= limit_gib * GIB), "large")


def tuning_for(cpu: CpuFacts, weights_bytes: int) -> Tuning:
    """The profile's values for a model of this size; threads bounded by the cores."""
    return profile_for(cpu).sizes[size_class(weights_bytes)]


def tuned(spec: ModelSpec, cpu: CpuFacts, weights_bytes: int, measured: Measured | None = None) -> ModelSpec:
    """The model with every key that nobody set filled in; what was set stays.

    `threads` is filled from a measurement only: without one it stays open, because the fleet shares the cores.
    """
    wish: dict[str, object] = asdict(tuning_for(cpu, weights_bytes))
    del wish["threads"], wish["repacked"]
    found = measured.of(spec) if measured else None
    if found:
        wish |= {"threads": min(found.threads, cpu.cores), "flash_attention": found.flash_attention}
    update = {key: value for key, value in wish.items() if value is not None and not _is_set(spec, key)}
    chosen = spec.model_copy(update=update)
    if "flash_attention" in update and update["flash_attention"] == "off" and chosen.cache_type_v != "f16":
        # llama-server does not start with a quantised V cache and flash attention off.
        return chosen.model_copy(update={"flash_attention": "on"})
    return chosen


def tuned_settings(settings: Settings, cpu: CpuFacts, engine_version: str) -> Settings:
    """All models tuned for this CPU, by what was measured here where that is still of this CPU and engine."""
    measured = read_measured(settings.data_dir, cpu, engine_version)
    models = tuple(tuned(spec, cpu, weights_size(spec), measured) for spec in settings.models)
    return settings.model_copy(update={"models": models})


def prefill_speeds(settings: Settings, cpu: CpuFacts, engine_version: str) -> dict[str, float]:
    """Tokens of a prompt a second, of the models that were measured here, as they are run: on the longest prompt."""
    measured = read_measured(settings.data_dir, cpu, engine_version)
    speeds = {}
    for spec in settings.models if measured else ():
        found = measured.of(spec) if measured else None
        rows = [row for row in found.rows if _is_of(row, found)] if found else []
        if rows:
            speeds[spec.id] = float(max(rows, key=lambda row: row["prompt_tokens"])["tokens_per_s"])
    return speeds


def _is_of(row: dict[str, Any], chosen: MeasuredModel) -> bool:
    """Whether it is a measurement of reading, in the way that was chosen."""
    setting = (row.get("threads"), row.get("flash_attention"))
    return setting == (chosen.threads, chosen.flash_attention) and row.get("prompt_tokens", 0) > 0


def cpu_identity(cpu: CpuFacts) -> str:
    """Names a CPU closely enough to tell whether a measurement is of it."""
    return f"{profile_for(cpu).family} {cpu.part or cpu.architecture} {cpu.cores} cores"


def weights_identity(spec: ModelSpec) -> str:
    """The checksum of a model's weights, or their source where none is known."""
    return spec.weights.sha256 or spec.weights.source


def weights_size(spec: ModelSpec) -> int:
    """Bytes of a model's weights: as stated, else of the file where it is a local one, else a guess of 1 GiB."""
    if spec.weights.size_bytes is None and spec.weights.source.startswith("file://"):
        with contextlib.suppress(OSError):
            return Path(parse_source(spec.weights.source).place).stat().st_size
    return spec.weights.size_bytes or GIB


def read_measured(data_dir: Path, cpu: CpuFacts, engine_version: str) -> Measured | None:
    """What was measured, unless it is of another CPU or engine; anything unreadable counts as nothing measured."""
    try:
        said = json.loads((data_dir / MEASURED_NAME).read_text(encoding="utf-8"))
        models = {key: MeasuredModel(**value) for key, value in said.pop("models").items()}
        measured = Measured(**said, models=models)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    fits = measured.cpu == cpu_identity(cpu) and measured.engine == engine_version
    return measured if fits else None


def write_measured(data_dir: Path, measured: Measured, cpu: CpuFacts) -> Path:
    """Adds to what was measured before on this CPU and engine, and replaces the file whole. Raises OSError."""
    earlier = read_measured(data_dir, cpu, measured.engine)
    models = {**(earlier.models if earlier else {}), **measured.models}
    document = {**asdict(measured), "models": {key: asdict(value) for key, value in models.items()}}
    file = data_dir / MEASURED_NAME
    data_dir.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.draft")
    try:
        draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        draft.replace(file)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return file


def _is_set(spec: ModelSpec, key: str) -> bool:
    return key in spec.model_fields_set and getattr(spec, key) is not None


def _read_profile(family: str, text: str) -> Profile:
    said = yaml.safe_load(text)
    match, known = said["match"], {one.name for one in fields(Tuning)}
    sizes = {name: said["all"] | said["sizes"][name] for name in ("tiny", "small", "medium", "large")}
    for name, values in sizes.items():
        if values.keys() != known:
            raise ValueError(f"profile {family}, {name}: {sorted(values.keys() ^ known)}")
    return Profile(
        family=family.replace("_", "-"),
        title=said["title"],
        rank=said["rank"],
        architecture=match["architecture"],
        parts=frozenset(match["parts"]),
        features=frozenset(match["features"]),
        sizes={name: Tuning(**{**v, "repacked": tuple(v["repacked"])}) for name, v in sizes.items()},
    )
