"""The shipped sentences: schema, balance, uniqueness."""

import json
import re
from collections import Counter, defaultdict
from importlib import resources
from statistics import mean
from typing import get_args

from capibara_agents.exemplars import Exemplar, shipped_exemplars
from capibara_agents.types import Domain

ALL = shipped_exemplars()
BY_CELL: dict[tuple[str, str], list[Exemplar]] = defaultdict(list)
for _exemplar in ALL:
    BY_CELL[_exemplar.domain, _exemplar.language].append(_exemplar)


def test_every_domain_has_both_languages_in_equal_number() -> None:
    """At least twenty of each, never a fifth more in one language."""
    for domain in get_args(Domain):
        spanish, english = len(BY_CELL[domain, "es"]), len(BY_CELL[domain, "en"])
        assert min(spanish, english) >= 20, domain
        assert max(spanish, english) <= 1.2 * min(spanish, english), domain


def test_no_domain_drowns_another() -> None:
    """Neighbours are counted, so numbers are priors: none has six times as many as another.

    Facts and small talk have no words of their own to be known by and need more examples than a request for a picture.
    """
    sizes = Counter(exemplar.domain for exemplar in ALL)
    assert max(sizes.values()) <= 6 * min(sizes.values())


def test_languages_agree_in_length_and_complexity() -> None:
    """A language must not look harder or longer than the other."""
    for domain in get_args(Domain):
        spanish, english = BY_CELL[domain, "es"], BY_CELL[domain, "en"]
        assert abs(mean(e.complexity for e in spanish) - mean(e.complexity for e in english)) < 0.05, domain
        lengths = mean(len(e.content) for e in spanish), mean(len(e.content) for e in english)
        assert max(lengths) <= 1.4 * min(lengths), domain


def test_ids_and_contents_are_unique() -> None:
    """Also but for case, accents of punctuation and spaces."""
    assert len({e.id for e in ALL}) == len(ALL)
    plain = Counter(re.sub(r"\W+", " ", e.content.lower()).strip() or e.content for e in ALL)
    assert [text for text, count in plain.items() if count > 1] == []


def test_ids_name_language_and_domain() -> None:
    """`es-coding-001`, in the file of its domain, with exactly the fields of the schema."""
    for file in resources.files("capibara_agents").joinpath("exemplars_data").iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert set(row) == {"id", "language", "domain", "complexity", "content"}
            assert re.fullmatch(rf"{row['language']}-{row['domain']}-\d{{3}}", row["id"])
            assert file.name == f"{row['domain']}.jsonl"
            assert row["content"] == row["content"].strip()


def test_registers_are_mixed() -> None:
    """Spanish as people type it: with and without question marks and accents; easy, middling and hard."""
    spanish = [e.content for e in ALL if e.language == "es"]
    assert sum("¿" in text for text in spanish) > 80
    assert sum(not re.search(r"[^\x00-\x7f]", text) for text in spanish) > 60
    assert min(e.complexity for e in ALL) < 0.1
    assert max(e.complexity for e in ALL) >= 0.75
