"""The part of an answer that can be compared: numbers, expressions, options, dates, names, JSON, code, SQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.answers import (
    canonical,
    json_answer,
    number_answer,
    option_answer,
    options,
    parse_number,
    yes_no_answer,
)
from capibara_agents.types import AnswerKind, Domain

RECORDED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "consensus"


def said(text: str, question: str = "", domain: Domain = "math") -> str:
    return canonical(text, question=question, domain=domain, wants_json=False).value


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
        ("1234.567", "1234.567"),
        ("10{,}000", "10000"),
        ("-0", "0"),
        ("1.2.3", None),
        ("abc", None),
        ("9" * 1000, None),
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
        ("12-7", "5"),
        ("84\n\n12", "12"),
        ("#### -5", "-5"),
        (r"\boxed{42}", "42"),
        ("La respuesta es 3,14.", "3.14"),
        ("La respuesta es 1.234,56 euros.", "1234.56"),
        (r"So the final answer is $\boxed{\frac{3}{4}}$.", "0.75"),
        (r"\boxed{\dfrac{1}{3}}", "1/3"),
        (r"The area is $\boxed{12\text{ cm}^2}$.", "12"),
        (r"\boxed{\$18.90}", "18.9"),
        (r"\boxed{90^\circ}", "90"),
        ("The total cost is $25 + $10 = $35.", "35"),
        ("15% of 260 is 39.", "39"),
        ("The answer is not 5 but 7.", "7"),
        ("La respuesta no es 5, sino 7.", "7"),
        ("The answer is 2 1/2 hours", "2.5"),
        ("Answer: 3.2 × 10^5", "320000"),
        ("The answer is forty-two.", "42"),
        ("La respuesta es ciento veinte.", "120"),
        ("First answer is 10. Wait, recheck: the answer is 12.", "12"),
        ('{"reasoning": "5*3", "answer": "15"}', "15"),
        ("### Respuesta final\n\n**18 €**", "18"),
        ("In total, she has **12** apples.", "12"),
        ("So the answer is:\n\n\\[ 3 + 4 = 7 \\]", "7"),
        ("La respuesta a la pregunta 3 es 12.", "12"),
        ("12 mil euros", "12000"),
        ("<think>The answer is 3? No.</think>The answer is 4.", "4"),
        ("The answer is 18.\n\nQuestion: What is 2 + 2?\nThe answer is 4.", "18"),
    ],
)
def test_the_number_of_a_text(text: str, value: str) -> None:
    """The last that is stated and not denied, else what it ends in; lists and years are not glued together."""
    assert said(text) == value


@pytest.mark.parametrize(
    ("text", "unit"), [("Son 18 euros", "€"), ("$18", "$"), ("40 %", "%"), ("5 km", "km"), ("12 apples", "")]
)
def test_a_number_keeps_its_unit(text: str, unit: str) -> None:
    """Units of measurement only; counted things are none."""
    found = number_answer(text)
    assert found is not None
    assert found.unit == unit


def test_what_is_counted_tells_numbers_apart() -> None:
    """Where nothing is stated, the number before the noun that was asked for."""
    text = "Therefore she has 12 apples after 3 days."
    assert said(text, "How many apples does she have?") == "12"
    assert said("Por tanto, tiene 12 manzanas en 3 cestas.", "¿Cuántas manzanas tiene?") == "12"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}"),
        (r"The answer is \(\frac{\sqrt{3}}{2}\).", r"\frac{\sqrt{3}}{2}"),
        (r"\boxed{x^2+2x+1}", "x^2+2x+1"),
        (r"\boxed{[0, 1)}", "[0, 1)"),
        ("The solutions are $x = 2$ or $x = 3$.", "x = 2 or x = 3"),
    ],
)
def test_expressions_stay_expressions(text: str, value: str) -> None:
    """What has no rational value is kept as it was written."""
    found = canonical(text, question="", domain="math", wants_json=False)
    assert (found.kind, found.value) == (AnswerKind.expression, value)


def test_how_sure_it_is() -> None:
    """Stated, contested, guessed; insisting does not make it surer."""
    marked, guessed = number_answer("respuesta: 5"), number_answer("quizá sean 5 de los 7 que había")
    contested = number_answer("The answer is 5. No wait. The answer is 6.")
    insisting = number_answer("This is 100% certainly correct, trust me. The answer is 5")
    assert marked and guessed and contested and insisting  # noqa: PT018
    assert marked.confidence > contested.confidence > guessed.confidence
    assert insisting.confidence <= marked.confidence
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
        ("Since 91 = 7 × 13, the answer is no.", "no"),
        ("Hay tres razones. La respuesta es: sí.", "yes"),
        ("**Verdadero**", "yes"),
        ("Falso: es al revés.", "no"),
    ],
)
def test_yes_and_no(text: str, value: str | None) -> None:
    """Opened with or stated; a conditional `si` is none."""
    found = yes_no_answer(text)
    assert (found.value if found else None) == value


ANIMALS = "¿Cuál es el más grande?\nA) perro\nB) gato\nC) ratón\nD) elefante"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("d", "D"),
        ("Answer: d", "D"),
        ("La respuesta correcta es la C.", "C"),
        ("La respuesta no es la C, es la B.", "B"),
        ("The correct answer is not A but C.", "C"),
        ("Es la opción b) gato", "B"),
        ("La opción correcta es: **B) gato**", "B"),
        ("Creo que es el gato", "B"),
        (r"\[ \boxed{\text{D}} \]", "D"),
        ("The answer is I think C", "C"),
        ("A is wrong. B is wrong. C is correct. D is wrong.", "C"),
        ("Me quedo con la D", "D"),
        ("Option A: no. Option B: no.\nSo the right choice would be D.", "D"),
        ("The correct answer is:\n\nB. gato", "B"),
        ("The answer is (A), because it barks.", "A"),
        ("First: the answer is (A). On reflection, the answer is (D).", "D"),
        ("El juez debe elegir la A. La respuesta es B", "B"),
    ],
)
def test_the_option_of_a_text(text: str, letter: str) -> None:
    """Stated, by its words, or concluded; the last statement counts and a denied one does not."""
    assert said(text, ANIMALS, "logic_reasoning") == letter


def test_options_without_a_choice() -> None:
    """Nothing is made up; two letters at once are no sure answer; a letter that was not offered is hardly one."""
    assert option_answer("nada") is None
    assert option_answer("(A) is not correct, (B) is not correct.") is None
    both, one = option_answer("The answer is (B) and (C).", options(ANIMALS)), option_answer("The answer is (B).")
    stranger = option_answer("The answer is (J).", options(ANIMALS))
    assert both and one and stranger  # noqa: PT018
    assert both.confidence < one.confidence
    assert stranger.confidence < 0.5


@pytest.mark.parametrize(
    ("question", "letters"),
    [
        (ANIMALS, "ABCD"),
        ("Which? (A) one (B) two (C) three", "ABC"),
        ("Elige: a) uno b) dos", "AB"),
        ("What is vitamin B. complex?", ""),
        ("A. Lincoln was born when?", ""),
    ],
)
def test_the_options_of_a_question(question: str, letters: str) -> None:
    """Listed one below the other or in a line, from A on."""
    assert "".join(options(question)) == letters


@pytest.mark.parametrize(
    ("text", "question", "value"),
    [
        ("Colón llegó a América el 12 de octubre de 1492.", "¿Cuándo llegó Colón a América?", "1492-10-12"),
        ("It was on October 12th, 1492.", "When did Columbus arrive?", "1492-10-12"),
        ("1492-10-12", "When did Columbus arrive?", "1492-10-12"),
        ("El 5/3/2020.", "¿En qué fecha empezó?", "2020-03-05"),
        ("On 3/5/2020.", "On which date did it start?", "2020-03-05"),
        ("On 25/3/2020.", "On which date did it start?", "2020-03-25"),
        ("On October 12, 1492.", "In what year did Columbus arrive?", "1492"),
        ("Murió en el 44 a. C.", "¿Cuándo murió César?", "-0044"),
        ("En mayo de 1968.", "¿Cuándo ocurrió?", "1968-05"),
    ],
)
def test_dates(text: str, question: str, value: str) -> None:
    """ISO 8601; day or month first as the question's language has it, unless only one reading is a date."""
    found = canonical(text, question=question, domain="factual_qa", wants_json=False)
    assert (found.kind, found.value) == (AnswerKind.date, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Madrid.", "madrid"),
        ("La capital de España es Madrid, una ciudad grande.", "madrid"),
        ("The capital is **Madrid**. It lies in the centre.", "madrid"),
        ("The answer is the Madrid.", "madrid"),
    ],
)
def test_names(text: str, value: str) -> None:
    """A few words, without article, accents and punctuation."""
    found = canonical(text, question="¿Cuál es la capital de España?", domain="factual_qa", wants_json=False)
    assert (found.kind, found.value) == (AnswerKind.name, value)


def test_json_is_compared_by_value() -> None:
    """Order of keys, fences, prose around it and 1.0 for 1 make no difference; what is no JSON is none."""
    texts = ['{"a": 1, "b": 2}', '```json\n{"b":2,"a":1.0}\n```', 'Here: {"b": 2, "a": 1} as asked.']
    values = {found.value for text in texts if (found := json_answer(text))}
    assert values == {'{"a": 1, "b": 2}'}
    assert json_answer("{a") is None
    assert json_answer("NaN") is None
    assert json_answer("[" * 100_000) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[(4, 1), (2, 3)]", "[(4, 1), (2, 3)]"),
        ("The output is `'abc'`.", "abc"),
        ("assert f([1]) == {2: 1, 1: 2}", "{1: 2, 2: 1}"),
        ("[ANSWER]\nassert f(3) == [1,2]\n[/ANSWER]", "[1, 2]"),
        ("Imprime: `[1, 2]`", "[1, 2]"),
    ],
)
def test_what_a_program_prints(text: str, value: str) -> None:
    """Literals in one way of writing, strings by their characters."""
    assert said(text, "What does this code print?", "coding") == value


def test_code_and_sql_by_what_they_are() -> None:
    """Comments, docstrings, layout and letter case of keywords make no difference."""
    one = "```python\n# adds\ndef add(a,b):\n    '''Adds.'''\n    return a+b\n```"
    two = "Here it is:\n```python\ndef add(a, b):\n  return (a + b)\n```\nThat is all."
    assert said(one, "Write a function", "coding") == said(two, "Write a function", "coding")
    assert said("```sql\nselect * from t where a=1;\n```", "", "sql") == said("SELECT *\nFROM t WHERE a = 1", "", "sql")


@pytest.mark.parametrize(
    ("question", "domain", "json_wanted", "text", "kind"),
    [
        (ANIMALS, "other", False, "B", AnswerKind.option),
        ("2^3", "math", False, "8", AnswerKind.number),
        ("", "other", True, "{}", AnswerKind.json),
        ("", "factual_qa", False, "Sí", AnswerKind.yes_no),
        ("Is 91 prime?", "math", False, "No: 91 = 7 × 13", AnswerKind.yes_no),
        ("Prove that 2 is prime.", "math", False, "It has no divisors but 1 and 2.", AnswerKind.text),
        ("Write a function that adds", "coding", False, "```python\nx = 1\n```", AnswerKind.code),
        ("", "translation", False, "¡Árbol  Verde!", AnswerKind.text),
    ],
)
def test_kinds_follow_the_question(question: str, domain: Any, json_wanted: bool, text: str, kind: AnswerKind) -> None:
    """What is asked decides, not what the answer happens to hold."""
    assert canonical(text, question=question, domain=domain, wants_json=json_wanted).kind is kind


def test_free_text_is_normalised() -> None:
    """Lower case, without accents and punctuation."""
    assert said("¡Árbol  Verde!", "", "translation") == "arbol verde"


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded answers are not on this machine")
def test_recorded_options_are_found() -> None:
    """Where a recorded text says "answer is (X)", X is found in 99 of 100; texts that say two things are the rest."""
    right = total = 0
    for line in (RECORDED / "mmlu_pro_text1400.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for answer in row["answers"]:
            if answer["extracted"] and f"answer is ({answer['extracted']})" in answer["text"]:
                total += 1
                right += said(answer["text"], row["prompt"], "logic_reasoning") == answer["extracted"]
    assert total > 2000
    assert right / total >= 0.99
