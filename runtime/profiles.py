"""How llama-server is started for one model on this CPU: a pure function from facts to arguments.

A flag that is not essential is used only if the binary's own --help defines it, because names change between
releases; an essential one is always given, so that a binary without it fails loudly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capibara_agents.runtime.cores import Lease
from capibara_agents.runtime.cpu import CpuFacts
from capibara_agents.runtime.memory import CONTEXT_CHECKPOINTS, MIB, PROMPT_CACHE_BYTES
from capibara_agents.runtime.tuning import tuning_for
from capibara_agents.settings import ModelSpec


@dataclass(frozen=True)
class Command:
    """A process to start: arguments, and variables on top of the inherited ones. The key stays out of `ps`."""

    model_id: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(repr=False, default_factory=dict)
    wrapped: bool = False
    """Whether a command_prefix stands before llama-server."""


def threads_for(spec: ModelSpec, cpu: CpuFacts, weights_bytes: int) -> int:
    """The model's own number, else as many as its size can use; never more than the cores."""
    wish = spec.threads or tuning_for(cpu, weights_bytes).threads or cpu.cores
    return max(1, min(cpu.cores, wish))


def build_command(
    spec: ModelSpec,
    *,
    binary: Path,
    flags: frozenset[str],
    lease: Lease,
    model_file: Path,
    mmproj_file: Path | None,
    api_key: str,
    crowded: bool,
    repacked: bool = False,
    port: int = 0,
) -> Command:
    """`crowded`: it shares its cores with others, so its idle threads must sleep rather than spin."""
    arguments = [*spec.command_prefix, str(binary), "--model", str(model_file), "--host", "127.0.0.1"]
    arguments += ["--port", str(port), "--threads", str(lease.threads), "--parallel", str(spec.slots)]
    arguments += ["--ctx-size", str(spec.context_tokens * spec.slots)]
    for name, values in [*_optional(spec, mmproj_file), *_placement(lease, crowded, repacked)]:
        if name in flags:
            arguments += [name, *values]
    environment = {"LLAMA_API_KEY": api_key, "LLAMA_SERVER_ROUTER_PORT": "1"}
    if crowded:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    return Command(spec.id, (*arguments, *spec.extra_args), environment, wrapped=bool(spec.command_prefix))


def _optional(spec: ModelSpec, mmproj_file: Path | None) -> Sequence[tuple[str, tuple[str, ...]]]:
    chosen: list[tuple[str, tuple[str, ...]]] = [
        ("--alias", (spec.id,)),
        ("--offline", ()),
        ("--metrics", ()),
        ("--slots", ()),
        ("--no-ui", ()),
        ("--no-context-shift", ()),
        ("--flash-attn", (spec.flash_attention or "auto",)),
        ("--cache-type-k", (spec.cache_type_k,)),
        ("--cache-type-v", (spec.cache_type_v,)),
        ("--cache-ram", (str(PROMPT_CACHE_BYTES // MIB),)),
        ("--ctx-checkpoints", (str(CONTEXT_CHECKPOINTS),)),
    ]
    if spec.batch_tokens:
        chosen.append(("--batch-size", (str(spec.batch_tokens),)))
    chosen += _template(spec)
    if spec.reasoning_format:
        chosen.append(("--reasoning-format", (spec.reasoning_format,)))
    if spec.chat_template_kwargs:
        chosen.append(("--chat-template-kwargs", (json.dumps(spec.chat_template_kwargs, sort_keys=True),)))
    if mmproj_file:
        chosen.append(("--mmproj", (str(mmproj_file),)))
    return chosen


def _template(spec: ModelSpec) -> list[tuple[str, tuple[str, ...]]]:
    """A template by name works without Jinja only: with it the name itself is the template, and is all that is sent."""
    if not spec.chat_template:
        return [("--jinja", ())]
    is_jinja = "{{" in spec.chat_template or "{%" in spec.chat_template
    return [("--jinja" if is_jinja else "--no-jinja", ()), ("--chat-template", (spec.chat_template,))]


def _placement(lease: Lease, crowded: bool, repacked: bool) -> list[tuple[str, tuple[str, ...]]]:
    """Where it computes, how its threads wait, and how the file comes into memory."""
    chosen: list[tuple[str, tuple[str, ...]]] = []
    if lease.cores:
        chosen += [("--cpu-mask", (lease.mask,)), ("--cpu-strict", ("1",))]
    if crowded:
        chosen.append(("--poll", ("0",)))
    if repacked:
        chosen.append(("--load-mode", ("none",)))
    return chosen
