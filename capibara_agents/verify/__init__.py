"""Checks an answer, cheapest check first, and says what becomes of it."""

from capibara_agents.verify.again import asked_anew, correction
from capibara_agents.verify.behaviour import behaves, trial, without_code
from capibara_agents.verify.checks import Background, examine, is_brief
from capibara_agents.verify.judgement import judge
from capibara_agents.verify.prints import find_print_question, gives, settle_print_question

__all__ = [
    "Background",
    "asked_anew",
    "behaves",
    "correction",
    "examine",
    "find_print_question",
    "gives",
    "is_brief",
    "judge",
    "settle_print_question",
    "trial",
    "without_code",
]
