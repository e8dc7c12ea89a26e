"""The terminal: the entry point. What it is made of is imported in `main`, where Ctrl-C already ends it in order."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `capibara`. Exit status 0 done, 1 failed, 2 wrong use, 130 Ctrl-C."""
    try:
        from capibara_agents.cli import program  # noqa: PLC0415  (typer alone takes longer than a hand on Ctrl-C)

        program.main(arguments)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
