"""The command line: help, languages, exit statuses, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import yaml

from capibara_agents import cli
from capibara_agents.cli import program
from capibara_agents.errors import BadQuestion
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal
from capibara_agents.terminal.ask import Asked
from capibara_agents.terminal.serve import curl_line, refuse_open_door

COMMANDS = (
    "serve", "ask", "chat", "test", "route", "consensus", "compare", "models", "fleet", "exemplars", "data", "engine",
    "eval", "bench", "doctor", "config", "graph",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of this machine; data and weights under the test's folder."""
    for name in [n for n in os.environ if n.startswith(("CAPIBARA_", "LC_", "LANG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    """The exit status of one command."""
    try:
        cli.main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(("language", "word"), [("es", "Arranca"), ("en", "Start")])
def test_help_in_both_languages(capsys: pytest.CaptureFixture[str], language: str, word: str) -> None:
    """All commands are listed, in the language asked for, wherever --lang stands."""
    assert run("--lang", language, "--help") == 0
    out = capsys.readouterr().out
    assert word in out
    assert all(command in out for command in COMMANDS)


def test_the_language_may_come_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Where people write it; behind `--` it is a word like any other."""
    assert run("config", "check", "--fleet", "tiny", "--lang", "es") == 0
    assert "configuración" in capsys.readouterr().out
    assert run("config", "check", "--fleet", "tiny", "--lang=en") == 0
    assert "configuration" in capsys.readouterr().out
    assert run("config", "check", "--", "--lang", "es") == 2


def test_the_language_follows_the_locale(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """LANG decides where --lang does not."""
    monkeypatch.setenv("LANG", "es_PE.UTF-8")
    run("--help")
    assert "Arranca" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Name and number."""
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("capibara 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("--lang", "fr", "graph"),
        ("ask",),
        ("serve", "--port", "x"),
        ("serve", "--port", "99999"),
        ("serve", "--fleet", "huge"),
        ("serve", "--host", "0.0.0.0"),
        ("serve", "--config", "missing.yaml"),
        ("models", "pull", "nobody"),
        ("ask", "hola", "--fleet", "tiny", "--mode", "vote"),
        ("ask", "hola", "--fleet", "tiny", "--max-tokens", "0"),
        ("route", "hola", "--fleet", "tiny", "--mode", "vote"),
        ("consensus",),
        ("consensus", "hola", "--fleet", "tiny", "--voter", "nobody"),
        ("consensus", "hola", "--fleet", "tiny", "--voting", "loud"),
        ("compare", "hola", "--fleet", "tiny", "--model", "nobody"),
        ("compare", "hola", "--fleet", "tiny", "--max-tokens", "0"),
        ("chat", "--fleet", "tiny", "--model", "nobody"),
        ("test", "fly", "--fleet", "tiny"),
        ("test", "--fleet", "tiny", "--json"),
        ("bench", "--fleet", "tiny", "--calls", "0"),
        ("bench", "nobody", "--fleet", "tiny"),
        ("data", "delete"),
        ("data", "delete", "secrets", "--yes"),
        ("graph", "--lang", "fr"),
    ],
)
def test_wrong_use_is_status_2_and_one_sentence(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Said on standard error, without a traceback; nothing on standard output."""
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.strip()
    assert "Traceback" not in told.err


def test_a_failure_is_status_1_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """No weights: how to get them. Nothing was started."""
    own = Path("capibara.yaml")
    own.write_text(yaml.safe_dump({"fleet": "tiny", "runtime": {"llama_server": sys.executable}}))
    status = run("models", "verify")
    assert status == 1
    assert "capibara models pull" in capsys.readouterr().err


def test_an_unknown_key_is_named_with_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2."""
    Path("capibara.yaml").write_text("servr: {port: 1}\n")
    assert run("config", "check") == 2
    told = capsys.readouterr().err
    assert "servr" in told
    assert "capibara.yaml" in told


def test_the_configuration_is_shown_without_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """An output that can be pasted into a bug report."""
    Path("capibara.yaml").write_text("fleet: tiny\nserver: {api_keys: [swordfish]}\n")
    assert run("config", "show") == 0
    out = capsys.readouterr().out
    assert "swordfish" not in out
    assert json.loads(out)["settings"]["server"]["api_keys"] == ["***"]


def test_models_list_as_json_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """One object, five models, none of them here."""
    assert run("models", "list", "--fleet", "tiny", "--json") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert len(models) == 5
    assert not any(model["present"] for model in models)


def test_the_graph_as_mermaid_and_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """Without starting anything."""
    assert run("graph") == 0
    assert "graph TD" in capsys.readouterr().out
    assert run("graph", "--ascii") == 0
    assert "| classify |" in capsys.readouterr().out
    assert run("graph", "--json") == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0] == "START"


def test_what_nobody_expected_is_one_sentence_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the program: its kind, no trace, no text of a prompt; status 1."""

    def broken(language: str) -> None:
        raise RuntimeError("a secret prompt")

    monkeypatch.setattr(program, "build", broken)
    assert run("graph") == 1
    told = capsys.readouterr().err
    assert "RuntimeError" in told
    assert "secret" not in told


def test_help_is_quick_because_it_imports_little() -> None:
    """None of the slow libraries is loaded for --help."""
    code = (
        "import sys\nfrom capibara_agents import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "slow = {'litellm', 'langgraph', 'langchain_core', 'chromadb', 'fastapi', 'openai'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(slow)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the parts


def test_a_question_is_checked_before_anything_starts() -> None:
    """Every option of ask, as the same clear error."""
    for wrong in (Asked("x", "capibara", "vote"), Asked("x", "capibara", "auto", max_tokens=0)):
        with pytest.raises(BadQuestion):
            wrong.request()


@pytest.mark.parametrize(
    ("host", "keys", "insecure", "refused"),
    [
        ("127.0.0.1", (), False, False),
        ("::1", (), False, False),
        ("localhost", (), False, False),
        ("0.0.0.0", (), False, True),
        ("example.org", (), False, True),
        ("0.0.0.0", ("k",), False, False),
        ("0.0.0.0", (), True, False),
    ],
)
def test_no_open_door(settings: Settings, host: str, keys: tuple[str, ...], insecure: bool, refused: bool) -> None:
    """Beyond this machine only with a key, or when somebody insists."""
    from capibara_agents.errors import ConfigError

    server = settings.server.model_copy(update={"host": host, "api_keys": keys, "insecure": insecure})
    changed = settings.model_copy(update={"server": server})
    if refused:
        with pytest.raises(ConfigError, match="insecure"):
            refuse_open_door(changed, Terminal("en"))
    else:
        refuse_open_door(changed, Terminal("en"))


@pytest.mark.parametrize("language", ["es", "en"])
def test_the_curl_line_can_be_pasted(settings: Settings, language: str) -> None:
    """A shell reads it as one command with a JSON body."""
    import shlex

    question = Terminal(language).text("serve.example")  # type: ignore[arg-type]
    words = shlex.split(curl_line(settings, "http://127.0.0.1:1", question))
    assert words[0] == "curl"
    assert json.loads(words[words.index("-d") + 1])["messages"][0]["content"] == question


def test_a_taken_port_is_said_in_one_sentence(settings: Settings) -> None:
    """With the way out."""
    from capibara_agents.errors import CapibaraError
    from capibara_agents.terminal.serve import _listen

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = settings.server.model_copy(update={"port": other.getsockname()[1]})
        with pytest.raises(CapibaraError, match="--port"):
            _listen(settings.model_copy(update={"server": server}), Terminal("en"))


def test_ctrl_c_while_the_command_line_is_still_imported_is_no_traceback() -> None:
    """Exit status 130, and nothing said."""
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "from capibara_agents import cli\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "cli.main(['--help'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_full_disk_is_told_as_the_system_says_it() -> None:
    """Not as something unexpected."""
    code = "from capibara_agents import cli; cli.main(['--lang', 'es', 'config', 'schema'])"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, encoding="utf-8", check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: El sistema no lo permite: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [("ask", "-"), ("test", "router", "-")])
def test_a_dash_is_the_whole_of_standard_input(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """As one question, however long, and whatever its bytes."""
    asked: list[str | None] = []
    monkeypatch.setattr("capibara_agents.terminal.ask.run", lambda settings, it, *_, **__: asked.append(it.question))
    monkeypatch.setattr("capibara_agents.terminal.trials.run", lambda settings, it, *_, **__: asked.append(it.question))
    piped = TextIOWrapper(BytesIO("¿Qué dice?\n".encode() + b"\xff" + b"a" * 200_000))
    monkeypatch.setattr(sys, "stdin", piped)
    assert run(*command) == 0
    assert asked == ["¿Qué dice?\n\ufffd" + "a" * 200_000]
