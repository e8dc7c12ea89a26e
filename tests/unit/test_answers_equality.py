"""When two answers are the same, and that no notation can run, hang or crash anything."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from capibara_agents.answers import number_answer, same
from capibara_agents.answers.evaluation import exact, same_meaning
from capibara_agents.answers.notation import read
from capibara_agents.answers.tokens import MAX_CHARS
from capibara_agents.types import AnswerKind, Canonical

RECORDED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "consensus"


def answer(value: str, unit: str = "") -> Canonical:
    plain = re.fullmatch(r"-?\d+(?:\.\d+)?(?:/\d+)?", value)
    kind = AnswerKind.number if plain else AnswerKind.expression
    return Canonical(kind=kind, value=value, unit=unit, confidence=1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\frac{1}{2}", "0.5"),
        (r"\frac12", "0.5"),
        (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}{2}"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"\sqrt[3]{8}", "2"),
        ("x^2+2x+1", "(x+1)^2"),
        ("x²+1", "1 + x^2"),
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"\log_2 8", "3"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        (r"1\frac{1}{2}", "1.5"),
        ("3+4i", "4i+3"),
        (r"\dfrac{3\pi}{2}", "3pi/2"),
        ("{1,2}", r"\{2, 1\}"),
        ("x=2 or x=3", "3, 2"),
        ("x = 2, y = 3", "(2,3)"),
        (r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}"),
        ("0<x<1", "(0,1)"),
        (r"x \in [0, \infty)", r"x \ge 0"),
        (r"(-\infty, 2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"),
        ("y = 2x+3", "2x+3"),
        ("y=2x+3", "2x-y+3=0"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\pi", "3.1416"),
        ("1/3", "0.333"),
        ("33.33", "100/3"),
    ],
)
def test_the_same_mathematics(a: str, b: str) -> None:
    """Fractions, roots, polynomials, sets, intervals, points, equations; decimals that are rounded."""
    assert same(answer(a), answer(b))
    assert same(answer(b), answer(a))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1/2", "0.51"),
        ("0.33", "0.34"),
        ("10", "10.4"),
        ("3", "1/3"),
        ("(1,2)", "(2,1)"),
        ("[0,1)", "(0,1)"),
        ("{1,2}", "{1,2,3}"),
        ("x^2", "x^3"),
        ("a", "b"),
        (r"\sqrt{2}", "1.5"),
        (r"\pi", "3"),
        ("y=2x+3", "y=2x+4"),
        ("x>1", "x>=1"),
        ("12", "1/2"),
    ],
)
def test_different_mathematics(a: str, b: str) -> None:
    """Near is not equal, order counts in a point, an open end is no closed one."""
    assert not same(answer(a), answer(b))
    assert not same(answer(b), answer(a))


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (("50", "%"), ("0.5", ""), True),
        (("50", "%"), ("50", ""), True),
        (("50", "%"), ("0.5", "%"), False),
        (("1.5", "km"), ("1500", "m"), True),
        (("5", "km"), ("5", "m"), False),
        (("5", "km"), ("5", ""), True),
        (("50", "¢"), ("0.5", "$"), True),
        (("5", "km"), ("5", "kg"), False),
    ],
)
def test_units(a: tuple[str, str], b: tuple[str, str], equal: bool) -> None:
    """Converted within what they measure; one that is missing is no difference."""
    assert same(answer(*a), answer(*b)) is equal
    assert same(answer(*b), answer(*a)) is equal


def test_other_kinds() -> None:
    """Names by their words, the rest by its value; kinds do not mix."""

    def of(kind: AnswerKind, value: str) -> Canonical:
        return Canonical(kind=kind, value=value, confidence=1)

    assert same(of(AnswerKind.name, "Gabriel García Márquez"), of(AnswerKind.text, "gabriel garcia marquez"))
    assert not same(of(AnswerKind.name, "madrid"), of(AnswerKind.name, "lisboa"))
    assert same(of(AnswerKind.number, "1492"), of(AnswerKind.date, "1492"))
    assert not same(of(AnswerKind.option, "A"), of(AnswerKind.text, "A"))
    assert not same(of(AnswerKind.text, "x" * 200_000), of(AnswerKind.text, "x" * 200_001))


MALICIOUS = [
    "__import__('os').system('touch MARK')",
    "().__class__.__bases__[0].__subclasses__()",
    "eval('1')",
    "lambda: 1",
    "open('/etc/passwd')",
    "x.__class__",
    "9^9^9^9^9",
    "9**9**9**9",
    "200!!!",
    "10^{10^{10}}",
    "0^{-1}",
    "1/0",
    "\\frac{1}{0}",
    "\\sqrt{",
    "(" * 300,
    "-" * 390,
    "^" * 100,
    "|" * 200,
    "\\frac{" * 60,
    "x_" * 50,
    "±" * 50 + "1",
    "1±" * 50 + "1",
    "{" * 100 + "1" + "}" * 100,
    "\\binom{200}{100}",
    "\\floor{1}",
    "\x00\x01",
    "1" * MAX_CHARS,
    "9" * 50_000,
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", MALICIOUS)
def test_no_notation_runs_hangs_or_crashes(text: str, tmp_path: Path) -> None:
    """It is read or not; what cannot be computed equals only itself."""
    text = text.replace("MARK", str(tmp_path / "mark"))
    node = read(text)
    assert node is None or exact(node) != 123456
    assert not same(answer(text), answer("123456"))
    number_answer(f"\\boxed{{{text}}}")
    number_answer(f"The answer is {text}")
    assert not list(tmp_path.iterdir())


def test_python_is_no_notation() -> None:
    """Calls, attributes and strings are refused outright."""
    assert [read(text) for text in MALICIOUS[:6]] == [None] * 6


def test_exact_stays_exact() -> None:
    """Whole numbers beyond floating point are told apart."""
    a, b = read("2^{200}"), read("2^{200}+1")
    assert a is not None
    assert b is not None
    assert not same_meaning(a, b)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded answers are not on this machine")
@pytest.mark.parametrize("name", ["gsm_zeroeval", "math_l5_zeroeval"])
def test_recorded_answers_are_judged_as_they_were(name: str) -> None:
    """Each distinct recorded answer equals the reference exactly where the record says that it is right."""
    wrong = []
    for line in (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        reference = number_answer(f"\\boxed{{{row['reference']}}}")
        for text, right in {(a["extracted"], a["correct"]) for a in row["answers"] if a["extracted"]}:
            found = number_answer(f"\\boxed{{{text}}}")
            if bool(found and reference and same(found, reference)) is not right:
                wrong.append((row["id"], text))
    assert not wrong
