"""Every text a person reads, in Spanish and English, keyed by code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capibara_agents.types import Language


@cache
def catalogue(language: Language) -> dict[str, str]:
    """Code -> text with $variables."""
    source = resources.files("capibara_agents.texts").joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    texts: dict[str, str] = yaml.safe_load(source)
    return texts


def sentence(code: str, language: Language, /, **values: object) -> str:
    """The text of a code with its values filled in.

    A value that is itself a code (a domain, a level) or a phrase is put into words. KeyError for an unknown code.
    """
    texts = catalogue(language)
    worded = {
        name: value.told(language) if isinstance(value, Phrase) else texts.get(f"{name}.{value}", value)
        for name, value in values.items()
    }
    return Template(texts[code]).substitute(worded)


@dataclass(frozen=True)
class Phrase:
    """A text that has no language yet; as a string it is English."""

    code: str
    values: Mapping[str, object]

    def told(self, language: Language) -> str:
        return sentence(self.code, language, **self.values)

    def __str__(self) -> str:
        return self.told("en")


def phrase(code: str, /, **values: object) -> Phrase:
    """A code and its values; a value may be a phrase too."""
    return Phrase(code, values)
