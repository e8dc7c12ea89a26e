"""Standard output: tables fit a terminal and answers are drawn as Markdown there; a pipe or a file gets whole lines.

What reads a pipe looks for names and copies code: nothing of that may be broken in two at 80 columns.
"""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markdown import Markdown

WIDE = 10_000
"""Columns where nobody looks; tables are no wider than what they hold."""


def paper() -> Console:
    """A console on standard output, as wide as it needs where that is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def answer(content: str) -> None:
    """An answer: drawn at a terminal, as the model wrote it elsewhere."""
    console = paper()
    if console.is_terminal:
        console.print(Markdown(content))
    else:
        typer.echo(content)
