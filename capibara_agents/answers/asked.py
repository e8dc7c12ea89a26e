"""What kind of answer a question asks for, from its words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from capibara_agents.answers.options import options
from capibara_agents.types import AnswerKind, Domain

ENDS_CHARS = 1_500
"""Of a long question only its beginning and its end are read."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The kinds to try, the likeliest first, and what helps to read the answer."""

    kinds: tuple[AnswerKind, ...]
    noun: str = ""
    spanish: bool = False
    year_only: bool = False


_SPANISH = re.compile(
    r"[¿¡ñ]|\b(?:el|los|las|una|cu[aá]nt[oa]s?|cu[aá]l|qu[eé]|es|de|del|por|para|con|si|cuando|calcula|halla|en|est[aá])\b",
    re.IGNORECASE,
)
_ENGLISH = re.compile(r"\b(?:the|is|of|how|what|and|in|to|for|with|find|if)\b", re.IGNORECASE)
_OUTPUT = re.compile(
    r"what (?:does|will|would|is)[^?\n]{0,60}\b(?:print|output|return|evaluate|display)|output (?:of|when)|"
    r"qu[eé] (?:imprim\w+|devuelv\w+|muestra\w*|salida)|cu[aá]l es la salida|==\s*\?\?|complete the assertion",
    re.IGNORECASE,
)
_QUERY = re.compile(r"\b(?:sql|consulta|query)\b", re.IGNORECASE)
_WRITE_CODE = re.compile(
    r"\b(?:write|implement|create|complete|code|program|escrib\w+|implementa\w*|crea|completa|programa|haz|define)\b[^.?\n]{0,60}"
    r"\b(?:function|class|program|script|code|method|module|funci[oó]n|clase|"
    r"programa|c[oó]digo|m[eé]todo|regex)\b|^\s*def \w+\(",
    re.IGNORECASE | re.MULTILINE,
)
_QUANTITY = re.compile(
    r"\b(?:how (?:many|much|far|long|old|tall|fast|big|heavy|often)|cu[aá]nt[oa]s?|"
    r"calcula\w*|calculate|compute|evaluate|"
    r"simplif\w+|solve|resuelve|halla|determina|what is the (?:value|sum|product|area|volume|probability|"
    r"average|total|number|remainder|smallest|largest|least|greatest)|find (?:the|"
    r"all)|what percent\w*|qu[eé] porcentaje|"
    r"cu[aá]l es (?:el|la) (?:valor|suma|producto|[aá]rea|volumen|probabilidad|"
    r"promedio|media|total|n[uú]mero|resto))\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\bwhen (?:was|were|did|is|does|do|will)\b|\b(?:what|which) (?:year|date|day)\b|\bcu[aá]ndo\b|"
    r"\b(?:en )?qu[eé] (?:a[nñ]o|fecha|d[ií]a)\b|\bcu[aá]l es la fecha\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(?:what|which) year\b|\bqu[eé] a[nñ]o\b|\bin what year\b", re.IGNORECASE)
_YES_NO = re.compile(
    r"(?:^|[.!?\n]\s*|,\s)(?:¿\s*)?(?:is|are|was|were|does|do|did|can|could|will|would|has|have|had|should|must|"
    r"es|son|era|fue|est[aá]n?|hay|puede[ns]?|tiene[ns]?|existe[ns]?|debe[ns]?|ha|han|se puede)\s[^?\n]{3,300}\?\s*$|"
    r"\b(?:true or false|verdadero o falso|yes or no|s[ií] o no|cierto o falso)\b",
    re.IGNORECASE,
)
_EITHER = re.compile(r"\b(?:or|o)\b[^?]{1,60}\?\s*$", re.IGNORECASE)
_OPEN = re.compile(
    r"^\W*(?:explain|why|describe|prove|show that|how (?:do|does|can|to|would)|"
    r"write|tell me about|compare|explica|por qu[eé]|"
    r"describe|demuestra|prueba que|c[oó]mo|escribe|redacta|cu[eé]ntame|compara|resume|summar\w+|translate|traduce)\b",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"\b(?:who|whom|whose|what|which|where|name|qui[eé]n(?:es)?|qu[eé]|cu[aá]l(?:es)?|"
    r"d[oó]nde|nombra|c[oó]mo se llama)\b",
    re.IGNORECASE,
)
_NOUN = re.compile(
    r"\b(?:how many|cu[aá]nt[oa]s)\s+(?:more|total|whole|different|m[aá]s|de|the|full)?\s*([A-Za-zÀ-ÿ]{3,})",
    re.IGNORECASE,
)


@lru_cache(maxsize=256)
def asked(question: str, domain: Domain, wants_json: bool) -> Asked:
    """What a question asks for. The last kind of the list is always text."""
    ends = question if len(question) <= 2 * ENDS_CHARS else f"{question[:ENDS_CHARS]}\n{question[-ENDS_CHARS:]}"
    nouns = _NOUN.findall(ends)
    return Asked(
        kinds=(*dict.fromkeys(_kinds(ends, question, domain, wants_json)), AnswerKind.text),
        noun=nouns[-1] if nouns else "",
        spanish=len(_SPANISH.findall(ends)) > len(_ENGLISH.findall(ends)),
        year_only=bool(_YEAR.search(ends)),
    )


def _kinds(ends: str, question: str, domain: Domain, wants_json: bool) -> list[AnswerKind]:
    kinds: list[AnswerKind] = []
    if wants_json:
        kinds.append(AnswerKind.json)
    if len(options(question)) >= 2:
        return [*kinds, AnswerKind.option]
    if _OUTPUT.search(ends):
        kinds.append(AnswerKind.literal)
    elif domain == "sql" or (domain == "coding" and _QUERY.search(ends)):
        kinds.append(AnswerKind.sql)
    elif domain == "coding" or _WRITE_CODE.search(ends):
        kinds.append(AnswerKind.code)
    if _OPEN.match(ends) or domain in ("translation", "summarization", "creative_writing", "chitchat"):
        return kinds
    if _YES_NO.search(ends) and not _EITHER.search(ends):
        return [*kinds, AnswerKind.yes_no]
    if _DATE.search(ends) and domain != "math":
        kinds.append(AnswerKind.date)
    if domain == "math" or _QUANTITY.search(ends):
        kinds.append(AnswerKind.number)
    return kinds + _of_words(ends, domain)


def _of_words(ends: str, domain: Domain) -> list[AnswerKind]:
    if domain not in ("factual_qa", "logic_reasoning", "other"):
        return []
    # A question that is cut off, or none at all, may still be answered by yes or no.
    return [AnswerKind.yes_no, AnswerKind.name] if _NAME.search(ends) else [AnswerKind.yes_no]
