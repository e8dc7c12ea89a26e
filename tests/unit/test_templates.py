"""Prompt templates: their variables, and how they stand before a conversation."""

from __future__ import annotations

from typing import get_args

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from capibara_agents.errors import TemplateError
from capibara_agents.templates import apply, parse, read
from capibara_agents.types import TemplateName


@pytest.mark.parametrize("name", get_args(TemplateName))
def test_shipped_templates_can_be_rendered(name: str) -> None:
    """Each needs the language and nothing else."""
    template = read(name)
    assert template.variables == ("language",)
    assert "Spanish" in template.render(language="Spanish")


def test_a_missing_variable_is_named() -> None:
    """The error says what is missing."""
    with pytest.raises(TemplateError, match="needs: language"):
        read("general").render()


def test_listed_and_used_variables_must_agree() -> None:
    """Both a forgotten and an unused variable are errors, and so is a missing front matter."""
    for source in ("---\nvariables: [a]\n---\n$b", "---\nvariables: [a]\n---\nnothing", "no front matter"):
        with pytest.raises(TemplateError):
            parse("t", source)


def test_an_unknown_template_is_an_error() -> None:
    """Also one that names a path."""
    for name in ("nope", "../README"):
        with pytest.raises(TemplateError, match="There is no"):
            read(name)


def test_no_template_leaves_the_conversation_as_it_is() -> None:
    """The caller's messages go unchanged."""
    messages = [HumanMessage("x")]
    assert apply(None, messages, "es") == messages


def test_a_template_makes_one_system_message() -> None:
    """An own system message is kept, behind the template's text, in the same message."""
    alone = apply("coding", [HumanMessage("x")], "es")
    assert [m.type for m in alone] == ["system", "human"]
    assert "Spanish" in alone[0].text
    joined = apply("coding", [SystemMessage("Sé breve."), HumanMessage("x")], None)
    assert [m.type for m in joined] == ["system", "human"]
    assert joined[0].text.endswith("Sé breve.")
    assert "language of the question" in joined[0].text
