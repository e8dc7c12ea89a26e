"""Text that appears while it is written: Markdown by the paragraph on a terminal, plain pieces everywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.spinner import Spinner
from rich.text import Text


class MarkdownStream:
    """Draws an answer as it comes. What is finished (a paragraph, a block of code) is drawn once and stays.

    Only the unfinished part is drawn again and again, so that a long answer scrolls as any other text.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = ""
        self._begun = False
        self._live = Live(console=console, transient=True, refresh_per_second=10, vertical_overflow="ellipsis")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update("", refresh=True)
        self._live.stop()
        self._draw(self._rest)

    def waiting(self, text: str) -> None:
        """What is waited for, until the first piece comes."""
        if not self._begun:
            self._live.update(Spinner("dots", Text(text, style="dim")))

    def __call__(self, piece: str) -> None:
        self._begun = True
        finished, self._rest = split_finished(self._rest + piece)
        if finished:
            self._live.update("")
            self._draw(finished)
        self._live.update(Markdown(self._rest))

    def _draw(self, text: str) -> None:
        if text.strip():
            self._console.print(Markdown(text))


class PlainStream:
    """Hands the pieces on unchanged, and ends the last line."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self("\n")

    def waiting(self, text: str) -> None:
        """Nothing but the answer is written."""

    def __call__(self, piece: str) -> None:
        self._file.write(piece)
        self._file.flush()


def split_finished(text: str) -> tuple[str, str]:
    """The text up to its last empty line outside a block of code, and the rest. Pure."""
    end, fenced, position = 0, False, 0
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        position += len(line)
        if not fenced and not line.strip() and line.endswith("\n"):
            end = position
    return text[:end], text[end:]
