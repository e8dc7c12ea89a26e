"""The graph as a page that needs no internet: mermaid draws it, over an SVG of our own that is seen without. Pure."""

from __future__ import annotations

from html import escape

from langchain_core.runnables.graph import Edge, Graph

STEP, WIDTH, HEIGHT, MIDDLE = 150, 110, 44, 120
NAMES = {"__start__": "start", "__end__": "end"}


def page(graph: Graph, mermaid: str) -> str:
    """An HTML page with the drawing and, below it, the mermaid source."""
    order = _in_order(graph)
    column = {name: i for i, name in enumerate(order)}
    width = STEP * len(order) + 20
    drawn = "".join(_edge(edge, column) for edge in graph.edges) + "".join(_node(n, column[n]) for n in order)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Capibara</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
body {{ font: 16px system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }}
svg {{ max-width: 100%; height: auto; }}
rect {{ fill: #f3ece1; stroke: #7a5a2f; }} text {{ text-anchor: middle; dominant-baseline: middle; }}
path {{ fill: none; stroke: #7a5a2f; stroke-width: 1.5; }} .maybe {{ stroke-dasharray: 5 4; }}
pre {{ background: #f6f6f6; padding: 1rem; overflow: auto; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #eee; background: #1b1b1b; }} pre {{ background: #2a2a2a; }}
  rect {{ fill: #3a3128; }} text {{ fill: #eee; }}
}}
</style></head><body><h1>Capibara</h1>
<figure id="figure"><svg role="img" aria-label="The state machine" viewBox="0 0 {width} 240" width="{width}">
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
<path d="M0 0 L8 4 L0 8 z" style="fill:#7a5a2f"/></marker></defs>
{drawn}</svg></figure>
<details><summary>mermaid</summary><pre id="source">{escape(mermaid)}</pre></details>
<script src="assets/mermaid.min.js"></script><script src="assets/graph_page.js"></script>
</body></html>
"""


def _in_order(graph: Graph) -> list[str]:
    """The nodes from start to end, each once, following the edges breadth first."""
    order = ["__start__"]
    for name in order:
        order += [e.target for e in graph.edges if e.source == name and e.target not in (*order, "__end__")]
    return [*dict.fromkeys(order), "__end__"]


def _node(name: str, column: int) -> str:
    x, label = 10 + STEP * column, escape(NAMES.get(name, name))
    radius = 22 if name in NAMES else 6
    return (
        f'<rect x="{x}" y="{MIDDLE - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}"/>'
        f'<text x="{x + WIDTH // 2}" y="{MIDDLE}">{label}</text>\n'
    )


def _edge(edge: Edge, column: dict[str, int]) -> str:
    start, end = column[edge.source], column[edge.target]
    kind = ' class="maybe"' if edge.conditional else ""
    if end == start + 1:
        x = 10 + STEP * start + WIDTH
        return f'<path{kind} d="M{x} {MIDDLE} H{x + STEP - WIDTH - 2}" marker-end="url(#tip)"/>\n'
    from_x, to_x = (10 + STEP * i + WIDTH // 2 for i in (start, end))
    side = -1 if end > start else 1
    y, bend = MIDDLE + side * HEIGHT // 2, MIDDLE + side * 100
    return f'<path{kind} d="M{from_x} {y} C{from_x} {bend} {to_x} {bend} {to_x} {y}" marker-end="url(#tip)"/>\n'
