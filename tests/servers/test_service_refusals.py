"""What a real service answers to wrong requests: OpenAI's error shape, the parameter's name, and no prompt text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from service_process import MODELS, Service, chat_body

pytestmark = pytest.mark.servers

SECRET = "swordfish-4711"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": SECRET}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

# (what is wrong, body, param of the error, code of the error)
WRONG_BODIES: list[tuple[str, Any, str | None, str]] = [
    ("no messages", {}, "messages", "invalid_request"),
    ("no model", {"messages": MESSAGES, "model": None}, "model", "invalid_request"),
    ("empty messages", {"messages": []}, "messages", "invalid_request"),
    ("messages of the wrong type", {"messages": SECRET}, "messages", "invalid_request"),
    ("a message that is no object", {"messages": [SECRET]}, "messages.0", "invalid_request"),
    ("a message without a role", {"messages": [{"content": SECRET}]}, "messages", "invalid_request"),
    ("an unknown role", {"messages": [{"role": "wizard", "content": SECRET}]}, "messages.0.role", "invalid_request"),
    ("a model that is no text", {"messages": MESSAGES, "model": 7}, "model", "invalid_request"),
    ("a temperature in words", {"messages": MESSAGES, "temperature": "hot"}, "temperature", "invalid_request"),
    ("a temperature out of range", {"messages": MESSAGES, "temperature": 3}, "temperature", "invalid_request"),
    ("no room for an answer", {"messages": MESSAGES, "max_tokens": 0}, "max_tokens", "invalid_request"),
    ("a stream that is no boolean", {"messages": MESSAGES, "stream": "perhaps"}, "stream", "invalid_request"),
    (
        "an unknown response format",
        {"messages": MESSAGES, "response_format": {"type": "xml"}},
        "response_format",
        "invalid_request",
    ),
    ("an unknown option", {"messages": MESSAGES, "capibara": {"speed": 1}}, "capibara.speed", "invalid_request"),
    ("an unknown mode", {"messages": MESSAGES, "capibara": {"mode": "guess"}}, "capibara.mode", "invalid_request"),
    ("more choices than voters", {"messages": MESSAGES, "n": 4}, "n", "unsupported_parameter"),
    ("functions", {"messages": MESSAGES, "functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    (
        "tools, which no model of the fleet calls",
        {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        "tools",
        "tools_not_supported",
    ),
    (
        "an image, which no model of the fleet sees",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": SECRET}, IMAGE]}]},
        "messages",
        "image_not_supported",
    ),
    ("a prompt too long for every model", chat_body(f"{SECRET} " * 20_000), "messages", "context_length_exceeded"),
]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """OpenAI's error object; nothing of the prompt is in it."""
    assert response.headers["x-request-id"]
    assert SECRET not in response.text
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(("body", "param", "code"), [w[1:] for w in WRONG_BODIES], ids=[w[0] for w in WRONG_BODIES])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_wrong_body_is_a_400_that_names_the_parameter(
    service: Service, body: Any, param: str, code: str, stream: bool
) -> None:
    """400, the dotted path of what is wrong, a stable code; the same for a stream, before it starts."""
    response = service.client.post(CHAT, json={"stream": stream, "model": "capibara", **body})
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["code"] == code


@pytest.mark.parametrize(
    "content", [b"{", b"", b"[]", b"\xff\xfe", b"null"], ids=["cut", "none", "list", "bytes", "null"]
)
def test_a_body_that_is_no_json_object_is_a_400(service: Service, content: bytes) -> None:
    """Whatever arrives instead of a JSON object, the answer is an error object and not a failure of the service."""
    response = service.client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert error_of(response)["type"] == "invalid_request_error"


def test_a_prompt_that_only_the_model_can_count_is_refused_too(service: Service) -> None:
    """Text whose tokens are shorter than estimated passes the route and is refused by the server: still a 400."""
    response = service.chat("\u0f40\u0f71 " * 2600, model="phi-4-mini")
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_unknown_model_is_a_404_that_lists_the_known(service: Service, stream: bool) -> None:
    """Every model of the fleet and the virtual ones are named."""
    response = service.chat("hello", model="gpt-4", stream=stream)
    assert response.status_code == 404
    error = error_of(response)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert all(name in error["message"] for name in (*MODELS, "capibara", "capibara-consensus"))
    assert service.client.get("/v1/models/gpt-4").status_code == 404


def test_a_body_over_the_limit_is_a_413(service: Service) -> None:
    """Refused by its declared length, and, without one, while it is being read."""
    large = b'{"messages": "' + b"x" * (21 * 2**20) + b'"}'
    headers = {"content-type": "application/json"}

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 2**20):
            yield large[start : start + 2**20]

    declared = service.client.post(CHAT, content=large, headers=headers)
    counted = service.client.post(CHAT, content=pieces(), headers=headers)
    for response in (declared, counted):
        assert response.status_code == 413, response.text
        assert error_of(response)["code"] == "request_too_large"


def test_a_wrong_method_is_a_405_with_allow(service: Service) -> None:
    """The header says what would be right."""
    response = service.client.get(CHAT)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert error_of(response)["code"] == "method_not_allowed"


def test_an_unknown_path_is_a_404_in_the_same_shape(service: Service) -> None:
    """No page of the framework's own."""
    response = service.client.get("/v1/nothing")
    assert response.status_code == 404
    assert error_of(response)["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "messages"), ({"input": "a", "messages": MESSAGES}, "messages"), ({"input": 7}, "input")],
    ids=["neither", "both", "number"],
)
def test_a_wrong_route_question_is_a_400(service: Service, body: Any, param: str) -> None:
    """/v1/route wants messages or input, one of them."""
    response = service.client.post("/v1/route", json=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == param


def test_a_batch_over_the_limit_is_a_400(service: Service) -> None:
    """/v1/route/batch takes up to 256 texts."""
    response = service.client.post("/v1/route/batch", json={"inputs": ["a"] * 257})
    assert response.status_code == 400
    assert error_of(response)["param"] == "inputs"
