"""What a question is: language, domain, complexity, modality, size.

    text of the last user turn -> vector -> nearest exemplars   -> decide (pure) -> Classification
                               -> features.py (pure)        ->

The embedder, the store and the language detector are called in `Classifier`; all the rest is pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from langchain_core.messages import BaseMessage

from capibara_agents import language
from capibara_agents.embedder import Vector
from capibara_agents.features import (
    Features,
    asks_to_be_thorough,
    domain_evidence,
    estimate_tokens,
    structure,
    surface,
    wants_json,
)
from capibara_agents.signature import signature
from capibara_agents.steering import without_steering
from capibara_agents.types import Classification, Domain, Neighbour, Sampling, Value

DOMAINS: tuple[Domain, ...] = get_args(Domain)

LONG_CONTEXT_TOKENS = 2500
"""Longer prompts are a matter of context before anything else: they leave little of a slot of 4,096 for an answer."""
IMAGE_TOKENS = 256
FOLLOW_UP_WORDS = 8

# Chosen on public questions with known domains: see `decide` for what they mean.
KERNEL = 0.06
COMPLEXITY_KERNEL = 0.09
NEAR = 0.42
BACKGROUND = 1.0
TEMPERATURE = 0.8
# From SIMILAR on an exemplar says nearly the same, at SAME all but the same.
SIMILAR, SAME = 0.7, 0.9
# Complexity of an explanation or an analysis that is to go deep, whatever its neighbours are like.
THOROUGH = 0.7
EXPLAINED: tuple[Domain, ...] = ("factual_qa", "other")
# Beside a fitted head, which has seen the features itself, neighbours and features count for less, and least of all
# what a text does not show.
BESIDE_HEAD = 0.7
SHOWN_BESIDE_HEAD, UNSHOWN_BESIDE_HEAD = 0.8, 0.2
HEAD_TEMPERATURE = 1.2


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
    what no exemplar covers, so that far neighbours decide nothing. Features add log-odds. A temperature calibrates.
    """
    if features.image:
        return _certain("vision", neighbours, features)
    if features.prompt_tokens >= LONG_CONTEXT_TOKENS:
        return _certain("long_context", neighbours, features)
    near = _neighbour_shares(neighbours)
    evidence = _evidence(neighbours, features)
    if prior is None:
        shares = _softmax({domain: math.log(near[domain]) + evidence[domain] for domain in DOMAINS}, TEMPERATURE)
    else:
        shares = _softmax(
            {
                domain: math.log(max(1e-4, prior.get(domain, 0.0)))
                + BESIDE_HEAD * math.log(near[domain])
                + (SHOWN_BESIDE_HEAD if evidence[domain] > 0 else UNSHOWN_BESIDE_HEAD) * evidence[domain]
                for domain in DOMAINS
            },
            HEAD_TEMPERATURE,
        )
    best = max(DOMAINS, key=lambda domain: (shares[domain], domain))
    return Decision(
        domain=best,
        confidence=shares[best],
        shares=shares,
        complexity=_complexity(neighbours, features, best),
    )


def _evidence(neighbours: Sequence[Neighbour], features: Features) -> dict[Domain, float]:
    """Log-odds of the features. What a text does not show counts against a domain only where no exemplar is near."""
    nearest = max((neighbour.score for neighbour in neighbours), default=0.0)
    far = 1 - min(1.0, max(0.0, (nearest - SIMILAR) / (SAME - SIMILAR)))
    weights = ((domain, features.evidence.get(domain, 0.0)) for domain in DOMAINS)
    return {domain: weight if weight > 0 else far * weight for domain, weight in weights}


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
    value = _complexity(neighbours, features, domain)
    return Decision(domain=domain, confidence=1.0, shares=shares, complexity=value)


def _complexity(neighbours: Sequence[Neighbour], features: Features, domain: Domain) -> float:
    """Complexity of the neighbours, those of the chosen domain first, moved by the text's own structure."""
    weight = total = 0.0
    for neighbour in neighbours:
        mass = math.exp((neighbour.score - 1) / COMPLEXITY_KERNEL) * (1.0 if neighbour.domain == domain else 0.2)
        weight += mass
        total += mass * neighbour.complexity
    near = total / weight if weight else 0.4
    value = 0.8 * near + 0.5 * features.structure
    if features.thorough and domain in EXPLAINED:
        value = max(value, THOROUGH)
    return min(1.0, max(0.0, value))


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


Head = Callable[[Vector, Features], Mapping[Domain, float]]
"""A fitted model: probabilities over domains from the vector of a question and its features."""


@dataclass(frozen=True)
class Reading:
    """A classification and what it was decided from."""

    classification: Classification
    neighbours: tuple[Neighbour, ...]
    features: Features
    prior: Mapping[Domain, float] | None


class Classifier:
    """One embedding a request; blocks for a few milliseconds; safe to share between threads."""

    def __init__(
        self,
        embedder: Embeds,
        store: FindsNeighbours,
        neighbours: int = 15,
        *,
        head: Head | None = None,
        spelling: Callable[[str], str] = str,
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._neighbours = neighbours
        self._head = head
        self._spelling = spelling

    def classify(self, messages: Sequence[BaseMessage], sampling: Sampling | None = None) -> Classification:
        """What the last user turn asks, in the light of the turns it follows. Never raises for any text."""
        return self.read(messages, sampling).classification

    def read(self, messages: Sequence[BaseMessage], sampling: Sampling | None = None) -> Reading:
        """As `classify`, with the evidence."""
        asked, turns = question_of(messages)
        text = self._spelling(without_steering(asked))
        last = text_of(turns[-1]) if turns else ""
        vector = self._embedder.embed(text)
        neighbours = self._store.nearest(vector, self._neighbours)
        features = Features(
            evidence=domain_evidence(text),
            structure=structure(text),
            surface=surface(text),
            thorough=asks_to_be_thorough(text),
            prompt_tokens=prompt_tokens(messages),
            image=any(images_of(turn) for turn in turns),
        )
        prior = self._head(vector, features) if self._head else None
        decision = decide(neighbours, features, prior)
        said = language.asked(last)
        tongue, sure = language.detect_said(said)
        if sure < 0.7 and last is not asked:
            tongue, sure = language.detect(asked)
        classification = Classification(
            language=tongue,
            language_confidence=sure,
            reply_language=language.reply_language(last, tongue, sure, said=said),
            domain=decision.domain,
            confidence=decision.confidence,
            complexity=decision.complexity,
            modality="image" if any(images_of(message) for message in messages) else "text",
            prompt_tokens=features.prompt_tokens,
            wants_json=wants_json(last, sampling),
            wants_tools=bool(sampling and sampling.tools),
            neighbours=neighbours,
            signature=tuple(signature(text, vector).tolist()),
        )
        return Reading(classification, neighbours, features, prior)


def prompt_tokens(messages: Sequence[BaseMessage]) -> int:
    """An estimate of the whole conversation's tokens, with the frame of each message and its images."""
    return sum(estimate_tokens(text_of(m)) + 4 + IMAGE_TOKENS * images_of(m) for m in messages)
