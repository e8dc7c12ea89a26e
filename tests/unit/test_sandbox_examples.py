"""Examples and "what does it print" questions are found in a question, in both languages. Nothing is run."""

from __future__ import annotations

import pytest

from capibara_agents.types import Value
from capibara_agents.verify.examples import MOST_EXAMPLES, find_examples
from capibara_agents.verify.prints import find_print_question, same_answer, settle_print_question
from capibara_agents.verify.sandbox import Limits, RunResult
from capibara_agents.verify.sandbox_values import same_shown


def pairs(question: str) -> list[tuple[str, str]]:
    return [(example.source, example.wanted) for example in find_examples(question)]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Write f.\n>>> f(1)\n2\n>>> f([1,\n...    2])\n[2, 3]\n", [("f(1)", "2"), ("f([1,\n   2])", "[2, 3]")]),
        (">>> x = f(1)\n>>> x\n2", [("x = f(1)", ""), ("x", "2")]),
        (">>> f(1) == 2", [("f(1)", "2")]),
        (">>> f([1]) [2]", [("f([1])", "[2]")]),
        ("f(2) -> 4", [("f(2)", "4")]),
        ("f(2) ==> 4, f(3) => 9", [("f(2)", "4"), ("f(3)", "9")]),
        ("f(2) ➞ 4", [("f(2)", "4")]),
        ("`f([1, 2]) == 3`", [("f([1, 2])", "3")]),
        ("For example, f(3) returns 5.", [("f(3)", "5")]),
        ("`f('a b')` should return `'b a'`", [("f('a b')", "'b a'")]),
        ("por ejemplo, f(3) devuelve 5", [("f(3)", "5")]),
        ("f(3) debe devolver [1, 2], y f(0) da 0", [("f(3)", "[1, 2]"), ("f(0)", "0")]),
        ("f(3) es True", [("f(3)", "True")]),
        ("assert f(')') == ')'", [("f(')')", "')'")]),
        ("f(g(2)) = 4", [("f(g(2))", "4")]),
        ("Solution().add(1, 2) -> 3", [("Solution().add(1, 2)", "3")]),
        ("f(2) -> 2.5.", [("f(2)", "2.5")]),
        ("f(2) -> -4", [("f(2)", "-4")]),
        ("def top(xs, k):\n  '''\n  Input: xs = [1, 2], k = 1\n  Output: [2]\n  '''", [("top([1, 2], 1)", "[2]")]),
        ("def f(n):\n  Entrada: 3\n  Salida: 9", [("f(3)", "9")]),
        ("def f(s, c):\n For s = 'ab', c = 'a' the result should be 'b'", [("f('ab', 'a')", "'b'")]),
        ("def f(s):\n Para s = 'ab' el resultado debe ser 'ba'", [("f('ab')", "'ba'")]),
    ],
)
def test_examples_are_found(question: str, found: list[tuple[str, str]]) -> None:
    assert pairs(question) == found


@pytest.mark.parametrize(
    "question",
    [
        "",
        "Write a function that adds two numbers.",
        "def f(x): return x",
        "f(x) -> 4",
        "f(2) -> 2 + 2",
        "f(2) -> 4x",
        "f(2 -> 4",
        "len([1]) == 1",
        "It takes O(n) time and f(2) seconds",
        "t(n) = t(n - 1) + 1 and t(1) = 3",
        'f("a") -> ""aaa"',
        "f(1) -> ('a')",
        "def f(d):\n  '''Says so.'''",
        ">>> f(undefined)\n3",
        ">>> f(\n3",
        "(" * 50_000,
        "f(" * 5_000,
    ],
)
def test_what_is_no_example_is_none(question: str) -> None:
    assert pairs(question) == []


def test_not_more_examples_than_can_be_run() -> None:
    assert len(pairs("\n".join(f"f({n}) -> {n}" for n in range(1000)))) == MOST_EXAMPLES


@pytest.mark.parametrize(
    ("shown", "wanted", "same"),
    [
        ("[1,2]", "[1, 2]", True),
        ("'a'", '"a"', True),
        ("'a'", "a", True),
        ("{'b': 1, 'a': 2}", "{'a': 2, 'b': 1}", True),
        ("0.30000000000000004", "0.3", True),
        ("4", "4.0", True),
        ("True", "true", True),
        ("True", "1", False),
        ("1", "True", False),
        ("(1, 2)", "[1, 2]", False),
        ("4", "5", False),
        ("'4'", "4", False),
        ("<object>", "3", False),
        ("[[True]]", "[[1]]", False),
        ("nan", "3", False),
        ("1" * 30_000, "1" * 30_000, True),
        ("(" * 10_000, "3", False),
    ],
)
def test_when_two_texts_show_the_same(shown: str, wanted: str, same: bool) -> None:
    if shown == "'4'":
        # As a word without quotes it would be the same; the number 4 is not.
        assert same_shown(shown, "'4'")
    assert same_shown(shown, wanted) is same


LOOP = "total = 0\nfor i in range(4):\n    total += i\nprint(total)"
SQUARE = "def f(x):\n    return x * x"


@pytest.mark.parametrize(
    ("question", "source", "expression"),
    [
        (f"What does this code print?\n```python\n{LOOP}\n```", LOOP, ""),
        (f"¿Qué imprime este código?\n```\n{LOOP}\n```", LOOP, ""),
        (f"What is the output of the following program?\n\n{LOOP}\n\nThank you.", LOOP, ""),
        (f"¿Cuál es la salida de este programa?\n{LOOP}", LOOP, ""),
        ("What does `print(2 ** 3)` print?", "print(2 ** 3)", ""),
        (f"```python\n{SQUARE}\n```\nWhat does f(3) return?", SQUARE, "f(3)"),
        (f"```python\n{SQUARE}\n```\n¿Qué devuelve `f(3) + 1`?", SQUARE, "f(3) + 1"),
        (f"```python\n{LOOP}\n```\nWhat is the value of `total` at the end?", LOOP, "total"),
        (f"```python\n{LOOP}\n```\n¿Cuánto vale total al final?", LOOP, "total"),
        ("¿Qué devuelve `sorted([3, 1])`?", "", "sorted([3, 1])"),
        (f"[PYTHON]\n{SQUARE}\nassert f(3) == ??\n[/PYTHON]\nComplete the assertion.", f"{SQUARE}\n", "f(3)"),
    ],
)
def test_questions_about_what_code_does(question: str, source: str, expression: str) -> None:
    found = find_print_question(question)
    assert found is not None
    assert (found.source.strip(), found.expression) == (source.strip(), expression)


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of Spain?",
        "¿Qué devuelve una función sin return?",
        f"Fix this code, what does it print?\n```\n{LOOP}\n```",
        f"Why does this print 6? What should I do?\n```\n{LOOP}\n```",
        f"Explain the code.\n```\n{LOOP}\n```",
        f"Write a function that prints the sum.\n```\n{LOOP}\n```",
        f"¿Cómo hago que imprima otra cosa?\n```\n{LOOP}\n```",
        f"What does it print if we change 4 into 5?\n```\n{LOOP}\n```",
        f"Which prints more?\n```\n{LOOP}\n```\nor\n```\n{SQUARE}\n```",
        f"What does f(3) return, and f(4)?\n```\n{SQUARE}\n```",
        "What does this print?\n```javascript\nconsole.log(1)\n```",
        "What does this print?\n```\nprint 1\n```",
        "What does `len([1])` do?",
        "x" * 30_000,
    ],
)
def test_other_questions_are_left_alone(question: str) -> None:
    assert find_print_question(question) is None


def test_options_are_answered_with_their_letter() -> None:
    question = f"What does this print?\n```\n{LOOP}\n```\nA) 10\nB) 6\nC) 4"

    def run(source: str, expression: str, limits: Limits) -> RunResult:
        return RunResult(outcome="passed", reason="passed", output="6\n")

    assert settle_print_question(question, run) == "B"
    assert settle_print_question(question.replace("B) 6", "B) 7"), run) is None


@pytest.mark.parametrize(
    "code", ["import random\nprint(random.random())", "import time\nprint(time.time())", "print(id(1))"]
)
def test_what_changes_from_run_to_run_is_not_settled(code: str) -> None:
    def run(source: str, expression: str, limits: Limits) -> RunResult:
        raise AssertionError("it is not even run")

    assert settle_print_question(f"What does this print?\n```\n{code}\n```", run) is None


def test_values_are_plain() -> None:
    found = find_print_question(f"What does this print?\n```\n{LOOP}\n```")
    assert isinstance(found, Value)
    assert same_answer("`[1,2]`", "[1, 2]")
    assert not same_answer("[1, 3]", "[1, 2]")


def test_a_text_of_nothing_but_brackets_is_looked_at_in_part() -> None:
    """It would take minutes to pair them all."""
    assert find_examples("f(" * 25_000) == ()
    question = "What does g() return?\n```python\ndef g():\n    return 1\n```\n" + "a(?) " * 3_000
    asked = find_print_question(question)
    assert asked is not None
    assert asked.expression == "g()"
