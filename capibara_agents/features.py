"""What a question shows by itself: size, keywords, shapes. Pure functions on its text, cheap enough for every request.

`domain_evidence` gives log-odds for domains, `surface` shapes for a fitted head, `structure` how much is asked at
once, `estimate_tokens` a size. Patterns see folded text (`fold`): no case, no accents, no ¿.
"""

from __future__ import annotations

import math
import re

from capibara_agents.fold import fold
from capibara_agents.frames import FRAMES, PLAIN_WORDS
from capibara_agents.lexicon import GROUPS, both_tongues, groups_in, words_of
from capibara_agents.signs import SIGNS
from capibara_agents.types import Domain, Sampling, Value

SCAN_CHARS = 1500
"""Of a long text only so much of its beginning and of its end is read."""
QUESTION_CHARS = 300
"""A longer text is no plain question."""
WORD_PROBLEM_CHARS = 1500
"""Numbers in a longer text are no sign of a problem in words."""
PASSAGE_CHARS = 400
"""A question on a shorter passage asks for a fact that stands in it."""
PASSAGE_WORDS = 80
"""Choices after so many words follow a passage that is to be reasoned about."""
FRAMED = 4.0
"""With so much evidence for an instruction over a pasted text, what the text speaks of counts for nothing."""
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
    """What the text itself shows. `evidence` is in log-odds per domain, `surface` as `SURFACE` names it."""

    evidence: dict[Domain, float]
    structure: float
    surface: tuple[float, ...] = ()
    thorough: bool = False
    prompt_tokens: int
    image: bool = False


# These are about something that must be there: without a sign of it a similar topic means little.
_UNSHOWN: dict[Domain, float] = {
    "vision": -3.0,
    "long_context": -1.5,
    "translation": -2.5,
    "sql": -1.0,
    "summarization": -1.5,
}
# What a text to be translated or summarised speaks of is not what is asked.
_PASTED: tuple[Domain, ...] = ("math", "logic_reasoning", "factual_qa", "vision", "other", "creative_writing")
_QUESTION = re.compile(
    r"^[^\w\n]*(?:in |on |at |to |from |en |de |a |por |para |con |desde |sobre )?(?:the )?(?:who|whom|whose|what|when|"
    r"where|which|why|how|is|are|was|were|do|does|did|can|could|will|would|has|have|should|que|quien(?:es)?|"
    r"cual(?:es)?|cuando|donde|cuant[oa]s?|como|es|son|fue|existen?|hay|puede|esta)\b|\?\W*$",
)
# What is told before or after a question, or laid out beside it, makes it more than a question for a fact.
_TOLD_TOO = re.compile(r"[a-z)\"\d][.;] \S[^?]{8,}\?\W*$|[?:] [^?]{25,}$|\?\s[^?]{3,}[.;] [^?]{8,}|\||\w\(\w+, ?\w+")
_INTO_PROGRAM = re.compile(r"\b(?:to|into|in|a|en|as) (?:an? |una? )?(?:sql|postgres\w*|mysql|sqlite)\b")
_READ = re.compile(
    r"\b(?:title|context|passage|titulo|contexto|pasaje)\b ?:.{10,}\b(?:question|pregunta)\b ?:|"
    r"\b(?:answer from|responde con|according to|segun) (?:the|el) (?:text|passage|texto|pasaje)\b",
    re.DOTALL,
)
# Where a word comes from, or how a work was translated, is a matter of fact.
_ABOUT_WORDS = re.compile(
    r"\b(?:origen|origin|etimologia|etymology|de donde (?:viene|proviene)|come from|(?:fue|was|were|been|sido)\b.{0,20}"
    r"\b(?:traducid[oa]|translated)|relacionad[oa]|related to|acronym|siglas|letras de la palabra)\b"
)
_TO_ASSISTANT = re.compile(
    r"^[^\w\n]*(?:are|do|did|have|can|could|would|will|were|what are|what do|how are|why are|why do|who are|where are) "
    r"you\b|\b(?:your(?:self)?|you(?:'re| are)|usted)\b|^[^\w\n]*(?:no |que |como |de que |a quien |"
    r"por que )?(?:tu |te )?(?:eres|estas|tienes|sabes|puedes|sientes|gusta|quieres|crees|piensas|haces|has|"
    r"vives|lees|comes|duermes|hablas|odias|amas)\b|\b(?:tu|tus|contigo|ti)\b",
)
_TASK = re.compile(
    r"\b(?:write|create|build|make|explain|translate|fix|find|help|give|list|calculate|solve|escrib\w+|crea\w*|haz\w*|"
    r"explica\w*|traduc\w+|arregl\w+|busca\w*|ayuda\w*|da(?:r|rme|me)|calcula\w*|resuelv\w+|resum\w+|if you|"
    r"when you|si)\b",
)
_ADVICE = re.compile(
    r"\b(?:how|what|where|when|which) (?:do|can|should|would|to|could) i\b|\bshould i\b|\bhow to\b|\bi\b[^?]{0,40}\?|"
    r"\b(?:debo|deberia|hago|voy|vamos|puedo|me conviene|le digo|me pongo|regalo)\b|\bmy\b|\bmi\b",
)
_ABOUT_ONESELF = re.compile(
    r"^[^\w\n]*(?:i|i'm|im|i've|my|we|yo|mi|mis|me|estoy|soy|tengo|hoy|ayer|nos|hemos|he|vi|fui|today|yesterday)\b"
)
_WANTS = re.compile(
    r"\b(?:need|want|would like|looking for|should|must|error|necesit\w+|quiero|quisiera|busco|debo|deberia|falla|"
    r"sale)\b"
)
_GREETING = re.compile(
    r"^[^\w\n]*(?:(?:hola|buenas|buenos dias|hey|hi|hello|gracias|thanks?|thank you|thx|adios|bye|chao|ok|okay|vale|"
    r"jaj\w*|lol|good (?:morning|night|evening|afternoon)|que tal|como estas|how are you|what'?s up|"
    r"muchas|very much|everyone|there|a todos|amig[oa]|friend|noches|tardes|todo bien|nice|genial|"
    r"perfecto|great|cool)\W*){1,6}$",
)
_ASKS_QUANTITY = re.compile(
    r"\b(?:how (?:many|much|far|long|old)|cuant[oa]s?|calcula\w*|calculate|compute|find|halla|determina)\b",
)
_NUMBER = re.compile(
    r"(?<![\w])\$?\d[\d.,]*%?|\b(?:twice|half|double|thirds?|quarters?|dozen|two|three|four|five|six|seven|eight|nine|ten|"
    r"twelve|doble|mitad|triple|tercios?|cuartos?|docena|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|doce)\b",
)
_CHOOSE = re.compile(r"which of the following|which one of the following|cual de l[ao]s siguientes")
_OPTION = re.compile(r"^[ \t]*\(?[a-d1-4][.)]\s", re.MULTILINE)


def domain_evidence(text: str) -> dict[Domain, float]:
    """Log-odds for domains from keywords and shapes; empty for a text that shows none."""
    scan = scanned(text)
    found: dict[Domain, float] = {}
    for domain, weight, pattern in SIGNS:
        if pattern.search(scan):
            _add(found, domain, weight)
    frame = _frame(scan)
    for domain, weight, pattern in PLAIN_WORDS:
        if pattern.search(frame):
            _add(found, domain, weight)
    _weigh_choices(scan, found)
    _weigh_frame(frame, found)
    if len(scan) < 80 and _GREETING.match(scan):
        found["chitchat"] = 4.0
    for domain, penalty in _UNSHOWN.items():
        found.setdefault(domain, penalty)
    _weigh_question(scan, found)
    if len(scan) < PASSAGE_CHARS and _READ.search(scan):
        _add(found, "factual_qa", 2.5)
    return found


def _add(found: dict[Domain, float], domain: Domain, weight: float) -> None:
    found[domain] = found.get(domain, 0.0) + weight


def _weigh_choices(scan: str, found: dict[Domain, float]) -> None:
    """Amounts asked for, and options to choose from."""
    if _is_word_problem(scan):
        _add(found, "math", 2.5)
    if len(_OPTION.findall(scan)) >= 3:
        _add(found, "logic_reasoning", _reasoned_choice(len(scan.split())))
    if _CHOOSE.search(scan):
        _add(found, "logic_reasoning", 3.0 if len(scan.split()) > 35 else 0.5)


def _weigh_frame(frame: str, found: dict[Domain, float]) -> None:
    """An instruction over a pasted text; what the text speaks of then counts for nothing."""
    for domain, weight, pattern in FRAMES:
        if pattern.search(frame):
            found[domain] = max(found.get(domain, 0.0), weight)
    about_words = len(frame) < QUESTION_CHARS and _ABOUT_WORDS.search(frame)
    if about_words or (found.get("sql", 0.0) >= PLAIN and _INTO_PROGRAM.search(frame)):
        found.pop("translation", None)
    if max(found.get("translation", 0.0), found.get("summarization", 0.0)) >= FRAMED:
        for domain in _PASTED:
            found.pop(domain, None)


def _reasoned_choice(words: int) -> float:
    """Choices after a passage are to be reasoned about; after a short question they offer facts."""
    return 4.0 if words > PASSAGE_WORDS else 2.0 if words > PASSAGE_WORDS / 2 else 0.0


def scanned(text: str) -> str:
    """The part of a text that patterns read, folded: all of a short one, the beginning and the end of a long one."""
    return fold(text if len(text) <= 2 * SCAN_CHARS else f"{text[:SCAN_CHARS]}\n{text[-SCAN_CHARS:]}").strip()


def _weigh_question(text: str, found: dict[Domain, float]) -> None:
    """A short question asks for a fact, unless it is put to the assistant, gives an order or asks for advice."""
    if len(text) > QUESTION_CHARS or _is_word_problem(text):
        return
    personal = bool(_TO_ASSISTANT.search(text))
    task = personal and bool(_TASK.search(text))
    told = "?" not in text and bool(_ABOUT_ONESELF.search(text)) and not _WANTS.search(text) and not _TASK.search(text)
    if told and len(text.split()) <= 16 and not found.keys() & {"coding", "sql", "math"}:
        found["chitchat"] = found.get("chitchat", 0.0) + 1.0
    if personal and not task and len(text.split()) <= 12:
        found["chitchat"] = found.get("chitchat", 0.0) + 1.5
    elif not task and max(found.values(), default=0.0) < PLAIN and _QUESTION.search(text) and not _ADVICE.search(text):
        found["factual_qa"] = found.get("factual_qa", 0.0) + (0.5 if _TOLD_TOO.search(text) else 2.0)


def _frame(text: str) -> str:
    """Where an instruction over a pasted text stands: its beginning and its end, without quotations."""
    return f"{text[:120]}\n{text[-120:]}" if len(text) > 240 else text


def _is_word_problem(text: str) -> bool:
    return 60 < len(text) < WORD_PROBLEM_CHARS and bool(_ASKS_QUANTITY.search(text)) and len(_NUMBER.findall(text)) >= 2


# ---------------------------------------------------------------- shapes for a fitted head


_YES_NO = re.compile(
    r"^[^\w\n]*(?:is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|es|son|fue|eran|existe\w*|hay|puede\w*|"
    r"esta|estan|tiene\w*|sabes|conoces|ha|han)\b"
)
_WHAT = re.compile(
    r"^[^\w\n]*(?:in |on |at |to |from |en |de |a |por |para |con |desde |sobre )?(?:the )?(?:who|whom|whose|what|when|"
    r"where|which|why|how|que|quien(?:es)?|cual(?:es)?|cuando|donde|cuant[oa]s?|como)\b"
)
_YOU = re.compile(
    r"\b(?:you|your|yours|yourself|u|ur|tu|tus|te|ti|contigo|usted|eres|estas|tienes|sabes|puedes|quieres|crees|piensas|"
    r"sientes|haces|gusta|vas)\b"
)
_ME = re.compile(
    r"\b(?:i|i'm|im|i've|i'd|my|me|mine|yo|mi|mis|conmigo|estoy|soy|tengo|quiero|voy|creo|siento|necesito|puedo|he)\b"
)
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_AMOUNT = re.compile(
    r"\b(?:how (?:many|much|far|long|old)|cuant[oa]s?|calcul\w*|compute|find|halla|determin\w+|total|each|cada)\b"
)
_SYMBOL = re.compile(r"[{}()\[\];=<>_`\\]")
_CHOICE = re.compile(r"^[ \t]*\(?[a-h1-5][.)]\s", re.MULTILINE)

_TURN = re.compile(r"(?:^|[.?!] )\w+ ?: ", re.MULTILINE)
_AFTER_COLON = re.compile(r": (.+)", re.DOTALL)
_QUOTED = re.compile(r'"([^"\n]{2,})"')

SURFACE = (
    *("length", "words<=3", "words<=7", "words<=14", "words>40", "words>120"),
    *("ends ?", "has ?", "wh-", "yes/no", "you", "me", "numbers", "numbers in text", "amount asked", "lines"),
    *("symbols", "choices", "quotes", "colon", "yes/no you", "wh- you", "ends .!", "amount of numbers ?"),
    *("both tongues", "turns", "told after :", "quoted"),
    *(f"says {group}" for group in GROUPS),
)
"""The shapes of `surface`, in its order."""


def surface(text: str) -> tuple[float, ...]:
    """Shapes of a text that a fitted head weighs, each about in [0, 1]; `SURFACE` names them."""
    scan = scanned(text)
    words = len(scan.split())
    you, me, numbers = (len(pattern.findall(scan)) for pattern in (_YOU, _ME, _DIGITS))
    end = scan.rstrip()[-1:]
    what, yes_no = bool(_WHAT.match(scan)), bool(_YES_NO.match(scan))
    some = words > 10 and numbers >= 2
    said = words_of(scan)
    values = (
        *(math.log1p(words) / 3, words <= 3, words <= 7, words <= 14, words > 40, words > 120),
        *(end == "?", "?" in scan, what, yes_no, min(you, 3) / 2, min(me, 3) / 2),
        *(min(math.log1p(numbers), 3) / 2, some, bool(_AMOUNT.search(scan)), min(math.log1p(text.count("\n")), 4) / 3),
        *(5 * len(_SYMBOL.findall(scan)) / max(20, len(scan)), min(len(_CHOICE.findall(scan)), 5) / 3),
        *('"' in scan or "'" in scan.replace("'s", ""), ":" in scan, yes_no and you > 0, what and you > 0),
        *(end in (".", "!"), some and end == "?"),
        *(
            both_tongues(said),
            min(len(_TURN.findall(scan)), 4) / 3,
            _length_of(_AFTER_COLON, scan),
            _length_of(_QUOTED, scan),
        ),
        *groups_in(said),
    )
    return tuple(float(value) for value in values)


def _length_of(part: re.Pattern[str], scan: str) -> float:
    """How long the first such part of a text is, about in [0, 1]; 0 without one."""
    found = part.search(scan)
    return math.log1p(len(found.group(1).split())) / 4 if found else 0.0


# ---------------------------------------------------------------- how much is asked


_STEP = re.compile(
    r"^[ \t]*(?:\d+[.)]|[-•])\s|\b(?:then|after that|finally|step by step|luego|despues|por ultimo|finalmente|"
    r"paso a paso|a continuacion|ademas|also|as well as|y tambien)\b",
    re.MULTILINE,
)
_CONSTRAINT = re.compile(
    r"\b(?:must|should|without|at (?:most|least)|exactly|only|unless|given that|such that|no more than|less than|"
    r"debe\w*|sin (?:usar|que)|como maximo|al menos|exactamente|solo|solo|salvo|excepto|siempre que|tal que|"
    r"menos de|mas de|o\([^)]+\))",
)
_DEPTH = re.compile(
    r"\b(?:prove|proof|demuestra|demostracion|optimi[sz]\w+|optimiza\w*|design|disena\w*|architecture|"
    r"arquitectura|concurren\w+|distributed|distribuid\w+|trade-?offs?|compar\w+|analy[sz]e|analiza\w*|in depth|"
    r"a fondo|en detalle|in detail|rigor\w*|complexity|complejidad|derive|deduce|justif\w+|evalua\w*|evaluate|"
    r"implications|plan)\b",
)


_THOROUGH = re.compile(
    r"\b(?:en detalle|con detalle|detalladamente|a fondo|en profundidad|exhaustiv\w+|in (?:great )?detail|in depth|"
    r"thorough\w*|comprehensive\w*|ventajas|desventajas|inconvenientes|pros y (?:los )?contras|implicaciones|"
    r"advantages|disadvantages|drawbacks|pros and cons|implications|trade-?offs?)\b|"
    r"^[^\w\n]*(?:analiza|analy[sz]e|evalua\w*|evaluate|assess|compara|compare)\b"
)


def asks_to_be_thorough(text: str) -> bool:
    """Whether an explanation is to go deep: in detail, for and against, an analysis, a comparison."""
    return bool(_THOROUGH.search(scanned(text)))


def structure(text: str) -> float:
    """How much a question asks at once, in [0, 1]: length, steps, constraints, words of depth."""
    scan = scanned(text)
    words = len(scan.split())
    length = min(1.0, math.log1p(max(0, words - 4)) / math.log1p(160))
    steps = min(1.0, len(_STEP.findall(scan)) / 5)
    constraints = min(1.0, len(_CONSTRAINT.findall(scan)) / 5)
    depth = min(1.0, len(_DEPTH.findall(scan)) / 3)
    return 0.35 * length + 0.2 * steps + 0.2 * constraints + 0.25 * depth


_JSON = re.compile(
    r"\b(?:in|as|en|como|return|devuelve\w*|output|valid|valido|formato|only)\s+"
    r"(?:a |an |un |el |valid |formato )*json\b",
)


def wants_json(text: str, sampling: Sampling | None = None) -> bool:
    """Whether the answer is to be JSON, by the request's format or by the words of the question."""
    if sampling and (sampling.response_format or {}).get("type") in ("json_object", "json_schema"):
        return True
    return bool(_JSON.search(scanned(text)))
