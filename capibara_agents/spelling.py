"""One slip in a word that is no word: read as the common word it was to be. Pure.

"Ptyhon" is Python and "wrte" write. A noisy channel (Kernighan, Church and Gale, COLING 1990): of the words one slip
away the most common one is meant, if it is so much more likely than the letters as they stand, put together of what
words are made of, that the slip explains them better. How common a word is, exemplars and the embedder's pieces tell.
A word that one of them knows is left alone, so is what belongs to a program, and what two words explain as well.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from capibara_agents.fold import fold

LONGEST_WORDS = 80
"""A longer text is understood in spite of a slip."""
ACRONYM_LETTERS = 5
MOST_UNKNOWN = 4
"""So many words that nobody knows are no slips; further ones are not looked at."""
WORDS_KEPT = 4096
"""Of so many unknown words it is remembered what they may mean."""
IN_TEXTS = 2
"""A word that so many exemplars have counts by how often they do."""

# All in nats. Chosen on public and own questions: what is put right of one slip each, and what is changed without one.
SLIP = 6.0
"""By so much a word has to be more likely than the letters as they stand."""
SHORT, SHORT_LETTERS = 1.0, 4
"""… and by so much more in a word of so many letters or fewer, which may be an abbreviation,"""
NAME = 2.0
"""… and in one with a capital within a sentence, which may be a name."""
APART = 1.0
"""By so much the likeliest word has to be more likely than the next one."""
STRAY = 5.0
"""A letter too many that is not its neighbour again is so much rarer than the other slips."""

_WORD = re.compile(r"(?<![\w.@/\\`:#$-])[^\W\d_]{4,24}(?!\.\w)(?![\w@/\\`(\[=#$-])")
_FOLDED = re.compile(r"[a-z]+")
_PROGRAM = re.compile(r"```|^[ \t]*(?:def|class|import|return|#include)\b", re.MULTILINE)
_OPENING = " \t\"'¿¡(«“"
_ENDING = ".?!:\n"


class Pieces(Protocol):
    """What is asked of the pieces that texts are read by; logarithms of probabilities of folded words."""

    def whole(self, words: Iterable[str]) -> Mapping[str, float]:
        """Of those words that are pieces."""

    def parted(self, word: str) -> float:
        """Of a word put together of the likeliest pieces."""


class Spelling:
    """The words of some texts, and what pieces tell of others; `pieces` is called when there is one."""

    def __init__(self, texts: Iterable[str], pieces: Callable[[], Pieces]) -> None:
        counts = Counter(word for text in texts for word in set(_FOLDED.findall(fold(text))))
        total = max(1, counts.total())
        self._words = frozenset(counts)
        self._shares = {word: count / total for word, count in counts.items() if count >= IN_TEXTS}
        self._pieces = pieces
        # Names above all come again and again, and some two hundred words lie around each.
        self._likeliest = lru_cache(WORDS_KEPT)(self._explained)

    def corrected(self, text: str) -> str:
        """The text with its slips put right, in small letters where it was changed; as it was where there are none."""
        if text.count(" ") > LONGEST_WORDS or _PROGRAM.search(text):
            return text
        changed: list[str] = []
        done = unknown = 0
        for found in _WORD.finditer(text):
            word = fold(found.group())
            if not word.isascii() or self._known(word) or _stands_for_itself(found.group(), text):
                continue
            unknown += 1
            if unknown > MOST_UNKNOWN:
                break
            margin = SLIP + (SHORT if len(word) <= SHORT_LETTERS else 0) + (NAME if _is_name(found, text) else 0)
            meant, likelier = self._likeliest(word)
            if likelier >= margin:
                changed += (text[done : found.start()], meant)
                done = found.end()
        return "".join((*changed, text[done:]))

    def _known(self, word: str) -> bool:
        """Whether it is a word, or the plural of one."""
        forms = {word, *(word.removesuffix(ending) for ending in ("s", "es"))}
        return not self._words.isdisjoint(forms) or bool(self._pieces().whole(forms))

    def _explained(self, word: str) -> tuple[str, float]:
        """The word that is meant if it is a slip, and how much likelier that is than the letters as they stand."""
        costs = _one_slip_away(word)
        whole = self._pieces().whole(costs)
        # Exemplars tell half of how common a word is, pieces the other half.
        shares = {word: math.exp(value) / 2 for word, value in whole.items()}
        for other in costs.keys() & self._shares.keys():
            shares[other] = shares.get(other, 0.0) + self._shares[other] / 2
        odds = {other: math.log(share) - costs[other] for other, share in shares.items()}
        best, *others = sorted(odds, key=lambda other: (-odds[other], other)) or [word]
        if best not in odds or (others and odds[best] - odds[others[0]] < APART):
            return word, -math.inf
        return best, odds[best] - self._pieces().parted(word)


def _stands_for_itself(word: str, text: str) -> bool:
    """Whether capitals say that it is an acronym, or a name in a program."""
    if word.isupper():
        return len(word) <= ACRONYM_LETTERS and not text.isupper()
    return not word[1:].islower()


def _is_name(found: re.Match[str], text: str) -> bool:
    """Whether a word has a capital that no beginning of a sentence explains."""
    if not found.group()[0].isupper() or text.isupper():
        return False
    before = text[: found.start()].rstrip(_OPENING)
    return bool(before) and before[-1] not in _ENDING


def _one_slip_away(word: str) -> dict[str, float]:
    """Words with one letter more, one less, or two neighbours swapped, and what the slip costs; the first stays.

    What the last letter alone would change are other forms of it: a plural, a feminine.
    """
    likely: list[str] = []
    stray: list[str] = []
    for at in range(1, len(word)):
        before, letter, after = word[:at], word[at], word[at + 1 :]
        if after:
            likely += [before + other + letter + after for other in string.ascii_lowercase]
            (likely if letter in (before[-1], after[0]) else stray).append(before + after)
            likely.append(before + after[0] + letter + after[1:])
        else:
            likely += [before + other + letter for other in string.ascii_lowercase if other != letter]
    # Of two ways to one word the likelier counts.
    return dict.fromkeys(stray, STRAY) | dict.fromkeys(likely, 0.0)
