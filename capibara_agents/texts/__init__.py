"""Every text a person reads, in Spanish and English, keyed by code."""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from capibara_agents.types import Language


@cache
def catalogue(language: Language) -> dict[str, str]:
    """Code -> text with $variables."""
    source = resources.files("capibara_agents.texts").joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    texts: dict[str, str] = yaml.safe_load(source)
    return texts


def sentence(code: str, language: Language, /, **values: object) -> str:
    """The text of a code with its values filled in.

    A value that is itself a code (a domain, a level) is put into words. KeyError for an unknown code.
    """
    texts = catalogue(language)
    worded = {name: texts.get(f"{name}.{value}", value) for name, value in values.items()}
    return Template(texts[code]).substitute(worded)
