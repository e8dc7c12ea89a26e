"""What does not belong in an answer: a chat template's tokens, the system prompt, invented turns, pleas to a judge."""

from __future__ import annotations

import re

from capibara_agents.answers import plain_text
from capibara_agents.types import Check
from capibara_agents.verify.prose import prose, sample

SYSTEM_WORDS = 12
"""So many words in a row from the beginning of the system prompt are no accident."""
SYSTEM_OPENING_WORDS = 60
"""Only the opening counts: what follows may be documents that an answer is meant to quote."""

_TOKENS = re.compile(
    r"<\|(?:im_start|im_end|im_sep|eot_id|start_header_id|end_header_id|begin_of_text|end_of_text|endoftext|system|user|"
    r"assistant|end|channel|message|start|return|tool_call|eom_id|fim_\w+|python_tag)\|>|"
    r"</?(?:start_of_turn|end_of_turn|bos|eos)>|\[/?INST\]|<</?SYS>>|<｜[^<>|]{1,30}｜>|(?:</s>\s*$)",
    re.IGNORECASE,
)
_TURN_OF_USER = re.compile(
    r"(?m)^\s*(?:#+\s*)?\*{0,2}(?:user|human|usuario|humano|instruction|instrucción)\*{0,2}\s*:\*{0,2}\s*\S",
    re.IGNORECASE,
)
_TURN_OF_MODEL = re.compile(
    r"(?m)^\s*(?:#+\s*)?\*{0,2}(?:assistant|ai|asistente|bot|response|respuesta)\*{0,2}\s*:", re.IGNORECASE
)
_DIALOGUE = re.compile(
    r"\b(?:dialog\w*|conversation|conversaci[oó]n|di[aá]logo|chat|transcript|guion|script|role ?play|few-?shot|prompt|"
    r"template|plantilla)\b",
    re.IGNORECASE,
)
_CHOOSE = (
    r"(?:choose|select|pick|prefer|accept|vote|crown|elige|elija\w*|elegir|seleccion\w+|escog\w+|acepta\w*|vota\w*|"
    r"prefier\w+|give)"
)
_APPEAL = re.compile(
    rf"\b(?:judges?|evaluators?|graders?|verifiers?|juez|jueces|evaluador(?:es)?|jurado|verificador(?:es)?|votantes?|"
    rf"voters?)\b[^.\n]{{0,40}}\b{_CHOOSE}\b[^.\n]{{0,30}}\b(?:this|my|me|esta|mi|m[ií])\b|"
    rf"\b{_CHOOSE}(?: por| for)?\s+(?:this|my|esta|mi)\s+(?:answer|response|candidate|respuesta|candidat[ao])\b|"
    r"\b(?:ignore|disregard|forget|ignora|olvida)\s+(?:all\s+|todas\s+)?(?:the\s+|las\s+)?"
    r"(?:other|previous|prior|dem[aá]s|otras|anteriores)\s+"
    r"(?:answers|candidates|responses|instructions|respuestas|candidatos|instrucciones)\b|"
    r"\b(?:rate|score|grade|punt[uú]a|califica)\s+(?:this|my|esta|mi)\s+(?:answer|response|respuesta)\b"
    r"[^.\n]{0,30}\b(?:10|100|perfect|best|m[aá]xim\w+)|"
    r"\b(?:any|all|the) other (?:answers?|models?|candidates?) (?:is|are) (?:wrong|incorrect)\b|"
    r"\blas (?:dem[aá]s|otras) respuestas (?:son|est[aá]n) (?:incorrectas|mal|equivocadas)\b",
    re.IGNORECASE,
)


def no_leak(content: str, question: str, system: str) -> Check:
    """No template tokens, no system prompt, no turns invented for the user; code may have them, and who was asked."""
    text = prose(sample(content))
    token = _TOKENS.search(text)
    if token and token[0].strip().lower() not in question.lower():
        return Check(name="no_leak", passed=False, reason="verify.template_tokens", details={"found": token[0].strip()})
    if _quotes_system(text, question, system):
        return Check(name="no_leak", passed=False, reason="verify.system_prompt")
    turn = _TURN_OF_USER.search(text)
    if turn and _TURN_OF_MODEL.search(text, turn.end()) and not _DIALOGUE.search(question[:2000]):
        return Check(name="no_leak", passed=False, reason="verify.speaks_for_user")
    return Check(name="no_leak", passed=True)


def _quotes_system(text: str, question: str, system: str) -> bool:
    words = plain_text(system[:2000]).split()[:SYSTEM_OPENING_WORDS]
    if len(words) < SYSTEM_WORDS:
        return False
    said, asked = f" {plain_text(text)} ", f" {plain_text(question[:20_000])} "
    runs = (f" {' '.join(words[i : i + SYSTEM_WORDS])} " for i in range(len(words) - SYSTEM_WORDS + 1))
    return any(run in said and run not in asked for run in runs)


def no_appeal(content: str, question: str) -> Check:
    """The answer does not ask to be chosen: what it says of itself is no evidence for it."""
    found = _APPEAL.search(prose(sample(content)))
    passed = found is None or bool(_APPEAL.search(question[:20_000]))
    details: dict[str, str | int | float] = {} if passed or found is None else {"found": found[0][:80]}
    return Check(name="no_appeal", passed=passed, reason="" if passed else "verify.appeal", details=details)
