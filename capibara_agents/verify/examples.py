"""Finds in a question what a function returns: doctests, "f(2) -> 4", "f(2) == 4", "f(2) devuelve 4". Pure."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator

from capibara_agents.verify.sandbox import Example

MOST_EXAMPLES = 30
MAX_EXAMPLE_CHARS = 2_000
MOST_CALLS = 300
MAX_QUESTION_CHARS = 50_000

_CALL = re.compile(r"(?<![\w.\"'])(?<!def )(?<!class )[A-Za-z_][\w.]*\(")
# What stands between a call and what it returns, longest first where one begins another.
_SAYS = re.compile(
    r"""[`"']?\s*(?:
        =+>|==|[-–—]+>|[➞→⇒⟹↦]|\#\s*(?:=>|->|returns)?|//|=|:
      | (?:should|must|will|would)\s+(?:return|give|be|print|output|produce)
      | (?:debe|debería|tiene\s+que|ha\s+de)\s+(?:devolver|retornar|dar|ser|imprimir)
      | returns? | gives | yields | produces | outputs | prints | evaluates\s+to | is\s+equal\s+to | equals | is
      | devuelve | devolverá | devolvería | retorna | retornará | regresa | da\s+como\s+resultado | da | dará | produce
      | imprime | es\s+igual\s+a | es | vale
    )\s*:?\s*[`]?""",
    re.VERBOSE | re.IGNORECASE,
)
# `a(n) = a(n - 1) + 2` defines a sequence; `a(1) = 3` beside it need not be what a function returns.
_FORMULA = re.compile(r"\b(\w+)\(\s*[a-z]\s*(?:[-+]\s*\d+\s*)?\)\s*=(?![=>])")
_NUMBER = re.compile(r"-?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?j?")
_WORD = re.compile(r"(?:True|False|None|true|false|verdadero|falso)\b")
# After a value: the end, or what cannot make a longer expression of it.
_AFTER = re.compile(r"[`*]*(?:\s*(?:$|[.,;:)\]#(—–])|\s+[^\W\d])")
_CLOSES = {"(": ")", "[": "]", "{": "}"}
# "Input: 3 … Output: 4" and "for n = 3 the result should be 4", of the function that the question defines.
_INPUT = re.compile(
    r"""(?: ^[ \t]*(?:Input|Entrada)\s*:[ \t]*(?P<input>[^\n]+)\n\s*(?:Output|Salida)\s*:[ \t]*
      | \b(?:For|Para)\s+(?P<for>\w+\s*=[^\n]+?),?\s+(?:the|el|la)\s+(?:output|result|answer|salida|resultado|respuesta)
        \s+(?:should\s+be|must\s+be|is|debe\s+ser|debería\s+ser|es)\s*:?\s*
      )[`]?""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_DEFINED = re.compile(r"^[ \t]*def\s+([A-Za-z_]\w*)\s*\(", re.MULTILINE)
_PROMPT = re.compile(r"^\s*>>>\s?(.*)$")
_CONTINUED = re.compile(r"^\s*\.\.\.\s?(.*)$")


def find_examples(question: str) -> tuple[Example, ...]:
    """The examples of a question, in its order, at most MOST_EXAMPLES; doctests first, for they may hang together.

    Only what needs nothing but the functions it calls: an example with a name that was never given a value is none.
    """
    text = question[:MAX_QUESTION_CHARS]
    doctests = list(_doctests(text.splitlines()))
    rest = "\n".join(line for line in text.splitlines() if not _PROMPT.match(line))
    found = _usable([*doctests, *_said(rest), *_inputs(rest)])
    return tuple(dict.fromkeys(found))[:MOST_EXAMPLES]


def _doctests(lines: list[str]) -> Iterator[Example]:
    place = 0
    while place < len(lines):
        opened = _PROMPT.match(lines[place])
        place += 1
        if not opened:
            continue
        source, wanted = [opened[1]], []
        while place < len(lines) and (more := _CONTINUED.match(lines[place])):
            source.append(more[1])
            place += 1
        while place < len(lines) and lines[place].strip(" \t\"'`") and not _PROMPT.match(lines[place]):
            wanted.append(lines[place].strip())
            place += 1
        yield _written_out("\n".join(source).strip(), "\n".join(wanted))


def _written_out(source: str, wanted: str) -> Example:
    """`>>> f(1) == 2`, or `>>> f(1) 2`, with nothing below: what is wanted stands in the same line."""
    if not wanted and "\n" not in source:
        said = next(_said(source), None) or _side_by_side(source)
        if said is not None and source.startswith(said.source):
            return said
    return Example(source=source, wanted=wanted)


def _side_by_side(source: str) -> Example | None:
    opened = _CALL.match(source)
    end = _balanced(source, opened.end() - 1) if opened else None
    if end is None or not source[end : end + 1].isspace():
        return None
    value = _value_at(source, end + 1)
    return Example(source=source[:end], wanted=value) if value else None


def _said(text: str) -> Iterator[Example]:
    """Calls with what they return, anywhere in prose or code; of a text that is all brackets only the first part."""
    formulas = set(_FORMULA.findall(text))
    place = looked = 0
    while looked < MOST_CALLS and (opened := _CALL.search(text, place)):
        looked += 1
        place = opened.end()
        end = _balanced(text, opened.end() - 1)
        while end is not None and (chained := re.compile(r"\.\w+\(").match(text, end)):
            end = _balanced(text, chained.end() - 1)
        says = _SAYS.match(text, end) if end is not None else None
        value = _value_at(text, says.end()) if says else None
        if end is not None and says and value:
            place = end
            if says[0].strip() == "=" and opened[0][:-1] in formulas:
                continue
            yield Example(source=text[opened.start() : end], wanted=value)


def _inputs(text: str) -> Iterator[Example]:
    """Inputs with their outputs, for the last function that the question defines."""
    defined = _DEFINED.findall(text)
    for found in _INPUT.finditer(text) if defined else ():
        value = _value_at(text, found.end())
        values = _arguments(found["input"] or found["for"])
        if value and values:
            yield Example(source=f"{defined[-1]}({values})", wanted=value)


def _arguments(text: str) -> str | None:
    """`a = [1], k = 2`, or the values alone, as positional arguments in the order written; literals only."""
    try:
        call = ast.parse(f"f({text[:MAX_EXAMPLE_CHARS].strip(' .`')})", mode="eval").body
        if not isinstance(call, ast.Call):
            return None
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        return ", ".join(repr(ast.literal_eval(value)) for value in values)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _balanced(text: str, start: int) -> int | None:
    """Where the bracket that opens at `start` has been closed; strings are passed over."""
    waiting: list[str] = []
    place = start
    while place < min(len(text), start + MAX_EXAMPLE_CHARS):
        char = text[place]
        if char in "\"'":
            after = _string_end(text, place)
            if after is None:
                return None
            place = after
            continue
        if char in _CLOSES:
            waiting.append(_CLOSES[char])
        elif char in ")]}":
            if not waiting or waiting.pop() != char:
                return None
            if not waiting:
                return place + 1
        place += 1
    return None


def _string_end(text: str, start: int) -> int | None:
    place = start + 1
    while place < len(text) and text[place] != "\n":
        if text[place] == "\\":
            place += 1
        elif text[place] == text[start]:
            return place + 1
        place += 1
    return None


def _value_at(text: str, start: int) -> str | None:
    """The literal that stands here by itself, not as the beginning of something longer."""
    char = text[start : start + 1]
    end: int | None = None
    if char in _CLOSES:
        end = _balanced(text, start)
    elif char in ("'", '"'):
        end = _string_end(text, start)
    elif found := _NUMBER.match(text, start) or _WORD.match(text, start):
        end = found.end()
        # The full stop of a sentence is no decimal point.
        end -= text[end - 1 : end] == "." and not text[end : end + 1].isdigit()
    line_end = text.find("\n", end or 0)
    if end is None or not _AFTER.match(text[end : line_end if line_end >= 0 else len(text)]):
        return None
    value = text[start:end]
    return value if _WORD.fullmatch(value) or _is_literal(value) else None


def _is_literal(value: str) -> bool:
    try:
        meant = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    # ("a") may be meant as a tuple or as a string.
    return isinstance(meant, tuple) or not value.startswith("(")


def _usable(examples: list[Example]) -> Iterator[Example]:
    """Those that parse, call something of the answer, and use no name that has no value."""
    known: set[str] = set()
    for example in examples:
        if len(example.source) > MAX_EXAMPLE_CHARS or len(example.wanted) > MAX_EXAMPLE_CHARS:
            continue
        try:
            tree = ast.parse(example.source)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        bound = {name.id for name in names if isinstance(name.ctx, ast.Store)} | _imported(tree)
        free = {name.id for name in names} - bound - called - known - set(dir(builtins))
        asks = bool(called - set(dir(builtins))) or bool(known & {name.id for name in names})
        if free or not (asks or bound):
            continue
        known |= bound
        yield example


def _imported(tree: ast.AST) -> set[str]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {(alias.asname or alias.name).partition(".")[0] for node in nodes for alias in node.names}
