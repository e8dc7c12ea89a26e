"""Groups of words, texts in two languages, and what is asked for without the words of its trade."""

import pytest

from capibara_agents.features import SURFACE, domain_evidence, surface
from capibara_agents.fold import fold
from capibara_agents.lexicon import FIRST_WORDS, GROUPS, LAST_WORDS, both_tongues, groups_in, words_of


def named(text: str) -> set[str]:
    """The groups that a text names."""
    found = groups_in(words_of(fold(text)))
    return {group for group, there in zip(GROUPS, found, strict=True) if there}


@pytest.mark.parametrize(
    ("spanish", "english", "group"),
    [
        ("Resúmelo", "Summarise it", "shorten"),
        ("¿y en alemán?", "and in German?", "tongue"),
        ("un botón", "a button", "screen"),
        ("mi abuela", "my grandmother", "kin"),
    ],
)
def test_both_languages_share_a_group(spanish: str, english: str, group: str) -> None:
    """What is learned of one language's words holds for the other's."""
    assert group in named(spanish)
    assert group in named(english)


def test_whole_words_are_no_beginnings() -> None:
    """`di` is an order, `dinero` is none."""
    assert "tell" in named("di algo")
    assert "tell" not in named("dinero")


def test_only_where_instructions_stand() -> None:
    """What is said in the middle of a long text is no instruction."""
    padding = ["blah"] * (FIRST_WORDS + LAST_WORDS)
    assert "translate" not in named(" ".join([*padding, "translate", *padding]))
    assert "translate" in named(" ".join(["translate", *padding, *padding]))
    assert "translate" in named(" ".join([*padding, *padding, "translate"]))


def test_two_languages_in_one_text() -> None:
    """A text in one language has nothing of the other."""
    assert both_tongues(words_of("la casa de mi padre esta en el norte")) == 0
    assert both_tongues(words_of("how do you say la casa de mi padre to the man of the house")) > 0.5


def test_surface_names_what_it_shows() -> None:
    """The shapes stand where `SURFACE` names them."""
    shown = dict(zip(SURFACE, surface('Ana: ya voy. Beto: "te espero aquí". Ana: vale'), strict=True))
    assert shown["turns"] == 1
    assert shown["told after :"] > 0
    assert shown["quoted"] > 0
    plain = dict(zip(SURFACE, surface("ya voy"), strict=True))
    assert plain["turns"] == plain["told after :"] == plain["quoted"] == plain["both tongues"] == 0


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Una macro que ordene mi hoja", "coding"),
        ("My site shows a blank screen", "coding"),
        ("Tiene patas y no anda. ¿Qué es?", "logic_reasoning"),
        ("He was dead before he fell. How is that possible?", "logic_reasoning"),
        ("que suene menos seco: no puedo", "other"),
        ("Put it in the third person: I ran home", "other"),
        ("al grano: el tren de las nueve no sale y el de las diez va lleno", "summarization"),
        ("villancico sobre un cactus", "creative_writing"),
    ],
)
def test_plain_words_speak_for_a_domain(text: str, domain: str) -> None:
    """Programs, riddles, rewrites and summaries asked for as people do."""
    assert domain_evidence(text).get(domain, 0.0) > 0
