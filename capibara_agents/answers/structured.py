"""JSON values, Python literals, code and SQL in a text, each in one way of writing."""

from __future__ import annotations

import ast
import json
import re
import warnings
from dataclasses import dataclass
from typing import Any

from capibara_agents.answers.statement import GUESSED, MARKED, WHOLE, boxes
from capibara_agents.types import AnswerKind, Canonical

MAX_CODE_CHARS = 50_000
MAX_LITERAL_CHARS = 2_000
MAX_JSON_STARTS = 20
MAX_SQL_CHARS = 10_000
MAX_BRACKETS = 60
"""Brackets within each other: what reads SQL tries each level several ways."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its tag in lower case, the text in it, whether the fence was closed."""

    tag: str
    text: str
    closed: bool


_FENCE = re.compile(
    r"(?ms)^[ \t]*(?P<fence>`{3,8}|~{3,8})[ \t]*(?P<tag>[\w+#.-]{0,20})[^\n]*\n"
    r"(?P<text>.*?)(?:^[ \t]*(?P=fence)[ \t]*$|\Z)"
)


def blocks(content: str) -> list[Block]:
    """The fenced blocks of a text, in order; the last one may have been left open."""
    return [
        Block(m["tag"].lower(), m["text"], closed=m[0].rstrip().endswith(m["fence"]))
        for m in _FENCE.finditer(content)
        if m["text"].strip()
    ]


# ---------------------------------------------------------------- JSON


def json_answer(content: str) -> Canonical | None:
    """The JSON value of the text, keys sorted; None when it holds none."""
    fenced = [block.text for block in blocks(content) if block.tag in ("json", "")]
    inline = re.search(r"```(?:json)?\s*(.*?)```", content, re.DOTALL | re.IGNORECASE)
    for text in [content, *fenced, *([inline.group(1)] if inline else [])]:
        found = _json(text)
        if found is not None:
            return found
    return _embedded(content)


def _json(text: str) -> Canonical | None:
    try:
        value = json.loads(text, parse_constant=_refuse)
        written = json.dumps(whole_numbers(value), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return Canonical(kind=AnswerKind.json, value=written, confidence=1.0)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def whole_numbers(value: Any) -> Any:
    """1.0 as 1: they are the same number."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: whole_numbers(item) for key, item in value.items()}
    return [whole_numbers(item) for item in value] if isinstance(value, list) else value


def _embedded(content: str) -> Canonical | None:
    """The first object or list within prose."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    for start in [m.start() for m in re.finditer(r"[{\[]", content[:100_000])][:MAX_JSON_STARTS]:
        try:
            value, end = decoder.raw_decode(content, start)
        except (ValueError, RecursionError):
            continue
        if value and (isinstance(value, dict) or end - start > 10):
            found = _json(content[start:end])
            return found.model_copy(update={"confidence": GUESSED}) if found else None
    return None


# ---------------------------------------------------------------- Python literals

_TAGGED = re.compile(r"\[ANSWER\](.{1,2000}?)(?:\[/ANSWER\]|\Z)", re.DOTALL)
_ASSERTED = re.compile(r"assert\s.{1,300}?==\s*(?P<value>[^\n]{1,2000})")
_SAID = re.compile(
    r"(?:output|outputs|returns?|prints?|result|answer|value|salida|imprime|imprimir[aá]|devuelve|resultado|respuesta|valor)\b"
    r"[^\n`:=]{0,60}?(?:\b(?:is|es|will be|would be|ser[ií]a|ser[aá])\b|[:=])?\s*[*_]*(?:```\w*\s*\n|"
    r"`)?\s*(?P<value>[^\n`]{1,2000})",
    re.IGNORECASE,
)
_TICKS = re.compile(r"`([^`\n]{1,2000})`")


def literal_answer(content: str) -> Canonical | None:
    """The value a program is said to give: a Python literal, or the characters it prints."""
    for text, confidence in _literal_places(content):
        found = literal_value(text)
        if found is not None:
            return Canonical(kind=AnswerKind.literal, value=found, confidence=confidence)
    bare = content.strip()
    if bare and len(bare) <= 200 and "\n" not in bare:
        return Canonical(kind=AnswerKind.literal, value=bare.strip("`'\""), confidence=GUESSED)
    return None


def _literal_places(content: str) -> list[tuple[str, float]]:
    tail = content[-10_000:]
    found = [(m[1], MARKED) for m in reversed(list(_TAGGED.finditer(tail)))]
    found += [(inside, MARKED) for inside, _ in reversed(boxes(tail))]
    found += [(m["value"], MARKED) for m in reversed(list(_ASSERTED.finditer(tail)))]
    found.append((content, WHOLE))
    found += [(m["value"], MARKED) for m in reversed(list(_SAID.finditer(tail)))]
    found += [(block.text, GUESSED) for block in reversed(blocks(tail))]
    return found + [(m[1], GUESSED) for m in reversed(list(_TICKS.finditer(tail)))]


def literal_value(text: str) -> str | None:
    """One way of writing a Python literal: strings by their characters, dictionaries and sets in order; None: none."""
    bare = re.sub(r"^assert\s.*?==", "", text.strip()).strip().strip("*`").strip()
    for attempt in (bare, bare.rstrip(".;"), bare.split("\n")[0]):
        if not attempt or len(attempt) > MAX_LITERAL_CHARS:
            continue
        try:
            value = ast.literal_eval(attempt)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        return value if isinstance(value, str) else _written(value)
    return None


def _written(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(sorted(f"{_written(k)}: {_written(v)}" for k, v in value.items())) + "}"
        case set() | frozenset():
            return "{" + ", ".join(sorted(map(_written, value))) + "}" if value else "set()"
        case tuple():
            return "(" + ", ".join(map(_written, value)) + ("," if len(value) == 1 else "") + ")"
        case list():
            return "[" + ", ".join(map(_written, value)) + "]"
        case int() if not isinstance(value, bool) and value.bit_length() > 4000:
            return hex(value)
    return repr(value)


# ---------------------------------------------------------------- code

PYTHON_TAGS = frozenset({"python", "py", "python3", "pycon"})
_PYTHON = re.compile(r"(?m)^\s*(?:def \w+\(|class \w+[(:]|import \w+|from \w+ import|print\(|async def )")


def python_source(content: str) -> str | None:
    """The Python of a text: its longest block of Python, or the whole text when it is nothing but Python."""
    found = [b.text for b in blocks(content) if b.tag in PYTHON_TAGS or (not b.tag and _PYTHON.search(b.text))]
    if found:
        return max(found, key=len)
    return content if _PYTHON.match(content) and parse_python(content) is not None else None


def parse_python(source: str) -> ast.Module | None:
    """The syntax tree; None where it does not parse, or is too large to try."""
    if len(source) > MAX_CODE_CHARS:
        return None
    with warnings.catch_warnings():
        # An unknown escape in somebody's string is no business of ours.
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None


def code_answer(content: str) -> Canonical | None:
    """The longest block of code; Python without comments, docstrings and layout, other languages without layout."""
    source = python_source(content)
    tree = parse_python(source) if source is not None else None
    if tree is not None:
        try:
            written = ast.unparse(_without_docstrings(tree))
        except (RecursionError, ValueError):
            written = str(source)
        return Canonical(kind=AnswerKind.code, value=written, confidence=WHOLE)
    found = [block.text for block in blocks(content)]
    if not found:
        return None
    return Canonical(kind=AnswerKind.code, value=" ".join(max(found, key=len).split()), confidence=WHOLE)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                node.body = node.body[1:]
    return tree


# ---------------------------------------------------------------- SQL

_SQL = re.compile(r"(?ims)^[ \t]*((?:with|select|insert|update|delete|create|alter|drop)\b.{5,}?)(?:;|\n\s*\n|\Z)")


def sql_source(content: str) -> str | None:
    """The SQL of a text: its longest block of SQL, or the statement that stands in it."""
    found = [b.text for b in blocks(content) if b.tag in SQL_TAGS or (not b.tag and _SQL.match(b.text))]
    if found:
        return max(found, key=len)
    match = _SQL.search(content[:MAX_SQL_CHARS])
    return match[1] if match else None


SQL_TAGS = frozenset(
    {"sql", "mysql", "postgresql", "postgres", "sqlite", "tsql", "plsql", "mssql", "bigquery", "snowflake"}
)


def nesting(text: str) -> int:
    """How many brackets stand open at once, at most."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def sql_answer(content: str) -> Canonical | None:
    """The SQL of the text in sqlglot's writing: letter case, layout and comments make no difference."""
    source = sql_source(content)
    if source is None:
        return None
    return Canonical(kind=AnswerKind.sql, value=_sql_written(source), confidence=WHOLE)


def _sql_written(source: str) -> str:
    import sqlglot  # noqa: PLC0415  (a fifth of a second, for SQL only)
    from sqlglot.errors import SqlglotError  # noqa: PLC0415

    bare = source.strip().rstrip(";").strip()
    if len(bare) > MAX_SQL_CHARS or nesting(bare) > MAX_BRACKETS:
        return " ".join(bare.split())
    try:
        trees = sqlglot.parse(bare)
        return "; ".join(t.sql(comments=False, normalize=True) for t in trees if t is not None)
    except (SqlglotError, RecursionError, ValueError):
        return " ".join(bare.split())
