"""The one reader of configuration: a file, then CAPIBARA_* variables, then flags; later ones win.

A file is YAML, JSON or TOML. A variable names a key with `__` between levels (CAPIBARA_SERVER__PORT=8123) and
its value is read as YAML. What is unknown or of the wrong type raises ConfigError, which names the key and
where it stands. Nothing else in Capibara reads the environment.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from capibara_agents.errors import ConfigError
from capibara_agents.fleets import FLEETS, merged, shipped_fleet

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from capibara_agents.settings import Settings
    from capibara_agents.types import Language

ENV_PREFIX = "CAPIBARA_"
CONFIG_VARIABLE = "CAPIBARA_CONFIG"
DEFAULT_FILES = ("capibara.yaml", "capibara.yml", "capibara.json", "capibara.toml")
# Variables with the prefix that are not keys of the settings: the file's own name, and the test suite's.
NOT_SETTINGS = (CONFIG_VARIABLE, "CAPIBARA_TEST_")


def environment_language(environ: Mapping[str, str] | None = None) -> Language:
    """The language of CAPIBARA_LANGUAGE, LC_ALL, LC_MESSAGES or LANG; English when the first set is not Spanish."""
    environ = os.environ if environ is None else environ
    names = (f"{ENV_PREFIX}LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
    return language_of_locale(next((environ[name] for name in names if environ.get(name)), ""))


def prepare_libraries() -> None:
    """Tell the libraries, before they are imported, to stay off the network and to report nothing to anyone."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")


def language_of_locale(locale: str) -> Language:
    """`es` for any Spanish locale name, else `en`."""
    return "es" if re.split(r"[_.@-]", locale.lower())[0] == "es" else "en"


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a server process inherits: all but the variables of Capibara and of llama.cpp, which are hidden flags."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith((ENV_PREFIX, "LLAMA_"))}
    return {**kept, **extra}


@dataclass(frozen=True)
class Layer:
    """One source of settings: `name` is what an error calls it."""

    name: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """Settings and what the reader of them should be told."""

    settings: Settings
    layers: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def load(
    path: Path | str | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Loaded:
    """Read the settings: file, variables, flags (nested, as in a file; None values are left out).

    `path` None: $CAPIBARA_CONFIG, else the first of DEFAULT_FILES in `cwd`, else the defaults.
    Raises ConfigError for a missing file, an unknown key, a wrong type.
    """
    environ = os.environ if environ is None else environ
    file = _find_file(path, environ, cwd or Path.cwd())
    layers: list[Layer] = []
    warnings: tuple[str, ...] = ()
    if file is not None:
        values, warnings = _read_file(file)
        layers.append(Layer(str(file), values))
    layers.extend(_environment_layers(environ))
    if flags:
        layers.append(Layer("the command line", _without_none(flags)))
    settings = _validate(layers)
    if settings.language is None:
        settings = settings.model_copy(update={"language": environment_language(environ)})
    return Loaded(settings, tuple(layer.name for layer in layers), warnings)


def _find_file(path: Path | str | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = path or environ.get(CONFIG_VARIABLE)
    if named:
        file = Path(named)
        if not file.is_file():
            whose = "" if path else f", which the variable {CONFIG_VARIABLE} names"
            raise ConfigError(f"There is no configuration file {file}{whose}: give an existing file, or leave it out.")
        return file
    return next((cwd / name for name in DEFAULT_FILES if (cwd / name).is_file()), None)


def _read_file(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    from capibara_agents import config_original  # noqa: PLC0415  (only files of the original project need it)

    values = _parse(file)
    if config_original.recognises(values):
        return config_original.translate(values, file.name)
    return values, ()


def _parse(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            values = json.loads(text)
        elif file.suffix == ".toml":
            values = tomllib.loads(text)
        elif file.suffix in (".yaml", ".yml"):
            values = yaml.safe_load(text)
        else:
            raise ConfigError(f"{file}: a configuration file ends in .yaml, .json or .toml.")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as UTF-8 text, please check it: {error}.") from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not well formed, please correct it: {_one_line(error)}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping of keys, not a {type(values).__name__}.")
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).replace(' in "<unicode string>"', "").split()).removesuffix(".")


def _environment_layers(environ: Mapping[str, str]) -> Iterator[Layer]:
    """One layer a variable, so that an error can name it."""
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name.startswith(NOT_SETTINGS):
            continue
        keys = name.removeprefix(ENV_PREFIX).lower().split("__")
        try:
            value: Any = yaml.safe_load(environ[name])
        except yaml.YAMLError as error:
            raise ConfigError(f"The variable {name} does not hold a YAML value: {_one_line(error)}.") from error
        for key in reversed(keys):
            value = {key: value}
        yield Layer(f"the variable {name}", value)


def _without_none(flags: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in flags.items():
        slim = _without_none(value) if isinstance(value, Mapping) else value
        if slim is not None and slim != {}:
            kept[key] = slim
    return kept


def _validate(layers: list[Layer]) -> Settings:
    values: dict[str, Any] = {}
    for layer in layers:
        values = merged(values, layer.values)
    # A section with all of its keys commented out is None in YAML: it asks for nothing.
    values = {key: value for key, value in values.items() if value is not None}
    overrides = values.pop("models", {})
    fleet = values.get("fleet", "five")
    if fleet not in FLEETS:
        raise ConfigError(
            f"fleet in {_whose(('fleet',), layers)}: there is no fleet {fleet!r}; choose {' or '.join(FLEETS)}."
        )
    if not isinstance(overrides, dict):
        raise ConfigError(
            f"models in {_whose(('models',), layers)}: it should be a mapping from model id to the keys to change."
        )
    models = _models(fleet, overrides, layers)
    # Pydantic and its classes take a third of a second; `capibara --help` needs the environment, not them.
    from pydantic import ValidationError  # noqa: PLC0415

    from capibara_agents.settings import Settings  # noqa: PLC0415

    try:
        return Settings.model_validate({**values, "models": list(models.values())})
    except ValidationError as error:
        raise _config_error(error.errors()[0], list(models), layers) from error


def _models(fleet: str, overrides: dict[str, Any], layers: list[Layer]) -> dict[str, dict[str, Any]]:
    """The fleet's models by id with the overrides merged in; an unknown id adds a model."""
    shipped = {spec["id"]: spec for spec in shipped_fleet(fleet)}
    for name, change in overrides.items():
        # A variable's name is lower case and has no dots; the id it means may not be.
        target = next((i for i in shipped if i == name or _plain(i) == _plain(str(name))), str(name))
        if change is not None and not isinstance(change, dict):
            where = _whose(("models", str(name)), layers)
            raise ConfigError(f"models.{target} in {where}: it should be a mapping of keys, not {change!r}.")
        if "id" in (change or {}):
            where = _whose(("models", str(name), "id"), layers)
            raise ConfigError(f"models.{target}.id in {where}: the id is the name above it; leave this key out.")
        shipped[target] = _override(shipped.get(target, {"id": target}), change or {})
    return shipped


def _override(spec: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The model with the changes; other weights bring neither the old ones' checksum and size nor their name."""
    spec = dict(spec)
    for part in ("weights", "mmproj"):
        if isinstance(change.get(part), dict) and "source" in change[part]:
            spec.pop(part, None)
            if part == "weights":
                spec.pop("weights_name", None)
    return merged(spec, change)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _config_error(error: ErrorDetails, model_ids: list[str], layers: list[Layer]) -> ConfigError:
    loc = tuple(str(part) for part in error["loc"])
    if len(loc) > 1 and loc[0] == "models":
        loc = ("models", model_ids[int(loc[1])], *loc[2:])
    paths: list[tuple[str, ...]] = error.get("ctx", {}).get("paths", [loc])
    path = max(paths, key=lambda one: _deepest(one, layers)[0])
    key, where = ".".join(path), _whose(path, layers)
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return ConfigError(f"{key} in {where} is not a key Capibara knows: see `capibara config schema`.")
    if error["type"] == "missing":
        or_else = ", or correct the id if a model of the fleet is meant" if len(path) == 3 else ""
        return ConfigError(f"{key} is missing in {where}: give it{or_else}.")
    return ConfigError(f"{key} in {where}: {_wish(error, secret='api_keys' in path)}.")


def _wish(error: ErrorDetails, *, secret: bool) -> str:
    """What the value should be, in Pydantic's words made to fit a sentence, and what it is."""
    wish = re.sub(r"^(Input|Value|\w+) should ", "it should ", error["msg"])
    wish = re.sub(r" or instance of \w+$|, unable to parse .*$", "", wish)
    wish = wish.replace("a valid dictionary", "a mapping of keys").replace("a valid tuple", "a list")
    return wish if secret or error["type"] == "fleet" else f"{wish}, not {error['input']!r:.80}"


def _whose(path: tuple[str, ...], layers: list[Layer]) -> str:
    """The last layer that holds the longest part of the path."""
    return _deepest(path, layers)[1]


def _deepest(path: tuple[str, ...], layers: list[Layer]) -> tuple[int, str]:
    best, where = 0, "the shipped defaults"
    for layer in layers:
        depth, node = 0, layer.values
        for part in path:
            if not isinstance(node, dict):
                break
            match = next((k for k in node if str(k) == part or _plain(str(k)) == _plain(part)), None)
            if match is None:
                break
            depth, node = depth + 1, node[match]
        if depth >= best and depth > 0:
            best, where = depth, layer.name
    return best, where
