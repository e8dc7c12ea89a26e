"""What a model is told when the question is put again after a rejected answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from capibara_agents.texts import sentence
from capibara_agents.types import Check, Language

MAX_REASONS = 4


def correction(checks: Sequence[Check], language: Language) -> str:
    """A message that names what failed and asks for a new answer; empty when nothing failed that it could mend."""
    failed = [check for check in checks if not check.passed and check.reason in _TOLD]
    if not failed:
        return ""
    reasons = "\n".join(f"- {_reason(check, language)}" for check in failed[:MAX_REASONS])
    return sentence("again.correct", language, reasons=reasons)


def can_be_told(checks: Sequence[Check]) -> bool:
    """Whether something failed that a model can mend when it is told."""
    return any(not check.passed and check.reason in _TOLD for check in checks)


def asked_anew(messages: Sequence[BaseMessage], note: str) -> list[BaseMessage]:
    """The conversation with a note at the end of its last question; chat templates want the roles to alternate."""
    last = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].type == "human"), None)
    if last is None or not note:
        return list(messages)
    question = messages[last]
    content = question.content
    noted = f"{content}\n\n{note}" if isinstance(content, str) else [*content, {"type": "text", "text": note}]
    return [*messages[:last], question.model_copy(update={"content": noted}), *messages[last + 1 :]]


# How sure a draft was of its words is nothing that a model could mend, and an appeal is not worth a reply.
_TOLD = frozenset(
    {
        "verify.empty",
        "verify.cut_off",
        "verify.loop",
        "verify.template_tokens",
        "verify.system_prompt",
        "verify.speaks_for_user",
        "verify.refused",
        "verify.not_in_es",
        "verify.not_in_en",
        "verify.not_json",
        "verify.not_json_object",
        "verify.schema",
        "verify.regex",
        "verify.arithmetic",
        "verify.code",
        "verify.sql",
        "verify.prints",
        "verify.no_code",
        "verify.sandbox.tests_failed",
        "verify.sandbox.example_differs",
        "verify.sandbox.raised",
        "verify.sandbox.syntax",
        "verify.sandbox.not_defined",
        "verify.sandbox.cpu",
        "verify.sandbox.memory",
        "verify.sandbox.output",
        "verify.sandbox.recursion",
        "verify.sandbox.forbidden",
    }
)


def _reason(check: Check, language: Language) -> str:
    """The reason in words, with what was found where that helps: the equation, the place in the JSON."""
    said = sentence(check.reason, language)
    if check.name == "arithmetic" and "stated" in check.details:
        return sentence("again.equation", language, reason=said, stated=check.details["stated"])
    found = check.details.get("problem") or check.details.get("detail")
    return f"{said}: {found}" if found else said
