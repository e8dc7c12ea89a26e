"""What a question shows by itself: size, keywords, shapes. Pure functions on its text, cheap enough for every request.

`domain_evidence` gives log-odds for domains, `structure` how much is asked at once, `estimate_tokens` a size.
"""

from __future__ import annotations

import math
import re

from capibara_agents.types import Domain, Sampling, Value

SCAN_CHARS = 1500
"""Of a long text only so much of its beginning and of its end is read."""
QUESTION_CHARS = 300
"""A longer text is no plain question."""
PLAIN = 2.5
"""Nor is one with so much evidence, in log-odds, for something else."""


# ---------------------------------------------------------------- size


_WIDE = re.compile(r"[\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff]")


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, without a tokenizer; errs to the high side for code and other scripts."""
    if not text:
        return 0
    wide = len(_WIDE.findall(text))
    other = len(text) - len(text.encode("ascii", "ignore")) - wide
    plain = len(text) - wide - other
    return math.ceil(plain / 3.8 + other / 2 + wide)


# ---------------------------------------------------------------- features


class Features(Value):
    """What the text itself shows. `evidence` is in log-odds per domain."""

    evidence: dict[Domain, float]
    structure: float
    prompt_tokens: int
    image: bool = False


def _sign(domain: Domain, weight: float, pattern: str) -> tuple[Domain, float, re.Pattern[str]]:
    return domain, weight, re.compile(pattern, re.IGNORECASE | re.MULTILINE)


_SIGNS = (
    _sign("sql", 3.0, r"\b(?:sql|sqlite|postgres(?:ql)?|mysql|mariadb|t-sql|pl/sql)\b"),
    _sign("sql", 3.0, r"\bselect\b[^?]{1,200}\bfrom\b[^?]{0,200}(?:\bwhere\b|\bjoin\b|\bgroup by\b|\border by\b|;)"),
    _sign("sql", 3.0, r"\b(?:insert into|create table|alter table|drop table|left join|inner join|group by)\b"),
    _sign("coding", 2.0, r"```"),
    _sign(
        "coding",
        2.5,
        r"^\s*(?:def \w+\(|class \w+[:({]|#include|import \w+|from \w+ import|public (?:static|class)|func )",
    ),
    _sign("coding", 2.0, r"\b(?:traceback|nullpointer\w*|segfault|stack ?trace|typeerror|keyerror|syntaxerror)\b"),
    _sign(
        "coding",
        1.5,
        r"\b(?:python|javascript|typescript|java|golang|rust|kotlin|c\+\+|c#|php|ruby|bash|docker\w*|kubernetes|git|"
        r"regex|graphql|apis?|ci/cd|pipeline|endpoint|html|css|react|django|fastapi|pytest|numpy|pandas)\b",
    ),
    _sign(
        "coding",
        1.5,
        r"\b(?:c[oó]digo|funci[oó]n|function|code|algorithm|algoritmo|script|bug|compil\w+|refactor\w*|m[eé]todo|method)\b",
    ),
    _sign("coding", 2.5, r"^\W*(?:devuelve|return|implementa|implement|refactori[sz]a|refactor|debug)\b"),
    _sign(
        "coding",
        3.0,
        r"\b(?:devuelv\w+|returns?|retorn\w+)\b[^.\n]{0,80}\b(?:true|false|none|null|tuplas?|tuples?|cadenas?|strings?|listas?|"
        r"lists?|arrays?|arreglos?|dictionar\w+|diccionario)\b|\b(?:cadena|string|lista|list|array|arreglo|diccionario|"
        r"entero)s?\b[^.\n]{0,80}\b(?:devuelv\w+|returns?)\b",
    ),
    _sign("math", 2.5, r"\$[^$\n]+\$|\\(?:frac|sqrt|int|sum|cdot|begin)\b"),
    _sign("math", 2.5, r"(?<![\w.])\d+(?:[.,]\d+)?\s*(?:[+*/^×÷%]|\bx\b|-)\s*\(?\d"),
    _sign(
        "math",
        1.5,
        r"\b(?:equation|ecuaci[oó]n|derivative|derivada|integral|polynomial|polinomio|probability|probabilidad|"
        r"triangle|tri[aá]ngulo|perimeter|per[ií]metro|percent|por ?ciento|prime|primos?|divisor|modulo|remainder)\b",
    ),
    _sign("logic_reasoning", 3.0, r"which of the following|cu[aá]l de l[ao]s siguientes"),
    _sign(
        "logic_reasoning",
        1.5,
        r"\b(?:premis\w+|silogismo|syllogism|deduc\w+|infer\w*|acertijo|riddle|"
        r"(?:puede|podemos) concluir|can (?:we|you) conclude|(?:does )?it follow)\b",
    ),
    _sign(
        "logic_reasoning",
        3.0,
        r"\b(?:all|every|no|some|tod[oa]s|ning[uú]n[oa]?|algun[oa]s)\b[^?\n]{3,60}\b(?:are|is|has|have|son|es|tienen?|wear|llevan)"
        r"\b[^?\n]{1,80}\b(?:all|every|no|some|tod[oa]s|ning[uú]n[oa]?|algun[oa]s|if|is an?|es un|then|"
        r"entonces)\b[^?\n]*\?",
    ),
    _sign(
        "logic_reasoning",
        2.5,
        r"\b(?:siempre mienten?|mienten? siempre|dicen? (?:siempre )?la verdad|always lies?|tells? the truth)\b|"
        r"\b(?:m[aá]s \w+ que|\w+er than|more \w+ than)\b.{3,60}\b(?:m[aá]s \w+ que|\w+er than|more \w+ than)\b",
    ),
    _sign(
        "other",
        2.0,
        r"\b(?:recomi[eé]nd\w+|recommend\w*|suggest\w*|sugi[eé]re\w*|pros|contras|ideas? (?:para|for)|receta|"
        r"recipe|cocin\w+|cook|consejos?|advice|tips)\b",
    ),
    _sign(
        "other",
        1.5,
        r"^\W*(?:plan|planifica|organi[sz]\w+|prioriti[sz]\w+|analiza|analy[sz]e|eval[uú]a\w*|evaluate|assess|"
        r"compara|compare|weigh|should i|deber[ií]a)\b",
    ),
    _sign("factual_qa", 1.0, r"^\W*(?:expl[ií]ca(?:me)?|explain|tell me about|h[aá]blame de|history of|historia de)\b"),
    _sign(
        "creative_writing",
        2.5,
        r"\b(?:escrib\w+|inventa\w*|compon\w*|redacta|cre[aá]\w*|write|compose|invent|make up|hazme|dame|imagina\w*)\b"
        r"[^.?!\n]{0,40}\b(?:poema|cuento|historia|relato|canci[oó]n|novela|personaje|di[aá]logo|verso|soneto|haiku|"
        r"f[aá]bula|leyenda|microrrelato|guion|poem|story|tale|song|lyrics|novel|character|sonnet|verse|fable|limerick|"
        r"screenplay|dialogue|monologue)\b",
    ),
    _sign("vision", 1.5, r"\b(?:imagen|foto|fotograf[ií]a|captura|image|photo|picture|screenshot)\b"),
    _sign(
        "long_context",
        2.5,
        r"\b(?:document\w*|texto|text|story|historia|cap[ií]tulo|chapter|relato|novela|informe|report|transcri\w+)\b[^\n]{0,60}\b(?:below|above|following|anterior|siguiente|arriba|abajo|completo|entero|whole|entire)\b",
    ),
)
_FRAMES = (
    _sign("translation", 4.5, r"\b(?:trad[uú]c\w*|traducci[oó]n|translat\w+)\b"),
    _sign("translation", 4.5, r"\b(?:c[oó]mo (?:se dice|se dir[ií]a|digo|dir[ií]as)|how (?:do|would|can) \w+ say)\b"),
    _sign(
        "summarization",
        4.0,
        r"\b(?:res[uú]m(?:e|en|ir|eme|elo|a|idos?)|summar\w+|tl;?dr|s[ií]ntesis|sintetiza|"
        r"condense|key points|main (?:idea|points)|ideas? principal(?:es)?|gist|l[oa] (?:m[aá]s )?importante|"
        r"lo esencial)\b",
    ),
    _sign("long_context", 2.0, r"^\s*(?:question|pregunta)\s*:"),
)
# These are about something that must be there: without a sign of it a similar topic means little.
_UNSHOWN: dict[Domain, float] = {
    "vision": -3.0,
    "long_context": -1.5,
    "translation": -2.5,
    "sql": -1.0,
    "summarization": -1.5,
}
_QUESTION = re.compile(
    r"^\W*(?:in |on |at |to |from |en |de |a |por |para |con |desde |sobre )?(?:the )?(?:who|whom|whose|what|when|"
    r"where|which|why|how|is|are|was|were|do|does|did|can|could|will|would|has|have|should|qu[eé]|qui[eé]n(?:es)?|"
    r"cu[aá]l(?:es)?|cu[aá]ndo|d[oó]nde|cu[aá]nt[oa]s?|c[oó]mo|es|son|fue|existen?|hay|puede|est[aá])\b|\?\W*$",
    re.IGNORECASE,
)
_TO_ASSISTANT = re.compile(
    r"^\W*(?:are|do|did|have|can|could|would|will|were|what are|what do|how are|why are|why do|who are|where are) "
    r"you\b|\b(?:your(?:self)?|you(?:'re| are)|usted)\b|^\W*(?:no |qu[eé] |c[oó]mo |de qu[eé] |a qui[eé]n |"
    r"por qu[eé] )?(?:t[uú] |te )?(?:eres|est[aá]s|tienes|sabes|puedes|sientes|gusta|quieres|crees|piensas|haces|has|"
    r"vives|lees|comes|duermes|hablas|odias|amas)\b|\b(?:tu|tus|contigo|ti)\b",
    re.IGNORECASE,
)
_TASK = re.compile(
    r"\b(?:write|create|build|make|explain|translate|fix|find|help|give|list|calculate|solve|escrib\w+|crea\w*|haz\w*|"
    r"explica\w*|traduc\w+|arregl\w+|busca\w*|ayuda\w*|da(?:r|rme|me)|calcula\w*|resuelv\w+|resum\w+|if you|"
    r"when you|si)\b",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"\b(?:how|what|where|when|which) (?:do|can|should|would|to|could) i\b|\bshould i\b|\bhow to\b|\bi\b[^?]{0,40}\?|"
    r"\b(?:debo|deber[ií]a|hago|puedo|me conviene|le digo|me pongo|regalo)\b|\bmy\b|\bmi\b",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"^\W*(?:(?:hola|buenas|buenos d[ií]as|hey|hi|hello|gracias|thanks?|thank you|thx|adi[oó]s|bye|chao|ok|okay|vale|"
    r"jaj\w*|lol|good (?:morning|night|evening|afternoon)|qu[eé] tal|c[oó]mo est[aá]s|how are you|what'?s up|"
    r"muchas|very much|everyone|there|a todos|amig[oa]|friend|noches|tardes|todo bien|nice|genial|"
    r"perfecto|great|cool)\W*){1,6}$",
    re.IGNORECASE,
)
_ASKS_QUANTITY = re.compile(
    r"\b(?:how (?:many|much|far|long|old)|cu[aá]nt[oa]s?|calcula\w*|calculate|compute|find|halla|determina)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?<![\w])\$?\d[\d.,]*%?|\b(?:twice|half|double|thirds?|quarters?|dozen|two|three|four|five|six|seven|eight|nine|ten|"
    r"twelve|doble|mitad|triple|tercios?|cuartos?|docena|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|doce)\b",
    re.IGNORECASE,
)
_OPTION = re.compile(r"^\s*\(?[A-Da-d1-4][.)]\s", re.MULTILINE)


def domain_evidence(text: str) -> dict[Domain, float]:
    """Log-odds for domains from keywords and shapes; empty for a text that shows none."""
    found: dict[Domain, float] = {}
    scan = text if len(text) <= 2 * SCAN_CHARS else f"{text[:SCAN_CHARS]}\n{text[-SCAN_CHARS:]}"
    for domain, weight, pattern in _SIGNS:
        if pattern.search(scan):
            found[domain] = found.get(domain, 0.0) + weight
    frame = _frame(text)
    for domain, weight, pattern in _FRAMES:
        if pattern.search(frame):
            found[domain] = max(found.get(domain, 0.0), weight)
    if _is_word_problem(scan):
        found["math"] = found.get("math", 0.0) + 2.5
    if len(_OPTION.findall(scan)) >= 3:
        found["logic_reasoning"] = found.get("logic_reasoning", 0.0) + 2.0
    if len(text) < 80 and _GREETING.match(text):
        found["chitchat"] = 4.0
    for domain, penalty in _UNSHOWN.items():
        if domain not in found:
            found[domain] = penalty
    _weigh_question(text, found)
    return found


def _weigh_question(text: str, found: dict[Domain, float]) -> None:
    """A short question asks for a fact, unless it is put to the assistant, gives an order or asks for advice."""
    if len(text) > QUESTION_CHARS or _is_word_problem(text):
        return
    personal = bool(_TO_ASSISTANT.search(text))
    task = personal and bool(_TASK.search(text))
    if personal and not task and len(text.split()) <= 12:
        found["chitchat"] = found.get("chitchat", 0.0) + 1.5
    elif not task and max(found.values(), default=0.0) < PLAIN and _QUESTION.search(text) and not _ADVICE.search(text):
        found["factual_qa"] = found.get("factual_qa", 0.0) + 2.0


def _frame(text: str) -> str:
    """Where an instruction over a pasted text stands: its beginning and its end, without quotations."""
    return f"{text[:120]}\n{text[-120:]}" if len(text) > 240 else text


def _is_word_problem(text: str) -> bool:
    return len(text) > 60 and bool(_ASKS_QUANTITY.search(text)) and len(_NUMBER.findall(text)) >= 2


_STEP = re.compile(
    r"^\s*(?:\d+[.)]|[-*•])\s|\b(?:then|after that|finally|step by step|luego|despu[eé]s|por [uú]ltimo|finalmente|"
    r"paso a paso|a continuaci[oó]n|adem[aá]s|also|as well as|y tambi[eé]n)\b",
    re.IGNORECASE | re.MULTILINE,
)
_CONSTRAINT = re.compile(
    r"\b(?:must|should|without|at (?:most|least)|exactly|only|unless|given that|such that|no more than|less than|"
    r"debe\w*|sin (?:usar|que)|como m[aá]ximo|al menos|exactamente|solo|s[oó]lo|salvo|excepto|siempre que|tal que|"
    r"menos de|m[aá]s de|O\([^)]+\))",
    re.IGNORECASE,
)
_DEPTH = re.compile(
    r"\b(?:prove|proof|demuestra|demostraci[oó]n|optimi[sz]\w+|optimiza\w*|design|dise[nñ]a\w*|architecture|"
    r"arquitectura|concurren\w+|distributed|distribuid\w+|trade-?offs?|compar\w+|analy[sz]e|analiza\w*|in depth|"
    r"a fondo|en detalle|in detail|rigor\w*|complexity|complejidad|derive|deduce|justif\w+|eval[uú]a\w*|evaluate|"
    r"implications|plan)\b",
    re.IGNORECASE,
)


def structure(text: str) -> float:
    """How much a question asks at once, in [0, 1]: length, steps, constraints, words of depth."""
    scan = text if len(text) <= 2 * SCAN_CHARS else f"{text[:SCAN_CHARS]}\n{text[-SCAN_CHARS:]}"
    words = len(scan.split())
    length = min(1.0, math.log1p(max(0, words - 4)) / math.log1p(160))
    steps = min(1.0, len(_STEP.findall(scan)) / 5)
    constraints = min(1.0, len(_CONSTRAINT.findall(scan)) / 5)
    depth = min(1.0, len(_DEPTH.findall(scan)) / 3)
    return 0.35 * length + 0.2 * steps + 0.2 * constraints + 0.25 * depth


_JSON = re.compile(
    r"\b(?:in|as|en|como|return|devuelve\w*|output|valid|v[aá]lido|formato|only)\s+"
    r"(?:a |an |un |el |valid |formato )*json\b",
    re.IGNORECASE,
)


def wants_json(text: str, sampling: Sampling | None = None) -> bool:
    """Whether the answer is to be JSON, by the request's format or by the words of the question."""
    if sampling and (sampling.response_format or {}).get("type") in ("json_object", "json_schema"):
        return True
    return bool(_JSON.search(text[:SCAN_CHARS]) or _JSON.search(text[-SCAN_CHARS:]))
