"""Whether the SQL of an answer parses, in the dialect asked for or else in any."""

from __future__ import annotations

import logging
import re

from capibara_agents.answers.structured import MAX_BRACKETS, MAX_SQL_CHARS, SQL_TAGS, blocks, nesting, sql_source
from capibara_agents.types import Check, Domain
from capibara_agents.verify.prose import READ_CHARS

_DIALECTS = {
    "postgres": r"postgres(?:ql)?",
    "mysql": r"mysql|mariadb",
    "sqlite": r"sqlite",
    "tsql": r"t-?sql|sql server|mssql",
    "oracle": r"oracle|pl/?sql",
    "bigquery": r"bigquery",
    "snowflake": r"snowflake",
    "duckdb": r"duckdb",
}
_ASKED = {name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for name, pattern in _DIALECTS.items()}
_LEFT_OUT = re.compile(r"\.\.\.|…|<[A-Za-z_ ]+>|\{\w*\}|\[\w+ \w+\]")
_STATEMENT = re.compile(
    r"^\s*\(*\s*(?:select|with|insert|update|delete|create|alter|drop|merge|truncate|grant|revoke|explain|show|describe|use|"
    r"begin|commit|rollback|set|declare|call|exec(?:ute)?|values|replace|analyze|vacuum|pragma|copy)\b",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)


def valid_sql(content: str, question: str, domain: Domain) -> Check | None:
    """The SQL parses; None when there is none, or what stands there leaves something out."""
    if len(content) > READ_CHARS:
        return None
    found = [b.text for b in blocks(content) if b.tag in SQL_TAGS]
    if not found and domain == "sql" and (source := sql_source(content)):
        found = [source]
    asked = "".join(question[:50_000].split())
    found = [text for text in found if "".join(text.split()) not in asked and not _LEFT_OUT.search(text)]
    judged = [(text, verdict) for text in found[:10] if (verdict := _parses(text, question)) is not None]
    if not judged:
        return None
    wrong = next((text for text, verdict in judged if not verdict), None)
    details: dict[str, str | int | float] = {"begins": wrong.strip()[:60]} if wrong else {"blocks": len(judged)}
    return Check(name="sql", passed=wrong is None, reason="" if wrong is None else "verify.sql", details=details)


def dialects(question: str) -> tuple[str, ...]:
    """The dialects that a question names."""
    return tuple(name for name, pattern in _ASKED.items() if pattern.search(question[:20_000]))


def _parses(text: str, question: str) -> bool | None:
    bare = _COMMENT.sub(" ", text).strip()
    if not bare or len(bare) > MAX_SQL_CHARS or nesting(bare) > MAX_BRACKETS:
        return None
    if not _STATEMENT.match(bare):
        return False
    named = dialects(question)
    return any(_parses_as(bare, dialect) for dialect in (named or ("", "postgres", "mysql", "tsql", "sqlite")))


def _parses_as(text: str, dialect: str) -> bool:
    import sqlglot  # noqa: PLC0415  (a fifth of a second, for SQL only)
    from sqlglot.errors import SqlglotError  # noqa: PLC0415

    # It warns of statements that it keeps as they are; that is no news for anybody's log.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    try:
        return any(tree is not None for tree in sqlglot.parse(text, dialect=dialect or None))
    except (SqlglotError, RecursionError, ValueError):
        return False
