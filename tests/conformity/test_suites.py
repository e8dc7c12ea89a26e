"""Published conformity suites against Capibara in front of the scripted model server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformity.conftest import KEY, Live
from tests.fakes import PHI

# Generous: the machine may be busy with other things. What is installed first takes its time too.
LIMIT_S = 600
pytestmark = pytest.mark.timeout(LIMIT_S + 600)


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A suite to its end; it reports to nobody."""
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


# Two turns of a conversation: the virtual model may give the second one to another model, which has not read the first.
ONE_MODEL = "prefix cache reuses a growing conversation"


def test_llmprobe_finds_no_must_broken(live: Live, node_packages: Callable[..., Path], tmp_path: Path) -> None:
    """Every MUST of every surface there is, the slow ones too: chat, responses, completions, embeddings, models.

    What is said of two turns of one conversation is asked of a model by its name.
    """
    folder = node_packages("llmprobe@0.6")
    results = [r for r in probed(live, folder, "capibara", tmp_path) if ONE_MODEL not in r["name"]]
    named = [r for r in probed(live, folder, PHI, tmp_path) if ONE_MODEL in r["name"]]
    broken = [f"{result['name']}: {failure}" for result in (*results, *named) for failure in musts(result)]
    assert not broken, "\n".join(broken)
    assert all(result["outcome"] != "error" for result in (*results, *named))
    assert {"chat", "responses", "completions", "embeddings", "models"} <= {result["surface"] for result in results}
    assert {"chat", "responses"} <= {result["surface"] for result in named}


def probed(live: Live, folder: Path, model: str, where: Path) -> list[Any]:
    """What llmprobe found about a model."""
    report = where / f"{model}.json"
    done = run(
        folder / "node_modules" / ".bin" / "llmprobe", live.url, "-k", KEY, "-m", model, "--full", "--no-bench",
        "--no-save", "--no-color", "--save", report, cwd=where,
    )  # fmt: skip
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    found: list[Any] = json.loads(report.read_text())["conformance"]["results"]
    return found


def musts(result: dict[str, Any]) -> list[Any]:
    """What llmprobe says must be and is not; where it says no severity, it means that."""
    return [failure for failure in result["failures"] if failure.get("severity", "MUST") == "MUST"]


def test_compatcanary_passes_all_it_requires(live: Live, node_packages: Callable[..., Path], tmp_path: Path) -> None:
    folder = node_packages("compatcanary@0.2")
    canary = folder / "node_modules" / ".bin" / "compatcanary"
    done = run(
        canary, "scan", "--base-url", live.base_url, "--model", "capibara", "--api-key", KEY, "--format", "json",
        "--fail-on", "any", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("kind", ["openai-chat", "open-responses"])
def test_llm_comply_passes(live: Live, python_packages: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    """Every test that it does not skip by itself, as it does for models that are not OpenAI's."""
    bin_folder = python_packages("llm-comply==0.5.0", "schemathesis==4.32.5", "hypothesis<6.160")
    done = run(
        bin_folder / "llm-comply", "-u", live.base_url, "-k", KEY, "-m", "capibara", "--format", kind, "--json",
        cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(done.stdout)
    failed = [f"{one['name']}: {one['errors']}" for one in found["results"] if one["status"] == "failed"]
    assert not failed, "\n".join(failed)
    assert sum(one["status"] == "passed" for one in found["results"]) >= 8


PATHS = "v1|health|graph|fleet$|fleet/models|stats|metrics|api|ok|info|assistants|runs|threads"
# The five POSTs of LangServe take the same body and read it in the same way: two of them, and all that have no input.
LANGSERVE = "capibara/(invoke$|stream_log$|[a-z]*_schema$|playground/$|c/)"


def test_schemathesis_finds_nothing(live: Live, python_packages: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever the OpenAPI document allows or forbids is answered as it says.

    Not asked: that everything the schemas allow is accepted, since they cannot say that a function must be among the
    tools; and the stream of fleet events, which has no end. 502, 503 and 504 are answers that the document describes.
    """
    bin_folder = python_packages("llm-comply==0.5.0", "schemathesis==4.32.5", "hypothesis<6.160")
    (tmp_path / "schemathesis.toml").write_text(
        f'headers = {{ Authorization = "Bearer {KEY}" }}\n'
        "[checks]\n"
        'not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 504]\n'
        "positive_data_acceptance.enabled = false\n"
    )
    done = run(
        bin_folder / "schemathesis", "run", f"{live.url}/openapi.json", "--max-examples", "4", "--seed", "1",
        "--phases", "examples,coverage,fuzzing", "--include-path-regex", f"^/({PATHS}|{LANGSERVE})",
        "--request-timeout", "60", "--no-color", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
