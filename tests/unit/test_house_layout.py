"""The house keeps its rooms: what stands at the root, who may import what, who reads the environment."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from capibara_agents.version import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "capibara_agents"
# The list of docs: the layout that the project's owner fixed, and what the ecosystem expects beside it.
ENTRIES = {
    "pyproject.toml", "capibara_agents", "graphs", "prompts", "runtime", "tests", "server.py",
    "README.md", "README.es.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "requirements.lock",
    "langgraph.json", "capibara.example.yaml", "docs", "benchmarks", "deploy", ".ci",
}  # fmt: skip
DOTFILES = re.compile(
    r"\.(?:gitignore|gitattributes|editorconfig|pre-commit-config\.yaml|dockerignore|github|python-version)"
)
LINKED = ("graphs", "prompts", "runtime")
VAGUE = ("utils", "helpers", "manager", "common")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of the package and of the linked rooms, by its path from the root."""
    for folder in (PACKAGE, ROOT / "graphs", ROOT / "runtime"):
        for file in sorted(folder.rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def importers(package: str) -> set[str]:
    return {name for name, tree in sources() if any(m.partition(".")[0] == package for m in imports(tree))}


def test_the_root_holds_nothing_unexpected() -> None:
    """Only what the architecture lists."""
    top = {name.partition("/")[0] for name in tracked()}
    strangers = {name for name in top - ENTRIES if not DOTFILES.fullmatch(name)}
    assert not strangers


def test_the_rooms_at_the_root_are_linked_into_the_package() -> None:
    """Relative links, so that a clone anywhere works."""
    for name in LINKED:
        link = PACKAGE / name
        assert link.is_symlink(), name
        assert str(link.readlink()) == f"../{name}"


def test_nobody_imports_the_rooms_bare() -> None:
    """It is capibara_agents.graphs everywhere, in tests too; relative imports are no way around it."""
    everywhere = [*sources()]
    for folder in ("tests", "benchmarks"):
        files = sorted((ROOT / folder).rglob("*.py"))
        everywhere += [(str(f.relative_to(ROOT)), ast.parse(f.read_text(encoding="utf-8"))) for f in files]
    bare = {(name, module) for name, tree in everywhere for module in imports(tree) if module.split(".")[0] in LINKED}
    assert not bare


def test_one_door_each() -> None:
    """LiteLLM and Chroma are imported in one place."""
    assert importers("litellm") == {"capibara_agents/models.py"}
    assert importers("chromadb") == {"capibara_agents/exemplars.py"}


def test_only_config_reads_the_environment() -> None:
    """os.environ, os.getenv and their imports."""
    readers = set()
    for name, tree in sources():
        for node in ast.walk(tree):
            attribute = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb", "putenv")
            imported = isinstance(node, ast.ImportFrom) and node.module == "os"
            if attribute and isinstance(node.value, ast.Name) and node.value.id == "os":  # type: ignore[attr-defined]
                readers.add(name)
            if imported and {a.name for a in node.names} & {"environ", "getenv"}:  # type: ignore[attr-defined]
                readers.add(name)
    assert readers == {"capibara_agents/config.py"}


def test_only_assembly_puts_the_rooms_together() -> None:
    """The library knows neither processes nor the graph; http knows no process."""
    for name, tree in sources():
        modules = set(imports(tree))
        if name.startswith("capibara_agents/") and name.count("/") == 1 and name != "capibara_agents/assembly.py":
            assert not {m for m in modules if m.startswith(("capibara_agents.graphs", "capibara_agents.runtime"))}, name
        if name.startswith(("capibara_agents/http/", "graphs/")):
            assert not {m for m in modules if m.startswith("capibara_agents.runtime")}, name


def test_the_wheel_and_the_entry_import_nothing_at_import_time() -> None:
    """`import capibara_agents` is cheap: what is slow comes with the first use."""
    slow = "{'litellm', 'langgraph', 'chromadb', 'fastapi'}"
    code = f"import sys, capibara_agents; sys.exit(bool({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", timeout=60, check=False)
    assert done.returncode == 0


def test_files_have_names_and_a_size() -> None:
    """No drawer for odds and ends, no file of more than 500 lines."""
    for name in tracked():
        path = Path(name)
        if path.suffix == ".py" and (ROOT / name).exists():
            assert path.stem not in VAGUE, name
            if not name.startswith("tests/"):
                assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 500, name


def test_the_package_and_its_project_have_one_version() -> None:
    """What is installed and what it says of itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
