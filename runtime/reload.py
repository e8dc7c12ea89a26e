"""What a new configuration changes in a running fleet: a pure comparison of settings."""

from __future__ import annotations

from dataclasses import dataclass

from capibara_agents.errors import ConfigError
from capibara_agents.settings import ModelSpec, Settings
from capibara_agents.texts import phrase

# What the server process never sees: a change of these takes effect without a restart.
WITHOUT_RESTART = frozenset(
    {
        "tier",
        "aliases",
        "stand_in",
        "weights_name",
        "sees_images",
        "calls_tools",
        "max_tokens",
        "timeout_s",
        "load_timeout_s",
        "fallback",
        "idle_unload_s",
        "pinned",
    }
)
# What only a start reads: (section, key); a section without a key is meant as a whole.
AT_START_ONLY = (("server", None), ("runtime", "load_wait_s"), ("routing", "neighbours"), ("routing", "exemplar_store"))


@dataclass(frozen=True)
class Difference:
    """Model ids. `restarted` ones run on until their answers are given, and start anew when they are next needed."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    restarted: tuple[str, ...]
    updated: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.restarted or self.updated)


def difference(old: Settings, new: Settings) -> Difference:
    """Compares two configurations. Raises ConfigError for a key that cannot change while servers run."""
    for key in ("data_dir", "weights_dir"):
        if getattr(old, key) != getattr(new, key):
            raise ConfigError(phrase("wrong.fixed_while_running", key=f"runtime.{key}"))
    before, after = ({spec.id: spec for spec in settings.models} for settings in (old, new))
    kept = [model_id for model_id in after if model_id in before]
    engine_changed = old.runtime.llama_server != new.runtime.llama_server
    restarted = [m for m in kept if engine_changed or _needs_restart(before[m], after[m])]
    return Difference(
        added=tuple(m for m in after if m not in before),
        removed=tuple(m for m in before if m not in after),
        restarted=tuple(restarted),
        updated=tuple(m for m in kept if m not in restarted and before[m] != after[m]),
    )


def waits_for_restart(started_with: Settings, new: Settings) -> tuple[str, ...]:
    """The keys that differ from those Capibara was started with and that a running one does not take over."""
    found = []
    for name, key in AT_START_ONLY:
        old_section, new_section = getattr(started_with, name), getattr(new, name)
        keys = [key] if key else sorted(type(new_section).model_fields)
        found += [f"{name}.{k}" for k in keys if getattr(old_section, k) != getattr(new_section, k)]
    return tuple(found)


def _needs_restart(old: ModelSpec, new: ModelSpec) -> bool:
    return old.model_dump(exclude=set(WITHOUT_RESTART)) != new.model_dump(exclude=set(WITHOUT_RESTART))
