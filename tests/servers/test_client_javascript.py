"""LangChain.js' RemoteRunnable against /capibara of a real service, under node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from service_process import Service, until

pytestmark = pytest.mark.servers

# Test tools: by name and version, without a lock file.
PACKAGES = ("@langchain/core@0.3.80", "lz-string@1.5.0")
SCRIPT = Path(__file__).with_name("remote_runnable.mjs")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client and the script; skips where there is no node, or nowhere to get the client from."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", *PACKAGES]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot get {PACKAGES[0]}")
    shutil.copy(SCRIPT, folder)
    return folder


@pytest.fixture(scope="module")
def found(client: Path, service: Service) -> dict[str, Any]:
    """What each call of the script gave."""
    done = subprocess.run(
        ["node", SCRIPT.name, service.url], cwd=client, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_invoke_and_batch(found: dict[str, Any]) -> None:
    """Messages are revived; OpenAI's roles do as well; a batch keeps its order, with a configuration for each."""
    assert found["invoke"]["isMessage"]
    assert found["invoke"]["content"].strip()
    assert found["roles"].strip()
    assert found["batchConfig"] == 2
    assert found["batch"] == ["uno", "two"]


def test_stream(found: dict[str, Any]) -> None:
    """Several pieces that add up to the answer."""
    assert found["stream"]["count"] > 2
    assert found["stream"]["said"] == "tres"


def test_stream_events_and_log(found: dict[str, Any]) -> None:
    """The nodes and the tokens are seen, filters hold, the log has its patches."""
    assert (found["events"]["first"], found["events"]["last"]) == ("on_chain_start", "on_chain_end")
    assert "on_chat_model_stream" in found["events"]["kinds"]
    assert {"classify", "route", "generate", "vote", "verify"} <= set(found["events"]["names"])
    assert found["filtered"]
    assert all(kind.startswith("on_chat_model") for kind in found["filtered"])
    assert found["log"]["count"] > 2
    assert found["log"]["ops"]
    assert found["log"]["hasOutput"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("unknownModel", "gpt-4"),
        ("kwargs", "no-such-model"),
        ("streamError", "status code 404"),
        ("configurable", "mode"),
        ("eventsError", "422"),
        ("empty", "messages"),
        ("packedWrong", "gpt-4"),
    ],
)
def test_what_is_wrong_is_an_exception(found: dict[str, Any], name: str, says: str) -> None:
    """An error with a reason, also for a stream, and for a configuration in kwargs or in the path."""
    assert found[name] is not None
    assert says in found[name]


def test_a_configuration_in_the_path(found: dict[str, Any]) -> None:
    """What lz-string packed is read, letters of Spanish too."""
    assert found["packed"].strip()
    assert found["packedStream"] > 2


def test_a_client_that_leaves_frees_the_model(found: dict[str, Any], service: Service) -> None:
    """The rest of a long answer is not written for nobody."""
    assert found["aborted"]
    assert until(lambda: not any(model["active"] for model in service.fleet().values()), 60)
