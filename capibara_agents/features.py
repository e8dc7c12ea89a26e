"""What a question shows by itself: size, keywords, shapes. Pure functions on its text, cheap enough for every request.

`domain_evidence` gives log-odds for domains, `surface` shapes for a fitted head, `structure` how much is asked at
once, `estimate_tokens` a size. Patterns see folded text (`fold`): no case, no accents, no ¿.
"""

from __future__ import annotations

import math
import re

from capibara_agents.fold import fold
from capibara_agents.types import Domain, Sampling, Value

SCAN_CHARS = 1500
"""Of a long text only so much of its beginning and of its end is read."""
QUESTION_CHARS = 300
"""A longer text is no plain question."""
WORD_PROBLEM_CHARS = 1500
"""Numbers in a longer text are no sign of a problem in words."""
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


def _sign(domain: Domain, weight: float, pattern: str) -> tuple[Domain, float, re.Pattern[str]]:
    return domain, weight, re.compile(pattern, re.MULTILINE)


_SIGNS = (
    _sign("sql", 3.0, r"\b(?:sql|sqlite|postgres(?:ql)?|mysql|mariadb|t-sql|pl/sql)\b"),
    _sign("sql", 3.0, r"\bselect\b[^?]{1,200}\bfrom\b[^?]{0,200}(?:\bwhere\b|\bjoin\b|\bgroup by\b|\border by\b|;)"),
    _sign("sql", 3.0, r"\b(?:insert into|create table|alter table|drop table|left join|inner join|group by)\b"),
    _sign("coding", 2.0, r"```"),
    _sign(
        "coding",
        2.5,
        r"^[ \t]*(?:def \w+\(|class \w+[:({]|#include|import \w+|from \w+ import|public (?:static|class)|func )",
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
        r"\b(?:codigo|funcion|function|code|algorithm|algoritmo|script|bug|compil\w+|refactor\w*|metodo|method)\b",
    ),
    _sign("coding", 2.5, r"^[^\w\n]*(?:devuelve|return|implementa|implement|refactori[sz]a|refactor|debug)\b"),
    _sign(
        "coding",
        3.0,
        r"\b(?:devuelv\w+|returns?|retorn\w+)\b[^.\n]{0,80}\b(?:true|false|none|null|tuplas?|tuples?|cadenas?|strings?|listas?|"
        r"lists?|arrays?|arreglos?|dictionar\w+|diccionario)\b|\b(?:cadena|string|lista|list|array|arreglo|diccionario|"
        r"entero)s?\b[^.\n]{0,80}\b(?:devuelv\w+|returns?)\b",
    ),
    _sign(
        "coding",
        3.0,
        r"\b(?:escrib\w+|write|crea|create|implement\w*|define|genera|haz|hazme|make|need|necesito)\b[^.?!\n]{0,30}"
        r"\b(?:funcion|function|programa|program|script|clase en|class (?:in|that)|metodo|method|decorator)\b",
    ),
    _sign("sql", 1.5, r"\b(?:consulta|query)\b[^.?!\n]{0,12}\b(?:para|que|to|that|con|for|with)\b"),
    _sign("math", 2.5, r"\$[^$\n]+\$|\\(?:frac|sqrt|int|sum|cdot|begin)\b"),
    _sign("math", 2.5, r"(?<![\w.])\d+(?:[.,]\d+)?\s*(?:[+*/^×÷%]|\bx\b|-)\s*\(?\d"),
    _sign(
        "math",
        1.5,
        r"\b(?:equation|ecuacion|derivative|derivada|integral|polynomial|polinomio|probability|probabilidad|"
        r"triangle|triangulo|perimeter|perimetro|percent|por ?ciento|prime|primos?|divisor|modulo|remainder)\b",
    ),
    _sign(
        "logic_reasoning",
        1.5,
        r"\b(?:premis\w+|silogismo|syllogism|deduc\w+|infer\w*|acertijo|riddle|"
        r"(?:puede|podemos) concluir|can (?:we|you) conclude|(?:does )?it follow)\b",
    ),
    _sign(
        "logic_reasoning",
        3.0,
        r"\b(?:all|every|no|some|tod[oa]s|ningun[oa]?|algun[oa]s)\b[^?\n]{3,60}\b(?:are|is|has|have|son|es|tienen?|wear|llevan)"
        r"\b[^?\n]{1,80}\b(?:all|every|no|some|tod[oa]s|ningun[oa]?|algun[oa]s|if|is an?|es un|then|"
        r"entonces)\b[^?\n]*\?",
    ),
    _sign(
        "logic_reasoning",
        2.5,
        r"\b(?:siempre mienten?|mienten? siempre|dicen? (?:siempre )?la verdad|always lies?|tells? the truth)\b|"
        r"\b(?:mas \w+ que|\w+er than|more \w+ than)\b.{3,60}\b(?:mas \w+ que|\w+er than|more \w+ than)\b",
    ),
    _sign(
        "logic_reasoning",
        2.5,
        r"\b(?:(?:must|could|has to|cannot) be (?:true|false)|can be (?:inferred|deduced)|"
        r"necesariamente (?:ciert|verdad|fals)|"
        r"(?:debe|puede|tiene que) ser (?:ciert|verdad|fals)|se (?:deduce|infiere|sigue)|if true|de ser ciert)",
    ),
    _sign(
        "logic_reasoning",
        1.5,
        r"\b(?:falacias?|fallac(?:y|ies)|silogismos?|weakens?|strengthens?|debilita|refuerza|assum(?:es|ptions?)|supuesto|"
        r"presupone|contradiccion|paradox|paradoja|argumento|reasoning|razonamiento|logicamente|logically)\b",
    ),
    _sign(
        "other",
        1.5,
        r"\b(?:redacta|escrib\w+|write|draft|haz|hazme|make|improve|mejora|corrige|proofread|reescrib\w+|rewrite)\b"
        r"[^.?!\n]{0,40}\b(?:correo|e-?mail|carta|letter|cv|curriculum|resume|post|publicacion|descripcion|description|"
        r"parrafo|paragraph|texto|text|ortografia|spelling|faltas|tono|tone|lista|list|tabla|table|plan|menu)\b",
    ),
    _sign(
        "other",
        2.0,
        r"\b(?:recomiend\w+|recommend\w*|suggest\w*|sugiere\w*|pros|contras|ideas? (?:para|for)|receta|"
        r"recipe|cocin\w+|cook|consejos?|advice|tips)\b",
    ),
    _sign("other", 1.5, r"^[^\w\n]*(?:plan|planifica|organi[sz]\w+|prioriti[sz]\w+|weigh|should i|deberia)\b"),
    _sign(
        "other",
        2.5,
        r"^[^\w\n]*(?:analiza|analy[sz]e|evalua\w*|evaluate|assess|compara|compare)\b"
        r"(?! (?:est[aeo]s?|el siguiente|la siguiente|mi|this|these|the following|my)\b)",
    ),
    _sign(
        "other",
        1.5,
        r"^[^\w\n]*(?:analiza|analy[sz]e|evalua\w*|evaluate|assess|compara|compare)\b|"
        r"\b(?:ventajas|desventajas|inconvenientes|implicaciones|advantages|disadvantages|drawbacks|implications)\b|"
        r"\b(?:what are the|cuales son los) (?:benefits|beneficios|risks|riesgos)\b",
    ),
    _sign("factual_qa", 1.0, r"^[^\w\n]*(?:explica(?:me)?|explain|tell me about|hablame de|history of|historia de)\b"),
    _sign(
        "creative_writing",
        2.5,
        r"\b(?:escrib\w+|inventa\w*|compon\w*|redacta|crea\w*|write|compose|invent|make up|hazme|dame|imagina\w*)\b"
        r"[^.?!\n]{0,40}\b(?:poema|cuento|historia|relato|cancion|novela|personaje|dialogo|verso|soneto|haiku|"
        r"fabula|leyenda|microrrelato|guion|poem|story|tale|song|lyrics|novel|character|sonnet|verse|fable|limerick|"
        r"screenplay|dialogue|monologue)\b",
    ),
    _sign("creative_writing", 4.0, r"^[^\w\n]*wp\b\W"),
    _sign(
        "other",
        2.5,
        r"^[^\w\n]*(?:reescrib\w+|rewrite|reformula|rephrase|paraphrase|parafrasea|corrige|proofread|punctuate)\b|"
        r"\b(?:voz pasiva|passive voice)\b",
    ),
    _sign("vision", 1.5, r"\b(?:imagen|foto|fotografia|captura|image|photo|picture|screenshot)\b"),
    _sign(
        "long_context",
        2.5,
        r"\b(?:document\w*|texto|text|story|historia|capitulo|chapter|relato|novela|informe|report|transcri\w+)\b[^\n]{0,60}\b(?:below|above|following|anterior|siguiente|arriba|abajo|completo|entero|whole|entire)\b",
    ),
)
_FRAMES = (
    _sign("translation", 4.5, r"\b(?:traduc\w*|traduccion|translat\w+)\b"),
    _sign("translation", 4.5, r"\b(?:como (?:se dice|se diria|digo|dirias)|how (?:do|would|can) \w+ say)\b"),
    _sign(
        "summarization",
        4.0,
        r"\b(?:resum(?:e|en|ir|eme|elo|a|idos?)|summar\w+|tl;?dr|sintesis|sintetiza|"
        r"condense|key points|main (?:idea|points)|ideas? principal(?:es)?|gist|l[oa] (?:mas )?importante|"
        r"lo esencial)\b",
    ),
    _sign(
        "translation",
        1.0,
        r"\b(?:en|al?|del?|in|into|to|from|the|version|espanol|spanish|english|ingles)\s+(?:the |el )?(?:ingles|"
        r"english|espanol|castellano|spanish|frances|french|aleman|german|italiano|italian|portugues|portuguese|catalan|"
        r"euskera|chino|chinese|japones|japanese|ruso|russian|arabe|arabic|latin|coreano|korean|polaco|polish)\b"
        r"(?:[^\n]{0,20}[:\"]|\W*(?:please|por favor|for|para|of|version|is|seria|word)\b|\?\W*$)|"
        r"[:\"][^\n]{3,100}\b(?:in|into|en|al)\s+(?:ingles|english|espanol|castellano|spanish|french|frances|german|"
        r"aleman|italian\w?|portugu\w+|polish|polaco|catalan)\b",
    ),
    _sign(
        "summarization",
        2.0,
        r"\b(?:recap|shorten\w*|acorta\w*|abrevia\w*|condens\w+|boil\b.{0,40}\bdown|takeaways|puntos clave|tldr|"
        r"abstract|synopsis|sinopsis|nutshell|pocas palabras|few words|sum\b.{0,30}\bup)\b",
    ),
    _sign(
        "vision",
        1.5,
        r"\b(?:adjunt\w*|attached|sent you|te mando|escanead\w*|scanned)\b[^\n]{0,40}\b(?:radiografia|x-ray|dibujo|"
        r"drawing|grafic[oa]|chart|plano|diagrama?|factura|ticket|receipt|cuadro|painting)\b|"
        r"\b(?:radiografia|x-ray|dibujo|drawing|grafic[oa]|chart|cuadro|painting)\b[^\n]{0,40}\b(?:adjunt\w*|attached|"
        r"te mando|i sent)\b",
    ),
    _sign("long_context", 2.0, r"^[ \t]*(?:question|pregunta)\s*:"),
)
# These are about something that must be there: without a sign of it a similar topic means little.
_UNSHOWN: dict[Domain, float] = {
    "vision": -3.0,
    "long_context": -1.5,
    "translation": -2.5,
    "sql": -1.0,
    "summarization": -1.5,
}
# What a text to be translated or summarised speaks of is not what is asked.
_PASTED: tuple[Domain, ...] = ("math", "logic_reasoning", "factual_qa", "vision", "other")
_QUESTION = re.compile(
    r"^[^\w\n]*(?:in |on |at |to |from |en |de |a |por |para |con |desde |sobre )?(?:the )?(?:who|whom|whose|what|when|"
    r"where|which|why|how|is|are|was|were|do|does|did|can|could|will|would|has|have|should|que|quien(?:es)?|"
    r"cual(?:es)?|cuando|donde|cuant[oa]s?|como|es|son|fue|existen?|hay|puede|esta)\b|\?\W*$",
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
    r"\b(?:debo|deberia|hago|puedo|me conviene|le digo|me pongo|regalo)\b|\bmy\b|\bmi\b",
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
    found: dict[Domain, float] = {}
    scan = scanned(text)
    for domain, weight, pattern in _SIGNS:
        if pattern.search(scan):
            found[domain] = found.get(domain, 0.0) + weight
    frame = _frame(scan)
    for domain, weight, pattern in _FRAMES:
        if pattern.search(frame):
            found[domain] = max(found.get(domain, 0.0), weight)
    if _is_word_problem(scan):
        found["math"] = found.get("math", 0.0) + 2.5
    if len(_OPTION.findall(scan)) >= 3:
        found["logic_reasoning"] = found.get("logic_reasoning", 0.0) + _reasoned_choice(len(scan.split()))
    if _CHOOSE.search(scan):
        found["logic_reasoning"] = found.get("logic_reasoning", 0.0) + (3.0 if len(scan.split()) > 35 else 0.5)
    if max(found.get("translation", 0.0), found.get("summarization", 0.0)) >= FRAMED:
        for domain in _PASTED:
            found.pop(domain, None)
    if len(scan) < 80 and _GREETING.match(scan):
        found["chitchat"] = 4.0
    for domain, penalty in _UNSHOWN.items():
        if domain not in found:
            found[domain] = penalty
    _weigh_question(scan, found)
    return found


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
        found["factual_qa"] = found.get("factual_qa", 0.0) + 2.0


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

SURFACE = (
    *("length", "words<=3", "words<=7", "words<=14", "words>40", "words>120"),
    *("ends ?", "has ?", "wh-", "yes/no", "you", "me", "numbers", "numbers in text", "amount asked", "lines"),
    *("symbols", "choices", "quotes", "colon", "yes/no you", "wh- you", "ends .!", "amount of numbers ?"),
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
    values = (
        *(math.log1p(words) / 3, words <= 3, words <= 7, words <= 14, words > 40, words > 120),
        *(end == "?", "?" in scan, what, yes_no, min(you, 3) / 2, min(me, 3) / 2),
        *(min(math.log1p(numbers), 3) / 2, some, bool(_AMOUNT.search(scan)), min(math.log1p(text.count("\n")), 4) / 3),
        *(5 * len(_SYMBOL.findall(scan)) / max(20, len(scan)), min(len(_CHOICE.findall(scan)), 5) / 3),
        *('"' in scan or "'" in scan.replace("'s", ""), ":" in scan, yes_no and you > 0, what and you > 0),
        *(end in (".", "!"), some and end == "?"),
    )
    return tuple(float(value) for value in values)


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
