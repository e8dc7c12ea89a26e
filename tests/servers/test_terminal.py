"""The terminal as its user meets it: help, questions, and starts that are refused with one sentence."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from service_process import MODELS, Service, run_capibara

SPANISH = {"LANG": "es_ES.UTF-8"}


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def complaint(text: str) -> str:
    """The one line that says what is wrong; a second one, or a trace, is too much."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


# ---------------------------------------------------------------- help


def test_help_lists_the_commands(tmp_path: Path) -> None:
    """In English and in Spanish, by LANG and by --lang."""
    english = run_capibara("--help", cwd=tmp_path)
    spanish = run_capibara("--help", cwd=tmp_path, **SPANISH)
    chosen = run_capibara("--lang", "es", "--help", cwd=tmp_path)
    for done in (english, spanish, chosen):
        assert done.returncode == 0
        assert all(command in done.stdout for command in ("serve", "ask", "route", "models", "doctor"))
    assert "Start the HTTP service" in english.stdout
    assert "servicio" in spanish.stdout
    assert spanish.stdout == chosen.stdout


def test_a_wrong_command_is_wrong_use(tmp_path: Path) -> None:
    """Exit status 2, as for every misuse."""
    assert run_capibara("fly", cwd=tmp_path).returncode == 2
    assert run_capibara("serve", "--port", "many", cwd=tmp_path).returncode == 2


# ---------------------------------------------------------------- refused starts


def test_a_taken_port_is_said_in_one_sentence(tmp_path: Path, taken_port: int, real_servers: None) -> None:
    """Exit status 1, the port and the way out; nothing is started."""
    port = str(taken_port)
    done = run_capibara("serve", "--fleet", "tiny", "--port", port, cwd=tmp_path, CAPIBARA_RUNTIME__DATA_DIR="data")
    assert done.returncode == 1
    assert port in complaint(done.stderr)
    assert "--port" in done.stderr
    assert done.stdout == ""


def test_a_taken_port_is_said_in_spanish_too(tmp_path: Path, taken_port: int, real_servers: None) -> None:
    """The same sentence in the language of the terminal."""
    arguments = ("serve", "--fleet", "tiny", "--port", str(taken_port))
    done = run_capibara(*arguments, cwd=tmp_path, CAPIBARA_RUNTIME__DATA_DIR="data", **SPANISH)
    assert done.returncode == 1
    assert "puerto" in complaint(done.stderr)


def test_an_unknown_key_of_the_configuration_names_key_and_file(tmp_path: Path) -> None:
    """Exit status 2 before anything starts."""
    (tmp_path / "mine.yaml").write_text("server:\n  prot: 8001\n", encoding="utf-8")
    done = run_capibara("serve", "--config", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "server.prot" in complaint(done.stderr)
    assert "mine.yaml" in done.stderr


def test_an_unknown_variable_names_itself(tmp_path: Path) -> None:
    """A misspelt CAPIBARA_ variable is not ignored either."""
    done = run_capibara("serve", "--fleet", "tiny", cwd=tmp_path, CAPIBARA_SERVER__PROT="8001")
    assert done.returncode == 2
    assert "CAPIBARA_SERVER__PROT" in complaint(done.stderr)


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Exit status 2, and the file's name."""
    done = run_capibara("serve", "--config", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere.yaml" in complaint(done.stderr)


def test_without_weights_the_command_to_run_is_said(tmp_path: Path, real_servers: None) -> None:
    """Exit status 1 and `capibara models pull`; nothing is downloaded and nothing started."""
    empty = tmp_path / "empty"
    empty.mkdir()
    folders = {"CAPIBARA_RUNTIME__WEIGHTS_DIR": str(empty), "CAPIBARA_RUNTIME__DATA_DIR": str(tmp_path / "data")}
    done = run_capibara("serve", "--fleet", "tiny", "--port", "0", cwd=tmp_path, **folders)
    assert done.returncode == 1
    assert "capibara models pull" in complaint(done.stderr)
    assert not list(empty.iterdir())


def test_a_llama_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Exit status 1, the path and the key to correct."""
    variables = {"CAPIBARA_RUNTIME__LLAMA_SERVER": "/nowhere/llama-server", "CAPIBARA_RUNTIME__DATA_DIR": "data"}
    done = run_capibara("serve", "--fleet", "tiny", "--port", "0", cwd=tmp_path, **variables)
    assert done.returncode == 1
    assert "/nowhere/llama-server" in complaint(done.stderr)
    assert "runtime.llama_server" in done.stderr


def test_an_address_beyond_this_machine_needs_a_key(tmp_path: Path) -> None:
    """Without an API key and without --insecure it is refused: exit status 2."""
    done = run_capibara("serve", "--fleet", "tiny", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "--insecure" in complaint(done.stderr)


# ---------------------------------------------------------------- questions


@pytest.mark.servers
def test_ask_without_a_service_starts_and_stops_what_it_needs(tmp_path: Path, real_servers: None) -> None:
    """Answer and decision as JSON on stdout, the note on stand-ins beside it; and no process is left."""
    arguments = ("ask", "--fleet", "tiny", "--json", "--max-tokens", "8", "¿Cuál es la capital de Perú?")
    done = run_capibara(
        *arguments, cwd=tmp_path, CAPIBARA_RUNTIME__DATA_DIR=str(tmp_path / "data"), CAPIBARA_SERVER__PORT="0"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["content"].strip()
    assert said["capibara"]["classification"]["language"] == "es"
    assert "SmolLM2" in done.stderr


@pytest.mark.servers
def test_ask_uses_the_service_that_runs(tmp_path: Path, service: Service) -> None:
    """The service's own server answers: it is asked through its port, and no second fleet is started."""
    variables = {"CAPIBARA_SERVER__PORT": str(urlsplit(service.url).port)}
    arguments = ("ask", "--fleet", "tiny", "--model", "phi-4-mini", "--max-tokens", "8", "What is the capital of Peru?")
    done = run_capibara(*arguments, cwd=tmp_path, **variables, CAPIBARA_RUNTIME__DATA_DIR=str(tmp_path / "never"))
    assert done.returncode == 0, done.stderr
    assert "phi-4-mini" in done.stdout
    assert "Decision" in done.stdout
    assert not (tmp_path / "never").exists()


@pytest.mark.servers
def test_ask_speaks_spanish_in_a_spanish_terminal(tmp_path: Path, service: Service) -> None:
    """The decision, its reason and the notes are in Spanish."""
    variables = {"CAPIBARA_SERVER__PORT": str(urlsplit(service.url).port), **SPANISH}
    done = run_capibara(
        "ask", "--fleet", "tiny", "--max-tokens", "8", "¿Cuál es la capital de Perú?", cwd=tmp_path, **variables
    )
    assert done.returncode == 0, done.stderr
    assert "Decisión" in done.stdout
    assert "modelo" in done.stdout
    assert "Decision" not in done.stdout


@pytest.mark.servers
def test_a_wrong_model_is_wrong_use(tmp_path: Path, service: Service) -> None:
    """`ask --model` with a name nobody knows: exit status 2 and the list."""
    variables = {"CAPIBARA_SERVER__PORT": str(urlsplit(service.url).port)}
    done = run_capibara("ask", "--fleet", "tiny", "--model", "gpt-4", "hello", cwd=tmp_path, **variables)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(name in done.stderr for name in MODELS)


def test_route_shows_the_decision_alone(tmp_path: Path, real_servers: None) -> None:
    """As JSON on stdout; no model is started, with weights or without."""
    folders = {"CAPIBARA_RUNTIME__DATA_DIR": str(tmp_path / "data")}
    done = run_capibara("route", "--fleet", "tiny", "--json", "¿Cuánto es 12*7?", cwd=tmp_path, **folders, **SPANISH)
    assert done.returncode == 0, done.stderr
    decided = json.loads(done.stdout)
    assert decided["language"] == "es"
    assert decided["model"] in MODELS
    assert "modelo" in decided["reason"]


def at(service: Service, tmp_path: Path) -> dict[str, str]:
    """The variables with which a command finds the service, and would otherwise have a folder of its own."""
    port = str(urlsplit(service.url).port)
    return {"CAPIBARA_SERVER__PORT": port, "CAPIBARA_RUNTIME__DATA_DIR": str(tmp_path / "never")}


@pytest.mark.servers
def test_compare_asks_every_model(tmp_path: Path, service: Service) -> None:
    """Five answers with their figures, from the service that runs."""
    arguments = ("compare", "--fleet", "tiny", "--max-tokens", "6", "--json", "What is the capital of Peru?")
    done = run_capibara(*arguments, cwd=tmp_path, **at(service, tmp_path))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["models"]
    assert [row["id"] for row in rows] == list(MODELS)
    assert all(row["error"] is None and row["ttft_ms"] > 0 and row["completion_tokens"] > 0 for row in rows)
    assert not (tmp_path / "never").exists()


@pytest.mark.servers
def test_consensus_shows_the_ballot(tmp_path: Path, service: Service) -> None:
    """In Spanish: who voted, how much they agreed."""
    voters = ("--voter", "phi4:mini", "--voter", "mistral_balanced")
    arguments = ("consensus", "--fleet", "tiny", "--max-tokens", "12", *voters, "¿Cuánto es 2+2?")
    done = run_capibara(*arguments, cwd=tmp_path, **at(service, tmp_path), **SPANISH)
    assert done.returncode == 0, done.stderr
    assert "phi-4-mini" in done.stdout
    assert "acuerdo" in done.stdout or "respondió" in done.stdout


@pytest.mark.servers
def test_a_chat_through_a_pipe(tmp_path: Path, service: Service) -> None:
    """Two questions of one conversation; the second one's prompt holds the first. Answers alone on standard output."""
    arguments = ("chat", "--fleet", "tiny", "--model", "phi-4-mini", "--max-tokens", "6", "--json")
    done = run_capibara(*arguments, cwd=tmp_path, typed="Hello.\nAnd now?\n/exit\n", **at(service, tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["question"], second["question"]) == ("Hello.", "And now?")
    read = [line["capibara"]["usage"]["prompt_tokens"] for line in (first, second)]
    assert read[1] > read[0] + first["capibara"]["usage"]["completion_tokens"]


@pytest.mark.servers
def test_what_is_kept_is_listed_and_deleted_through_the_service(tmp_path: Path, service: Service) -> None:
    """The folder's owner counts and forgets; without a yes nothing happens."""
    body = {"model": "phi-4-mini", "input": "hi", "max_output_tokens": 4, "store": True}
    kept = service.client.post("/v1/responses", json=body)
    assert kept.status_code == 200
    folder = {"CAPIBARA_RUNTIME__DATA_DIR": service.client.get("/v1/data").json()["data_dir"]}

    def responses() -> int:
        listed = run_capibara("data", "list", "--json", cwd=tmp_path, **folder)
        assert listed.returncode == 0, listed.stderr
        return int({row["kind"]: row["count"] for row in json.loads(listed.stdout)["data"]}["responses"])

    assert responses() >= 1
    refused = run_capibara("data", "delete", "responses", cwd=tmp_path, **folder)
    assert refused.returncode == 2
    assert "--yes" in complaint(refused.stderr)
    assert responses() >= 1
    assert run_capibara("data", "delete", "responses", "--yes", cwd=tmp_path, **folder).returncode == 0
    assert responses() == 0
    assert service.client.get(f"/v1/responses/{kept.json()['id']}").status_code == 404


def test_models_list_says_what_they_are(tmp_path: Path, real_servers: None) -> None:
    """All five, their weights here, each a stand-in; the list of the terminal says so in words."""
    done = run_capibara("models", "list", "--fleet", "tiny", "--json", cwd=tmp_path)
    models = json.loads(done.stdout)["models"]
    assert [model["id"] for model in models] == list(MODELS)
    assert all(model["present"] and model["stand_in"] for model in models)
    assert "stand-in" in run_capibara("models", "list", "--fleet", "tiny", cwd=tmp_path).stdout.replace("\n", "")


def test_doctor_is_content_with_this_machine(tmp_path: Path, real_servers: None) -> None:
    """Everything found, exit status 0; without weights, status 1 and what to do."""
    content = run_capibara("doctor", "--fleet", "tiny", cwd=tmp_path, CAPIBARA_SERVER__PORT="0")
    assert content.returncode == 0, content.stdout
    empty = {"CAPIBARA_RUNTIME__WEIGHTS_DIR": str(tmp_path / "none"), "CAPIBARA_SERVER__PORT": "0"}
    unhappy = run_capibara("doctor", "--fleet", "tiny", cwd=tmp_path, **empty)
    assert unhappy.returncode == 1
    assert "capibara models pull" in unhappy.stdout
