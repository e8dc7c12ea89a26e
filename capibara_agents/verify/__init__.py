"""Checks an answer, cheapest check first, and says what becomes of it."""

from capibara_agents.verify.again import correction
from capibara_agents.verify.checks import Background, examine
from capibara_agents.verify.judgement import judge

__all__ = ["Background", "correction", "examine", "judge"]
