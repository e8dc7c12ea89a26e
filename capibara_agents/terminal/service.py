"""The service that owns a data folder: what has one owner is changed through it, or not at all while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil

from capibara_agents.errors import BadQuestion, CapibaraError, ConfigError
from capibara_agents.runtime.ownership import LOCK_NAME, DataFolder
from capibara_agents.settings import HASHED, Settings
from capibara_agents.terminal import Terminal
from capibara_agents.texts import phrase

FIND_S = 2.0
SERVES_S = 0.5
# An update is weighed against the recorded past, and a thousand exemplars are embedded, in well under this.
WAIT_S = 300.0


class Service:
    """A running service, asked over HTTP."""

    def __init__(self, url: str, settings: Settings, terminal: Terminal) -> None:
        self._client = httpx.Client(base_url=url, headers=key_of(settings), trust_env=False, timeout=WAIT_S)
        self._terminal = terminal

    @property
    def url(self) -> str:
        return str(self._client.base_url)

    def call(self, method: str, path: str, *, query: dict[str, Any] | None = None, body: Any = None) -> dict[str, Any]:
        """The JSON it answers. BadQuestion and CapibaraError carry its own words."""
        known = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            response = self._client.request(method, path, params=known, json=body)
            answer: dict[str, Any] = response.json()
        except (httpx.TransportError, ValueError) as error:
            raise CapibaraError(self._terminal.text("fleet.nobody", url=str(self._client.base_url))) from error
        if response.is_error:
            raise refused(answer, response.status_code)
        return answer


def refused(answer: Any, status: int) -> CapibaraError:
    """A service's refusal in its own words, where it has any; what the caller can mend is a BadQuestion."""
    error = answer.get("error") if isinstance(answer, dict) else None
    words = error.get("message") if isinstance(error, dict) else None
    said = str(words) if words else phrase("service.status", status=status)
    return BadQuestion(said) if status in (400, 404) else CapibaraError(said)


@contextmanager
def owner(settings: Settings, terminal: Terminal) -> Iterator[Service | None]:
    """The service that owns the data folder, or None, and then the folder is held here for the length of the block.

    Raises CapibaraError when another process has it and cannot be asked; it says which and what to do.
    """
    folder = DataFolder(settings.data_dir)
    try:
        folder.__enter__()
    except ConfigError:
        if not (settings.data_dir / LOCK_NAME).exists():
            raise  # the folder cannot be written at all
    else:
        try:
            yield None
        finally:
            folder.__exit__(None, None, None)
        return
    pid = _holder(settings)
    url = next((url for url in _addresses(pid) if _is_capibara(url)), None)
    if url is None:
        raise CapibaraError(terminal.text("owner.unreachable", pid=pid or "?", folder=str(settings.data_dir)))
    yield Service(url, settings, terminal)


def _holder(settings: Settings) -> int | None:
    """The process that holds the folder, as it has written itself into the lock."""
    try:
        return int((settings.data_dir / LOCK_NAME).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None


def _addresses(pid: int | None) -> Iterator[str]:
    """Where that process listens; nothing for one of another user's."""
    try:
        connections = psutil.Process(pid).net_connections("tcp") if pid is not None else []
    except psutil.Error:
        return
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(connection.laddr.ip, connection.laddr.ip)
            yield f"http://{f'[{host}]' if ':' in host else host}:{connection.laddr.port}"


def _is_capibara(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}/health/live", timeout=FIND_S, trust_env=False)
        return answer.status_code == 200 and answer.json() == {"status": "alive"}
    except (httpx.HTTPError, ValueError):
        return False


def at_its_port(settings: Settings) -> str | None:
    """The URL of the service that listens where the settings say, if it is a Capibara with their fleet."""
    server = settings.server
    if server.port == 0:
        return None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    return url if serves(url, settings) else None


def serves(url: str, settings: Settings) -> bool:
    """Another fleet than the one asked for would answer under the same names."""
    try:
        known = httpx.get(f"{url}/v1/models", headers=key_of(settings), timeout=SERVES_S, trust_env=False).json()
        served = {model["id"]: model.get("stand_in", False) for model in known["data"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
    ours = {spec.id: spec.stand_in for spec in settings.models}
    return "capibara" in served and ours.items() <= served.items()


def key_of(settings: Settings) -> dict[str, str]:
    """The header with the key of the service, where it asks for one."""
    keys = [key for key in settings.server.api_keys if not key.startswith(HASHED)]
    return {"authorization": f"Bearer {keys[0]}"} if keys else {}
