"""Finds where a text states its answer: the last statement counts, a denied one does not.

"La respuesta no es 5, sino 7", "#### 7", "\\boxed{7}", {"answer": 7}, "**Final answer:** 7": each gives a statement
whose text begins with the answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MARKED = 0.95
WHOLE = 0.9
CONTESTED = 0.7
"""Stated more than once, and not the same each time."""
GUESSED = 0.6
WEAK = 0.3

HEAD_CHARS = 2_000
TAIL_CHARS = 20_000
"""Of a long text only its beginning and its end are read."""
STATEMENT_CHARS = 400
MAX_MARKS = 40
"""Of each sort of statement the last so many."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A place where the text says what its answer is; `text` begins there."""

    text: str
    start: int
    strong: bool = True


_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
# A model that goes on writing the next question of its prompt has answered before it.
_NEXT_QUESTION = re.compile(
    r"\n\s*(?:#+\s*)?(?:\*\*)?(?:(?:question|pregunta|q|problem|problema|user|human|usuario|input)\s*\d{0,3}\s*:|"
    r"(?:<\|im_end\|>|<\|eot_id\|>|<\|end\|>|</s>|== ?response ?==))",
    re.IGNORECASE,
)
_BLANK = re.compile(r"\n[ \t]{0,20}\n\s{2,}|[^\S\n]{200,}")
_UNSEEN = re.compile(r"[\u200b-\u200f\u2060\ufeff\x00-\x08\x0e-\x1f]")

_ADJECTIVE = r"(?:final|correct|right|best|correcta|correcto|definitiva|final|numeric(?:al)?|numérica)"
# A first letter that is looked for by itself makes the search four times as fast.
_NOUN = (
    r"[acrstACRST](?<=\b.)(?:(?<=a)nswers?|(?<=r)espuestas?|(?<=r)esultados?|(?<=s)oluci[oó]n(?:es)?|(?<=s)olutions?|"
    r"(?<=r)esults?|(?<=t)otal|(?<=r)(?:es)?p(?:ta)?\.|(?<=c)onclusi[oó]n|(?<=c)onclusion)"
)
_IS = r"(?:is|are|was|would be|will be|should be|must be|equals|es|son|ser[ií]a|ser[aá]|fue|queda|da|comes to|ser)"
_STRONG = re.compile(
    rf"{_NOUN}\b(?:\s+{_ADJECTIVE})?"
    # "the answer to the second question is": what stands between has no end of a sentence and no sign of equality.
    rf"(?:[\"'*_`]*\s*[:=：]+|(?:\s+[^\s.:=\n]{{1,24}}){{0,8}}?\s+(?:therefore |"
    rf"thus |then |por tanto )?{_IS}\b\s*:?|\s*→)",
    re.IGNORECASE,
)
_HASHES = re.compile(r"(?m)^\s*####\s*")
_WEAK = re.compile(
    r"[acefhilpstACEFHILPST](?<=\b.)(?:(?<=t)herefore|(?<=t)hus|(?<=h)ence|(?<=i)n total|(?<=a)ltogether|"
    r"(?<=c)onsequently|(?<=s)o|(?<=p)or (?:lo )?tanto|(?<=a)s[ií] que|(?<=e)ntonces|(?<=e)n total|(?<=l)uego|"
    r"(?<=f)inalmente|(?<=f)inally|(?<=e)n conclusi[oó]n|(?<=i)n conclusion)\b[,:]?\s*",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\s*(?:is\s+)?(?:not\b|isn't|never\b|no\b(?!\s*[.,]|\s*$))", re.IGNORECASE)
_BEFORE_DENIED = re.compile(r"(?:\bno|\bnot|n't|\bnunca|\bnever)\s+\S{0,12}$", re.IGNORECASE)
_BUT = re.compile(r"\b(?:but|sino|rather|instead)\b\s*(?:rather|que|it is|es)?\s*", re.IGNORECASE)
_EMPHASIS = re.compile(r"\*\*|__|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)(?=[\s.,;:!?)]|$)")
_KEYS = ("answer", "final_answer", "respuesta", "respuesta_final", "result", "resultado", "solution", "solución")


def readable(content: str) -> str:
    """The part of a text that can hold its answer: no thoughts before it, no invented next question after it."""
    if len(content) > HEAD_CHARS + TAIL_CHARS:
        content = f"{content[:HEAD_CHARS]}\n{content[-TAIL_CHARS:]}"
    content = _BLANK.sub("\n\n", _UNSEEN.sub("", content).replace("\r\n", "\n"))
    content = _THOUGHT.sub("", content, count=1) or content
    follows = _NEXT_QUESTION.search(content, 1)
    if follows and content[: follows.start()].strip():
        content = content[: follows.start()]
    return content.strip()


def plain(text: str) -> str:
    """Without Markdown's emphasis."""
    return _EMPHASIS.sub("", text)


def statements(content: str) -> list[Statement]:
    """All statements of a readable text, in the order of their strength and then of their place, the last first."""
    named = _in_json(content)
    if named is not None:
        return [Statement(named, 0)]
    text = plain(content)
    marks = [*_STRONG.finditer(text)][-MAX_MARKS:] + [*_HASHES.finditer(text)][-MAX_MARKS:]
    strong = [_stated(text, m.start(), m.end()) for m in marks]
    strong += [Statement(inside, at) for inside, at in boxes(text)]
    found = sorted((s for s in strong if s is not None and s.text), key=lambda s: s.start, reverse=True)
    marks = [*_WEAK.finditer(text)][-MAX_MARKS:]
    weak = [Statement(text[m.end() : m.end() + STATEMENT_CHARS], m.start(), strong=False) for m in marks]
    return found + [s for s in reversed(weak) if s.text.strip()]


def _stated(text: str, start: int, end: int) -> Statement | None:
    rest = text[end : end + STATEMENT_CHARS].lstrip(" \t\"'`*_:")
    if _BEFORE_DENIED.search(text[max(start, end - 40) : end].rstrip()) or _DENIED.match(rest):
        sentence = rest.split("\n")[0]
        instead = _BUT.search(sentence)
        return Statement(sentence[instead.end() :], start) if instead else None
    return Statement(rest.lstrip("\n "), start)


def boxes(text: str) -> list[tuple[str, int]]:
    """What stands in \\boxed{...}, with braces balanced, and where."""
    found = []
    for match in [*re.finditer(r"\\(?:boxed|fbox)\s*\{", text)][-MAX_MARKS:]:
        depth = 1
        for at in range(match.end(), min(len(text), match.end() + STATEMENT_CHARS)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                found.append((text[match.end() : at], match.start()))
                break
    return found


def _in_json(content: str) -> str | None:
    """The value of an `answer` key of a text that is a JSON object as a whole."""
    bare = content.removeprefix("```json").removesuffix("```").strip()
    if not bare.startswith("{") or ("answer" not in bare.lower() and "res" not in bare.lower()):
        return None
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    for key in _KEYS:
        if isinstance(value.get(key), str | int | float):
            return str(value[key])
    return None


def first_sentence(text: str) -> str:
    """Up to the end of the line or the sentence; a point within a number ends nothing."""
    line = text.strip().split("\n")[0]
    end = re.search(r"[.!?;](?=\s+[A-ZÁÉÍÓÚÑ¿¡(]|\s*$)", line)
    return line[: end.start()] if end else line


def last_lines(text: str, count: int = 3) -> list[str]:
    """The last lines that are not empty, the last first."""
    return [line.strip() for line in reversed(text.split("\n")) if line.strip()][:count]
