"""`capibara serve`: the HTTP service in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType

import typer
import uvicorn

from capibara_agents.assembly import House, create_app
from capibara_agents.errors import CapibaraError, ConfigError, WeightsError
from capibara_agents.http.connection import guarded
from capibara_agents.http.traffic import Traffic
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.fit import misfits
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.texts import phrase

# For what is still open when all answers are given: streams of events without an end.
CUT_S = 5


def run(settings: Settings, terminal: Terminal, reread: Callable[[], Settings] | None = None) -> None:
    """Serve until a signal; SIGHUP has the configuration read again. What is wrong is said before anything starts."""
    refuse_open_door(settings, terminal)
    engine = find_engine(settings)
    _need_weights(settings, terminal)
    for one in misfits(settings, engine.version):
        terminal.note("warning", text=terminal.text("fleet.too_large", **one.figures))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # As Ctrl-C: everything is closed on the way out, and the exit status says that all went well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    listener = _listen(settings, terminal)
    try:
        # Opened before uvicorn runs, which would tell a taken data folder as a stack trace.
        with House(settings) as house:
            _ = house.fleet
            server = _serve(house, listener, terminal, reread)
    finally:
        listener.close()
    if server.failure is not None:
        raise server.failure
    if not server.started:
        raise CapibaraError(phrase("serve.not_started"))


def _serve(house: House, listener: socket.socket, terminal: Terminal, reread: Callable[[], Settings] | None) -> _Server:
    """Runs until a signal has stopped it in good order."""
    host, port = listener.getsockname()[:2]
    settings = house.settings.server

    def begun(failure: Exception | None) -> None:
        server.begin(failure)

    app = create_app(house=house, begun=begun)
    config = uvicorn.Config(
        app,
        http=guarded(
            max_header_bytes=settings.max_header_bytes,
            header_timeout_s=settings.header_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            read_timeout_s=settings.read_timeout_s,
        ),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CUT_S,
        lifespan="on",
    )
    server = _Server(config, house.settings, terminal, f"http://{_shown(host)}:{port}", app.state.traffic)
    if reread is not None:
        server.on_hangup = lambda: _reload(house, reread, terminal)
        # Else it ends a service that is still starting.
        signal.signal(signal.SIGHUP, server.hung_up_early)
    # uvicorn raises the signal again that has stopped it.
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server


class _Server(uvicorn.Server):
    """Says where it answers once it does; it listens before."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, terminal: Terminal, url: str, traffic: Traffic
    ) -> None:
        super().__init__(config)
        self._traffic = traffic
        self._settings, self._terminal, self._url = settings, terminal, url
        self._drained_by_s: float | None = None
        self._signal: int = signal.SIGTERM
        self.failure: Exception | None = None
        self.on_hangup: Callable[[], None] | None = None
        self._is_hangup_due = False

    def hung_up_early(self, *_: object) -> None:
        """A SIGHUP before there is anything to take over a configuration: it counts once there is."""
        self._is_hangup_due = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets answers under way be finished and refuses new ones; the second ends at once."""
        if self._traffic.closing or not self._traffic.active:
            self._traffic.closing = True
            super().handle_exit(sig, frame)
            return
        self._traffic.closing = True
        self._drained_by_s = time.monotonic() + self._settings.server.drain_s
        self._signal = sig

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's look around, ten times a second: whether to end."""
        if self._drained_by_s is not None and (not self._traffic.active or time.monotonic() > self._drained_by_s):
            self._drained_by_s = None
            super().handle_exit(self._signal, None)
        return await super().on_tick(counter)

    def begin(self, failure: Exception | None) -> None:
        """All is there that answers, or it cannot be."""
        if failure is not None:
            self.failure, self.should_exit = failure, True
            return
        if self.should_exit:
            return
        _announce(self._settings, self._terminal, self._url)
        if self.on_hangup is not None:
            loop = asyncio.get_running_loop()
            # In a thread: files are read and the engine is asked, which takes longer than a loop may stand still.
            loop.add_signal_handler(signal.SIGHUP, loop.run_in_executor, None, self.on_hangup)
            if self._is_hangup_due:
                loop.run_in_executor(None, self.on_hangup)


def _reload(house: House, reread: Callable[[], Settings], terminal: Terminal) -> None:
    """Takes over the configuration as it is now; a wrong one is said and changes nothing."""
    try:
        change = house.reload(reread())
    except CapibaraError as error:
        terminal.note("serve.not_reloaded", error=error.told(terminal.language))
        return
    terminal.note("serve.reloaded", **{name: len(ids) for name, ids in asdict(change).items()})


def _announce(settings: Settings, terminal: Terminal, url: str) -> None:
    terminal.say("serve.at", url=url)
    if note := terminal.stand_ins(settings):
        typer.echo(note)
    terminal.say("serve.loading")
    terminal.say("serve.try")
    typer.echo(f"  {curl_line(settings, url, terminal.text('serve.example'))}")
    terminal.say("serve.stop")


def curl_line(settings: Settings, url: str, question: str) -> str:
    """A command that works when it is pasted into a shell."""
    body = {"model": "capibara", "messages": [{"role": "user", "content": question}], "max_tokens": 64}
    key = "-H 'Authorization: Bearer KEY' " if settings.server.api_keys else ""
    return (
        f"curl -s {url}/v1/chat/completions {key}-H 'Content-Type: application/json' "
        f"-d '{json.dumps(body, ensure_ascii=False)}'"
    )


def refuse_open_door(settings: Settings, terminal: Terminal) -> None:
    """ConfigError for an address beyond this machine without a key."""
    server = settings.server
    if not (server.api_keys or server.insecure or _is_loopback(server.host)):
        raise ConfigError(terminal.text("serve.not_loopback", host=server.host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _need_weights(settings: Settings, terminal: Terminal) -> None:
    """WeightsError when no model can start; a note when some cannot."""
    store = WeightStore(settings.weights_dir)
    missing = [spec.id for spec in settings.models if not store.is_present(spec)]
    if len(missing) == len(settings.models):
        raise WeightsError(terminal.text("weights.get", fleet=settings.fleet, models=", ".join(missing)))
    if missing:
        terminal.note("warning", text=terminal.text("weights.get", fleet=settings.fleet, models=", ".join(missing)))


def _listen(settings: Settings, terminal: Terminal) -> socket.socket:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CapibaraError(terminal.text("serve.port_taken", port=port)) from error
        reason = error.strerror or type(error).__name__
        raise CapibaraError(terminal.text("serve.cannot_listen", host=host, port=port, error=reason)) from error
    listener.set_inheritable(False)
    return listener


def _shown(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown
