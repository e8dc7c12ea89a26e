"""Whether the code of an answer parses: Python by its own parser, others by tree-sitter, as the fence is tagged."""

from __future__ import annotations

import importlib
import json
import re
import textwrap
import time
from functools import cache
from typing import Any

from capibara_agents.answers.structured import MAX_CODE_CHARS, PYTHON_TAGS, Block, blocks, parse_python
from capibara_agents.types import Check
from capibara_agents.verify.prose import READ_CHARS

MAX_BLOCKS = 20
MAX_SOURCE_CHARS = 20_000
PARSE_TIMEOUT_S = 0.1
"""Of a block that tree-sitter reads; it repairs as it goes, which takes time on garbage."""

# Tag -> module of the grammar, and the function in it that gives the language.
_GRAMMARS = {
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "java": ("tree_sitter_java", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "bash": ("tree_sitter_bash", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "php": ("tree_sitter_php", "language_php_only"),
}
_TAGS = {
    "js": "javascript",
    "jsx": "javascript",
    "mjs": "javascript",
    "node": "javascript",
    "ts": "typescript",
    "c++": "cpp",
    "cc": "cpp",
    "hpp": "cpp",
    "h": "c",
    "cs": "csharp",
    "c#": "csharp",
    "golang": "go",
    "rs": "rust",
    "rb": "ruby",
}
# What may stand around a fragment to make it whole.
_AROUND = {
    "java": ("class X {{\n{}\n}}", "class X {{ void f() {{\n{}\n}} }}"),
    "csharp": ("class X {{\n{}\n}}", "class X {{ void F() {{\n{}\n}} }}"),
    "c": ("void f(void) {{\n{}\n}}",),
    "cpp": ("void f() {{\n{}\n}}", "class X {{\n{}\n}};"),
    "javascript": ("class X {{\n{}\n}}", "async function f() {{\n{}\n}}", "x = {{\n{}\n}}"),
    "typescript": ("class X {{\n{}\n}}", "async function f() {{\n{}\n}}"),
    "php": ("class X {{\n{}\n}}",),
}
_LEFT_OUT = re.compile(r"\.\.\.|…|<[a-z][\w -]*>|\{\{")
_SHELL_LINE = re.compile(r"(?m)^\s*[!%$][^\n]*$")
_DEBUGGING = re.compile(r"\bpython ?2\b|\b(?:pseudo-?code|pseudoc[oó]digo)\b", re.IGNORECASE)


def parses(content: str, question: str) -> Check | None:
    """Every block of code parses; None when there is none that can be read. Blocks of the question are its own."""
    # What is cut in the middle parses no more.
    if len(content) > READ_CHARS or _DEBUGGING.search(question[:20_000]):
        return None
    asked = "".join(question[:50_000].split())
    found = [b for b in blocks(content)[:MAX_BLOCKS] if "".join(b.text.split()) not in asked]
    judged = [(block, verdict) for block in found if (verdict := _parses(block)) is not None]
    if not judged:
        return None
    wrong = next((block for block, verdict in judged if not verdict), None)
    if wrong is None:
        return Check(name="code", passed=True, details={"blocks": len(judged)})
    details: dict[str, str | int | float] = {"language": wrong.tag, "begins": wrong.text.strip()[:60]}
    return Check(name="code", passed=False, reason="verify.code", details=details)


def _parses(block: Block) -> bool | None:
    """Whether a block parses; None where it cannot be told."""
    if block.tag in PYTHON_TAGS:
        return _python_parses(block.text)
    if block.tag == "json":
        return _json_parses(block.text)
    language = _TAGS.get(block.tag, block.tag)
    if language not in _GRAMMARS or len(block.text) > MAX_SOURCE_CHARS:
        return None
    return _grammar_parses(block.text, language)


def _python_parses(source: str) -> bool | None:
    if len(source) > MAX_CODE_CHARS:
        return None
    text = textwrap.dedent(_SHELL_LINE.sub("", source))
    if re.search(r"(?m)^\s*>>> ", text):
        prompts = re.findall(r"(?m)^[ \t]*(?:>>>|\.\.\.) ?(.*)$", text)
        text = "\n".join(prompts)
    # A fragment of a function, or of a class, is no error of its own.
    return any(parse_python(attempt) is not None for attempt in (text, f"def f():\n{textwrap.indent(text, '    ')}"))


def _json_parses(source: str) -> bool | None:
    try:
        json.loads(source)
    except RecursionError:
        return None
    except ValueError:
        return None if _LEFT_OUT.search(source) or "//" in source or "\n{" in source.strip() else False
    return True


def _grammar_parses(source: str, language: str) -> bool | None:
    text = source.replace("<?php", "").replace("?>", "") if language == "php" else source
    attempts = [text, *(frame.format(text) for frame in _AROUND.get(language, ()))]
    for attempt in attempts:
        faulty = _has_error(attempt.encode("utf-8", "replace"), language)
        if not faulty:
            return None if faulty is None else True
    # What was left out on purpose is no mistake.
    return None if _LEFT_OUT.search(source) else False


def _has_error(source: bytes, language: str) -> bool | None:
    """Whether tree-sitter had to repair; None where its grammar is not installed, or it takes too long."""
    grammar = _grammar(language)
    if grammar is None:
        return None
    end_s = time.monotonic() + PARSE_TIMEOUT_S
    parser = importlib.import_module("tree_sitter").Parser(grammar)
    try:
        # It looks at the clock only when it fetches its text itself.
        tree = parser.parse(
            lambda offset, _: source[offset : offset + 4096], progress_callback=lambda *_: time.monotonic() > end_s
        )
    except ValueError:
        return None
    return bool(tree.root_node.has_error)


@cache
def _grammar(language: str) -> Any:
    """A grammar, loaded at the first block of its language; None where it is not installed."""
    module, function = _GRAMMARS[language]
    try:
        tree_sitter = importlib.import_module("tree_sitter")
        return tree_sitter.Language(getattr(importlib.import_module(module), function)())
    except (ImportError, AttributeError):
        return None
