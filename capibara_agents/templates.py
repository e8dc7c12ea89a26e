"""Prompt templates: text files with a front matter that lists their variables.

---
variables: [language]
---
Write in $language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Any

import yaml
from langchain_core.messages import BaseMessage, SystemMessage

from capibara_agents.errors import TemplateError
from capibara_agents.texts import phrase
from capibara_agents.types import Language, TemplateName

LANGUAGE_NAMES: dict[Language, str] = {"es": "Spanish", "en": "English"}


@dataclass(frozen=True)
class PromptTemplate:
    """One template: its text and the variables the text needs."""

    name: str
    text: str
    variables: tuple[str, ...]

    def render(self, **values: str) -> str:
        """The text with its variables filled in. TemplateError names the ones that are missing."""
        missing = [name for name in self.variables if name not in values]
        if missing:
            raise TemplateError(phrase("template.needs", name=repr(self.name), variables=", ".join(missing)))
        return Template(self.text).substitute(values)


@cache
def read(name: str) -> PromptTemplate:
    """A shipped template. TemplateError when there is none of that name, or its front matter is not kept."""
    file = resources.files("capibara_agents").joinpath("prompts", f"{name}.md")
    try:
        if not name.isidentifier():
            raise FileNotFoundError(name)
        source = file.read_text(encoding="utf-8")
    except OSError as error:
        raise TemplateError(phrase("template.none", name=repr(name))) from error
    return parse(name, source)


def parse(name: str, source: str) -> PromptTemplate:
    """A template from its source. TemplateError when the variables named and used differ."""
    _, _, rest = source.partition("---\n")
    front, separator, text = rest.partition("\n---\n")
    if not separator:
        raise TemplateError(phrase("template.no_front", name=repr(name)))
    meta: dict[str, Any] = yaml.safe_load(front) or {}
    variables = tuple(str(v) for v in meta.get("variables") or ())
    used = set(Template(text).get_identifiers())
    if used != set(variables):
        raise TemplateError(phrase("template.differs", name=repr(name), listed=sorted(variables), used=sorted(used)))
    return PromptTemplate(name, text.strip(), variables)


def material(text: str, secret: str, max_chars: int) -> str:
    """Foreign text for a prompt whose marks hold a secret: without the secret, and of a long one both ends."""
    half = max_chars // 2
    ends = text if len(text) <= max_chars else f"{text[:half]}\n[…]\n{text[-half:]}"
    return ends.replace(secret, "")


def apply(name: TemplateName | None, messages: Sequence[BaseMessage], reply: Language | None) -> list[BaseMessage]:
    """The conversation with the template before it; one system message, as many chat templates take only one."""
    if name is None:
        return list(messages)
    language = LANGUAGE_NAMES[reply] if reply else "the language of the question"
    text = read(name).render(language=language)
    if messages and isinstance(messages[0], SystemMessage):
        return [SystemMessage(f"{text}\n\n{messages[0].text}"), *messages[1:]]
    return [SystemMessage(text), *messages]
