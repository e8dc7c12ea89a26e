"""`capibara graph`: the state machine as mermaid text, or drawn with characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import typer

from capibara_agents.graphs.capibara import build, drawing
from capibara_agents.services import Services
from capibara_agents.terminal import Terminal


class Edge(NamedTuple):
    """From one node to another; `maybe` where the graph decides at run time."""

    source: str
    target: str
    maybe: bool


def run(terminal: Terminal, *, as_ascii: bool, as_json: bool) -> None:
    """Draws; nothing is started for it."""
    if as_json:
        found = edges()
        terminal.print_json(
            {
                "nodes": ordered(found),
                "edges": [edge._asdict() for edge in found],
                "mermaid": drawing(),
            }
        )
        return
    typer.echo(drawn(edges()) if as_ascii else drawing())


def edges() -> list[Edge]:
    """The wiring of the graph."""
    shape = build(cast(Services, None)).get_graph()
    return [Edge(_name(edge.source), _name(edge.target), edge.conditional) for edge in shape.edges]


def _name(node: str) -> str:
    return {"__start__": "START", "__end__": "END"}.get(node, node)


def ordered(found: Iterable[Edge]) -> list[str]:
    """The nodes in the order in which they are reached from START, END last. Pure."""
    known = list(found)
    order = ["START"]
    for node in order:
        order.extend(e.target for e in known if e.source == node and e.target not in order and e.target != "END")
    return [*order, "END"]


def drawn(found: Sequence[Edge]) -> str:
    """The nodes below each other; what leads to the next one as an arrow, everything else named beside. Pure.

    A dotted arrow is taken only when the graph decides so.
    """
    nodes = ordered(found)
    width = max(map(len, nodes)) + 4
    lines: list[str] = []
    for node, following in zip(nodes, [*nodes[1:], ""], strict=True):
        own = [edge for edge in found if edge.source == node]
        others = [f"{'..>' if e.maybe else '-->'} {e.target}" for e in own if e.target != following]
        border = "+" + "-" * (width - 2) + "+"
        middle = "|" + node.center(width - 2) + "|"
        lines += [border, f"{middle}  {'  '.join(others)}".rstrip(), border]
        onward = next((e for e in own if e.target == following), None)
        if onward is not None:
            shaft = ":" if onward.maybe else "|"
            lines += [shaft.center(width).rstrip(), "v".center(width).rstrip()]
    return "\n".join(lines)
