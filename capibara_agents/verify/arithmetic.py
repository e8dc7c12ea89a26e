"""Redoes the arithmetic of an answer: wherever it states that numbers combined give a number.

    "12 × 7 = 85"   "15 % de 260 = 39"   "\\frac{3}{4} \\times 8 = 6"   "48/2 = 24 clips"   "2 + 3 = 5 = 10 / 2"

Exact, on fractions. It would rather be silent than wrong: an equation counts only when every sign of it is understood;
with variables, remainders, clocks, other bases, units that differ or words of doubt around it is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from capibara_agents.answers.evaluation import approximate, exact
from capibara_agents.answers.notation import read
from capibara_agents.answers.numbers import parse_number, unit_name
from capibara_agents.answers.tokens import tidy
from capibara_agents.answers.wordlist import listed
from capibara_agents.types import Check
from capibara_agents.verify.prose import prose, sample

MAX_EQUATIONS = 200
MAX_TOKENS = 60
"""Of one side of an equation."""
MAX_LINE_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Equation:
    """A stated equation; `doubted` where the words around it do not claim that it holds."""

    left: str
    right: str
    holds: bool
    correct: str
    doubted: bool


def right_arithmetic(content: str, question: str) -> Check | None:
    """Every equation that the answer states holds; None when it states none that can be redone."""
    asked = _squeezed(question[:20_000])
    found = list(equations(content))
    # What the question itself says ("why is 2 + 2 = 5 wrong?") the answer may repeat.
    judged = [e for e in found if not e.doubted and _squeezed(f"{e.left}={e.right}") not in asked]
    mended = {_squeezed(e.left) for e in found if e.holds}
    wrong = [e for e in judged if not e.holds and _squeezed(e.left) not in mended]
    if not judged:
        return None
    if not wrong:
        return Check(name="arithmetic", passed=True, details={"equations": len(judged)})
    first = wrong[0]
    details: dict[str, str | int | float] = {
        "equations": len(judged),
        "wrong": len(wrong),
        "stated": f"{first.left} = {first.right}"[:160],
        "correct": first.correct[:60],
    }
    return Check(name="arithmetic", passed=False, reason="verify.arithmetic", details=details)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$\\]|\*\*", "", text)


# ---------------------------------------------------------------- finding equations

_DOUBT = re.compile(
    r"\b(?:not|no|never|isn't|wrong|incorrect\w*|false|fals[oa]|mistake\w*|error\w*|if|suppose|assum\w+|say|instead|would|were|"
    r"si|sup[oó]n\w*|supongamos|equivocad\w*|mal|nunca|en vez|mod|modulo|m[oó]dulo|binary|binari[oa]|base|hex\w*|octal|"
    r"remainder|resto|residuo|rest|o'clock|puzzle|acertijo|guess|try|trying|prob\w+|approach\w*|let)\b|"
    r"≠|!=|\\neq?\b|\\pmod|\\equiv|≡|\\bmod|//|[_^]\{?(?:2|8|16)\}?\b(?=\s*[=+])",
    re.IGNORECASE,
)
_APPROXIMATE = re.compile(
    r"approx\w*|about|around|roughly|nearly|almost|round\w*|aprox\w*|unos|unas|"
    r"casi|redond\w*|trunc\w*|cerca|floor|ceil",
    re.IGNORECASE,
)
_EQUALS = re.compile(r"(?<![=<>!:+\-*/])(=|≈|≃|\\approx(?![a-zA-Z])|\\simeq(?![a-zA-Z]))(?![=>])")
_SENTENCE = re.compile(r"(?<=[.;?])\s+|(?<=!)\s+(?=[A-ZÁÉÍÓÚ¿¡])|\n+")


def equations(content: str) -> Iterator[Equation]:
    """The equations of the prose, chains pair by pair, in order."""
    rounded: set[Fraction] = set()
    count = 0
    for sentence in _SENTENCE.split(prose(sample(content))):
        if len(sentence) > MAX_LINE_CHARS or not _EQUALS.search(sentence):
            continue
        doubted = bool(_DOUBT.search(sentence))
        parts = _EQUALS.split(_readable(sentence))
        loose = bool(_APPROXIMATE.search(sentence))
        for i in range(0, len(parts) - 2, 2):
            about = loose or parts[i + 1] != "="
            equation = _equation(parts[i], parts[i + 2], about, rounded, first=i == 0)
            if equation is None:
                continue
            yield replace(equation, doubted=doubted)
            count += 1
            if count >= MAX_EQUATIONS:
                return


def _readable(sentence: str) -> str:
    text = re.sub(r"\*\*(?=\S[^*]*\*\*)|(?<=\S)\*\*(?=[\s.,;:)]|$)|__", "", sentence)
    text = tidy(text).replace("\\$", "")
    return re.sub(r"[$€£]|\bUSD\b|\bEUR\b|(?<=\d)\s?(?:dollars?|euros?|d[oó]lares)\b", "", text)


def _equation(left: str, right: str, about: bool, rounded: set[Fraction], *, first: bool) -> Equation | None:
    a, b = _ending(left, whole=not first), _beginning(right)
    if a is None or b is None or not _units_agree(a, b):
        return None
    if not a.operators and (first or a.words or not b.operators):
        return None
    holds = correct = None
    for comma in (False, True):
        x, y = _value(a.text, decimal_comma=comma), _value(b.text, decimal_comma=comma)
        if x is None or y is None:
            continue
        correct = correct or (x if a.operators else y)
        outcome = _agree(x, y, a, b, Tolerance(about, comma, rounded))
        holds = outcome if holds is None else holds or outcome
    if holds is None or correct is None:
        return None
    return Equation(a.text, b.text, holds, _shown(correct), doubted=False)


def _shown(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.6g}" if abs(value) < 10**15 else "?"


# ---------------------------------------------------------------- the two sides


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an equation: its notation, the units in it, whether anything is computed, whether a root is."""

    text: str
    units: frozenset[str]
    operators: bool
    decimals: int
    percent: bool
    words: bool


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d[\d.,]*\d|\d)|(?P<of>%\s*(?:of|de(?:l)?)\b)|(?P<op>[-+*/^×·÷−–⋅]|"
    r"\\times|\\cdot|\\div)|(?P<percent>%|percent\b|por ciento\b)|"
    r"(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<fraction>\\d?frac)|(?P<root>\\?sqrt\b|√)|(?P<word>[A-Za-zÀ-ÿ°µ][\w°À-ÿ'/-]*)|(?P<other>.))",
    re.DOTALL,
)
_TIMES = {"×": "*", "·": "*", "⋅": "*", "\\times": "*", "\\cdot": "*", "÷": "/", "\\div": "/", "−": "-", "–": "-"}
_X = frozenset({"x", "X"})
# After these words a number is part of something else: "the square root of 16 + 1", "log2 8", "half of 10".
_BINDS = frozenset(
    listed(
        """
        of de del log ln sin cos tan sqrt root raíz raiz mod times por plus más mas minus menos over entre divided
        dividido per f g h n cubed squared gcd lcm mcd mcm max min mean avg media promedio average factor power elevado
        by and y
        """
    )
)
_JOINS = frozenset({"and", "y", "then", "so", "luego", "entonces", ",", ";"})


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup is not None and match[match.lastgroup].strip():
            found.append((match.lastgroup, match[match.lastgroup]))
    return found


def _ending(text: str, *, whole: bool) -> Side | None:
    """The arithmetic that a text ends in; `whole`, between two signs of equality, takes in all of it or nothing."""
    tokens = _tokens(text[-400:])
    at = len(tokens)
    while at > 0 and len(tokens) - at < MAX_TOKENS and _belongs(tokens, at - 1):
        at -= 1
    before = tokens[at - 1] if at else None
    chosen = _without_lead(tokens[at:])
    if before is not None:
        # "5 + 3 = 8 and 8 * 2 = 16": within a chain only such a word begins another equation.
        stands_alone = before[1].lower() in _JOINS if whole else not _bound(before, tokens, at)
        if not stands_alone:
            return None
    return None if chosen and chosen[0][1] == "{" else _side(chosen)


def _without_lead(tokens: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without a list's dash or number, and words, before the first number."""
    while tokens and tokens[0][0] in ("word", "percent"):
        tokens = tokens[1:]
    return tokens


def _bound(before: tuple[str, str], tokens: list[tuple[str, str]], at: int) -> bool:
    """What stands before the arithmetic changes its meaning: a variable, a function, an operator."""
    kind, text = before
    if kind == "word":
        return len(text) == 1 or text.lower() in _BINDS or (at < len(tokens) and tokens[at][0] == "op")
    return kind in ("op", "root", "fraction", "of") or (kind == "other" and text not in ".:,;→>•#'\"¿?!|&~*")


def _belongs(tokens: list[tuple[str, str]], at: int) -> bool:
    kind, text = tokens[at]
    if kind == "word":
        return _multiplies(tokens, at) or _is_unit(tokens, at)
    return kind != "other" or (text == "!" and at > 0 and tokens[at - 1][0] == "number")


def _multiplies(tokens: list[tuple[str, str]], at: int) -> bool:
    """An `x` between two numbers."""
    if tokens[at][1] not in _X or not 0 < at < len(tokens) - 1:
        return False
    return tokens[at - 1][0] in ("number", "close", "percent", "word") and tokens[at + 1][0] in ("number", "open")


def _is_unit(tokens: list[tuple[str, str]], at: int) -> bool:
    """A word right after a number and before an operator, a bracket's end, or the end of the side."""
    if len(tokens[at][1]) < 2 and not unit_name(tokens[at][1]):
        return False
    follows = tokens[at + 1] if at + 1 < len(tokens) else None
    ends = follows is None or follows[0] in ("op", "close") or (follows[0] == "word" and _multiplies(tokens, at + 1))
    return ends and at > 0 and tokens[at - 1][0] in ("number", "close")


def _beginning(text: str) -> Side | None:
    """The arithmetic that a text begins with; a variable or a function in it makes it none."""
    # "= 4!" at the end of a sentence is joy.
    tokens = _tokens(text[:400].rstrip().removesuffix("!"))[:MAX_TOKENS]
    at = 0
    while at < len(tokens) and _goes_on(tokens, at):
        at += 1
    after = tokens[at] if at < len(tokens) else None
    chosen = tokens[:at]
    while chosen and chosen[-1][0] in ("op", "open"):
        # "= 5 - so": a dash, not a minus. "= 5 - x" is no number.
        if chosen[-1][1] not in "-–−(*" or (after is not None and after[0] == "word" and len(after[1]) == 1):
            return None
        chosen = chosen[:-1]
    if after is not None and (_variable(after, chosen) or after[1] in ("_", "^", "\\", ":", "!", "|")):
        return None
    side = _side(_balanced_start(chosen))
    units = frozenset({unit_name(after[1])} - {""}) if after and after[0] == "word" else frozenset()
    return None if side is None else replace(side, units=side.units | units)


def _goes_on(tokens: list[tuple[str, str]], at: int) -> bool:
    if tokens[at][0] == "word":
        return _multiplies(tokens, at) or _unit_within(tokens, at)
    return _belongs(tokens, at)


def _unit_within(tokens: list[tuple[str, str]], at: int) -> bool:
    """A unit inside a sum: "= 3 km + 2 km"; at the end it is looked at by the caller."""
    follows = tokens[at + 1] if at + 1 < len(tokens) else None
    more = tokens[at + 2] if at + 2 < len(tokens) else None
    within = follows is not None and follows[0] == "op" and more is not None and more[0] in ("number", "open")
    return tokens[at][0] == "word" and within and _is_unit(tokens, at)


def _variable(token: tuple[str, str], chosen: list[tuple[str, str]]) -> bool:
    kind, text = token
    return kind == "word" and len(text) == 1 and not unit_name(text) and bool(chosen) and text not in "ayoe"


def _balanced_start(tokens: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Up to a bracket that was opened before: "(12 * 7 = 84)"."""
    depth = 0
    for i, (kind, _) in enumerate(tokens):
        depth += {"open": 1, "close": -1}.get(kind, 0)
        if depth < 0:
            return tokens[:i]
    return tokens


def _balanced_end(tokens: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """From after a bracket that is closed only later: "(that is 12 * 7"."""
    depth = 0
    for i in range(len(tokens) - 1, -1, -1):
        depth += {"close": 1, "open": -1}.get(tokens[i][0], 0)
        if depth < 0:
            return tokens[i + 1 :]
    return tokens


def _side(tokens: list[tuple[str, str]]) -> Side | None:
    tokens = _balanced_end(tokens)
    if not any(kind == "number" for kind, _ in tokens) or _unclear(tokens):
        return None
    units = frozenset(unit_name(t) or _singular(t) for k, t in tokens if k == "word" and t not in _X)
    written = "".join(_notation(kind, text) for kind, text in tokens).strip()
    numbers = [text for kind, text in tokens if kind == "number"]
    computed = [
        i
        for i, (kind, _) in enumerate(tokens)
        if kind in ("op", "of", "fraction", "root", "other") or _multiplies(tokens, i)
    ]
    only_sign = computed == [0] and tokens[0][1] in "-+−–"
    percent = any(kind in ("percent", "of") for kind, _ in tokens)
    words = any(kind == "word" and text not in _X for kind, text in tokens)
    return Side(written, units, bool(computed) and not only_sign, max(map(_decimals, numbers)), percent, words)


def _two_in_a_row(tokens: list[tuple[str, str]]) -> bool:
    pairs = pairwise(tokens)
    return any(a[0] in ("number", "close") and b[0] == "number" for a, b in pairs if a[1] not in "}")


def _unclear(tokens: list[tuple[str, str]]) -> bool:
    """A power of a unit (cm^2), a mixed percentage, a percentage taken off."""
    pairs = list(pairwise(tokens))
    powers = any(a[0] == "word" and b[1] == "^" for a, b in pairs)
    mixed = any(a[0] == "number" and b[0] == "fraction" for a, b in pairs) and any(k == "percent" for k, _ in tokens)
    twice = any(
        a[1] == "}" and b[1] == "^" and i > 1 and tokens[i - 1][0] == "number" for i, (a, b) in enumerate(pairs)
    )
    return _two_in_a_row(tokens) or _takes_percent_off(tokens) or powers or mixed or twice


def _takes_percent_off(tokens: list[tuple[str, str]]) -> bool:
    """ "100 - 20 %" may mean 80."""
    percents = sum(kind == "percent" for kind, _ in tokens)
    return 0 < percents < sum(kind == "number" for kind, _ in tokens) and any(
        t in "+-−–" for k, t in tokens if k == "op"
    )


def _notation(kind: str, text: str) -> str:
    if kind == "of":
        return "%*"
    if kind == "percent":
        return "%"
    if kind == "word":
        return "*" if text in _X else ""
    return _TIMES.get(text, text) + (" " if kind in ("number", "op") else "")


def _singular(word: str) -> str:
    return word.lower().rstrip("s")


def _decimals(number: str) -> int:
    last = max(number.rfind("."), number.rfind(","))
    return len(number) - last - 1 if last >= 0 else 0


def _units_agree(a: Side, b: Side) -> bool:
    """Nothing is converted: the measured units of both sides are the same, or one side has none."""
    measured_a, measured_b = ({u for u in side.units if unit_name(u)} for side in (a, b))
    return not measured_a or not measured_b or (measured_a == measured_b and len(measured_a) == 1)


# ---------------------------------------------------------------- values


def _value(text: str, *, decimal_comma: bool) -> Fraction | None:
    """The value of a side, its numbers read in English or in Spanish notation."""
    plain = re.sub(r"\d[\d.,]*\d|\d", lambda m: _plain(m[0], decimal_comma), text)
    node = read(plain)
    if node is None or node.op in ("sequence", "relation"):
        return None
    value = exact(node)
    if value is None:
        near = approximate(node)
        value = Fraction(near) if near is not None and abs(near) < 1e15 else None
    return value


def _plain(number: str, decimal_comma: bool) -> str:
    separators = {c for c in number if c in ".,"}
    if len(separators) == 1 and len(re.split("[.,]", number)) == 2:
        mark = separators.pop()
        groups = re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", number) is not None and (mark == ",") != decimal_comma
        return number.replace(mark, "" if groups else ".")
    return parse_number(number) or number


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What the words around an equation allow: `about` for ≈, `comma` for Spanish decimals, numbers rounded before."""

    about: bool
    comma: bool
    rounded: set[Fraction]


def _agree(x: Fraction, y: Fraction, a: Side, b: Side, tolerance: Tolerance) -> bool:
    """Equal, or as near as the decimals that were written allow."""
    if x == y:
        return True
    # "39 / 260 * 100 = 15 %" and "39 / 260 = 15 %" are both usual.
    pairs = [(x, y)] if a.percent == b.percent else [(x, y), (x, 100 * y), (100 * x, y)]
    for p, q in pairs:
        if p == q or abs(p - q) <= _allowed(p, q, a, b, tolerance):
            tolerance.rounded.add(abs(y))
            return True
    return False


def _allowed(x: Fraction, y: Fraction, a: Side, b: Side, tolerance: Tolerance) -> Fraction:
    """How far the value that is shown may lie from the computed one."""
    shown, computed, decimals = (y, x, b.decimals) if a.operators else (x, y, a.decimals)
    both = f"{a.text} {b.text}"
    if tolerance.about:
        # "≈" allows what two significant digits would.
        return max(Fraction(1, 10**decimals), abs(shown) / 20)
    unit = Fraction(0)
    if decimals:
        # Rounded to the last decimal, or cut off there.
        unit = Fraction(1, 1 if abs(shown) < abs(computed) else 2) / 10**decimals
    elif computed.denominator != 1 and abs(computed) >= 10:
        unit = Fraction(1, 2)
    # Factors of three and more decimals, and powers of ten, come from measurements.
    if re.search(("," if tolerance.comma else r"\.") + r"\d{3,}(?![\d.,])|10 ?\^", both):
        return max(unit, abs(shown) / 100)
    inexact = computed.denominator > 10**6 or "√" in both or "sqrt" in both or _has_rounded(both, tolerance.rounded)
    return max(unit, abs(shown) / 200) if inexact else unit


# Thirds and sixths, pi, the roots of 2 and 3, e.
_WELL_KNOWN = re.compile(r"\d*\.\d*(?:33|66|67|17|83)|3\.14\d*|1\.41\d*|1\.73\d*|2\.7[12]\d*")


def _has_rounded(text: str, rounded: set[Fraction]) -> bool:
    """A number that was rounded before, or is a usual rounding."""
    for number in re.findall(r"\d[\d.,]*\d|\d", text):
        if _WELL_KNOWN.fullmatch(number.replace(",", ".")):
            return True
        plain = parse_number(number)
        if plain is not None and Fraction(plain) in rounded:
            return True
    return False
