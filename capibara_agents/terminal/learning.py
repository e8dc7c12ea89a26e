"""`capibara learning`: what was learned, and taking it back; through the service while one runs."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Any

from rich.table import Table

from capibara_agents.errors import BadQuestion, StoreError
from capibara_agents.outcomes import Learner
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.paper import paper
from capibara_agents.terminal.service import owner


def show(settings: Settings, terminal: Terminal, *, as_json: bool) -> None:
    """Lists the updates."""
    with owner(settings, terminal) as service:
        if service is not None:
            updates: list[dict[str, Any]] = service.call("GET", "/v1/learning")["data"]
        else:
            with closing(Learner(settings.data_dir)) as learner:
                updates = [update.model_dump(mode="json") for update in learner.updates()]
    if as_json:
        terminal.print_json({"updates": updates})
    elif updates:
        paper().print(_table(updates, terminal))
    else:
        terminal.say("learning.none")


def undo(settings: Settings, number: int, terminal: Terminal, *, as_json: bool) -> None:
    """Takes an update back."""
    with owner(settings, terminal) as service:
        if service is not None:
            report = service.call("POST", f"/v1/learning/{number}/undo")
        else:
            report = _undone(settings, number)
    terminal.print_json(report) if as_json else terminal.say("learning.undone", number=number)


def _undone(settings: Settings, number: int) -> dict[str, Any]:
    with closing(Learner(settings.data_dir)) as learner:
        try:
            return learner.undo(number).model_dump(mode="json")
        except StoreError as error:
            raise BadQuestion(error.said) from error


def _table(updates: list[dict[str, Any]], terminal: Terminal) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("number", "at", "state", "outcomes", "before", "after"):
        table.add_column(terminal.text(f"learning.{name}"))
    for update in updates:
        at = datetime.fromtimestamp(update["at"]).astimezone().isoformat(" ", "seconds")
        state = terminal.text(f"updated.{update['state']}")
        shares = [f"{100 * share:.1f} %" if (share := update[key]) is not None else "" for key in ("before", "after")]
        table.add_row(str(update["id"]), at, state, str(update["outcomes"]), *shares)
    return table
