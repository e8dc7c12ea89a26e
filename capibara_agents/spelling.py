"""One slip in a word that is no word: read as the common word it was to be. Pure.

"Ptyhon" is Python and "senence" sentence. A word is left alone when anything speaks for it: it stands in an exemplar,
the embedder has a piece of its own for it, it belongs to a program, or more than one common word is as near. Neighbours
are found by leaving one letter out of both (Garbe's SymSpell, 2012).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from capibara_agents.fold import fold

LONGEST_WORDS = 80
"""A longer text is understood in spite of a slip."""
COMMON = 3
"""A word that so many texts have is what another may have been meant to be."""

_WORD = re.compile(r"(?<![\w.@/\\`:#$-])[^\W\d_]{5,24}(?!\.\w)(?![\w@/\\`(\[=#$-])")
_FOLDED = re.compile(r"[a-z]+")
_PROGRAM = re.compile(r"```|^[ \t]*(?:def|class|import|return|#include)\b", re.MULTILINE)


class Spelling:
    """The words of some texts; `known` says of a folded word whether it is one all the same."""

    def __init__(self, texts: Iterable[str], known: Callable[[str], bool]) -> None:
        counts = Counter(word for text in texts for word in set(_FOLDED.findall(fold(text))))
        self._words = frozenset(counts)
        self._known = known
        self._near: dict[str, list[str]] = {}
        for word, count in counts.items():
            if count >= COMMON and len(word) >= 4:
                for key in {word, *_shorter(word)}:
                    self._near.setdefault(key, []).append(word)

    def corrected(self, text: str) -> str:
        """The text with its slips put right, in small letters where it was changed; as it was where there are none."""
        if text.count(" ") > LONGEST_WORDS or _PROGRAM.search(text):
            return text
        return _WORD.sub(lambda found: self._meant(found.group()), text)

    def _meant(self, word: str) -> str:
        if not (word.islower() or word.isupper() or word[1:].islower()):
            return word
        folded = fold(word)
        if folded in self._words or not folded.isascii():
            return word
        near = {
            other for key in (folded, *_shorter(folded)) for other in self._near.get(key, ()) if _slip(folded, other)
        }
        return next(iter(near)) if len(near) == 1 and not self._known(folded) else word


def _shorter(word: str) -> Iterator[str]:
    """The word with each letter but the first left out."""
    return (word[:at] + word[at + 1 :] for at in range(1, len(word)))


def _slip(word: str, meant: str) -> bool:
    """Whether one letter is missing, one too many, or two neighbours are swapped; the first stays."""
    if len(word) == len(meant):
        differs = [at for at in range(len(word)) if word[at] != meant[at]]
        first = differs[0] if differs else 0
        return (
            len(differs) == 2
            and differs[1] == first + 1
            and word[first] == meant[first + 1]
            and word[first + 1] == meant[first]
        )
    short, long = sorted((word, meant), key=len)
    # A word and its plural, its feminine or another form of it are both words.
    return len(long) - len(short) == 1 and short in list(_shorter(long))[:-1] and short[:-1] + long[-1] != long[:-1]
