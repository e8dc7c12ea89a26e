"""What a chat request may ask for: honoured, or refused by name. Nothing that means something is dropped in silence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for

from capibara_agents.errors import BadQuestion

# Parameters that mean something, here or at other servers, and that nothing here can honour.
REFUSED = {
    "audio": "audio",
    "functions": "functions; use tools",
    "function_call": "function_call; use tool_choice",
    "web_search_options": "web search",
    "prediction": "prediction",
    "reasoning_effort": "choice of reasoning effort; it is set for each model in the configuration",
    "reasoning": "choice of reasoning; it is set for each model in the configuration",
    "verbosity": "choice of verbosity",
    "top_k": "top_k; use top_p",
    "top_a": "top_a; use top_p",
    "min_p": "min_p; use top_p",
    "typical_p": "typical_p; use top_p",
    "repetition_penalty": "repetition_penalty; use presence_penalty or frequency_penalty",
    "repeat_penalty": "repeat_penalty; use presence_penalty or frequency_penalty",
    "min_tokens": "min_tokens",
    "ignore_eos": "ignore_eos",
    "stop_token_ids": "stop_token_ids; use stop",
    "bad_words": "bad_words",
    "best_of": "best_of; use n",
    "grammar": "grammars of the caller's; use response_format",
    "guided_json": "guided_json; use response_format",
    "guided_regex": "guided_regex; use response_format",
    "guided_choice": "guided_choice; use response_format",
    "guided_grammar": "guided_grammar; use response_format",
    "json_schema": "json_schema beside the messages; use response_format",
    "chat_template": "chat templates of the caller's",
    "chat_template_kwargs": "chat_template_kwargs; they are set for each model in the configuration",
    "continue_final_message": "continue_final_message",
    "models": "list of models; use capibara.voters",
}
ROLES = ("system", "developer", "user", "assistant", "tool")
# Ways to say "no", which ask for nothing.
_NOTHING: tuple[Any, ...] = (None, False, [], {})
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_DATA_URL = re.compile(r"data:image/[A-Za-z0-9.+-]+;base64,")


def check_parameters(extra: Mapping[str, Any], *, param: Callable[[str], str] = str) -> None:
    """BadQuestion for the first field of a body that nothing here can honour."""
    for name, what in REFUSED.items():
        if not any(extra.get(name) is no or extra.get(name) == no for no in _NOTHING):
            raise unsupported(param(name), f"This service has no {what}.")
    if extra.get("modalities") not in (None, ["text"]):
        raise unsupported("modalities", "Answers are text; modalities can be left out.")


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """BadQuestion names the first message, or part of one, that is not as it must be."""
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        role = message.get("role")
        if role not in ROLES:
            raise BadQuestion(f"{where}.role must be one of {', '.join(ROLES)}.", param=f"{where}.role")
        if role == "tool" and not isinstance(message.get("tool_call_id"), str):
            path = f"{where}.tool_call_id"
            raise BadQuestion(f"{path} must name the call that this is the result of.", param=path)
        if message.get("audio") is not None or message.get("function_call") is not None:
            key = "audio" if message.get("audio") is not None else "function_call"
            raise unsupported(f"{where}.{key}", f"{where}.{key} cannot be read here.")
        calls = message.get("tool_calls")
        if calls is not None:
            _check_calls(calls, role, f"{where}.tool_calls")
        _check_content(message.get("content"), f"{where}.content", may_be_empty=role == "assistant")


def _check_calls(calls: Any, role: Any, where: str) -> None:
    if role != "assistant" or not isinstance(calls, list):
        raise BadQuestion(f"{where} must be a list, in a message of the assistant's.", param=where)
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        texts = (
            [call.get("id"), function.get("name"), function.get("arguments")] if isinstance(function, Mapping) else []
        )
        if not texts or not all(isinstance(text, str) for text in texts):
            path = f"{where}.{number}"
            raise BadQuestion(f"{path} must have an id and a function with name and arguments, all texts.", param=path)


def _check_content(content: Any, where: str, *, may_be_empty: bool) -> None:
    if isinstance(content, str) or (content is None and may_be_empty):
        return
    if not isinstance(content, list):
        raise BadQuestion(f"{where} must be a text or a list of parts.", param=where)
    for number, part in enumerate(content):
        _check_part(part, f"{where}.{number}")


def _check_part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("text", "refusal"):
        if not isinstance(part.get(kind), str):
            raise BadQuestion(f"{where}.{kind} must be a text.", param=f"{where}.{kind}")
    elif kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else None
        if not isinstance(url, str) or not _DATA_URL.match(url):
            path = f"{where}.image_url.url"
            # Nothing is fetched for a caller: an address could lie behind this machine's own door.
            raise BadQuestion(f"{path} must be a data URL, data:image/…;base64,…; nothing is fetched.", param=path)
    elif kind in ("input_audio", "file"):
        raise unsupported(where, f"{where}: this service reads text and images, no {kind}.")
    else:
        raise BadQuestion(f"{where}.type must be text or image_url.", param=f"{where}.type")


def check_tools(tools: Sequence[Any], choice: Any) -> None:
    """BadQuestion for a tool that is no function, or a choice of one that is not there."""
    names = [_tool_name(tool, f"tools.{number}") for number, tool in enumerate(tools)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadQuestion("tools names one function twice.", param="tools")
    if choice in (None, "none", "auto"):
        return
    if not tools:
        raise BadQuestion("tool_choice needs tools to choose from.", param="tool_choice")
    if choice == "required":
        return
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    if not isinstance(function, Mapping) or function.get("name") not in names:
        message = "tool_choice must be none, auto, required, or a function that tools names."
        raise BadQuestion(message, param="tool_choice")


def _tool_name(tool: Any, where: str) -> str:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        raise unsupported(f"{where}.type", f"{where}.type must be function; this service has no tools of its own.")
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not _NAME.fullmatch(name):
        path = f"{where}.function.name"
        raise BadQuestion(f"{path} must be 1 to 128 letters, digits, dots, dashes or underscores.", param=path)
    parameters = function.get("parameters")
    if parameters is not None:
        _check_schema(parameters, f"{where}.function.parameters")
    return name


def check_format(response_format: Mapping[str, Any] | None) -> None:
    """BadQuestion for a schema that is none."""
    if response_format is None or response_format.get("type") != "json_schema":
        return
    given = response_format.get("json_schema")
    if not isinstance(given, Mapping) or "schema" not in given:
        path = "response_format.json_schema.schema"
        raise BadQuestion(f"{path} is missing.", param=path)
    _check_schema(given["schema"], "response_format.json_schema.schema")


def _check_schema(schema: Any, where: str) -> None:
    if not isinstance(schema, dict):
        raise BadQuestion(f"{where} must be an object.", param=where)
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except (SchemaError, RecursionError, TypeError, AttributeError, ValueError):
        raise BadQuestion(f"{where} is not a valid JSON Schema.", param=where) from None


def check_bias(bias: Mapping[str, float] | None, *, named: bool) -> None:
    """BadQuestion for a bias on tokens of nobody knows which model, or out of OpenAI's range."""
    if not bias:
        return
    if not named:
        message = "logit_bias names tokens by number, which differ from model to model; ask a model by its own name."
        raise unsupported("logit_bias", message)
    for token, value in bias.items():
        if not token.isdecimal() or not -100 <= value <= 100:
            path = "logit_bias"
            raise BadQuestion(f"{path} must map token numbers to values from -100 to 100.", param=path)


def unsupported(param: str, message: str) -> BadQuestion:
    """A parameter that means something and cannot be honoured."""
    return BadQuestion(message, param=param, code="unsupported_parameter")
