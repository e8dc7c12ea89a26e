"""Capibara: five local models behind one endpoint, routed, voted, verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capibara_agents.version import __version__

if TYPE_CHECKING:
    from capibara_agents.assembly import Capibara, build_graph
    from capibara_agents.chat_model import ChatCapibara

__all__ = ["Capibara", "ChatCapibara", "__version__", "build_graph"]


def __getattr__(name: str) -> Any:
    """Import on first use: LangChain and LangGraph take seconds that the command line need not wait for."""
    if name in ("Capibara", "build_graph"):
        from capibara_agents import assembly  # noqa: PLC0415

        return getattr(assembly, name)
    if name == "ChatCapibara":
        from capibara_agents.chat_model import ChatCapibara  # noqa: PLC0415

        return ChatCapibara
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
