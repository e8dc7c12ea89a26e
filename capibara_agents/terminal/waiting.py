"""What a person sees while work goes on; always on standard error, so that results stay alone on standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from capibara_agents.terminal import Terminal


@contextmanager
def waiting(terminal: Terminal, *, lines: bool = False) -> Iterator[Callable[[str], None]]:
    """Shows sentences in a spinner; without a terminal not at all, or with `lines` each on a line of its own."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield (lambda text: console.print(text, highlight=False, soft_wrap=True)) if lines else (lambda _: None)
        return
    with console.status(terminal.text("ask.starting")) as status:
        yield _updater(status)


def _updater(status: Status) -> Callable[[str], None]:
    def update(text: str) -> None:
        status.update(text)

    return update
