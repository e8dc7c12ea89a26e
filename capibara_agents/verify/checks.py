"""The checks of an answer, cheapest first. Each has a name, a verdict, a reason; none edits the answer, none raises."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from capibara_agents.answers.structured import json_answer
from capibara_agents.language import detect
from capibara_agents.types import Candidate, Check, Classification, Request
from capibara_agents.verify.arithmetic import right_arithmetic
from capibara_agents.verify.code import parses
from capibara_agents.verify.leaks import no_appeal, no_leak
from capibara_agents.verify.loops import no_loop
from capibara_agents.verify.prints import says_what_it_prints
from capibara_agents.verify.prose import prose
from capibara_agents.verify.refusal import no_refusal
from capibara_agents.verify.schema import matches, valid_json
from capibara_agents.verify.sql import valid_sql

# Below so many words a language detector guesses.
LANGUAGE_MIN_WORDS = 4
LANGUAGE_MIN_CONFIDENCE = 0.8
LANGUAGE_CHARS = 2_000

# A draft that found its own words less likely than this is not good enough: nats a token, exp(-0.7) is one in two.
DRAFT_MIN_LOGPROB = -0.7


@dataclass(frozen=True, slots=True)
class Background:
    """What an answer is held against: the last question, the system prompt, what the question's code gave."""

    question: str = ""
    system: str = ""
    settled: str | None = None


NOTHING_KNOWN = Background()


BRIEF_CHARS = 600
# What makes a check costly: an equation is computed, code and SQL are parsed, a schema is compiled.
_COSTLY = re.compile(r"[=`\\{]|\bselect\b", re.IGNORECASE)


def is_brief(candidates: Sequence[Candidate], classification: Classification, request: Request) -> bool:
    """Whether the checks of these take a millisecond or two: short prose, of which nothing is computed or parsed."""
    if request.sampling.response_format is not None or classification.domain == "sql":
        return False
    if sum(len(c.content) + len(c.reasoning) for c in candidates) > BRIEF_CHARS:
        return False
    return not any(_COSTLY.search(c.content) for c in candidates)


def examine(
    candidate: Candidate, classification: Classification, request: Request, background: Background = NOTHING_KNOWN
) -> tuple[Check, ...]:
    """All checks that apply, in the order of cost; after an empty answer there is nothing more to check."""
    return tuple(_checks(candidate, classification, request, background))


def _checks(
    candidate: Candidate, classification: Classification, request: Request, background: Background
) -> Iterator[Check]:
    filled = not_empty(candidate)
    yield filled
    if not filled.passed or candidate.tool_calls:
        return
    content, question = candidate.content, background.question
    if candidate.finish_reason == "length":
        yield complete(request)
    yield no_loop(content, question)
    response_format = request.sampling.response_format or {}
    match response_format.get("type"):
        case "json_object" | "json_schema":
            yield valid_json(content, response_format)
            return
        case "regex":
            yield matches(content, str(response_format.get("pattern", "")))
            return
    yield no_leak(content, question, background.system)
    yield no_appeal(content, question)
    yield from _of_substance(content, question, classification)
    if background.settled is not None:
        yield says_what_it_prints(content, question, background.settled)
    if classification.reply_language is not None:
        yield reply_language(content, classification.reply_language)


def _of_substance(content: str, question: str, classification: Classification) -> Iterator[Check]:
    """What applies only to answers of a kind."""
    domain = classification.domain
    made = (
        no_refusal(content, question, domain),
        json_where_tried(content) if classification.wants_json else None,
        right_arithmetic(content, question) if domain not in ("creative_writing", "translation", "chitchat") else None,
        parses(content, question),
        valid_sql(content, question, domain),
    )
    yield from (check for check in made if check is not None)


def not_empty(candidate: Candidate) -> Check:
    """There is a text, or a tool call."""
    return Check(name="not_empty", passed=candidate.has_answer, reason="" if candidate.has_answer else "verify.empty")


def complete(request: Request) -> Check:
    """An answer that ran out of tokens is cut off; one that the caller limited was cut as asked."""
    if request.sampling.max_tokens is not None:
        return Check(name="complete", passed=True, reason="verify.cut_as_asked")
    return Check(name="complete", passed=False, reason="verify.cut_off")


def json_where_tried(content: str) -> Check | None:
    """The words of a question asked for JSON: what looks like it is it; None for an answer that is prose."""
    if json_answer(content) is not None:
        return Check(name="json", passed=True)
    tried = re.match(r"\s*[{\[]", content) or re.search(r"```json", content, re.IGNORECASE)
    return Check(name="json", passed=False, reason="verify.not_json") if tried else None


def sure_draft(candidate: Candidate) -> Check:
    """A cascade's draft was sure of its own words; where its server gives no log-probabilities nothing is known."""
    sure = candidate.mean_logprob is None or candidate.mean_logprob >= DRAFT_MIN_LOGPROB
    return Check(name="sure_draft", passed=sure, reason="" if sure else "verify.unsure_draft")


def reply_language(content: str, wanted: str) -> Check:
    """The prose is in the language asked for; texts too short to tell pass."""
    text = prose(content[: 10 * LANGUAGE_CHARS])
    words = [word for word in text.split() if any(c.isalpha() for c in word)]
    if len(words) < LANGUAGE_MIN_WORDS:
        return Check(name="reply_language", passed=True, reason="verify.too_short_to_tell")
    found, confidence = detect(text[:LANGUAGE_CHARS])
    wrong = found != wanted and confidence >= LANGUAGE_MIN_CONFIDENCE
    return Check(name="reply_language", passed=not wrong, reason=f"verify.not_in_{wanted}" if wrong else "")
