"""Profiles: chosen by the CPU, each value with its reason, measured ones first, a model's own keys before all."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.config import load
from capibara_agents.runtime.profiles import threads_for
from capibara_agents.runtime.tuning import (
    GIB,
    MEASURED_NAME,
    Measured,
    MeasuredModel,
    Tuning,
    cpu_identity,
    profile_for,
    profiles,
    read_measured,
    size_class,
    tuned,
    tuned_settings,
    tuning_for,
    weights_identity,
    weights_size,
    write_measured,
)
from capibara_agents.settings import ModelSpec
from tests.unit.cpuinfo import RECORDED, facts

V2, N1, V4 = facts("neoverse-v2"), facts("neoverse-n1"), facts("x86-64-v4")


def spec(**keys: Any) -> ModelSpec:
    weights = {"source": "file:///m.gguf", "sha256": "0" * 64}
    base = {"id": "m", "tier": "general", "weights": weights, "max_tokens": 9, "timeout_s": 9}
    return ModelSpec.model_validate({**base, **keys})


@pytest.mark.parametrize("family", RECORDED)
def test_every_family_is_recognised(family: str) -> None:
    """The text of each CPU leads to its own profile and to no other."""
    assert profile_for(facts(family)).family == family


def test_there_is_a_text_for_every_profile() -> None:
    """A new profile needs a recorded CPU, and the last one takes everybody."""
    assert {profile.family for profile in profiles()} == set(RECORDED)
    assert profiles()[-1].matches(replace(V2, architecture="riscv64", features=frozenset(), part=""))


def test_a_part_alone_is_not_enough() -> None:
    """A hypervisor that hides i8mm makes a Neoverse V2 a CPU with dotprod."""
    hidden = replace(V2, features=V2.features - {"i8mm", "sve2"})
    assert profile_for(hidden).family == "armv8-2"


@pytest.mark.parametrize(
    ("family", "weights_gib", "threads", "flash"),
    [
        ("neoverse-v2", 2.3, 16, "off"),
        ("neoverse-v2", 4.1, 32, "off"),
        ("neoverse-v2", 11.3, 32, "off"),
        ("neoverse-v2", 15.4, 72, "off"),
        ("neoverse-v1", 0.9, 16, "off"),
        ("neoverse-n1", 0.9, 16, "auto"),
        ("armv8-0", 20.0, 72, "auto"),
        ("x86-64-v4", 0.9, 16, "on"),
        ("x86-64-v3", 4.1, 32, "auto"),
    ],
)
def test_what_a_model_gets(family: str, weights_gib: float, threads: int, flash: str) -> None:
    """On 72 cores: 16 threads for small models, 32 for middling ones, all for large ones."""
    cpu, size = facts(family, 72), int(weights_gib * GIB)
    assert threads_for(spec(), cpu, size) == threads
    assert tuned(spec(), cpu, size).flash_attention == flash


def test_threads_never_exceed_the_cores() -> None:
    """A profile's number is a wish, the cores are a fact."""
    assert threads_for(spec(), facts("neoverse-v2", 4), GIB) == 4


def test_size_classes() -> None:
    """The limits belong to the smaller class."""
    sizes = [GIB // 2, 3 * GIB, 13 * GIB, 13 * GIB + 1]
    assert [size_class(size) for size in sizes] == ["tiny", "small", "medium", "large"]


def test_what_is_set_stays() -> None:
    """A key of the model wins over the profile, also with the profile's opposite or the field's default."""
    given = tuned(spec(flash_attention="on", batch_tokens=64, cache_type_k="f16"), V2, GIB)
    assert (given.flash_attention, given.batch_tokens) == ("on", 64)
    assert tuned(spec(flash_attention=None), V2, GIB).flash_attention == "off"


def test_a_quantised_v_cache_gets_flash_attention() -> None:
    """llama-server does not start without it: the profile's wish yields, the model's own word does not."""
    assert tuned(spec(cache_type_v="q8_0"), V2, GIB).flash_attention == "on"
    assert tuned(spec(cache_type_v="q8_0", flash_attention="off"), V2, GIB).flash_attention == "off"


def test_rearranged_formats_follow_the_kernels() -> None:
    """Q6_K has such kernels on ARM and none on x86; a CPU without dotprod has none at all."""
    assert {"q4_0", "q4_K", "q6_K"} <= set(tuning_for(V2, GIB).repacked)
    assert "q6_K" not in tuning_for(V4, GIB).repacked
    assert tuning_for(facts("armv8-0"), GIB).repacked == ()


def test_every_value_has_its_reason() -> None:
    """In each file every value stands under a comment."""
    names = "|".join(field.name for field in fields(Tuning))
    for file in resources.files("capibara_agents.runtime").joinpath("profiles_data").iterdir():
        lines = file.read_text("utf-8").splitlines()
        values = [number for number, line in enumerate(lines) if re.match(rf"\s+({names}):", line)]
        assert len(values) >= 8, file.name
        for number in values:
            assert lines[number - 1].strip().startswith("# "), f"{file.name}: {lines[number]}"
            assert len(lines[number - 1].strip()) > 8, f"{file.name}: {lines[number - 1]}"


# ---------------------------------------------------------------- measured profiles


def measured(**keys: Any) -> Measured:
    models = {weights_identity(spec()): MeasuredModel(24, "on", [{"threads": 24}])}
    base = {"made": "2026-01-01", "cpu": cpu_identity(V2), "engine": "1", "chosen_by": "time", "models": models}
    return Measured(**{**base, **keys})


def test_what_was_measured_wins_over_the_profile() -> None:
    """Threads and flash attention come from the measurement, the rest from the profile, set keys from the model."""
    full = tuned(spec(), V2, GIB, measured())
    assert (full.threads, full.flash_attention, full.batch_tokens) == (24, "on", 512)
    assert threads_for(full, V2, GIB) == 24
    assert tuned(spec(threads=3), V2, GIB, measured()).threads == 3
    assert tuned(spec(weights={"source": "file:///other.gguf"}), V2, GIB, measured()).flash_attention == "off"


def test_measured_profiles_are_kept(tmp_path: Path) -> None:
    """What is written is read again; a later run adds to it and replaces what it measured anew."""
    write_measured(tmp_path, measured(), V2)
    assert read_measured(tmp_path, V2, "1") == measured()
    more = measured(made="later", models={"other": MeasuredModel(1, "off")})
    write_measured(tmp_path, more, V2)
    found = read_measured(tmp_path, V2, "1")
    assert found is not None
    assert found.models == {**measured().models, **more.models}
    assert [file.name for file in tmp_path.iterdir()] == [MEASURED_NAME]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"models": {"a": 1}}', '{"models": {}, "colour": 1}'])
def test_a_broken_measurement_is_none(tmp_path: Path, text: str) -> None:
    """Whatever the file holds, the profile remains."""
    (tmp_path / MEASURED_NAME).write_text(text)
    assert read_measured(tmp_path, V2, "1") is None


def test_a_measurement_is_of_one_cpu_and_engine(tmp_path: Path) -> None:
    """Another CPU, other cores or another engine: measured elsewhere, so not used."""
    write_measured(tmp_path, measured(), V2)
    assert read_measured(tmp_path, N1, "1") is None
    assert read_measured(tmp_path, facts("neoverse-v2", 16), "1") is None
    assert read_measured(tmp_path, V2, "2") is None


def test_the_size_of_weights(tmp_path: Path) -> None:
    """As stated, else as the local file is, else a guess."""
    file = tmp_path / "m.gguf"
    file.write_bytes(bytes(5))
    assert weights_size(spec(weights={"source": f"file://{file}", "size_bytes": 7})) == 7
    assert weights_size(spec(weights={"source": f"file://{file}"})) == 5
    assert weights_size(spec(weights={"source": "https://example.org/m.gguf"})) == GIB


def test_a_whole_fleet_is_tuned(tmp_path: Path) -> None:
    """The fleet `five` on a Neoverse V2: flash attention off but for the model that asks for it."""
    settings = load(flags={"fleet": "five", "runtime": {"data_dir": tmp_path}}, environ={}, cwd=tmp_path).settings
    found = {m.id: m.flash_attention for m in tuned_settings(settings, V2, "1").models}
    assert found.pop("gemma-3-27b-it") == "on"
    assert set(found.values()) == {"off"}
    x86 = {m.flash_attention for m in tuned_settings(settings, V4, "1").models}
    assert x86 == {"on"}
