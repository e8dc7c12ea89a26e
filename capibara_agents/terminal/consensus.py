"""`capibara consensus`: several models vote, and the ballot is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.ask import check, note_stand_ins
from capibara_agents.terminal.decision import (
    asked_table,
    ballot_rows,
    ballot_table,
    checks_of,
    note_weaknesses,
    show,
    titled_rows,
)
from capibara_agents.terminal.given import request_of
from capibara_agents.terminal.paper import answer
from capibara_agents.terminal.respondent import Said, respondent
from capibara_agents.terminal.waiting import waiting
from capibara_agents.types import Request


@dataclass(frozen=True)
class Election:
    """A question to be voted on."""

    question: str
    voters: Sequence[str] = ()
    voting: str = "weighted"
    max_voters: int = 3
    samples: int = 1
    max_tokens: int | None = None

    def request(self, settings: Settings) -> Request:
        """BadQuestion names what is wrong; voters may be called by their aliases."""
        voters = [settings.spec(name).id for name in self.voters]
        values = {
            "model": "capibara-consensus",
            "voters": voters,
            "voting": self.voting,
            "max_voters": max(self.max_voters, len(voters)),
            "samples": self.samples,
            "sampling": {"max_tokens": self.max_tokens},
        }
        return request_of(values)


def run(settings: Settings, election: Election, terminal: Terminal, *, as_json: bool) -> None:
    """Ask the voters, count, show the ballot."""
    check(election.question)
    request = election.request(settings)
    note_stand_ins(settings, terminal)
    with respondent(settings, terminal) as one, waiting(terminal) as told:
        said = one.ask([{"role": "user", "content": election.question}], request, on_progress=told)
    if as_json:
        terminal.print_json(said.shown())
        return
    answer(said.content)
    show_vote(said, terminal)


def show_vote(said: Said, terminal: Terminal) -> None:
    """The ballot as a table and what it comes to; the checks of the answer that won."""
    if said.trace["plan"]["mode"] != "consensus" or said.trace["ballot"]["method"] == "pass":
        # The checks refused what the vote had found, or one voter was left; then somebody answered alone.
        terminal.say("vote.alone", model=said.model)
        show(asked_table(said.trace, terminal))
    else:
        show(ballot_table(said.trace, terminal))
        rows = [*ballot_rows(said.trace, terminal), (terminal.text("ask.checks"), checks_of(said, terminal))]
        show(titled_rows(terminal.text("vote.result"), rows))
    note_weaknesses(said, terminal)
