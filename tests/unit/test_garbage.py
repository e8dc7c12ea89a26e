"""The garbage collector, which all services of a process share."""

from __future__ import annotations

import gc
from contextlib import ExitStack

from capibara_agents import garbage


def test_the_last_of_several_services_gives_back_what_was_before() -> None:
    """In whatever order they end."""
    before = gc.get_threshold()
    first, second = ExitStack(), ExitStack()
    first.enter_context(garbage.put_off())
    second.enter_context(garbage.put_off())
    assert gc.get_threshold()[0] == garbage.COLLECTED_AFTER
    first.close()
    assert gc.get_threshold()[0] == garbage.COLLECTED_AFTER
    second.close()
    assert gc.get_threshold() == before
    with garbage.put_off():
        assert gc.get_threshold()[0] == garbage.COLLECTED_AFTER
    assert gc.get_threshold() == before
