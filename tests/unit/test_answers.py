"""The part of an answer that can be compared: numbers, options, yes and no, JSON, text."""

from __future__ import annotations

import pytest

from capibara_agents.answers import canonical, json_answer, number_answer, option_answer, parse_number, yes_no_answer
from capibara_agents.types import AnswerKind


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("84", "84"),
        ("-3", "-3"),
        ("−3", "-3"),
        ("1.234,5", "1234.5"),
        ("1,234.5", "1234.5"),
        ("1.234", "1234"),
        ("1 234 567", "1234567"),
        ("0.125", "0.125"),
        ("0,125", "0.125"),
        ("2,50", "2.5"),
        ("3.0", "3"),
        ("1.234.567", "1234567"),
        ("-0", "0"),
        ("1.2.3", None),
        ("abc", None),
    ],
)
def test_numbers_in_both_notations(written: str, value: str | None) -> None:
    """Spanish and English notation come to the same plain digits."""
    assert parse_number(written) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 * 7 = 84", "84"),
        ("La respuesta es 84.", "84"),
        ("The answer is: 1,000", "1000"),
        ("Primero 12, luego 7. Resultado: 84", "84"),
        ("son 10, 20, 30", "30"),
        ("in 2020 100", "100"),
        ("12-7", "7"),
        ("84\n\n12", "12"),
        ("#### -5", "-5"),
        (r"\boxed{42}", "42"),
    ],
)
def test_the_number_of_a_text(text: str, value: str) -> None:
    """The marked number, else the last one; lists and years are not glued together."""
    found = number_answer(text)
    assert found is not None
    assert found.value == value


def test_a_marked_number_is_surer_than_a_last_one() -> None:
    """Confidence tells the two apart."""
    marked, guessed = number_answer("respuesta: 5"), number_answer("quizá 5")
    assert marked is not None
    assert guessed is not None
    assert marked.confidence > guessed.confidence
    assert number_answer("ninguno") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Sí, claro.", "yes"),
        ("si.", "yes"),
        ("Yes", "yes"),
        ("No, nunca.", "no"),
        ("Si llueve, no salimos.", None),
        ("Nobody knows.", None),
        ("", None),
    ],
)
def test_yes_and_no(text: str, value: str | None) -> None:
    """Only an opening yes or no counts; a conditional `si` is none."""
    found = yes_no_answer(text)
    assert (found.value if found else None) == value


@pytest.mark.parametrize(("text", "value"), [("B", "B"), ("La respuesta es C.", "C"), ("(D)", "D"), ("nada", None)])
def test_options(text: str, value: str | None) -> None:
    """The letter that was chosen."""
    found = option_answer(text)
    assert (found.value if found else None) == value


def test_json_is_compared_by_value() -> None:
    """Order of keys and fences make no difference; what is no JSON is none."""
    plain, fenced = json_answer('{"a": 1, "b": 2}'), json_answer('```json\n{"b":2,"a":1}\n```')
    assert plain is not None
    assert fenced is not None
    assert plain.value == fenced.value
    assert json_answer("{a") is None


def test_kinds_follow_the_question() -> None:
    """JSON where asked for, options where offered, numbers in mathematics, else the text."""
    options = "¿Cuál?\nA) uno\nB) dos"
    assert canonical("B", question=options, domain="other", wants_json=False).kind is AnswerKind.option
    assert canonical("8", question="2^3", domain="math", wants_json=False).kind is AnswerKind.number
    assert canonical("{}", question="", domain="other", wants_json=True).kind is AnswerKind.json
    assert canonical("Sí", question="", domain="factual_qa", wants_json=False).kind is AnswerKind.yes_no
    text = canonical("¡Árbol  Verde!", question="", domain="translation", wants_json=False)
    assert (text.kind, text.value) == (AnswerKind.text, "arbol verde")
