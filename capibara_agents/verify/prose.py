"""The part of an answer that is read by a check: bounded, and without code."""

from __future__ import annotations

import re

SAMPLE_CHARS = 24_000
"""Of a longer answer the first and the last half of so many characters are read."""
READ_CHARS = 200_000
"""A longer answer's code is not read: its ends would not parse."""

_BLANK = re.compile(r"\n{4,}|[^\S\n]{200,}")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_TICKED = re.compile(r"`[^`\n]+`")


def sample(content: str) -> str:
    """The whole text, or its two ends; blank lines without end are three."""
    content = _BLANK.sub("\n\n\n", content)
    if len(content) <= SAMPLE_CHARS:
        return content
    half = SAMPLE_CHARS // 2
    return f"{content[:half]}\n{content[-half:]}"


def prose(text: str) -> str:
    """Without fenced blocks and inline code."""
    return _TICKED.sub(" ", _FENCED.sub(" ", text))
