"""What a finished run comes to: an answer, or the error that explains why there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from capibara_agents.errors import (
    BadQuestion,
    CapibaraError,
    ModelCrashed,
    ModelLoading,
    ModelTimeout,
    ModelUnavailable,
    NoAnswer,
)
from capibara_agents.outcome import explain, settle
from capibara_agents.types import Ballot, Candidate, Plan, Reason, Timings, Usage, Verdict
from tests.fakes import classification

PLAN = Plan(
    mode="single",
    models=("a",),
    tier="general",
    first_choice="a",
    reason=Reason(
        code="route.table",
        values={"model": "a", "domain": "math", "level": "complex", "language": "es", "confidence": 90},
    ),
)


def candidate(**rest: Any) -> Candidate:
    return Candidate(**{"model": "a", "timings": Timings(wait_ms=0, total_ms=1), **rest})


def state(*candidates: Candidate, chosen: str | None = None) -> dict[str, Any]:
    return {
        "classification": classification(),
        "plan": PLAN,
        "candidates": list(candidates),
        "ballot": Ballot(winner=chosen, method="pass", agreement=1, confidence=1),
        "verdict": Verdict(accepted=True, candidate=chosen, final=True),
        "timings_ms": {"classify": 1.0},
    }


def test_an_answer_carries_its_decision() -> None:
    """The message holds text, usage and a trace that is plain JSON."""
    answer = settle(state(candidate(content="hola", usage=Usage(prompt_tokens=2, completion_tokens=3)), chosen="1:a"))
    message = answer.message()
    assert message.content == "hola"
    assert message.usage_metadata == {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}
    trace = message.response_metadata["capibara"]
    assert set(json.loads(json.dumps(trace))) == {
        "classification", "plan", "candidates", "ballot", "verdict", "timings_ms",
    }  # fmt: skip


def test_tool_calls_become_langchains() -> None:
    """Arguments are parsed where they can be; where not, the call is kept as invalid."""
    calls = ({"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},)
    message = settle(state(candidate(tool_calls=calls), chosen="1:a")).message()
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [("f", {"x": 1})]
    broken = ({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}},)
    assert settle(state(candidate(tool_calls=broken), chosen="1:a")).message().invalid_tool_calls


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        (["model_loading"], ModelLoading),
        (["model_crashed", "model_loading"], ModelLoading),
        (["model_unavailable"], ModelUnavailable),
        (["model_crashed"], ModelUnavailable),
        (["model_timeout"], ModelTimeout),
        (["deadline", "model_timeout"], ModelTimeout),
        (["model_error"], NoAnswer),
        (["model_timeout", "model_crashed"], NoAnswer),
        (["model_crashed", "invalid_request"], BadQuestion),
        (["context_length_exceeded"], BadQuestion),
    ],
)
def test_the_error_says_what_the_caller_can_do(errors: list[str], kind: type[CapibaraError]) -> None:
    """The caller's own mistake first, then what waiting may mend."""
    with pytest.raises(CapibaraError) as caught:
        settle(state(*(candidate(attempt=i, error=e, error_message=f"{e}.") for i, e in enumerate(errors, 1))))
    assert type(caught.value) is kind


def test_waiting_is_suggested_with_the_longest_guess() -> None:
    """Retry-After is never missing where waiting may help."""
    with pytest.raises(ModelUnavailable) as caught:
        settle(
            state(candidate(error="model_loading", retry_after_s=3), candidate(error="model_loading", retry_after_s=8))
        )
    assert caught.value.retry_after_s == 8
    with pytest.raises(ModelUnavailable) as caught:
        settle(state(candidate(error="model_unavailable")))
    assert caught.value.retry_after_s


def test_only_empty_answers_are_no_answer() -> None:
    """Every model answered with nothing: 502, and the models are named."""
    with pytest.raises(NoAnswer) as caught:
        settle(state(candidate(), candidate(model="b")))
    assert "a, b" in caught.value.message


def test_an_interrupted_answer_is_a_crash() -> None:
    """What has begun to reach the caller and broke is told as broken."""
    with pytest.raises(ModelCrashed):
        settle(state(candidate(content="La", emitted=True, error="model_timeout", error_message="a gave no token.")))


def test_a_wrong_parameter_does_not_blame_the_messages() -> None:
    """param is messages only for a prompt that is too long."""
    with pytest.raises(BadQuestion) as caught:
        settle(state(candidate(error="invalid_request", error_message="refused.")))
    assert caught.value.param is None


@pytest.mark.parametrize(("language", "word"), [("es", "matemáticas"), ("en", "mathematics")])
def test_a_decision_is_explained_in_both_languages(language: Any, word: str) -> None:
    """The reason is a sentence; codes inside it are put into words."""
    shown = explain(classification(domain="math", complexity=0.9), PLAN, language)
    assert word in shown["reason"]
    assert (shown["model"], shown["complexity_level"]) == ("a", "complex")
