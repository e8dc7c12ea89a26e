"""The two fleets that ship: complete, consistent, and what the documentation promises."""

from __future__ import annotations

import pytest

from capibara_agents.config import load
from capibara_agents.fleets import FLEETS
from capibara_agents.settings import ModelSpec, Settings

# What callers rely on: tier, id, aliases, max_tokens, timeout in seconds.
PROMISED = {
    "phi-4-mini": ("fast_response", {"phi4:mini", "phi4_fast"}, 512, 8),
    "qwen2.5-coder-1.5b": ("balanced", {"qwen_coder"}, 1024, 20),
    "mistral-7b-instruct-v0.2": ("general", {"mistral_balanced"}, 2048, 30),
    "gemma-3-27b-it": ("multimodal", {"gemma-3-27b-it-awq", "gemma3_multimodal"}, 32768, 60),
    "gpt-oss-20b": ("complex", {"gptoss_complex"}, 2048, 240),
}


def fleet(name: str) -> Settings:
    return load(flags={"fleet": name}, environ={}).settings


@pytest.fixture(params=FLEETS)
def settings(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return fleet(request.param)


@pytest.fixture
def five(tmp_path, monkeypatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return fleet("five")


def test_roles_and_names(settings: Settings) -> None:
    """Both fleets have the same five roles under the same ids, aliases and timeouts."""
    found = {spec.id: (spec.tier, set(spec.aliases), spec.timeout_s) for spec in settings.models}
    assert found == {id_: (tier, aliases, timeout) for id_, (tier, aliases, _, timeout) in PROMISED.items()}


def test_an_alias_finds_its_model(settings: Settings) -> None:
    """Every alias names the model it belongs to."""
    for model_id, (_, aliases, _, _) in PROMISED.items():
        assert {settings.spec(name).id for name in {model_id, *aliases}} == {model_id}


def test_every_weight_has_a_checksum_and_a_size(settings: Settings) -> None:
    """Nothing is fetched that could not be verified afterwards."""
    for spec in settings.models:
        for source in filter(None, (spec.weights, spec.mmproj)):
            assert source.sha256, spec.id
            assert source.size_bytes, spec.id


def test_an_answer_fits_into_its_slot(settings: Settings) -> None:
    """The default answer length leaves at least half of a slot for the prompt."""
    assert all(2 * spec.max_tokens <= spec.context_tokens for spec in settings.models)


def test_seeing_needs_a_projector(settings: Settings) -> None:
    """A model sees images exactly if it has a multimodal projector."""
    assert all(spec.sees_images == (spec.mmproj is not None) for spec in settings.models)


def test_a_named_template_comes_without_jinja(settings: Settings) -> None:
    """llama-server renders a template's bare name as the whole prompt unless its Jinja engine is off."""
    assert all("--no-jinja" in spec.extra_args for spec in settings.models if spec.chat_template)


def test_tools_need_jinja(settings: Settings) -> None:
    """llama-server refuses tools where its Jinja engine is off."""
    assert not any(spec.calls_tools for spec in settings.models if "--no-jinja" in spec.extra_args)


def test_a_quantised_v_cache_needs_flash_attention(settings: Settings) -> None:
    """llama-server does not start with a quantised V cache and flash attention off."""
    assert all(spec.flash_attention != "off" or spec.cache_type_v == "f16" for spec in settings.models)


def test_tiny_says_that_it_stands_in(tmp_path, monkeypatch) -> None:
    """Every model of `tiny` is marked as a stand-in and names its real weights, no model of `five` is."""
    monkeypatch.chdir(tmp_path)
    assert all(spec.stand_in and spec.weights_name for spec in fleet("tiny").models)
    assert not any(spec.stand_in for spec in fleet("five").models)


def test_five_is_pinned_to_commits(five: Settings) -> None:
    """A file of `five` cannot change under its name: each source ends in a full commit hash."""
    for spec in five.models:
        for source in filter(None, (spec.weights, spec.mmproj)):
            name, _, revision = source.source.partition("@")
            assert name.startswith("hf://")
            assert name.endswith(".gguf")
            assert len(revision) == 40
            assert int(revision, 16)


def test_five_has_different_weights_everywhere(five: Settings) -> None:
    """No two models of `five` share a file."""
    digests = [source.sha256 for spec in five.models for source in filter(None, (spec.weights, spec.mmproj))]
    assert len(set(digests)) == len(digests) == 6


def test_five_answers_as_long_as_promised(five: Settings) -> None:
    """The default answer lengths of `five` are the documented ones."""
    assert {spec.id: spec.max_tokens for spec in five.models} == {id_: row[2] for id_, row in PROMISED.items()}


def test_who_sees_and_who_calls_tools(five: Settings) -> None:
    """Only gemma sees; only the two with tools in their template call them."""

    def those(flag: str) -> set[str]:
        return {spec.id for spec in five.models if getattr(spec, flag)}

    assert those("sees_images") == {"gemma-3-27b-it"}
    assert those("calls_tools") == {"qwen2.5-coder-1.5b", "gpt-oss-20b"}


def test_no_model_of_five_hides_a_fallback(five: Settings) -> None:
    """`five` leaves the fallback to the order of tiers, and pins nothing."""
    defaults = ModelSpec.model_fields
    assert all(spec.fallback is defaults["fallback"].default for spec in five.models)
    assert not any(spec.pinned for spec in five.models)
