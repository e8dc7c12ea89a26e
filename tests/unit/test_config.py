"""Settings from a file, variables and flags: who wins, and what an error says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from capibara_agents.config import Loaded, language_of_locale, load
from capibara_agents.errors import ConfigError, UnknownModel
from capibara_agents.fleets import FLEETS
from capibara_agents.settings import Settings, settings_schema

EXAMPLE = Path(__file__).resolve().parents[2] / "capibara.example.yaml"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file of the checkout takes part."""
    monkeypatch.chdir(tmp_path)


def read(text: str, *, name: str = "my.yaml", environ: dict[str, str] | None = None, **more: Any) -> Loaded:
    Path(name).write_text(text, encoding="utf-8")
    return load(name, environ=environ or {}, **more)


def refused(text: str, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, **more)
    message = caught.value.message
    assert message.endswith(".")
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- who wins


def test_nothing_given_is_the_fleet_five_on_loopback() -> None:
    """Without file, variable or flag the shipped defaults hold, and no layer is named."""
    result = load(environ={})
    assert result.settings.fleet == "five"
    assert (result.settings.server.host, result.settings.server.port) == ("127.0.0.1", 8000)
    assert (result.layers, result.warnings) == ((), ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("my.yaml", "server: {port: 1234}"),
        ("my.yml", "server:\n  port: 1234\n"),
        ("my.json", '{"server": {"port": 1234}}'),
        ("my.toml", "[server]\nport = 1234\n"),
    ],
)
def test_three_file_formats(name: str, text: str) -> None:
    """YAML, JSON and TOML say the same."""
    assert read(text, name=name).settings.server.port == 1234


def test_a_variable_wins_over_the_file_and_a_flag_over_both() -> None:
    """Layers apply in the order file, variables, flags; what a layer leaves out stays."""
    text = "server: {host: '::1', port: 1, ping_s: 2}"
    environ = {"CAPIBARA_SERVER__PORT": "8123", "CAPIBARA_SERVER__PING_S": "3"}
    result = read(text, environ=environ, flags={"server": {"ping_s": 4.5, "host": None}, "fleet": None})
    server = result.settings.server
    assert (server.host, server.port, server.ping_s) == ("::1", 8123, 4.5)
    assert result.layers == (
        "my.yaml",
        "the variable CAPIBARA_SERVER__PING_S",
        "the variable CAPIBARA_SERVER__PORT",
        "the command line",
    )


def test_a_variable_reaches_a_model() -> None:
    """The id in a variable's name is lower case with underscores, its value is YAML."""
    environ = {
        "CAPIBARA_MODELS__PHI_4_MINI__SLOTS": "2",
        "CAPIBARA_MODELS__QWEN2_5_CODER_1_5B__FALLBACK": "[gpt-oss-20b]",
        "CAPIBARA_MODELS__GPT_OSS_20B__PINNED": "true",
    }
    settings = load(environ=environ).settings
    assert len(settings.models) == 5
    assert settings.spec("phi-4-mini").slots == 2
    assert settings.spec("qwen_coder").fallback == ("gpt-oss-20b",)
    assert settings.spec("gpt-oss-20b").pinned is True


def test_file_and_variable_change_the_same_model() -> None:
    """Two layers that write a model's id differently still meet in one model."""
    settings = read(
        "models: {phi-4-mini: {slots: 3, threads: 5}}", environ={"CAPIBARA_MODELS__PHI_4_MINI__SLOTS": "2"}
    ).settings
    assert (settings.spec("phi-4-mini").slots, settings.spec("phi-4-mini").threads) == (2, 5)


def test_foreign_variables_are_left_alone() -> None:
    """Variables without the prefix, the file's own and the test suite's are no settings."""
    environ = {"PORT": "1", "CAPIBARAX": "1", "CAPIBARA_TEST_SHARED": "/nowhere"}
    assert load(environ=environ).layers == ()


@pytest.mark.parametrize("name", ["capibara.yaml", "capibara.json", "capibara.toml"])
def test_a_file_in_the_working_folder_is_found(name: str, tmp_path: Path) -> None:
    """Without a path the usual names are looked for in the working folder."""
    Path(name).write_text("{}" if name.endswith("json") else "")
    assert load(environ={}, cwd=tmp_path).layers == (str(tmp_path / name),)


def test_a_variable_names_the_file() -> None:
    """CAPIBARA_CONFIG stands for the path, and a path given outright wins over it."""
    Path("a.yaml").write_text("server: {port: 11}")
    Path("b.yaml").write_text("server: {port: 12}")
    environ = {"CAPIBARA_CONFIG": "a.yaml"}
    assert load(environ=environ).settings.server.port == 11
    assert load("b.yaml", environ=environ).settings.server.port == 12


@pytest.mark.parametrize("text", ["", "server:\nmodels:\nlanguage:\n", "models: {phi-4-mini: }"])
def test_an_empty_section_asks_for_nothing(text: str) -> None:
    """A section whose keys are all commented out keeps its defaults."""
    assert read(text).settings == load(environ={}).settings


@pytest.mark.parametrize("fleet", FLEETS)
def test_a_new_id_adds_a_model(fleet: str) -> None:
    """An id the fleet does not have is a model of its own."""
    text = """
models:
  mine: {tier: general, max_tokens: 5, timeout_s: 1, weights: {source: "file:///m.gguf"}, aliases: [short]}
"""
    settings = read(text, flags={"fleet": fleet}).settings
    assert len(settings.models) == 6
    assert settings.spec("short").id == "mine"


def test_other_weights_forget_the_old_checksum() -> None:
    """Another source would never match the digest, the size and the name of the file it replaces."""
    spec = read("models: {phi-4-mini: {weights: {source: 'file:///m.gguf'}}}").settings.spec("phi-4-mini")
    assert (spec.weights.sha256, spec.weights.size_bytes, spec.weights_name) == (None, None, "")


def test_a_changed_checksum_keeps_the_source() -> None:
    """Only a new source starts the weights afresh."""
    shipped = load(environ={}).settings.spec("phi-4-mini")
    spec = read(f"models: {{phi-4-mini: {{weights: {{sha256: '{'a' * 64}'}}}}}}").settings.spec("phi-4-mini")
    assert spec.weights == shipped.weights.model_copy(update={"sha256": "a" * 64})
    assert spec.weights_name == shipped.weights_name


@pytest.mark.parametrize(("word", "meant"), [("off", "off"), ("on", "on"), ("auto", "auto"), ("'off'", "off")])
def test_an_unquoted_off_is_understood(word: str, meant: str) -> None:
    """YAML turns a bare on or off into a truth value; the key takes it as the word."""
    assert read(f"models: {{phi-4-mini: {{flash_attention: {word}}}}}").settings.models[0].flash_attention == meant


def test_an_unknown_model_lists_the_known_ones() -> None:
    """Asking for a name nobody has raises UnknownModel with all that exist."""
    with pytest.raises(UnknownModel, match=r"capibara-consensus, phi-4-mini, .*, gpt-oss-20b\.$"):
        load(environ={}).settings.spec("llama")


# ---------------------------------------------------------------- language and folders


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("es_ES.UTF-8", "es"),
        ("es", "es"),
        ("es-MX", "es"),
        ("ES_ar@euro", "es"),
        ("en_GB.UTF-8", "en"),
        ("est_EE", "en"),
        ("C", "en"),
        ("", "en"),
    ],
)
def test_language_of_a_locale(locale: str, language: str) -> None:
    """Every Spanish locale is Spanish, all others are English."""
    assert language_of_locale(locale) == language


def test_language_follows_lang_unless_configured() -> None:
    """LC_ALL goes before LANG, and a configured language before all."""
    spanish = {"LANG": "es_ES.UTF-8"}
    assert read("", environ=spanish).settings.text_language == "es"
    assert read("language: en", environ=spanish).settings.text_language == "en"
    assert read("", environ={**spanish, "LC_ALL": "en_GB.UTF-8"}).settings.text_language == "en"


def test_folders_follow_xdg_unless_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and weights lie in the user's folders for data and caches."""
    monkeypatch.setenv("XDG_DATA_HOME", "/d")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    settings = load(environ={}).settings
    assert (settings.data_dir, settings.weights_dir) == (Path("/d/capibara"), Path("/c/capibara/weights"))
    configured = read("runtime: {data_dir: /x, weights_dir: /y}").settings
    assert (configured.data_dir, configured.weights_dir) == (Path("/x"), Path("/y"))


# ---------------------------------------------------------------- what an error says


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("server: {prot: 1}", "server.prot"),
        ("sever: {port: 1}", "sever"),
        ("models: {phi-4-mini: {slot: 1}}", "models.phi-4-mini.slot"),
        ("models: {phi-4-mini: {weights: {sha: x}}}", "models.phi-4-mini.weights.sha"),
        ("1: 2", "1"),
    ],
)
def test_an_unknown_key_is_named_with_its_file(text: str, key: str) -> None:
    """A slip of the pen is an error, not a default."""
    assert refused(text) == f"{key} in my.yaml is not a key Capibara knows: see `capibara config schema`."


def test_an_unknown_key_is_named_with_its_variable() -> None:
    """The variable is named where the file is innocent."""
    message = refused("server: {port: 1}", environ={"CAPIBARA_SERVER__PROT": "1"})
    assert message.startswith("server.prot in the variable CAPIBARA_SERVER__PROT is not a key")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("server: {port: abc}", "server.port in my.yaml: it should be a valid integer, not 'abc'"),
        ("server: {port: 70000}", "server.port in my.yaml: it should be less than or equal to 65535, not 70000"),
        ("server: 5", "server in my.yaml: it should be a mapping of keys, not 5"),
        ("server: {cors_origins: x}", "server.cors_origins in my.yaml: it should be a list, not 'x'"),
        ("language: fr", "language in my.yaml: it should be 'es' or 'en', not 'fr'"),
        ("routing: {fallback_order: [slow]}", "routing.fallback_order.0 in my.yaml: it should be 'fast_response'"),
        ("models: [phi-4-mini]", "models in my.yaml: it should be a mapping from model id"),
        ("models: {phi-4-mini: 5}", "models.phi-4-mini in my.yaml: it should be a mapping of keys, not 5"),
        ("models: {phi-4-mini: {slots: 0}}", "models.phi-4-mini.slots in my.yaml: it should be greater than 0, not 0"),
        ("models: {phi-4-mini: {id: x}}", "models.phi-4-mini.id in my.yaml: the id is the name above it"),
        ("models: {mine: {tier: general}}", "models.mine.weights is missing in my.yaml: give it, or correct the id"),
        ("models: {phi-4-mini: {weights: {source: m.gguf}}}", "models.phi-4-mini.weights.source in my.yaml: it should"),
        ("fleet: six", "fleet in my.yaml: there is no fleet 'six'; choose tiny or five"),
        ("- server", "my.yaml must hold a mapping of keys, not a list"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(text: str, start: str) -> None:
    """An error says which key, where, what it should be and what it is."""
    assert refused(text).startswith(start)


def test_a_wrong_value_is_named_with_the_layer_that_gave_it() -> None:
    """Of several layers the one that wins is to blame."""
    assert "in the variable CAPIBARA_SERVER__PORT:" in refused(
        "server: {port: 1}", environ={"CAPIBARA_SERVER__PORT": "abc"}
    )
    assert "in the command line:" in refused("server: {port: 1}", flags={"server": {"port": "abc"}})
    assert "in my.yaml:" in refused("server: {port: abc}", flags={"server": {"host": "x"}})


def test_an_api_key_is_not_repeated() -> None:
    """A message goes to logs: it does not show what was meant as a key."""
    assert "hush" not in refused("server: {api_keys: hush}")
    assert "12345" not in refused("", environ={"CAPIBARA_SERVER__API_KEYS": "[12345]"})


def test_a_taken_alias_names_both_models() -> None:
    """The key to change is the one that a layer gave, whichever model comes first."""
    other = {"CAPIBARA_MODELS__GPT_OSS_20B__SLOTS": "1"}
    assert refused("models: {phi-4-mini: {aliases: [qwen_coder]}}", environ=other) == (
        "models.phi-4-mini.aliases in my.yaml: the name 'qwen_coder' is used by phi-4-mini and qwen2.5-coder-1.5b; "
        "choose another."
    )


def test_an_alias_cannot_be_a_virtual_model() -> None:
    """The names Capibara answers to itself are taken."""
    assert refused("models: {phi-4-mini: {aliases: [capibara-fast]}}") == (
        "models.phi-4-mini.aliases in my.yaml: the name 'capibara-fast' is Capibara's own; choose another."
    )


def test_an_unknown_fallback_lists_the_models() -> None:
    """A fallback names ids of the fleet."""
    message = refused("models: {gpt-oss-20b: {fallback: [llama]}}")
    assert message.startswith("models.gpt-oss-20b.fallback in my.yaml: 'llama' is no model; choose from phi-4-mini, ")


@pytest.mark.parametrize(
    ("name", "text"),
    [("my.yaml", "server: [1"), ("my.yaml", "a: 'x\n b: \t- 1"), ("my.json", "{"), ("my.toml", "port = ")],
)
def test_a_malformed_file_is_named(name: str, text: str) -> None:
    """The parser's own words follow the name of the file, in one line."""
    assert refused(text, name=name).startswith(f"{name} is not well formed, please correct it: ")


def test_a_malformed_variable_is_named() -> None:
    """A variable's value is YAML too."""
    message = refused("", environ={"CAPIBARA_SERVER__PORT": "[1"})
    assert message.startswith("The variable CAPIBARA_SERVER__PORT does not hold a YAML value: ")


def test_a_file_that_is_no_text_is_named() -> None:
    """Bytes that are not UTF-8 are a mistake of the file, not a crash."""
    Path("my.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"^my\.yaml cannot be read as UTF-8 text"):
        load("my.yaml", environ={})


def test_a_file_of_another_kind_is_refused() -> None:
    """The ending says how to read it."""
    assert refused("x", name="my.ini") == "my.ini: a configuration file ends in .yaml, .json or .toml."


def test_a_missing_file_is_named_and_who_named_it() -> None:
    """A path that is given must exist."""
    with pytest.raises(ConfigError, match=r"^There is no configuration file no\.yaml: give an existing file"):
        load("no.yaml", environ={})
    with pytest.raises(ConfigError, match=r"no\.yaml, which the variable CAPIBARA_CONFIG names: give"):
        load(environ={"CAPIBARA_CONFIG": "no.yaml"})


# ---------------------------------------------------------------- the schema and the example


def schema_keys(schema: dict[str, Any], node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key the schema names; a model's id is `*`."""
    for branch in node.get("anyOf", []):
        yield from schema_keys(schema, branch, path)
    if "$ref" in node:
        yield from schema_keys(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]], path)
    if isinstance(node.get("additionalProperties"), dict):
        yield from schema_keys(schema, node["additionalProperties"], (*path, "*"))
    for key, below in node.get("properties", {}).items():
        yield (*path, key)
        yield from schema_keys(schema, below, (*path, key))


def document_keys(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(node, dict):
        for key, below in node.items():
            one = (*path, "*") if path == ("models",) else (*path, key)
            yield one
            yield from document_keys(below, one)


def test_the_example_gives_the_defaults() -> None:
    """Every value the example shows is the real default, those of its model included."""
    assert load(EXAMPLE, environ={}).settings == load(environ={}).settings


def test_the_example_mentions_every_key() -> None:
    """A key that is added to the settings must be added to the example."""
    schema = settings_schema()
    shown = set(document_keys(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))))
    # The projector of the model it shows is null; its keys are those of the weights.
    wanted = {path for path in schema_keys(schema, schema) if path[:3] != ("models", "*", "mmproj") or len(path) == 3}
    assert wanted - shown == set()
    assert len(wanted) > 50


def test_every_key_of_the_example_is_explained_in_both_languages() -> None:
    """Sections and switches stand under a comment; English and Spanish stand side by side or in turn."""
    text = EXAMPLE.read_text(encoding="utf-8")
    comments = re.findall(r"^\s*# (.+)$", text, re.MULTILINE)
    assert sum(" / " in comment for comment in comments) >= 25
    assert {"Copie", "Idioma", "Peticiones"} <= set(re.findall(r"\w+", text))


def test_the_schema_accepts_the_example() -> None:
    """An editor that checks with the schema does not complain about the example."""
    schema = settings_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        ({}, True),
        ({"models": {"phi-4-mini": {"slots": 2}}}, True),
        ({"models": {"phi-4-mini": {"weights": {"sha256": "0" * 64}}}}, True),
        ({"models": {"phi-4-mini": None}}, True),
        ({"models": {"phi-4-mini": {"slot": 2}}}, False),
        ({"models": {"phi-4-mini": {"id": "x"}}}, False),
        ({"models": {"a b": {}}}, False),
        ({"models": [{"id": "phi-4-mini"}]}, False),
        ({"server": {"port": "x"}}, False),
        ({"nothing": 1}, False),
    ],
)
def test_the_schema_describes_the_file(document: dict[str, Any], valid: bool) -> None:
    """`models` is a mapping from id to any part of a model; unknown keys are wrong."""
    validator = jsonschema.Draft202012Validator(settings_schema())
    assert validator.is_valid(document) is valid


def test_the_schema_is_json() -> None:
    """`capibara config schema` can print it."""
    assert json.loads(json.dumps(settings_schema()))["properties"]["models"]["type"] == "object"


def test_settings_do_not_change() -> None:
    """Who holds settings can rely on them."""
    settings: Settings = load(environ={}).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]
