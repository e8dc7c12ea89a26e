"""`capibara fleet`: a running service's models, asked over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import httpx
import typer
from rich.live import Live
from rich.table import Table

from capibara_agents.errors import CapibaraError
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.paper import paper
from capibara_agents.terminal.service import key_of, refused
from capibara_agents.texts import phrase

GIB = 2**30
# How long a load or an unload is waited for here; it goes on in the service.
WAIT_S = 600.0
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
State = dict[str, Any]


def status(settings: Settings, terminal: Terminal, *, watch: bool, as_json: bool) -> None:
    """The models as they are; with `watch` until Ctrl-C, one line or one table for each change."""
    with _client(settings) as client:
        if not watch:
            state = _call(client, terminal, "GET", "/fleet")
            terminal.print_json(state) if as_json else paper().print(table(state, terminal))
            return
        for_people = None if as_json else Live(auto_refresh=False, console=paper())
        try:
            with for_people or nullcontext():
                for state in _states(client, terminal):
                    if for_people is None:
                        typer.echo(json.dumps(state, ensure_ascii=False))
                    else:
                        for_people.update(table(state, terminal), refresh=True)
        except KeyboardInterrupt:
            return
    raise CapibaraError(terminal.text("fleet.ended"))


def load(settings: Settings, name: str, terminal: Terminal, *, as_json: bool) -> None:
    """Has a model loaded and waits until it is ready."""
    _order(settings, name, ("load", "ready"), terminal, as_json=as_json)


def unload(settings: Settings, name: str, terminal: Terminal, *, as_json: bool) -> None:
    """Has a model unloaded once its answers are given, and waits for that."""
    _order(settings, name, ("unload", "stopped"), terminal, as_json=as_json)


def logs(settings: Settings, name: str, lines: int, terminal: Terminal, *, as_json: bool) -> None:
    """The last lines of a model's log."""
    with _client(settings) as client:
        said = _call(client, terminal, "GET", f"/fleet/models/{name}/logs", lines=lines)
    if as_json:
        terminal.print_json(said)
        return
    for line in said["lines"]:
        typer.echo(line)


def table(state: State, terminal: Terminal) -> Table:
    """The state of a fleet for people."""
    t = terminal.text
    used, budget = state["used_bytes"] or 0, state["budget_bytes"] or 0
    memory = t("fleet.memory", used=f"{used / GIB:.1f}", budget=f"{budget / GIB:.1f}")
    drawn = Table(box=None, pad_edge=False, collapse_padding=True, title=memory, title_justify="left")
    # Names are typed from here into the next command: at 80 columns something else breaks.
    drawn.add_column(t("table.model"), no_wrap=True)
    drawn.add_column(t("table.state"), overflow="fold", min_width=9)
    for code in ("fleet.held", "fleet.answering", "fleet.waiting", "fleet.speed", "fleet.restarts"):
        drawn.add_column(t(code), justify="right", no_wrap=code != "fleet.waiting")
    for model in state["models"]:
        speed = model["tokens_per_second"]
        drawn.add_row(
            model["id"],
            _state(model, terminal),
            f"{model['rss_bytes'] / GIB:.2f} GiB" if model["rss_bytes"] else "",
            f"{model['active']}/{model['slots']}",
            str(model["queue"]),
            f"{speed:.1f}" if speed is not None else "",
            str(model["restarts"]),
        )
    return drawn


def _state(model: State, terminal: Terminal) -> str:
    word = terminal.text(f"state.{model['state']}")
    if model["load_progress"] is not None:
        return f"{word} {100 * model['load_progress']:.0f} %"
    return f"{word}: {model['error']}" if model["error"] else word


def _order(settings: Settings, name: str, order: tuple[str, str], terminal: Terminal, *, as_json: bool) -> None:
    """Gives the order (a verb, and the state that it leads to), and says how the model is then."""
    verb, wanted = order
    with _client(settings) as client:
        model = _call(client, terminal, "POST", f"/fleet/models/{name}/{verb}", wait_s=WAIT_S)
    if as_json:
        terminal.print_json(model)
    if model["state"] != wanted:
        raise CapibaraError(phrase("fleet.done", model=model["id"], state=_state(model, terminal)))
    if not as_json:
        terminal.say("fleet.done", model=model["id"], state=wanted)


def _states(client: httpx.Client, terminal: Terminal) -> Iterator[State]:
    """The fleet's state after each event of /fleet/events, until the service ends."""
    state: State = {}
    name = ""
    try:
        with client.stream("GET", "/fleet/events", timeout=httpx.Timeout(10.0, read=None)) as response:
            if response.status_code != 200:
                response.read()
                raise refused(_answer(response), response.status_code)
            for line in response.iter_lines():
                if line.startswith("event:"):
                    name = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    state = taken(state, name, json.loads(line.removeprefix("data:")))
                    yield state
    except httpx.ConnectError as error:
        raise _nobody(client, terminal) from error
    except httpx.TransportError:
        return


def taken(state: State, name: str, data: State) -> State:
    """The state with one event taken into account; events of names that are not known change nothing."""
    if name == "snapshot":
        return data
    models: list[State] = state["models"]
    if name == "model":
        known = any(model["id"] == data["id"] for model in models)
        changed = [data if model["id"] == data["id"] else model for model in models]
        return {**state, "models": changed if known else [*models, data]}
    if name == "removed":
        return {**state, "models": [model for model in models if model["id"] != data["id"]]}
    return {**state, **data} if name == "memory" else state


def _client(settings: Settings) -> httpx.Client:
    """A client of the service these settings describe."""
    server = settings.server
    host = ANY_ADDRESS.get(server.host, server.host)
    base_url = f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    return httpx.Client(base_url=base_url, headers=key_of(settings), trust_env=False, timeout=WAIT_S + 10.0)


def _call(client: httpx.Client, terminal: Terminal, method: str, path: str, **query: float) -> State:
    try:
        response = client.request(method, path, params=query)
    except httpx.TransportError as error:
        raise _nobody(client, terminal) from error
    if response.is_error:
        raise refused(_answer(response), response.status_code)
    said: State = response.json()
    return said


def _answer(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _nobody(client: httpx.Client, terminal: Terminal) -> CapibaraError:
    return CapibaraError(terminal.text("fleet.nobody", url=str(client.base_url)))
