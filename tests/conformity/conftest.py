"""One Capibara over the scripted model server, reached over HTTP as clients reach it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.assembly import House
from capibara_agents.config import load
from capibara_agents.http.app import build_app
from tests.fakes import GEMMA, GPT, MISTRAL, PHI, QWEN, FakeFleet
from tests.upstream import Scripted, serving

KEY = "the-key-of-the-tests"
INSTALL_LIMIT_S = 240.0


@dataclass(frozen=True)
class Live:
    """A service and the model server behind it."""

    url: str
    upstream: Scripted

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


class ScriptedHouse(House):
    """A whole house, but for the machine room: its fleet hands out the scripted server."""

    upstream_url = ""

    @cached_property
    def fleet(self) -> Any:
        return FakeFleet(self.settings, self.upstream_url)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Five models that call tools, one of which sees; a key is asked for."""
    folder = tmp_path_factory.mktemp("conformity")
    models: dict[str, Any] = {id: {"calls_tools": True} for id in (PHI, QWEN, MISTRAL, GEMMA, GPT)}
    models[GEMMA]["sees_images"] = True
    models[GEMMA]["context_tokens"] = 131_072
    flags = {
        "fleet": "tiny",
        "runtime": {"data_dir": str(folder / "data")},
        "server": {"api_keys": [KEY]},
        "models": models,
    }
    upstream = Scripted()
    with serving(upstream.app()) as upstream_url:
        house = ScriptedHouse(load(flags=flags, environ={}, cwd=folder).settings)
        house.upstream_url = upstream_url
        house.warm()
        with house, serving(build_app(house)) as url:
            yield Live(url, upstream)


def _succeeds(command: list[str], folder: Path) -> bool:
    """Whether an installation came to a good end; one that gets no answer does not."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@pytest.fixture(scope="session")
def node_packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Installs npm packages, `name@version`, into a folder of their own; skips where that cannot be done."""

    def install(*packages: str) -> Path:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip("node and npm are not installed")
        folder = tmp_path_factory.mktemp("npm")
        (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
        if not _succeeds(command, folder):
            pytest.skip(f"npm could not install {', '.join(packages)}")
        return folder

    return install


@pytest.fixture(scope="session")
def python_packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Installs packages into an environment of their own, once; the folder of its commands. Skips where it cannot."""
    made: dict[tuple[str, ...], Path] = {}

    def install(*packages: str) -> Path:
        if packages not in made:
            folder = tmp_path_factory.mktemp("environment") / "venv"
            uv = str(Path(sys.executable).with_name("uv"))
            for command in (
                [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
                [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *packages],
            ):
                if not _succeeds(command, folder.parent):
                    pytest.skip(f"uv could not install {', '.join(packages)}")
            made[packages] = folder / "bin"
        return made[packages]

    return install
