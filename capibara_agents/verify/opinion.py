"""What a judge model is asked, how its word is read, and how little it may do. Pure: the call is the caller's.

A judge's word never stands alone: it moves the confidence only together with another sign that points the same way,
and never past certainty. The answer is shown to it between two lines that hold a secret of this call, and only a
verdict with the same secret counts, so an answer that writes a verdict of its own has written text.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from capibara_agents.templates import LANGUAGE_NAMES, material, read
from capibara_agents.types import Check, Language

Opinion = Literal["right", "wrong", "unsure"]

MAX_SHOWN_CHARS = 6_000
STEP_LOG_ODDS = 0.7
"""How far a supported opinion moves the confidence: from one in two to two in three."""
MOST_CONFIDENT = 0.98


def question_to_judge(question: str, answer: str, *, secret: str, language: Language) -> str:
    """The prompt. `secret` is new for every call, letters and digits."""
    return read("judge").render(
        question=material(question, secret, MAX_SHOWN_CHARS),
        answer=material(answer, secret, MAX_SHOWN_CHARS),
        secret=secret,
        language=LANGUAGE_NAMES[language],
    )


def opinion(reply: str, *, secret: str) -> Opinion:
    """The judge's verdict; unsure when it gives none, or more than one."""
    found = re.findall(rf"{re.escape(secret)}\s*[:=]?\s*\W{{0,3}}(right|wrong|unsure)\b", reply[-4_000:], re.IGNORECASE)
    kinds = {verdict.lower() for verdict in found}
    if kinds == {"right"}:
        return "right"
    return "wrong" if kinds == {"wrong"} else "unsure"


def signs_of(checks: tuple[Check, ...], *, agreement: float | None, sure_of_words: bool | None) -> tuple[int, int]:
    """How many other signs speak for an answer and against it: checks of substance, other voters, its own words."""
    substance = [check for check in checks if check.name in ("arithmetic", "code", "sql", "runs", "json", "regex")]
    good = sum(check.passed and not check.reason for check in substance)
    bad = sum(not check.passed for check in checks)
    if agreement is not None:
        good, bad = good + (agreement > 0.5), bad + (agreement < 0.5)
    if sure_of_words is not None:
        good, bad = good + sure_of_words, bad + (not sure_of_words)
    return good, bad


def weighed(confidence: float, said: Opinion, signs: tuple[int, int]) -> float:
    """The confidence after the judge's word: unchanged when nothing else points the same way."""
    good, bad = signs
    if said == "unsure" or (said == "right" and not good) or (said == "wrong" and not bad):
        return confidence
    bounded = min(max(confidence, 1e-6), 1 - 1e-6)
    odds = math.log(bounded / (1 - bounded)) + (STEP_LOG_ODDS if said == "right" else -STEP_LOG_ODDS)
    moved = 1 / (1 + math.exp(-odds))
    return max(confidence, min(moved, MOST_CONFIDENT)) if said == "right" else min(confidence, moved)


def judged(before: float, said: Opinion, signs: tuple[int, int]) -> Check:
    """The opinion as a check: it fails an answer only where something else speaks against that answer too."""
    after = weighed(before, said, signs)
    against = said == "wrong" and after < before
    details: dict[str, str | int | float] = {"said": said, "before": round(before, 4), "after": round(after, 4)}
    return Check(name="judge", passed=not against, reason="verify.judged_wrong" if against else "", details=details)
