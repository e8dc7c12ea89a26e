"""Checks an answer, cheapest check first, and says what becomes of it."""

from capibara_agents.verify.checks import examine
from capibara_agents.verify.judgement import judge

__all__ = ["examine", "judge"]
