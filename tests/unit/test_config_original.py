"""The two files of the original project: loaded unchanged, nothing of them lost unsaid."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.config import Loaded, load
from capibara_agents.errors import ConfigError

TIMEOUTS_S = {
    "phi-4-mini": 8,
    "qwen2.5-coder-1.5b": 20,
    "mistral-7b-instruct-v0.2": 30,
    "gemma-3-27b-it": 60,
    "gpt-oss-20b": 240,
}


def roles() -> dict[str, Any]:
    """A file of the first shape, with values of its own."""
    return {
        "models": {
            "fast_response": {"name": "phi4:mini", "max_tokens": 99, "timeout": 1500, "use_case": ["hello"]},
            "general": {"name": "mistral_balanced", "max_tokens": 77, "description": "words"},
        },
        "consensus_enabled": False,
        "fallback_strategy": {"enabled": True, "order": ["complex", "general"]},
        "api_settings": {"vllm_endpoint": "http://user:hush@elsewhere:1/v1", "streaming_enabled": True},
    }


def experts() -> dict[str, Any]:
    """A file of the second shape, with values of its own."""
    return {
        "experts": [
            {"expert_id": "gptoss_complex", "model_path": "/opt/a", "max_model_len": 5000, "neon": {"rope": True}},
            {"expert_id": "qwen_coder", "model_path": "/opt/b", "max_model_len": 6000, "device": "auto"},
        ],
        "lazy_loading": {"enabled": True, "auto_unload_after_s": 45, "warmup_pool_size": 2},
        "enable_consensus": True,
        "consensus_model": None,
        "server_config": {"host": "0.0.0.0", "port": 9001, "log_level": "info"},
        "notes": {"deployment": "somewhere", "deep": {"er": 1}},
    }


def loaded(folder: Path, values: dict[str, Any], **more: Any) -> Loaded:
    file = folder / "old.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    return load(file, environ={}, **more)


def test_roles_become_models(tmp_path: Path) -> None:
    """Names find their models, milliseconds become seconds, the lengths are taken over."""
    settings = loaded(tmp_path, roles()).settings
    assert settings.fleet == "five"
    assert len(settings.models) == 5
    assert (settings.spec("phi-4-mini").max_tokens, settings.spec("phi-4-mini").timeout_s) == (99, 1.5)
    assert settings.spec("mistral-7b-instruct-v0.2").max_tokens == 77
    assert settings.spec("mistral-7b-instruct-v0.2").timeout_s == 30
    assert settings.spec("phi-4-mini").weights.source.startswith("hf://")


def test_routing_is_taken_over(tmp_path: Path) -> None:
    """The fallback order and the consensus flag keep their meaning."""
    routing = loaded(tmp_path, roles()).settings.routing
    assert routing.fallback_order == ("complex", "general")
    assert routing.consensus is False


def test_a_swapped_role_is_a_swapped_tier(tmp_path: Path) -> None:
    """A model that stands in another role is asked for what the role is for."""
    values = roles()
    values["models"]["fast_response"]["name"] = "qwen_coder"
    assert loaded(tmp_path, values).settings.spec("qwen_coder").tier == "fast_response"


def test_fallback_switched_off_means_nobody_follows(tmp_path: Path) -> None:
    """`fallback_strategy.enabled: false` leaves every model without a successor."""
    values = roles()
    values["fallback_strategy"]["enabled"] = False
    assert [spec.fallback for spec in loaded(tmp_path, values).settings.models] == [()] * 5


def test_experts_become_models(tmp_path: Path) -> None:
    """Context lengths, the idle time, the port and the consensus flag keep their meaning."""
    settings = loaded(tmp_path, experts()).settings
    assert settings.spec("gpt-oss-20b").context_tokens == 5000
    assert settings.spec("qwen2.5-coder-1.5b").context_tokens == 6000
    assert {spec.idle_unload_s for spec in settings.models} == {45}
    assert settings.server.port == 9001
    assert settings.routing.consensus is True


def test_the_old_host_is_not_listened_on(tmp_path: Path) -> None:
    """The original listened on every address without a key; here its host is named in a warning only."""
    result = loaded(tmp_path, experts())
    assert result.settings.server.host == "127.0.0.1"
    assert any("server_config.host (0.0.0.0)" in warning for warning in result.warnings)


def test_no_idle_unloading_where_lazy_loading_is_off(tmp_path: Path) -> None:
    """`lazy_loading.enabled: false` keeps the models loaded."""
    values = experts()
    values["lazy_loading"]["enabled"] = False
    assert {spec.idle_unload_s for spec in loaded(tmp_path, values).settings.models} == {None}


def leaf_keys(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value, lists of plain values being one."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaf_keys(value, (*path, key))
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        for value in node:
            yield from leaf_keys(value, path)
    else:
        yield path


TAKEN_OVER = {
    ("models", "name"),
    ("models", "max_tokens"),
    ("models", "timeout"),
    ("consensus_enabled",),
    ("fallback_strategy", "enabled"),
    ("fallback_strategy", "order"),
    ("experts", "expert_id"),
    ("experts", "max_model_len"),
    ("lazy_loading", "enabled"),
    ("lazy_loading", "auto_unload_after_s"),
    ("enable_consensus",),
    ("server_config", "port"),
}


def assert_everything_else_is_named(values: dict[str, Any], result: Loaded) -> None:
    """Each key is taken over or stands, with its section, in one warning."""
    for path in leaf_keys(values):
        short = ("models", *path[2:]) if path[0] == "models" else path
        if short in TAKEN_OVER:
            continue
        naming = [w for w in result.warnings if path[0] in w and all(part in w for part in short)]
        assert naming, ".".join(path)


@pytest.mark.parametrize("values", [roles(), experts()], ids=["roles", "experts"])
def test_what_has_no_meaning_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    """No key is dropped in silence."""
    assert_everything_else_is_named(values, loaded(tmp_path, values))


@pytest.mark.parametrize("values", [roles(), experts()], ids=["roles", "experts"])
def test_an_unforeseen_key_is_named_too(tmp_path: Path, values: dict[str, Any]) -> None:
    """A key nobody has seen before appears in a warning."""
    values["surprise"] = {"inside": 3}
    warnings = loaded(tmp_path, values).warnings
    assert any("surprise.inside" in warning for warning in warnings)


def test_what_is_taken_over_is_not_warned_of(tmp_path: Path) -> None:
    """A warning about a key that works would be false."""
    everything = " ".join(loaded(tmp_path, roles()).warnings + loaded(tmp_path, experts()).warnings)
    for key in ("max_tokens", "timeout", "max_model_len", "expert_id", "auto_unload_after_s", "order", "port"):
        assert key not in everything


def test_a_password_in_an_endpoint_is_not_repeated(tmp_path: Path) -> None:
    """The endpoint is reported without the credentials it carries."""
    everything = " ".join(loaded(tmp_path, roles()).warnings)
    assert "elsewhere:1" in everything
    assert "hush" not in everything


def test_variables_and_flags_win_over_it(tmp_path: Path) -> None:
    """The old file is the lowest layer, as any file is."""
    assert loaded(tmp_path, experts(), flags={"server": {"port": 9002}}).settings.server.port == 9002


def broken(**at: Any) -> dict[str, Any]:
    values = roles()
    values["models"]["fast_response"].update(at)
    return values


@pytest.mark.parametrize(
    ("values", "key"),
    [
        (broken(name="llama"), "models.fast_response.name"),
        (broken(name=["phi4:mini"]), "models.fast_response.name"),
        (broken(name="mistral_balanced"), "models.general.name"),
        (broken(timeout="soon"), "models.fast_response.timeout"),
        (broken(timeout=True), "models.fast_response.timeout"),
        (broken(max_tokens=0), "models.fast_response.max_tokens"),
        ({**roles(), "consensus_enabled": "yes"}, "consensus_enabled"),
        ({**roles(), "fallback_strategy": {"order": ["fastest"]}}, "fallback_strategy.order"),
        ({**roles(), "fallback_strategy": {"order": [["general"]]}}, "fallback_strategy.order"),
        ({**experts(), "experts": [{"expert_id": "gptoss_complex"}] * 2}, "experts.1.expert_id"),
        ({**experts(), "server_config": {"port": "eighty"}}, "server_config.port"),
    ],
)
def test_a_wrong_value_names_its_own_key(tmp_path: Path, values: dict[str, Any], key: str) -> None:
    """An error speaks of the key as the old file has it, and of the file."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, values)
    assert caught.value.message.startswith(f"{key} in old.json: ")
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    "values",
    [{"models": {"phi-4-mini": {"slots": 2}}}, {"models": {}}, {"server": {"port": 1}}, {}],
    ids=["override", "empty", "section", "nothing"],
)
def test_our_own_files_are_not_taken_for_old_ones(tmp_path: Path, values: dict[str, Any]) -> None:
    """A file of today is read as such."""
    assert loaded(tmp_path, values).warnings == ()


def original(name: str) -> Path:
    """A file of the original project, which does not ship with the code."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    file = Path(os.environ.get("CAPIBARA_TEST_SHARED") or beside) / "data" / "capibara6" / name
    if not file.is_file():
        pytest.skip(f"the original project's file is not at {file}; set CAPIBARA_TEST_SHARED to the folder above data/")
    return file


def test_the_original_roles_file() -> None:
    """The original's own first file gives five models with its timeouts."""
    file = original("five_model_config.original.json")
    result = load(file, environ={})
    assert {spec.id: spec.timeout_s for spec in result.settings.models} == TIMEOUTS_S
    assert result.settings.routing.consensus is True
    assert_everything_else_is_named(json.loads(file.read_text(encoding="utf-8")), result)


def test_the_original_experts_file() -> None:
    """The original's own second file gives five models with its context lengths, its port and its idle time."""
    file = original("config.five_models.optimized.original.json")
    result = load(file, environ={})
    assert {spec.id: spec.timeout_s for spec in result.settings.models} == TIMEOUTS_S
    assert [spec.context_tokens for spec in result.settings.models] == [4096, 8192, 8192, 65536, 32768]
    assert {spec.idle_unload_s for spec in result.settings.models} == {300}
    assert result.settings.server.port == 8080
    assert result.settings.routing.consensus is False
    assert_everything_else_is_named(json.loads(file.read_text(encoding="utf-8")), result)
