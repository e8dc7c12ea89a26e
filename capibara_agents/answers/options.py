"""Which of the options of a question a text chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from capibara_agents.answers.statement import CONTESTED, GUESSED, MARKED, WEAK
from capibara_agents.answers.words import plain_text
from capibara_agents.types import AnswerKind, Canonical

_LINE = re.compile(r"(?m)^[ \t>*-]*[(\[]?([A-Ja-j])[)\].:][ \t]+(\S[^\n]{0,400})")
_INLINE = re.compile(r"(?:^|(?<=[\s,;:?]))\(?([A-Ja-j])\)\s*([^()\n]{1,200}?)(?=[\s,;]*\(?[A-Ja-j]\)|$|\n)")
_NONE: Mapping[str, str] = MappingProxyType({})


@lru_cache(maxsize=256)
def options(question: str) -> Mapping[str, str]:
    """The options a question offers, by capital letter; empty when it offers fewer than two."""
    for pattern in (_LINE, _INLINE):
        found: dict[str, str] = {}
        for match in pattern.finditer(question[-20_000:]):
            letter = match[1].upper()
            if letter == "A":
                found = {}
            if letter == chr(ord("A") + len(found)):
                found[letter] = match[2].strip()
        if len(found) >= 2:
            return MappingProxyType(found)
    return _NONE


_WRAP = re.compile(
    r"\\(?:boxed|text|textbf|textrm|mathrm|mathbf|mathsf|bf|rm|left|right|fbox|quad|,|;)(?![A-Za-z])|\\[()\[\]]|[{}$*_`]"
)
# A capital letter on its own. "A" and "I" are words too: before another word only what can follow a letter counts.
_LETTER = (
    r"(?:[(\[\"'“«]\s*)?(?P<letter>(?-i:[B-HJ])(?![\w'’])|(?-i:[AI])(?![\w'’])(?!\s+(?!(?:and|or|y|because|since|as|with|due|for|given|"
    r"which|porque|ya|pues|con|is|was|es|\()\b)(?-i:[a-z]))|(?<=[(\[])\s*[a-j](?=\s*[)\]]))"
)
_NOISE = (
    r"(?:(?:most likely|probably|clearly|definitely|likely|simply|indeed|therefore|"
    r"thus|still|option|choice|letter|answer|"
    r"statement|alternative|the|la|el|letra|opci[oó]n|respuesta|alternativa|inciso|literal|correcta|either|both|indeed|"
    r"claramente|probablemente|number|following|one)\b[\s:,]*|[\s:=→\"'>-])*"
)
_SUBJECT = (
    # A first letter that is looked for by itself makes the search faster.
    r"(?=[abcilorsABCILORS])\b(?:answers?|choices?|options?|selection|alternative|respuesta|opci[oó]n|alternativa|letra|inciso|solution|soluci[oó]n|"
    r"(?:correct|correcta|correcto|right|best) (?:one|statement|is|es)|correcta|correcto)\b"
)
_VERB = r"(?:is|are|would be|should be|must be|will be|was|seems to be|es|ser[ií]a|ser[aá]|son|debe ser|[:=→])"
_GOOD = (
    r"(?:(?:the|la|el|a|an|una|un|most|m[aá]s|only|[uú]nica|clearly|also|therefore|thus|indeed|still)\s+)*"
    r"(?:(?:one|option|choice|opci[oó]n|respuesta|answer|statement|alternativa)\s+)?"
    r"(?:correct\w*|right|best|true|answer|accurate|appropriate|verdader[ao]|mejor|adecuad[ao]|respuesta|acertada|suitable)"
)
_STATED = (
    # the correct answer (to …) is: **C**
    re.compile(
        rf"{_SUBJECT}(?:\s+(?:to|for|of|that|a|de|para|from|among|which|here|provided|above)\b[^.\n:]{{0,100}}?)?"
        rf"[\s\"']*{_VERB}{_NOISE}{_LETTER}",
        re.IGNORECASE,
    ),
    # (C) is the correct answer; la C es la correcta
    re.compile(
        rf"(?:^|[\s(\[\"']){_LETTER}[)\].:\"']*(?:\s*,)?\s*(?:is|es|ser[ií]a|would be|"
        rf"seems|parece)\s+{_GOOD}\b(?!\s+(?:that|que))", re.IGNORECASE),
    # I choose C; me quedo con la C
    re.compile(
        rf"\b(?:choose|pick|select|go(?:ing)? with|chose|elijo|escojo|selecciono|elegir[ií]a|"
        rf"marco|marcar[ií]a|me quedo con|"
        rf"opto por){_NOISE}{_LETTER}",
        re.IGNORECASE,
    ),
    # the answer (C), answer C, opción C at the end of a line
    re.compile(rf"\b(?:answer|respuesta)\s+{_LETTER}[)\].]*\s*(?:$|\n)", re.IGNORECASE),
)  # fmt: skip
_OPENING = re.compile(
    rf"^\W*(?:(?:option|opci[oó]n|answer|respuesta)\W*)?{_LETTER}\s*(?:[)\].:,\-–—]|$|\n)", re.IGNORECASE
)
_ONLY = re.compile(
    r"^\W*(?:(?:the|la)?\s*(?:correct |final )?(?:answer|option|choice|respuesta|"
    r"opci[oó]n|letra)(?:\s*[:=]|\s+(?:is|es))?)?"
    r"[\W_]*(?P<letter>[A-J])[\W_]*$",
    re.IGNORECASE,
)
_CLOSING_LINE = re.compile(rf"^[\W_]*{_LETTER}[)\].:]+(?:\s|$)", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"\(([A-J])\)")
_ALONE = re.compile(r"(?:^|[\s(\[\"'“:=])([A-J])(?=[\s).\],;:\"'”?!]|$)")
_SECOND = re.compile(r"^[)\]\s\"']*(?:,?\s*(?:and|or|y|o|&|/|,)\s*)\(?([A-J])(?=[)\s.,;]|$)")
_DENIED = re.compile(
    r"^[)\]\s\"']*(?:is|are|was|es|no es|isn't)?\s*(?:not\b|no\b|incorrect\w*|wrong\b|false\b|fals[ao]\b|n't)",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n't|\bno|\bneither|\bnor|\bni|\bexcept|\brule out|\bdescart\w+)\s*(?:es|"
    r"la|the|option|opci[oó]n)?\s*[(\[]?$",
    re.IGNORECASE,
)


def option_answer(content: str, choices: Mapping[str, str] = _NONE) -> Canonical | None:
    """The letter that the text gives as its answer: stated, or by its option's words; else the last one it names."""
    flat = _WRAP.sub("", content)
    return _only(flat, choices) or _stated(flat, choices) or _in_words(flat, choices) or _concluded(flat, choices)


def _canonical(letter: str, confidence: float) -> Canonical:
    return Canonical(kind=AnswerKind.option, value=letter.strip().upper(), confidence=confidence)


def _only(flat: str, choices: Mapping[str, str]) -> Canonical | None:
    match = _ONLY.match(flat) if len(flat) <= 60 else None
    if match is None:
        return None
    offered = not choices or match["letter"].upper() in choices
    return _canonical(match["letter"], MARKED if offered else WEAK)


def _stated(flat: str, choices: Mapping[str, str]) -> Canonical | None:
    found = [match for pattern in _STATED for match in pattern.finditer(flat)]
    stated = sorted((m.start("letter"), m["letter"].strip().upper(), m.end("letter")) for m in found)
    stated = [s for s in stated if not _DENIED.match(flat[s[2] : s[2] + 40])]
    if not stated:
        return _opening(flat, choices)
    _, letter, end = stated[-1]
    if choices and letter not in choices:
        return _canonical(letter, WEAK)
    if _SECOND.match(flat[end : end + 20]):
        return _canonical(letter, GUESSED)
    return _canonical(letter, MARKED if len({s[1] for s in stated}) == 1 else CONTESTED)


def _opening(flat: str, choices: Mapping[str, str]) -> Canonical | None:
    """A text that begins with its letter; not one that goes through all options."""
    match = _OPENING.match(flat)
    if match is None or match["letter"].upper() not in (choices or match["letter"].upper()):
        return None
    if _DENIED.match(flat[match.end("letter") : match.end("letter") + 40]):
        return None
    listed = {m["letter"] for line in flat.split("\n")[:60] if (m := _CLOSING_LINE.match(line))}
    return _canonical(match["letter"], MARKED) if len(listed) <= 1 else None


def _in_words(flat: str, choices: Mapping[str, str]) -> Canonical | None:
    """The one option whose words stand in the conclusion."""
    if not choices:
        return None
    wording = {letter: plain_text(text) for letter, text in choices.items()}
    end = f" {plain_text(_conclusion(flat))} "
    named = [letter for letter, words in wording.items() if len(words) > 1 and f" {words} " in end]
    # "sulphuric acid" also names the option "acid".
    longest = [x for x in named if not any(x != y and wording[x] in wording[y] for y in named)]
    return _canonical(longest[0], GUESSED) if len(longest) == 1 else None


def _conclusion(flat: str) -> str:
    lines = [line for line in flat.strip().split("\n") if line.strip()]
    last = lines[-1] if lines else ""
    return re.split(r"(?<=[.!?])\s+(?=[A-ZÁÉÍÓÚ])", last[-2000:].strip())[-1]


def _concluded(flat: str, choices: Mapping[str, str]) -> Canonical | None:
    """The letter of the last line, else the last in brackets, else the last at all; none that is denied."""
    lines = [line for line in flat.strip().split("\n") if line.strip()]
    closing = _CLOSING_LINE.match(lines[-1]) if lines else None
    denied = closing and _DENIED.match(lines[-1][closing.end("letter") : closing.end("letter") + 40])
    if closing and not denied and closing["letter"].upper() in (choices or closing["letter"].upper()):
        return _canonical(closing["letter"], GUESSED)
    for pattern, confidence in ((_IN_BRACKETS, GUESSED), (_ALONE, WEAK)):
        named = [
            match[1]
            for match in pattern.finditer(flat)
            if (not choices or match[1] in choices)
            and not _DENIED.match(flat[match.end() : match.end() + 40])
            and not _DENIED_BEFORE.search(flat[max(0, match.start() - 30) : match.start(1)])
        ]
        if named:
            return _canonical(named[-1], confidence if len(set(named)) == 1 else WEAK)
    return None
