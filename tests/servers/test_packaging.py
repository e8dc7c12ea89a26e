"""The wheel: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from service_process import CHECKOUT, environment

# What must come along besides code, by the folder under capibara_agents/ where it lives.
DATA = {
    "": {"py.typed"},
    "fleets": {"tiny.yaml", "five.yaml"},
    "texts": {"es.yaml", "en.yaml"},
    "prompts": {"general.md", "coding.md", "analysis.md", "creative.md", "technical.md"},
    "exemplars_data": {"math.jsonl", "sql.jsonl", "chitchat.jsonl"},
    "http": {"playground.html", "graph_page.js", "docs_page.js"},
    "http/vendor": {"mermaid.min.js.gz", "swagger-ui-bundle.js.gz", "swagger-ui.css.gz", "mermaid.LICENSE"},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=CHECKOUT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed by pip into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run(
        [*command, str(wheel)], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


def names_in(wheel: Path) -> list[PurePosixPath]:
    with zipfile.ZipFile(wheel) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def run_elsewhere(program: str, installed: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program that sees the installed package first, from a folder that is not the checkout."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=environment(PYTHONPATH=str(installed), CAPIBARA_RUNTIME__DATA_DIR=str(cwd / "data")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_nothing_but_the_package_is_at_the_top(wheel: Path) -> None:
    """No graphs, prompts, runtime, server or tests in anybody's site-packages."""
    top = {name.parts[0] for name in names_in(wheel)}
    assert len(top) == 2
    assert "capibara_agents" in top
    (other,) = top - {"capibara_agents"}
    assert other.startswith("capibara-")
    assert other.endswith(".dist-info")


def test_the_rooms_are_real_folders_inside(wheel: Path) -> None:
    """What is a link in the checkout is a folder with files in the wheel, each file once."""
    names = names_in(wheel)
    assert len(names) == len(set(names))
    inside = {str(name.relative_to("capibara_agents")) for name in names if name.parts[0] == "capibara_agents"}
    assert {"graphs/capibara.py", "runtime/fleet.py", "prompts/general.md", "assembly.py", "cli/__init__.py"} <= inside
    with zipfile.ZipFile(wheel) as archive:
        kinds = {entry.external_attr >> 28 for entry in archive.infolist()}
    assert kinds <= {0, 8}, "a wheel of regular files has no links"


@pytest.mark.parametrize("folder", DATA, ids=lambda folder: folder or "root")
def test_data_files_come_along(wheel: Path, folder: str) -> None:
    """Prompts, texts, fleets, exemplars, the playground and py.typed are packed."""
    where = PurePosixPath("capibara_agents") / folder
    assert {name.name for name in names_in(wheel) if name.parent == where} >= DATA[folder]


def test_every_file_of_the_package_is_packed(wheel: Path) -> None:
    """Nothing that stands in the checkout's package is forgotten, and nothing of a cache comes along."""
    packed = {str(name) for name in names_in(wheel)}
    assert not [name for name in packed if "__pycache__" in name or name.endswith(".pyc")]
    source = CHECKOUT / "capibara_agents"
    files = [Path(folder) / name for folder, _, names in os.walk(source, followlinks=True) for name in names]
    expected = {str(file.relative_to(CHECKOUT)) for file in files if "__pycache__" not in file.parts}
    assert expected <= packed


def test_the_console_command_is_declared(wheel: Path) -> None:
    """`capibara` is an entry point."""
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "capibara = capibara_agents.cli:main" in archive.read(entry).decode()


def test_the_graph_is_drawn_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    """The package that is imported is the installed one, its rooms are found, and the graph has its five nodes."""
    program = """
import pathlib, sys
import capibara_agents
from capibara_agents import Capibara, build_graph
from capibara_agents.graphs.capibara import drawing
from capibara_agents.runtime import fleet
print(pathlib.Path(capibara_agents.__file__).parents[1])
print(pathlib.Path(fleet.__file__).parents[2])
print(drawing())
"""
    done = run_elsewhere(program, installed, tmp_path)
    assert done.returncode == 0, done.stderr
    here, rooms, *drawn = done.stdout.splitlines()
    assert Path(here) == installed == Path(rooms)
    assert all(node in "\n".join(drawn) for node in ("classify", "route", "generate", "vote", "verify"))


def test_a_question_is_routed_without_the_checkout(installed: Path, tmp_path: Path, real_servers: None) -> None:
    """Fleets, texts, templates and exemplars are read from the installed package: a whole decision comes out."""
    program = """
from langchain_core.messages import HumanMessage
from capibara_agents.assembly import House
from capibara_agents.config import load
from capibara_agents.outcome import explain
from capibara_agents.templates import apply
from capibara_agents.types import Request
with House(load(flags={"fleet": "tiny"}).settings) as house:
    print(explain(*house.decide([HumanMessage("Hola, ¿qué tal?")], Request()), "es")["reason"])
print(apply("coding", [HumanMessage("hola")], "es")[0].type)
"""
    done = run_elsewhere(program, installed, tmp_path)
    assert done.returncode == 0, done.stderr
    reason, kind = done.stdout.splitlines()
    assert "modelo" in reason
    assert kind == "system"
