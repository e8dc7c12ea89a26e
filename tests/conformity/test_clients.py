"""Clients as their users have them, against Capibara in front of the scripted model server.

Each lists models, chats, streams, calls tools, gets JSON of a schema, and meets an error.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformity.conftest import KEY, Live

PROGRAMS = Path(__file__).with_name("clients")
LIMIT_S = 240
pytestmark = pytest.mark.timeout(LIMIT_S + 600)
DONE = {"models", "chat", "stream", "tools", "json", "errors"}


def run(live: Live, *command: str | Path, cwd: Path, **variables: str) -> set[str]:
    """A client program to its end; the names of what it did, one a line."""
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": live.base_url, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**environment, **variables}, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return set(done.stdout.split())


def script(name: str, folder: Path) -> Path:
    """A client program, put where its packages are found."""
    target = folder / name
    target.write_text((PROGRAMS / name).read_text())
    return target


def test_openai_python(live: Live, tmp_path: Path) -> None:
    """The version that this project itself installs."""
    import sys

    assert run(live, sys.executable, PROGRAMS / "openai_client.py", cwd=tmp_path) >= DONE | {"responses", "embeddings"}


def test_openai_python_3(live: Live, python_packages: Callable[..., Path], tmp_path: Path) -> None:
    python = python_packages("openai>=3,<4") / "python"
    assert run(live, python, PROGRAMS / "openai_client.py", cwd=tmp_path) >= DONE | {"responses", "embeddings"}


def test_npm_openai(live: Live, node_packages: Callable[..., Path]) -> None:
    folder = node_packages("openai@7")
    assert run(live, "node", script("openai_client.mjs", folder), cwd=folder) >= DONE | {"responses", "embeddings"}


def test_ai_sdk(live: Live, node_packages: Callable[..., Path]) -> None:
    """Both of its providers: for servers like OpenAI's, and its own for OpenAI, which speaks Responses."""
    folder = node_packages("ai@7", "@ai-sdk/openai-compatible@3", "@ai-sdk/openai@4", "zod@4")
    assert run(live, "node", script("ai_sdk.mjs", folder), cwd=folder) >= DONE | {"responses"}


def test_llm(live: Live, python_packages: Callable[..., Path], tmp_path: Path) -> None:
    """Simon Willison's command line: a model from its configuration, a prompt, a schema, a tool, an error."""
    bin_folder = python_packages("llm==0.36")
    home = tmp_path / "llm"
    home.mkdir()
    (home / "extra-openai-models.yaml").write_text(
        f"- model_id: capi\n  model_name: capibara\n  api_base: {live.base_url}\n  api_key_name: capi\n"
        "  supports_tools: true\n  supports_schema: true\n  can_stream: true\n"
    )
    (home / "keys.json").write_text(json.dumps({"capi": KEY}))

    def llm(*arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            [str(bin_folder / "llm"), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S,
            env={**os.environ, "LLM_USER_PATH": str(home), "NO_PROXY": "127.0.0.1"}, check=False, input="",
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "capi" in llm("models")
    assert "Paris" in llm("-m", "capi", "What is the capital of France?")
    assert "Paris" in llm("-m", "capi", "--no-stream", "What is the capital of France?")
    assert json.loads(llm("-m", "capi", "--schema", "name, age int", "Invent a person"))["age"] == 36
    functions = 'def get_weather(city: str) -> str:\n    "Weather of a city"\n    return "rain in " + city\n'
    assert "rain in Paris" in llm("-m", "capi", "--functions", functions, "What is the weather in Paris?")
    assert "No valid API key" in llm("-m", "capi", "--key", "wrong", "x", ok=False)


def test_chat_openai(live: Live) -> None:
    """LangChain's, with tools bound and structured output."""
    from langchain_openai import ChatOpenAI
    from openai import NotFoundError
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    def get_weather(city: str) -> str:
        """Weather of a city."""
        return city

    chat: Any = ChatOpenAI(model="capibara", base_url=live.base_url, api_key=KEY, max_retries=0)  # type: ignore[arg-type]
    assert "Paris" in chat.invoke("What is the capital of France?").content
    assert "".join(chunk.content for chunk in chat.stream("Count from 1 to 5.")) == "1, 2, 3, 4, 5"
    calls = chat.bind_tools([get_weather]).invoke("What is the weather in Paris and Madrid?").tool_calls
    assert [call["args"] for call in calls] == [{"city": "Paris"}, {"city": "Madrid"}]
    assert chat.with_structured_output(Person).invoke("Invent a person.").age == 36
    with pytest.raises(NotFoundError):
        ChatOpenAI(model="nobody", base_url=live.base_url, api_key=KEY, max_retries=0).invoke("x")  # type: ignore[arg-type]
    other: Any = ChatOpenAI(model="capibara", base_url=live.base_url, api_key=KEY, use_responses_api=True)  # type: ignore[arg-type]
    assert "Paris" in other.invoke("What is the capital of France?").text


def test_litellm_as_a_client(live: Live, tmp_path: Path) -> None:
    """In a process of its own: what it sets for itself is global."""
    import sys

    variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    assert run(live, sys.executable, PROGRAMS / "litellm_client.py", cwd=tmp_path, **variables) >= DONE
