"""`capibara serve`: the HTTP service in the foreground."""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import socket

import typer
import uvicorn

from capibara_agents.assembly import create_app
from capibara_agents.errors import CapibaraError, ConfigError, WeightsError
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.weights import WeightStore
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal

DRAIN_S = 10


def run(settings: Settings, terminal: Terminal) -> None:
    """Serve until a signal. What is wrong is said before anything is started."""
    refuse_open_door(settings, terminal)
    find_engine(settings)
    _need_weights(settings, terminal)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listener = _listen(settings, terminal)
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        create_app(settings), log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_S, lifespan="on"
    )
    server = _Server(config, settings, terminal, f"http://{_shown(host)}:{port}")
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        # uvicorn has stopped in good order and raises the signal again.
        return
    finally:
        listener.close()
    if not server.announced:
        raise CapibaraError("The service did not start; the reason stands above.")


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, settings: Settings, terminal: Terminal, url: str) -> None:
        super().__init__(config)
        self._settings, self._terminal, self._url = settings, terminal, url
        self.announced = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.announced = True
            _announce(self._settings, self._terminal, self._url)


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
        raise WeightsError(terminal.text("weights.get", models=", ".join(missing)))
    if missing:
        terminal.note("warning", text=terminal.text("weights.get", models=", ".join(missing)))


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
