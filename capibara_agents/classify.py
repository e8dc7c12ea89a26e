"""What a question is: language, domain, complexity, modality, size.

    text of the last user turn -> vector -> nearest exemplars  \\
                               -> features (pure)               -> decide (pure) -> Classification

The embedder, the store and the language detector are called in `Classifier`; all the rest is pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, get_args

from langchain_core.messages import BaseMessage

from capibara_agents import language
from capibara_agents.embedder import Vector
from capibara_agents.types import Classification, Domain, Neighbour, Sampling, Value

DOMAINS: tuple[Domain, ...] = get_args(Domain)

LONG_CONTEXT_TOKENS = 2500
"""Longer prompts are a matter of context before anything else: half of the smallest slot of the shipped fleets."""
IMAGE_TOKENS = 256
FOLLOW_UP_WORDS = 8
QUESTION_CHARS = 300
SCAN_CHARS = 1500
"""Features read so much of the beginning and of the end of a long text."""

# Chosen on public questions with known domains: see `decide` for what they mean.
KERNEL = 0.09
NEAR = 0.32
BACKGROUND = 1.0
TEMPERATURE = 0.8


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
        r"\b(?:premis\w+|silogismo|syllogism|conclusi[oó]n|deduc\w+|infer\w*|acertijo|"
        r"riddle)\b",
    ),
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
        1.5,
        r"\b(?:document\w*|texto|text|story|historia|cap[ií]tulo|chapter|transcri\w+)\b[^\n]{0,60}\b(?:below|above|following|anterior|siguiente|arriba|abajo|completo|entero|whole|entire)\b",
    ),
)
_FRAMES = (
    _sign("translation", 4.5, r"\b(?:trad[uú]c\w*|traducci[oó]n|translat\w+)\b"),
    _sign("translation", 4.5, r"\b(?:c[oó]mo (?:se dice|se dir[ií]a|digo|dir[ií]as)|how (?:do|would|can) \w+ say)\b"),
    _sign(
        "summarization",
        4.0,
        r"\b(?:res[uú]m(?:e|en|ir|eme|elo|a|idos?)|summar\w+|tl;?dr|s[ií]ntesis|sintetiza|condense)\b",
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
    r"por qu[eé] )?(?:t[uú] |te )?(?:eres|est[aá]s|tienes|sabes|puedes|sientes|gusta|quieres|crees|piensas|haces|has|vives|lees|"
    r"comes|duermes|hablas|odias|amas)\b|\b(?:tu|tus|contigo|ti)\b",
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
    r"muchas|very much|everyone|there|a todos|amig[oa]|friend|noches|tardes|todo bien|nice|genial|perfecto|great|cool)\W*){1,6}$",
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
    """A short question asks for a fact, unless it is put to the assistant itself or asks for advice."""
    if len(text) > QUESTION_CHARS or _is_word_problem(text):
        return
    words = len(text.split())
    if words <= 12 and _TO_ASSISTANT.search(text) and not _TASK.search(text):
        found["chitchat"] = found.get("chitchat", 0.0) + 1.5
    elif (
        _QUESTION.search(text) and not _ADVICE.search(text) and not (_TO_ASSISTANT.search(text) and _TASK.search(text))
    ):
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
    r"a fondo|rigor\w*|complexity|complejidad|derive|deduce|justif\w+|eval[uú]a\w*|evaluate|implications|plan)\b",
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


# ---------------------------------------------------------------- the decision


class Decision(Value):
    """The domain, how sure it is, the share of every domain, and the complexity."""

    domain: Domain
    confidence: float
    shares: dict[Domain, float]
    complexity: float


def decide(
    neighbours: Sequence[Neighbour], features: Features, prior: Mapping[Domain, float] | None = None
) -> Decision:
    """Weigh neighbours, features and an optional prior (probabilities over domains, say of a fitted head).

    A neighbour counts exp(score / KERNEL). A background of exp(NEAR / KERNEL), most of it for `other`, stands for
    what no exemplar covers, so that far neighbours decide nothing. Features add log-odds. TEMPERATURE calibrates.
    """
    if features.image:
        return _certain("vision", neighbours, features)
    if features.prompt_tokens >= LONG_CONTEXT_TOKENS:
        return _certain("long_context", neighbours, features)
    near = _neighbour_shares(neighbours)
    odds = {
        domain: math.log(near[domain])
        + features.evidence.get(domain, 0.0)
        + (math.log(max(1e-3, prior.get(domain, 0.0))) if prior is not None else 0.0)
        for domain in DOMAINS
    }
    shares = _softmax(odds, TEMPERATURE)
    best = max(DOMAINS, key=lambda domain: (shares[domain], domain))
    return Decision(
        domain=best,
        confidence=shares[best],
        shares=shares,
        complexity=_complexity(neighbours, features.structure, best),
    )


def _neighbour_shares(neighbours: Sequence[Neighbour]) -> dict[Domain, float]:
    """Each domain's share of the evidence of the neighbours and of the background; all above zero."""
    background = BACKGROUND * math.exp((NEAR - 1) / KERNEL)
    mass = {domain: background * (0.5 if domain == "other" else 0.5 / (len(DOMAINS) - 1)) for domain in DOMAINS}
    for neighbour in neighbours:
        mass[neighbour.domain] += math.exp((neighbour.score - 1) / KERNEL)
    total = sum(mass.values())
    return {domain: value / total for domain, value in mass.items()}


def _softmax(odds: Mapping[Domain, float], temperature: float) -> dict[Domain, float]:
    top = max(odds.values())
    powers = {domain: math.exp((value - top) / temperature) for domain, value in odds.items()}
    total = sum(powers.values())
    return {domain: power / total for domain, power in powers.items()}


def _certain(domain: Domain, neighbours: Sequence[Neighbour], features: Features) -> Decision:
    shares: dict[Domain, float] = {other: float(other == domain) for other in DOMAINS}
    value = _complexity(neighbours, features.structure, domain)
    return Decision(domain=domain, confidence=1.0, shares=shares, complexity=value)


def _complexity(neighbours: Sequence[Neighbour], shape: float, domain: Domain) -> float:
    """Complexity of the neighbours, those of the chosen domain first, moved by the text's own structure."""
    weight = total = 0.0
    for neighbour in neighbours:
        mass = math.exp((neighbour.score - 1) / KERNEL) * (1.0 if neighbour.domain == domain else 0.2)
        weight += mass
        total += mass * neighbour.complexity
    near = total / weight if weight else 0.4
    return min(1.0, max(0.0, 0.65 * near + 0.5 * shape))


# ---------------------------------------------------------------- messages


_IMAGE_PARTS = ("image_url", "image", "input_image")
_FOLLOW_UP = re.compile(
    r"^\W*(?:y\b|e\b|and\b|or\b|o\b|pero\b|but\b|ahora\b|now\b|what about|how about|qu[eé] (?:tal|hay) (?:de|con|en)|"
    r"otr[ao]\b|another|again|otra vez|de nuevo|m[aá]s (?:corto|largo|simple|f[aá]cil|formal|detalle)|shorter|longer|"
    r"simpler|same|lo mismo|igual pero|el mismo|la misma|en \w+\W*$|in \w+\W*$|why\W*$|por ?qu[eé]\W*$|hazlo|make it|"
    r"do it|contin[uú]a|sigue|continue|go on|expl[ií]ca(?:lo|melo)|explain (?:it|that)|trad[uú]ce(?:lo|melo)|"
    r"translate (?:it|that|this)\W*$|res[uú]me(?:lo|melo)|summari[sz]e (?:it|that)|with\b|con\b|sin\b|without\b|"
    r"est[aá]s segur[oa]|are you sure|correct it|corr[ií]gelo|arr[eé]glalo|fix it)",
    re.IGNORECASE,
)


def text_of(message: BaseMessage) -> str:
    """The text of a message, its parts joined by line breaks."""
    if isinstance(message.content, str):
        return message.content
    parts = (part if isinstance(part, str) else part.get("text") for part in message.content)
    return "\n".join(part for part in parts if isinstance(part, str))


def images_of(message: BaseMessage) -> int:
    """How many images a message carries."""
    if isinstance(message.content, str):
        return 0
    return sum(isinstance(part, dict) and part.get("type") in _IMAGE_PARTS for part in message.content)


def question_of(messages: Sequence[BaseMessage]) -> tuple[str, list[BaseMessage]]:
    """The text to classify and the user turns it is made of: the last, and for a follow-up those it follows."""
    turns = [message for message in messages if message.type == "human"] or list(messages[-1:])
    first = len(turns) - 1
    while first > max(0, len(turns) - 4) and is_follow_up(text_of(turns[first])):
        first -= 1
    used = turns[first:] if turns else []
    if len(used) > 2:
        used = [used[0], used[-1]]
    return "\n".join(text_of(message) for message in used), used


def is_follow_up(text: str) -> bool:
    """Whether a message is short and leans on what was said before."""
    return len(text) < 100 and len(text.split()) <= FOLLOW_UP_WORDS and bool(_FOLLOW_UP.match(text))


# ---------------------------------------------------------------- the edge


class Embeds(Protocol):
    """What the classifier needs of an embedder."""

    def embed(self, text: str) -> Vector: ...


class FindsNeighbours(Protocol):
    """What the classifier needs of the exemplar store."""

    def nearest(self, vector: Vector, k: int) -> tuple[Neighbour, ...]: ...


Head = Callable[[Vector], Mapping[Domain, float]]
"""A fitted model: probabilities over domains from the vector of a question."""


class Classifier:
    """One embedding a request; blocks for a few milliseconds; safe to share between threads."""

    def __init__(
        self, embedder: Embeds, store: FindsNeighbours, neighbours: int = 15, *, head: Head | None = None
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._neighbours = neighbours
        self._head = head

    def classify(self, messages: Sequence[BaseMessage], sampling: Sampling | None = None) -> Classification:
        """What the last user turn asks, in the light of the turns it follows. Never raises for any text."""
        text, turns = question_of(messages)
        last = text_of(turns[-1]) if turns else ""
        vector = self._embedder.embed(text)
        neighbours = self._store.nearest(vector, self._neighbours)
        features = Features(
            evidence=domain_evidence(text),
            structure=structure(text),
            prompt_tokens=prompt_tokens(messages),
            image=any(images_of(turn) for turn in turns),
        )
        decision = decide(neighbours, features, self._head(vector) if self._head else None)
        tongue, sure = language.detect(last)
        if sure < 0.7 and last is not text:
            tongue, sure = language.detect(text)
        return Classification(
            language=tongue,
            language_confidence=sure,
            reply_language=language.reply_language(last, tongue, sure),
            domain=decision.domain,
            confidence=decision.confidence,
            complexity=decision.complexity,
            modality="image" if any(images_of(message) for message in messages) else "text",
            prompt_tokens=features.prompt_tokens,
            wants_json=wants_json(last, sampling),
            wants_tools=bool(sampling and sampling.tools),
            neighbours=neighbours,
        )


def prompt_tokens(messages: Sequence[BaseMessage]) -> int:
    """An estimate of the whole conversation's tokens, with the frame of each message and its images."""
    return sum(estimate_tokens(text_of(m)) + 4 + IMAGE_TOKENS * images_of(m) for m in messages)


def wants_json(text: str, sampling: Sampling | None) -> bool:
    """Whether the answer is to be JSON, by the request's format or by the words of the question."""
    if sampling and (sampling.response_format or {}).get("type") in ("json_object", "json_schema"):
        return True
    return bool(_JSON.search(text[:SCAN_CHARS]) or _JSON.search(text[-SCAN_CHARS:]))
