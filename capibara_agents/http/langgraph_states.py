"""Threads, states and checkpoints in the LangGraph API's shapes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from langgraph.types import StateSnapshot

from capibara_agents.http.langserve_encoding import plain
from capibara_agents.threads import Thread


def checkpoint_of(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The checkpoint a configuration points at; None where it points at none."""
    configurable = (config or {}).get("configurable") or {}
    if not configurable.get("thread_id") or not configurable.get("checkpoint_id"):
        return None
    return {
        "thread_id": configurable["thread_id"],
        "checkpoint_ns": configurable.get("checkpoint_ns") or "",
        "checkpoint_id": configurable["checkpoint_id"],
        "checkpoint_map": configurable.get("checkpoint_map"),
    }


def state_of(snapshot: StateSnapshot) -> dict[str, Any]:
    """A ThreadState. A thread without a checkpoint has a state, too: an empty one."""
    configurable = snapshot.config.get("configurable") or {}
    nowhere = {
        "thread_id": configurable.get("thread_id"),
        "checkpoint_ns": "",
        "checkpoint_id": None,
        "checkpoint_map": None,
    }
    tasks = [
        {
            "id": task.id,
            "name": task.name,
            "error": type(task.error).__name__ if task.error else None,
            "interrupts": [],
            "checkpoint": None,
            "state": None,
            "result": plain(task.result),
        }
        for task in snapshot.tasks
    ]
    return {
        "values": plain(snapshot.values),
        "next": list(snapshot.next),
        "checkpoint": checkpoint_of(snapshot.config) or nowhere,
        "metadata": plain(snapshot.metadata or {}),
        "created_at": snapshot.created_at,
        "parent_checkpoint": checkpoint_of(snapshot.parent_config),
        "tasks": tasks,
        "interrupts": [],
    }


def thread_of(thread: Thread, values: Any = None) -> dict[str, Any]:
    """A Thread, with the values of its latest state."""
    return {
        "thread_id": thread.id,
        "created_at": _when(thread.created_s),
        "updated_at": _when(thread.updated_s),
        "state_updated_at": _when(thread.ran_s),
        "metadata": thread.metadata,
        "config": {},
        "status": thread.status,
        "values": plain(values) if values else None,
        "interrupts": {},
    }


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
