"""One slip in a word that is no word."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from capibara_agents.embedder import Embedder
from capibara_agents.spelling import MOST_UNKNOWN, Spelling

TEXTS = [
    *["escribe en Python"] * 3,
    *["mi código"] * 3,
    *["explain the sentence"] * 3,
    "sentience is rare",
]


class FakePieces:
    """Some words as pieces; all others are put together of letters."""

    def __init__(self, **shares: float) -> None:
        self.shares = shares
        self.asked = 0

    def whole(self, words: Iterable[str]) -> dict[str, float]:
        return {word: math.log(self.shares[word]) for word in words if word in self.shares}

    def parted(self, word: str) -> float:
        self.asked += 1
        return -4.0 * len(word)


def spelling(**pieces: float) -> Spelling:
    return Spelling(TEXTS, lambda: FakePieces(**pieces))


@pytest.mark.parametrize("slip", ["Ptyhon", "Pyhon", "Pytthon", "PYTOHN"])
def test_a_swapped_a_missing_and_a_doubled_letter_are_put_right(slip: str) -> None:
    assert spelling().corrected(f"Hola. {slip}!") == "Hola. python!"


def test_two_slips_in_a_text_are_put_right_and_the_rest_stays_as_it_was() -> None:
    assert spelling().corrected("¿Ecsribe  mi CÓDIGO en\nptyhon?") == "¿escribe  mi CÓDIGO en\npython?"


def test_accents_and_case_are_no_slips() -> None:
    """What is right stays as it was written."""
    for text in ("Escribe CODIGO en PYTHON", "código, Python"):
        assert spelling().corrected(text) == text


def test_a_word_that_an_exemplar_or_the_pieces_have_is_no_slip() -> None:
    assert spelling().corrected("sentience") == "sentience"
    assert spelling(senence=1e-6).corrected("senence") == "senence"
    assert spelling().corrected("senence") == "sentence"


def test_words_that_only_the_pieces_have_are_meant_too() -> None:
    assert spelling().corrected("renewabel") == "renewabel"
    assert spelling(renewable=1e-6).corrected("renewabel") == "renewable"


def test_the_more_common_word_is_meant_and_none_where_two_are_as_common() -> None:
    assert spelling(carreta=1e-4, correta=1e-4).corrected("crreta") == "crreta"
    assert spelling(carreta=1e-4, correta=1e-6).corrected("crreta") == "carreta"


def test_what_is_as_likely_as_it_stands_is_left_alone() -> None:
    """A rare word that the pieces hardly know explains a long row of letters, and no short one."""
    assert spelling(caracoles=1e-9).corrected("carcaoles") == "caracoles"
    assert spelling(casa=1e-5).corrected("csaa") == "csaa"
    assert spelling(casa=1e-3).corrected("csaa") == "casa"


def test_a_stray_letter_is_rarer_than_a_doubled_one() -> None:
    pieces = {"casas": 1e-6}
    assert spelling(**pieces).corrected("cassas") == "casas"
    assert spelling(**pieces).corrected("carsas") == "carsas"


def test_forms_of_a_word_are_words() -> None:
    assert spelling().corrected("sentences explains codigos") == "sentences explains codigos"
    assert spelling(papele=1e-3, papel=1e-6, paples=1e-3).corrected("papeles") == "papeles"


def test_names_need_more_to_be_taken_for_a_slip() -> None:
    pieces = {"maria": 5e-6}
    assert spelling(**pieces).corrected("con mraia") == "con maria"
    assert spelling(**pieces).corrected("con Mraia") == "con Mraia"
    assert spelling(**pieces).corrected("¡Hola! «Mraia»") == "¡Hola! «maria»"


def test_acronyms_are_left_alone_and_a_text_in_capitals_is_none() -> None:
    assert spelling(best=1e-2).corrected("a BSET") == "a BSET"
    assert spelling(best=1e-2).corrected("A BSET") == "A best"


def test_programs_names_and_addresses_are_left_alone() -> None:
    for text in ("```\nPtyhon\n```", "my_codgio ptyhon.org ptyhon() getPtyhon", "def ptyhon(): pass"):
        assert spelling().corrected(text) == text


def test_long_texts_are_left_alone() -> None:
    text = "ptyhon " * 200
    assert spelling().corrected(text) == text


def test_of_a_text_of_unknown_words_only_some_are_looked_at() -> None:
    pieces = FakePieces(**{f"abcd{letter}fgh": 1e-9 for letter in "ijklmnopqrst"})
    text = " ".join(f"abc{letter}dfgh" for letter in "ijklmnopqrst")
    Spelling(TEXTS, lambda: pieces).corrected(text)
    assert pieces.asked == MOST_UNKNOWN


def test_a_word_is_looked_at_once_and_judged_where_it_stands() -> None:
    """What it may mean is remembered; whether that is likely enough depends on whether it looks like a name."""
    pieces = FakePieces()
    one = Spelling(TEXTS, lambda: pieces)
    first = [one.corrected(text) for text in ("ptyhon", "say Ptyhon", "ptyhon")]
    asked = pieces.asked
    assert [one.corrected(text) for text in ("ptyhon", "say Ptyhon", "ptyhon")] == first
    assert (asked, pieces.asked) == (1, 1)


def test_words_of_other_scripts_and_no_words_are_left_alone() -> None:
    for text in ("", "?!", "питон 日本語 ñ", "straße", "x" * 3000):
        assert spelling().corrected(text) == text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("¿Qué es la inteligecia artificial?", "¿Qué es la inteligencia artificial?"),
        ("What are the bnefits of solar energy", "What are the benefits of solar energy"),
        ("explian a peom about the sea", "explain a poem about the sea"),
        ("explica las funcoines en programacción", "explica las funciones en programacion"),
        ("Describe al quetzal y al ajolote", "Describe al quetzal y al ajolote"),
    ],
)
def test_with_the_embedders_pieces(text: str, meant: str) -> None:
    assert Spelling(TEXTS, lambda: EMBEDDER.words).corrected(text) == meant


def test_pieces_are_asked_only_where_there_is_a_word() -> None:
    def pieces() -> FakePieces:
        raise AssertionError("asked")

    assert Spelling(TEXTS, pieces).corrected("2 + 2 = ?") == "2 + 2 = ?"


EMBEDDER = Embedder()
