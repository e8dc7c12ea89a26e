"""One slip in a word that is no word."""

import pytest

from capibara_agents.spelling import Spelling

TEXTS = [
    "escribe en Python",
    "un poco de Python",
    "Python y código",
    "mi código",
    "el código",
    *["explain the sentence"] * 3,
]


def spelling(*known: str) -> Spelling:
    return Spelling([*TEXTS, "sentience is rare"], lambda word: word in known)


@pytest.mark.parametrize("slip", ["Ptyhon", "Pyhon", "Pyython", "PTYHON"])
def test_a_swapped_a_missing_and_a_doubled_letter_are_put_right(slip: str) -> None:
    assert spelling().corrected(f"hola {slip}!") == "hola python!"


def test_accents_and_case_are_no_slips() -> None:
    """What is right stays as it was written."""
    for text in ("Escribe CODIGO en PYTHON", "código, Python"):
        assert spelling().corrected(text) == text


def test_a_rare_word_is_no_common_one() -> None:
    """Neither one that an exemplar has, nor one that the embedder knows."""
    assert spelling().corrected("sentience") == "sentience"
    assert spelling("senence").corrected("senence") == "senence"
    assert spelling().corrected("senence") == "sentence"


def test_forms_of_a_word_are_words() -> None:
    assert spelling().corrected("sentences explains codigos") == "sentences explains codigos"


def test_programs_names_and_addresses_are_left_alone() -> None:
    for text in ("```\nPtyhon\n```", "my_codgio ptyhon.org ptyhon() getPtyhon", "def ptyhon(): pass"):
        assert spelling().corrected(text) == text


def test_long_texts_are_left_alone() -> None:
    text = "ptyhon " * 200
    assert spelling().corrected(text) == text
