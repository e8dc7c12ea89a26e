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
from capibara_agents.texts import Phrase, phrase
from capibara_agents.wishes import wish_of

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

    name: str | Phrase
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
        layers.append(Layer(phrase("wrong.where.flags"), _without_none(flags)))
    settings = _validate(layers)
    if settings.language is None:
        settings = settings.model_copy(update={"language": environment_language(environ)})
    return Loaded(settings, tuple(str(layer.name) for layer in layers), warnings)


def _find_file(path: Path | str | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = path or environ.get(CONFIG_VARIABLE)
    if named:
        file = Path(named)
        if not file.is_file():
            if path:
                raise ConfigError(phrase("wrong.no_file", file=file))
            raise ConfigError(phrase("wrong.no_file_of_variable", file=file, variable=CONFIG_VARIABLE))
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
            raise ConfigError(phrase("wrong.file_kind", file=file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(phrase("wrong.not_text", file=file, error=error)) from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(phrase("wrong.ill_formed", file=file, error=_one_line(error))) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(phrase("wrong.no_mapping", file=file, kind=type(values).__name__))
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
            raise ConfigError(phrase("wrong.variable", variable=name, error=_one_line(error))) from error
        for key in reversed(keys):
            value = {key: value}
        yield Layer(phrase("wrong.where.variable", variable=name), value)


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
        choice = phrase("wrong.either", most=", ".join(FLEETS[:-1]), last=FLEETS[-1])
        where = _whose(("fleet",), layers)
        raise ConfigError(phrase("wrong.no_fleet", where=where, fleet=repr(fleet), choice=choice))
    if not isinstance(overrides, dict):
        raise ConfigError(phrase("wrong.models", where=_whose(("models",), layers)))
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
            raise ConfigError(phrase("wrong.model", model=target, where=where, value=repr(change)))
        if "id" in (change or {}):
            where = _whose(("models", str(name), "id"), layers)
            raise ConfigError(phrase("wrong.model_id", model=target, where=where))
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
        return ConfigError(phrase("wrong.unknown_key", key=key, where=where))
    if error["type"] == "missing":
        of_a_model = ".of_a_model" if len(path) == 3 else ""
        return ConfigError(phrase(f"wrong.missing{of_a_model}", key=key, where=where))
    wish = wish_of(error)
    if "api_keys" in path or error["type"] == "fleet":
        return ConfigError(phrase("wrong.value", key=key, where=where, wish=wish))
    return ConfigError(phrase("wrong.value_not", key=key, where=where, wish=wish, value=f"{error['input']!r:.80}"))


def _whose(path: tuple[str, ...], layers: list[Layer]) -> str | Phrase:
    """The last layer that holds the longest part of the path."""
    return _deepest(path, layers)[1]


def _deepest(path: tuple[str, ...], layers: list[Layer]) -> tuple[int, str | Phrase]:
    best = 0
    where: str | Phrase = phrase("wrong.where.shipped")
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
