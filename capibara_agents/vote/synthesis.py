"""One answer written out of the voters' free texts: the prompt for whoever writes it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from capibara_agents.templates import LANGUAGE_NAMES, material, read
from capibara_agents.types import AnswerKind, Ballot, Candidate, Language

MAX_QUESTION_CHARS = 6_000
MAX_ANSWERS_CHARS = 12_000
"""Of all answers together."""


def can_be_written(ballot: Ballot) -> bool:
    """Whether there is something to write one answer out of: several free texts."""
    return len(ballot.votes) > 1 and all(vote.answer.kind is AnswerKind.text for vote in ballot.votes)


def question_to_writer(question: str, answers: Sequence[Candidate], *, secret: str, language: Language | None) -> str:
    """The prompt. `secret` is new for every call, letters and digits."""
    share = MAX_ANSWERS_CHARS // max(1, len(answers))
    shown = "\n\n".join(
        f"--- answer {number} {secret}\n{material(answer.content, secret, share)}\n--- end of answer {number} {secret}"
        for number, answer in enumerate(answers, 1)
    )
    return read("synthesis").render(
        question=material(question, secret, MAX_QUESTION_CHARS),
        answers=shown,
        secret=secret,
        language=LANGUAGE_NAMES[language] if language else "the language of the question",
    )
