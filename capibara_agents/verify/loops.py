"""Whether a text has fallen into saying the same thing over and over."""

from __future__ import annotations

import re
from collections import Counter

from capibara_agents.types import Check
from capibara_agents.verify.prose import sample

# The same line, or the same eight words, so often, and making up so much of the text.
LINES = 5
WORDS = 8
TIMES = 6
SHARE = 0.3
# The end of the text, over and over the same few characters: "ha ha ha ha", "1, 1, 1, 1".
END_CHARS = 600
MAX_PERIOD_CHARS = 60

_ASKED_FOR = re.compile(
    r"\b(?:repeat\w*|repite|repetir|repita\w*|rep[ií]telo|over and over|\d{1,4} (?:times|"
    r"veces)|hundred times|cien veces|loop|bucle)\b",
    re.IGNORECASE,
)


def no_loop(content: str, question: str = "") -> Check:
    """The text does not say the same thing over and over, unless it was asked to."""
    text = sample(content)
    looping = _same_lines(text) or _same_words(text) or _same_end(text)
    looping = looping and not _ASKED_FOR.search(question[:20_000])
    return Check(name="no_loop", passed=not looping, reason="verify.loop" if looping else "")


def _same_lines(text: str) -> bool:
    lines = Counter(line.strip() for line in text.splitlines() if len(line.strip()) > 3)
    return any(times >= LINES and times * 2 >= lines.total() for times in lines.values())


def _same_words(text: str) -> bool:
    words = text.split()
    runs = Counter(tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1))
    # Runs overlap: one that is said n times covers about n times its own length.
    return any(times >= TIMES and times * WORDS >= SHARE * len(words) for times in runs.values())


def _same_end(text: str) -> bool:
    """The last characters have a short period (Knuth, Morris and Pratt's failure function)."""
    end = text.rstrip()[-END_CHARS:]
    if len(end) < END_CHARS or not any(c.isalnum() for c in end):
        return False
    failure = [0] * len(end)
    for i in range(1, len(end)):
        k = failure[i - 1]
        while k and end[i] != end[k]:
            k = failure[k - 1]
        failure[i] = k + (end[i] == end[k])
    return len(end) - failure[-1] <= MAX_PERIOD_CHARS
