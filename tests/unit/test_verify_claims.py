"""What an answer claims that can be worked out: equations are redone, code and SQL are parsed."""

from __future__ import annotations

import pytest

from capibara_agents.verify import correction
from capibara_agents.verify.arithmetic import right_arithmetic
from capibara_agents.verify.code import parses
from capibara_agents.verify.sql import valid_sql
from tests.fakes import fenced

# ---------------------------------------------------------------- arithmetic

WRONG = [
    "12 × 7 = 85",
    "12*7=85",
    "Total: 5 + 3 = 9 manzanas.",
    "15% of 260 = 40",
    "El 15 % de 260 = 40",
    "2 + 3 = 6 = 10 / 2",
    r"$12 \times 7 = 85$",
    r"\frac{3}{4} \times 8 = 7",
    "5 + 3 = 8 and 8 * 2 = 17",
    "1.234,5 + 1 = 1.236,5",
    "1,000 + 500 = 1,600",
    "$5 × 3 = $16",
    "48/2 = 25 clips",
    "(12 * 7 = 85)",
    "10 / 3 = 3.4",
    "3 km + 2 km = 6 km",
    "2^3 = 9",
    "sqrt(16) + 1 = 6",
    "5! = 100",
    "- 5 + 3 = 9",
    "Por tanto, 7 × 8 = 54.",
]
FINE = [
    "12 × 7 = 84",
    "10/3 = 3.33",
    "10 / 3 ≈ 3.3",
    "2x + 3 = 7",
    "f(3) = 9",
    "x = 5 + 3 = 8",
    "5 km + 300 m = 5.3 km",
    "1 hour + 30 minutes = 90 minutes",
    "If 2 + 2 = 5 then pigs fly.",
    "7 + 8 = 3 (mod 12)",
    "log2 8 = 3",
    "C(5,2) = 10",
    "17 / 5 = 3 remainder 2",
    "the square root of 16 + 9 = 5",
    "39/260 = 15%",
    "(39/260) × 100 = 15%",
    "3.33 * 3 = 10",
    "1.234,5 + 1 = 1.235,5",
    "P = 2(3 + 4) = 14",
    "area = πr² = 3.14 × 25 = 78.5",
    "100 - 20% = 80",
    "1010 + 1 = 1011 in binary",
    "3x = 12 => x = 12/3 = 4",
    "v = 5 m/s * 3 s = 15 m",
    "12 - 7 = 5 - so five",
    "y = 2 * 3 - x",
    "2 + 2 = 4!",
    r"t_{1/2} = 6.0",
    fenced("python", "12 * 7 = 85"),
    "Ganaron 3-2 el 2024-05-01 con la versión 1.2 = estable",
    "Veamos: 12 * 7 = 85. Me he equivocado: 12 * 7 = 84.",
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_arithmetic_is_found(text: str) -> None:
    """Stated with signs, in LaTeX, chained, with units and percentages, in both notations."""
    check = right_arithmetic(text, "")
    assert check is not None
    assert check.reason == "verify.arithmetic"


@pytest.mark.parametrize("text", FINE)
def test_right_or_unclear_arithmetic_is_left_alone(text: str) -> None:
    """Rounded, with variables, remainders, other bases, units that differ, doubts, code, corrected later."""
    check = right_arithmetic(text, "")
    assert check is None or check.passed


def test_the_questions_own_equations_are_not_the_answers() -> None:
    """Who asks about a wrong equation gets it repeated."""
    assert right_arithmetic("2 + 2 = 5 is a slogan of the novel", "Where is 2 + 2 = 5 from?") is None


def test_a_wrong_equation_says_which_and_what_is_right() -> None:
    """For the trace and for asking again, in both languages."""
    check = right_arithmetic("Son 12 × 7 = 85 sillas", "")
    assert check is not None
    assert check.details["stated"] == "12 * 7 = 85"
    assert check.details["correct"] == "84"
    assert "12 * 7 = 85" in correction([check], "es")
    assert correction([check], "es") != correction([check], "en")


# ---------------------------------------------------------------- code and SQL

PARSES = [
    ("python", "def f(x):\n    return x"),
    ("py", ">>> 1 + 1\n2"),
    ("python", "!pip install x\nimport os"),
    ("python", "    x = 1\n    return x"),
    ("python", "def f(x):\n    ..."),
    ("js", "const f = async (a, ...b) => { await a; };"),
    ("jsx", 'const A = () => <div className="x">hi</div>;'),
    ("ts", "interface A { x: number }\nconst a: A = {x: 1};"),
    ("tsx", "const A = () => <div>hi</div>;"),
    ("java", "public int f(int a) { return a; }"),
    ("java", "int x = 5;\nSystem.out.println(x);"),
    ("c", '#include <stdio.h>\nint main(void){printf("x");return 0;}'),
    ("cpp", "std::vector<int> v{1,2};\nfor (auto x : v) std::cout << x;"),
    ("csharp", "public int F(int a) => a + 1;"),
    ("go", "x := 1\nfmt.Println(x)"),
    ("rust", "let x = 5;"),
    ("bash", 'for f in *.txt; do echo "$f"; done'),
    ("ruby", "def f(x)\n  x + 1\nend"),
    ("php", "<?php\nfunction f($x) { return $x; }\necho f(1);"),
    ("json", '{"a": 1}'),
]
BROKEN = [
    ("python", "def f(x)\n    return x"),
    ("python", 'print "x"'),
    ("js", "function f( { return 1; }"),
    ("ts", "interface A { x: number"),
    ("java", "public int f(int a) { return a; "),
    ("c", "int main( {"),
    ("csharp", "class P { void M( { }"),
    ("go", "func main() { x := }"),
    ("rust", "fn main( { let x = ; }"),
    ("bash", 'for f in *.txt; do echo "$f"'),
    ("ruby", "def f(x\n  x + 1"),
    ("php", "<?php function f($x { }"),
    ("json", '{"a": 1,}'),
]


@pytest.mark.parametrize(("tag", "code"), PARSES)
def test_code_that_parses(tag: str, code: str) -> None:
    """Whole programs and fragments."""
    check = parses(fenced(tag, code), "")
    assert check is not None
    assert check.passed


@pytest.mark.parametrize(("tag", "code"), BROKEN)
def test_code_that_does_not_parse(tag: str, code: str) -> None:
    """Found, unless the question itself brought it, or it leaves something out."""
    check = parses(fenced(tag, code), "")
    assert check is not None
    assert check.reason == "verify.code"
    assert parses(fenced(tag, code), f"What is wrong with this?\n{code}") is None


def test_code_that_cannot_be_told() -> None:
    """No tag, a language without grammar, pseudocode: not judged."""
    for tag in ("", "text", "cobol", "mermaid"):
        assert parses(fenced(tag, "IF x THEN ("), "") is None
    assert parses(fenced("java", "void f() {\n  ...\n"), "") is None
    assert parses(fenced("python", "if x then"), "Write it in pseudocode") is None


@pytest.mark.parametrize(
    ("statement", "question", "passed"),
    [
        ("SELECT * FROM t WHERE a = 1;", "", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "", True),
        ("SELECT TOP 5 * FROM t", "", True),
        ("SELECT `a` FROM `b`", "In MySQL", True),
        ("-- comentario\nUPDATE t SET a=1 WHERE b=2; DELETE FROM t;", "", True),
        ("CREATE TABLE t (id SERIAL PRIMARY KEY, name VARCHAR(10) NOT NULL)", "PostgreSQL", True),
        ("SELECT FROM WHERE", "", False),
        ("SELEC * FROM t", "", False),
        ("SELECT * FROM t WHERE (a = 1", "", False),
        ("hola mundo", "", False),
    ],
)
def test_sql(statement: str, question: str, passed: bool) -> None:
    """In the dialect that the question names, else in any."""
    check = valid_sql(fenced("sql", statement), question, "sql")
    assert check is not None
    assert check.passed is passed


def test_sql_that_cannot_be_told() -> None:
    """Placeholders, prose, and what the question brought."""
    assert valid_sql(fenced("sql", "SELECT ... FROM t WHERE ("), "", "sql") is None
    assert valid_sql("No hace falta ninguna consulta.", "", "sql") is None
    assert valid_sql(fenced("sql", "SELEC 1"), "Fix: SELEC 1", "sql") is None
