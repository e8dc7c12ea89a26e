"""Settles "what does this code print?" and "what does f(3) return?" by running the code that stands in the question."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable

from pydantic import Field

from capibara_agents.answers import canonical
from capibara_agents.answers.structured import blocks
from capibara_agents.types import AnswerKind, Check, Value
from capibara_agents.verify.sandbox import PRELOAD, Limits, RunResult, Sandbox, evaluate
from capibara_agents.verify.sandbox_values import same_shown

MAX_QUESTION_CHARS = 20_000
MOST_LINES = 300
MOST_TRIES = 300
"""Brackets of a prose that are looked at as the end of a call."""
CLEARLY = 0.8
"""An extracted answer of less confidence may be something that the answer merely mentions."""
# Code whose result hangs on the order of a set of strings is run so often, each time with other hashes, and counts
# only when all agree: two strings change places in every second run.
SEEDS = 6

_FENCED = re.compile(
    r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)```|\[PYTHON\](.*?)\[/PYTHON\]", re.DOTALL | re.IGNORECASE
)
_INLINE = re.compile(r"`([^`\n]+)`")
_CODE_LINE = re.compile(
    r"^(?:def |class |import |from \w+ import |for |while |print\(|@\w|[A-Za-z_]\w*(?:\[.*\])?\s*[-+*/]?= ?\S)"
)
_GAP = re.compile(r"^[ \t]*assert\s+(?P<asked>.+?)\s*==\s*(?:\?+|_+|\.\.\.|…)[ \t]*$", re.MULTILINE)
_PRINTS = re.compile(
    r"""\b(?: what\s+(?:does|do|will|would|is|gets|was)\b[^?.\n]{0,80}
              \b(?:print(?:s|ed)?|outputs?|display(?:ed)?|shown)\b
          | what's\s+the\s+output\b
          | (?:predict|determine|give|state|find)\s+the\s+(?:printed\s+)?output\b
          | qu[ée]\s+(?:se\s+)?(?:imprim(?:e|en|irá|iría)|muestra|mostrará|saca|sale|saldrá|aparece|escribe)\b
          | cu[áa]l\s+(?:es|será|sería)\s+(?:la|el)\s+(?:salida|texto\s+impreso)\b
          | (?:predice|indica|determina|di|da)\s+(?:cuál\s+es\s+)?la\s+salida\b )""",
    re.VERBOSE | re.IGNORECASE,
)
_RETURNS = re.compile(
    r"""(?: \bwhat\s+(?:does|do|will|would)\b[^?.\n]{0,200}\b(?:return|give|evaluate|produce|yield|equal|contain)\b
          | \b(?:what|which)\s+(?:is|are|(?:will|would)\s+be)\s+the\s+(?:final\s+|return\s+)?(?:value|result|output)\b
          | \bwhat\s+is\s+`?[A-Za-z_]\w*(?:\(|`?\s+(?:after|at\s+the\s+end)) | \bwhat\s+value\b
          | \bqu[ée]\s+(?:devuelve|devolverá|devolvería|retorna|retornará|regresa)\b
          | \bqu[ée]\s+(?:da|dará|vale|valor|resultado|contiene)\b
          | \bcu[áa]l\s+(?:es|será|sería)\s+(?:el\s+)?(?:valor|resultado)\b | \bcu[áa]nto\s+(?:vale|da|es)\b )""",
    re.VERBOSE | re.IGNORECASE,
)
# Asked about the code, not about what it does when it runs as it stands.
_OTHER = re.compile(
    r"""\b(?: fix|rewrite|refactor|modify|convert|translate|optimi[sz]e|complexity|instead\s+of|but\s+(?:i|it)\b
          | i\s+(?:get|expect)
          | write\s+(?:a|an|the|some|code)|how\s+(?:do|can|should|to)|why\s+(?:does|do|is|doesn't|isn't)|complete\s+the
          | if\s+(?:we|i|you)\s+(?:change|replace|remove|add)
          | corrige|arregla|modifica|convierte|traduce|optimiza|complejidad|en\s+(?:lugar|vez)\s+de
          | me\s+(?:da|sale)|pero
          | escrib[ae]\s+(?:un|una|el|la|código)|cómo|por\s+qué|completa
          | si\s+(?:cambi|quit|sustitu|añad)\w+ )""",
    re.VERBOSE | re.IGNORECASE,
)
_VARIABLE = (
    re.compile(r"(?:value|valor|result|resultado)\s+(?:final\s+)?(?:of|de)\s+`?([A-Za-z_]\w*)"),
    re.compile(r"(?:\bis|vale|contiene)\s+`?([A-Za-z_]\w*)`?\s*(?:\?|after|at\s+the\s+end|al\s+final|después|tras)"),
)
_OPTION = re.compile(r"^[ \t]*\(?([A-Ea-e])[).:][ \t]+(.+?)[ \t]*$", re.MULTILINE)
# What may differ from one run to the next, whatever the hashes are.
_FICKLE = {"random", "time", "datetime", "uuid", "secrets", "os", "threading", "id", "gc", "tempfile"}
_HASHED = {"set", "frozenset", "hash"}


class PrintQuestion(Value):
    """Code, and what is asked of it: the value of an expression after it, or, without one, what it prints."""

    source: str
    expression: str = ""
    options: dict[str, str] = Field(default_factory=dict, description="Letter -> text.")


def find_print_question(question: str) -> PrintQuestion | None:
    """The code and the expression that a question asks about; None when it asks something else. Pure."""
    code, prose = _split(question) if len(question) <= MAX_QUESTION_CHARS else (None, "")
    if code is None:
        return None
    gap = _GAP.search(code)
    if gap:
        return _asked(code[: gap.start()] + code[gap.end() :], gap["asked"], {})
    options = {letter.upper(): _bare(text) for letter, text in _OPTION.findall(prose)}
    if _OTHER.search(prose):
        return None
    if _PRINTS.search(prose) and "print" in code:
        return _asked(code, "", options)
    expression = _expression(prose, code) if _RETURNS.search(prose) else None
    return _asked(code, expression, options) if expression else None


def settle_print_question(
    question: str, evaluate: Callable[[str, str, Limits], RunResult] = evaluate, limits: Limits | None = None
) -> str | None:
    """The right answer, found by running the code of the question; None when it does not ask that, or cannot be told.

    A printed text comes without its last line break, a value as its repr, and where the question offers options, the
    letter of the one that says the same. Code that fails, waits for input or is not the same in every run settles
    nothing. Blocks for as long as `limits` let it.
    """
    asked = find_print_question(question)
    if asked is None:
        return None
    names = _names(asked)
    if names & _FICKLE:
        return None
    limits = limits or Limits(wall_s=5, cpu_s=2)
    shown = _shown(evaluate(asked.source, asked.expression, limits), asked)
    if shown is None or (names & _HASHED and not _same_with_other_hashes(asked, shown, limits)):
        return None
    if asked.options:
        right = [letter for letter, text in asked.options.items() if same_answer(text, shown)]
        return right[0] if len(right) == 1 else None
    return shown


def same_answer(answer: str, settled: str) -> bool:
    """An answer says what was found by running: the same text, or a literal of the same value."""
    return same_shown(settled, _bare(answer))


def gives(content: str, question: str, settled: str) -> bool | None:
    """Whether an answer gives what running the question's code gave; None where it does not say it clearly.

    An answer that merely mentions the right text among others proves nothing by that.
    """
    given = canonical(content, question=question, domain="coding", wants_json=False)
    if given.kind is AnswerKind.option:
        return given.value == settled
    if any(same_answer(block.text.rstrip("\n"), settled) for block in blocks(content)) or same_answer(content, settled):
        return True
    if given.kind in (AnswerKind.number, AnswerKind.literal) and given.confidence >= CLEARLY:
        return same_answer(given.value, settled)
    mentions = re.search(rf"(?<![\w.]){re.escape(settled.strip())}(?![\w])", content)
    return None if mentions else False


def says_what_it_prints(content: str, question: str, settled: str) -> Check:
    """`gives` as a check: an answer that names nothing clearly passes."""
    right = gives(content, question, settled) is not False
    details: dict[str, str | int | float] = {} if right else {"detail": settled[:200]}
    return Check(name="prints", passed=right, reason="" if right else "verify.prints", details=details)


# ---------------------------------------------------------------- reading the question


def _asked(source: str, expression: str, options: dict[str, str]) -> PrintQuestion | None:
    try:
        ast.parse(source)
        ast.parse(expression or "0", mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return PrintQuestion(source=source, expression=expression, options=options)


def _bare(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == "`" else text


def _split(question: str) -> tuple[str | None, str]:
    """The code of a question and its prose: one fenced block, or lines that are code, or a piece between backticks."""
    fenced = _FENCED.findall(question)
    if fenced:
        blocks = [_undented(python or marked) for python, marked in fenced]
        return (blocks[0] if len(blocks) == 1 else None), _FENCED.sub("\n", question)
    lines = question.splitlines()[:MOST_LINES]
    found = _code_lines(lines)
    if found:
        first, last = found
        return "\n".join(lines[first:last]), "\n".join([*lines[:first], *lines[last:]])
    inline = [piece for piece in _INLINE.findall(question) if _is_code(piece) and "(" in piece]
    if len(inline) == 1:
        # A call that is asked for stays in the prose; it needs no code before it.
        return (inline[0] if inline[0].startswith("print") else ""), question
    return None, question


def _undented(block: str) -> str:
    lines = block.strip("\n").splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines)


def _code_lines(lines: list[str]) -> tuple[int, int] | None:
    """From the first line that looks like code, as many as parse together."""
    first = next((number for number, line in enumerate(lines) if _CODE_LINE.match(line)), None)
    if first is None:
        return None
    for last in range(len(lines), first, -1):
        if lines[last - 1].strip() and _is_code("\n".join(lines[first:last])):
            return first, last
    return None


def _is_code(text: str) -> bool:
    try:
        return bool(ast.parse(text).body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _expression(prose: str, code: str) -> str | None:
    """What the prose asks the value of: a call of a function of the code, or one of its variables."""
    tree = ast.parse(code) if _is_code(code) else ast.Module(body=[], type_ignores=[])
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    variables = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    pieces = [_bare(piece) for piece in _INLINE.findall(prose)] + _calls(prose)
    calls = [piece for piece in dict.fromkeys(pieces) if _calls_of(piece, functions if code else None)]
    if calls:
        return calls[0] if len(calls) == 1 else None
    asked = {name for pattern in _VARIABLE for name in pattern.findall(prose) if name in variables}
    return asked.pop() if len(asked) == 1 else None


def _calls(prose: str) -> list[str]:
    """Texts of the form name(…) with their brackets closed."""
    found: list[str] = []
    tries = MOST_TRIES
    for opened in re.finditer(r"(?<![\w.`])[A-Za-z_]\w*\(", prose):
        for end in range(opened.end(), min(len(prose), opened.end() + 500)):
            if prose[end] != ")":
                continue
            tries -= 1
            if tries < 0:
                return found
            if _is_code(prose[opened.start() : end + 1]):
                found.append(prose[opened.start() : end + 1])
                break
    return found


def _calls_of(piece: str, functions: set[str] | None) -> bool:
    try:
        tree = ast.parse(piece, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return bool(called) if functions is None else bool(called & functions)


# ---------------------------------------------------------------- running it


def _names(asked: PrintQuestion) -> set[str]:
    """Names that say on what the result may hang; a set display counts as `set`."""
    found: set[str] = set()
    for node in [*ast.walk(ast.parse(asked.source)), *ast.walk(ast.parse(asked.expression or "0"))]:
        if isinstance(node, ast.Set | ast.SetComp):
            found.add("set")
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", None) or ""}
    return found


def _shown(result: RunResult, asked: PrintQuestion) -> str | None:
    if result.outcome != "passed":
        return None
    if asked.expression:
        # A repr such as <generator object f at 0x7f…> is nobody's answer.
        return None if re.search(r"\bat 0x[0-9a-f]+>", result.value) else result.value
    return result.output.rstrip("\n")


def _same_with_other_hashes(asked: PrintQuestion, shown: str, limits: Limits) -> bool:
    """In every further process, each with hashes of its own, the code shows the same."""
    needed = tuple(sorted(_names(asked) & set(PRELOAD))) or ("re",)
    end_s = time.monotonic() + 2 * limits.wall_s
    for _ in range(SEEDS - 1):
        if time.monotonic() > end_s:
            return False
        with Sandbox(preload=needed) as other:
            again = _shown(other.evaluate(asked.source, asked.expression, limits), asked)
        if again is None or not same_shown(again, shown):
            return False
    return True
