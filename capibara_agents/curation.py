"""What people do with exemplars: list, add, remove. In the JSON that HTTP and the terminal both show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from capibara_agents.errors import BadQuestion
from capibara_agents.exemplars import Exemplar, ExemplarStore, Origin, user_exemplar
from capibara_agents.texts import phrase
from capibara_agents.types import Classification, Domain, Language

AT_ONCE = 1000
"""Most exemplars that are added, listed or removed at a time."""

Look = Callable[[str], Classification]
"""Classifies a text, for what was left open."""


class Draft(BaseModel):
    """An exemplar as a person gives it; language and complexity may be left to the classifier."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    content: str = Field(min_length=1, max_length=20_000)
    domain: Domain
    language: Language | None = None
    complexity: float | None = Field(None, ge=0, le=1)
    id: str | None = Field(None, min_length=1, max_length=200)


class Wish(BaseModel):
    """Which exemplars to list."""

    model_config = ConfigDict(frozen=True)

    limit: int = Field(100, ge=0, le=AT_ONCE)
    offset: int = Field(0, ge=0)
    domain: Domain | None = None
    language: Language | None = None
    origin: Origin | None = None


def listed(store: ExemplarStore, wish: Wish) -> dict[str, Any]:
    """One page: {"object", "data", "total", "limit", "offset"}; `total` counts all that match."""
    total, page = store.page(wish.limit, wish.offset, origin=wish.origin, domain=wish.domain, language=wish.language)
    data = [exemplar.model_dump(mode="json") for exemplar in page]
    return {"object": "list", "data": data, "total": total, "limit": wish.limit, "offset": wish.offset}


def added(store: ExemplarStore, look: Look, drafts: Sequence[Draft]) -> dict[str, Any]:
    """All of them or none: {"added", "ids", "exemplars"}. What is shipped already, unchanged, is not added again.

    Raises BadQuestion for blank content and for an id that a shipped exemplar has.
    """
    exemplars = [_whole(draft, look) for draft in drafts]
    count = store.merge(exemplars)
    return {
        "added": count,
        "ids": [exemplar.id for exemplar in exemplars],
        "exemplars": [exemplar.model_dump(mode="json") for exemplar in exemplars],
    }


def removed(store: ExemplarStore, ids: Sequence[str]) -> dict[str, Any]:
    """{"removed"}; BadQuestion (not_found) when there is none of them."""
    count = store.remove(ids)
    if not count:
        raise BadQuestion(phrase("stored.no_such_exemplars"), param="ids", code="not_found")
    return {"removed": count}


def _whole(draft: Draft, look: Look) -> Exemplar:
    if not draft.content.strip():
        raise BadQuestion(phrase("stored.blank_exemplar"), param="content")
    language, complexity = draft.language, draft.complexity
    if language is None or complexity is None:
        found = look(draft.content)
        language = language or found.language
        complexity = round(found.complexity, 2) if complexity is None else complexity
    made = user_exemplar(draft.content, language=language, domain=draft.domain, complexity=complexity)
    return made.model_copy(update={"id": draft.id}) if draft.id else made
