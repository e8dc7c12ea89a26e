"""Reads the two configuration files of the original project, as they are.

`five_model_config.json` names a model per role, with `max_tokens` and `timeout` in milliseconds;
`config.five_models.optimized.json` lists `experts` for vLLM. What still has a meaning becomes keys of Settings over
the fleet `five`, which also brings the weights. Everything else is named in a warning: nothing is dropped unsaid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from capibara_agents.errors import ConfigError
from capibara_agents.fleets import shipped_fleet
from capibara_agents.texts import Phrase, phrase
from capibara_agents.types import Tier

FLEET = "five"
# Keys whose value a person will look for, and what takes its place.
REPLACED = {
    "model_path": f"weights come from the fleet `{FLEET}`",
    "host": "Capibara listens on server.host, 127.0.0.1 unless you set it",
    "vllm_endpoint": "Capibara runs the models itself",
}
Path = tuple[str, ...]


def recognises(values: dict[str, Any]) -> bool:
    """True for a file of the original project: by its experts, or by models that are named inside their role."""
    experts, models = values.get("experts"), values.get("models")
    if isinstance(experts, list):
        return bool(experts) and all(isinstance(expert, dict) and "expert_id" in expert for expert in experts)
    if isinstance(models, dict):
        return bool(models) and all(isinstance(model, dict) and "name" in model for model in models.values())
    return False


def translate(values: dict[str, Any], file_name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The same as keys of Settings, and warnings that name every key without a meaning here.

    Raises ConfigError for a model the fleet does not know and for a value of the wrong type.
    """
    original = _Original(values, file_name)
    settings: dict[str, Any] = {"fleet": FLEET, "models": {}}
    if "experts" in values:
        _read_experts(original, settings)
    else:
        _read_roles(original, settings)
    return settings, tuple(_warnings(original))


class _Original:
    """The original's values, and which of them were used."""

    def __init__(self, values: dict[str, Any], file_name: str) -> None:
        self.values = values
        self.file_name = file_name
        self.used: set[Path] = set()
        shipped = shipped_fleet(FLEET)
        self.tiers: dict[str, str] = {spec["id"]: spec["tier"] for spec in shipped}
        self._ids: dict[str, str] = {name: spec["id"] for spec in shipped for name in (spec["id"], *spec["aliases"])}

    def take(self, *path: str) -> Any:
        """The value at the path, now used; None where there is none."""
        node: Any = self.values
        for part in path:
            if isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                return None
        self.used.add(path)
        return node

    def number(self, *path: str) -> int | float | None:
        value = self.take(*path)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise self.wrong(path, phrase("wrong.no_positive", value=f"{value!r:.80}"))
        return value

    def flag(self, *path: str) -> bool | None:
        value = self.take(*path)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(path, phrase("wrong.no_truth", value=f"{value!r:.80}"))
        return value

    def model_id(self, *path: str) -> str:
        """The model of the fleet that the name at the path means."""
        name = self.take(*path)
        found = self._ids.get(name) if isinstance(name, str) else None
        if found is None:
            raise self.wrong(path, phrase("wrong.no_model", name=f"{name!r:.80}", fleet=FLEET, known=_names(self._ids)))
        return found

    def wrong(self, path: Path, wish: Phrase) -> ConfigError:
        return ConfigError(phrase("wrong.value", key=".".join(path), where=self.file_name, wish=wish))


def _read_roles(original: _Original, settings: dict[str, Any]) -> None:
    """`five_model_config.json`."""
    for role in original.values["models"]:
        model_id = original.model_id("models", role, "name")
        if model_id in settings["models"]:
            raise original.wrong(("models", role, "name"), phrase("wrong.role_taken", model=model_id))
        timeout_ms = original.number("models", role, "timeout")
        change = {
            # The role is the tier: a file that swaps two models swaps what they are asked for.
            "tier": role if role in get_args(Tier) else None,
            "max_tokens": original.number("models", role, "max_tokens"),
            "timeout_s": timeout_ms / 1000 if timeout_ms is not None else None,
        }
        if change["tier"] == original.tiers[model_id]:
            del change["tier"]
        settings["models"][model_id] = _given(change)
    order = original.take("fallback_strategy", "order")
    if order is not None and not (isinstance(order, list) and all(tier in get_args(Tier) for tier in order)):
        raise original.wrong(("fallback_strategy", "order"), phrase("wrong.no_list_of", names=_names(get_args(Tier))))
    settings["routing"] = _given({"fallback_order": order, "consensus": original.flag("consensus_enabled")})
    if original.flag("fallback_strategy", "enabled") is False:
        _for_all(original, settings, {"fallback": []})


def _read_experts(original: _Original, settings: dict[str, Any]) -> None:
    """`config.five_models.optimized.json`."""
    for index in range(len(original.values["experts"])):
        expert = ("experts", str(index))
        model_id = original.model_id(*expert, "expert_id")
        if model_id in settings["models"]:
            raise original.wrong((*expert, "expert_id"), phrase("wrong.twice", model=model_id))
        settings["models"][model_id] = _given({"context_tokens": original.number(*expert, "max_model_len")})
    settings["routing"] = _given({"consensus": original.flag("enable_consensus")})
    settings["server"] = _given({"port": original.number("server_config", "port")})
    idle_unload_s = original.number("lazy_loading", "auto_unload_after_s")
    if idle_unload_s is not None and original.flag("lazy_loading", "enabled") is not False:
        _for_all(original, settings, {"idle_unload_s": idle_unload_s})


def _for_all(original: _Original, settings: dict[str, Any], change: dict[str, Any]) -> None:
    for model_id in original.tiers:
        settings["models"].setdefault(model_id, {}).update(change)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _names(names: Any) -> str:
    return ", ".join(names)


# ---------------------------------------------------------------- what was not used


def _warnings(original: _Original) -> Iterator[str]:
    """One sentence for each replaced key, with its values, and one for each section of the others."""
    unused = [(path, value) for path, value in _leaves(original.values) if not _covered(path, original.used)]
    for key, instead in REPLACED.items():
        found = [(path, value) for path, value in unused if path[-1] == key]
        if found:
            where = _names(dict.fromkeys(_pattern(path) for path, _ in found))
            values = _names(_harmless(value) for _, value in found)
            yield f"{original.file_name}: {where} ({values}) is not used: {instead}."
    rest = [path for path, _ in unused if path[-1] not in REPLACED]
    for keys in _grouped(rest):
        yield f"{original.file_name}: no meaning here, not used: {keys}."


def _leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every key that holds a value; a list of plain values is one value."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        for index, value in enumerate(node):
            yield from _leaves(value, (*path, str(index)))
    else:
        yield path, node


def _covered(path: Path, used: set[Path]) -> bool:
    return any(path[: len(one)] == one for one in used)


def _pattern(path: Path) -> str:
    """The dotted path, with `*` for the number of an expert and for a role."""
    return ".".join("*" if part.isdigit() or (i == 1 and path[0] == "models") else part for i, part in enumerate(path))


def _grouped(paths: list[Path]) -> Iterator[str]:
    """The keys of each top-level section as one pattern, `a.{b,c.{d,e}}`, in the order of the file."""
    tree: dict[str, Any] = {}
    for path in paths:
        node = tree
        for part in _pattern(path).split("."):
            node = node.setdefault(part, {})
    alone = [name for name, below in tree.items() if not below]
    if alone:
        yield ", ".join(alone)
    yield from (_braces(name, below) for name, below in tree.items() if below)


def _braces(name: str, below: dict[str, Any]) -> str:
    if not below:
        return name
    inner = [_braces(key, more) for key, more in below.items()]
    return f"{name}.{inner[0]}" if len(inner) == 1 else f"{name}.{{{','.join(inner)}}}"


def _harmless(value: Any) -> str:
    """The value as text, without a user and password in an address."""
    return re.sub(r"//[^/@\s]*@", "//", str(value))
