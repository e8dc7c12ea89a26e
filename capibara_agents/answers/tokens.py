"""Splits LaTeX and plain mathematical notation into tokens; prose is refused."""

from __future__ import annotations

import re

from capibara_agents.answers.wordlist import listed

MAX_CHARS = 400
MAX_TOKENS = 160


class NotNotation(ValueError):
    """The text is not mathematical notation, or too large to be read."""


FUNCTIONS = frozenset(
    listed(
        """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp abs sqrt floor ceil binom
    """
    )
)
_ALIASES = {
    "sen": "sin",
    "tg": "tan",
    "arcsen": "arcsin",
    "arctg": "arctan",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "ceiling": "ceil",
    "raiz": "sqrt",
    "raíz": "sqrt",
}
_GREEK = frozenset(
    listed(
        """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell
    """
    )
)
_SIGNS = {
    "cdot": "*",
    "times": "*",
    "ast": "*",
    "div": "/",
    "pm": "±",
    "mp": "±",
    "le": "<=",
    "leq": "<=",
    "leqslant": "<=",
    "ge": ">=",
    "geq": ">=",
    "geqslant": ">=",
    "lt": "<",
    "gt": ">",
    "ne": "!=",
    "neq": "!=",
    "in": "in",
    "cup": "∪",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "lfloor": "⌊",
    "rfloor": "⌋",
    "lceil": "⌈",
    "rceil": "⌉",
    "vert": "|",
    "mid": "|",
    "lvert": "|",
    "rvert": "|",
    "equiv": "=",
    "approx": "=",
    "circ": "°",
    "degree": "°",
    "to": "=",
    "lor": "or",
    "land": "and",
}
_PLAIN_SIGNS = {
    "×": "*",
    "·": "*",
    "⋅": "*",
    "∙": "*",
    "÷": "/",
    "−": "-",
    "–": "-",
    "⁄": "/",
    "∕": "/",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "=",
    "∈": "in",
    "{": "{",
    "⟨": "(",
    "⟩": ")",
    "[": "[",
    ";": ",",
    "==": "=",
    "**": "^",
    "º": "°",
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}

_IGNORED = re.compile(
    r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|textstyle|limits|,|"
    r";|:|!|>|quad|qquad|hspace\{[^{}]{0,20}\}| )"
    r"(?![A-Za-z])|\\[()\[\]]|[$~]"
)
_WRAPPER = re.compile(r"\\(?:mathrm|mathbf|mathit|textbf|textit|boldsymbol|mathbb|mathcal|bf|rm|boxed|fbox)\s*")
_WORDS = re.compile(r"\\(?:text|mbox|textrm)\s*\{([^{}]{0,40})\}")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\{,\}\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)|\\(?P<command>[A-Za-z]+)|"
    r"(?P<power>[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)|(?P<word>[A-Za-zÀ-ÿ]+|[α-ωΑ-Ω])|(?P<sign>\*\*|<=|>=|!=|==|\\[{}%]|[^\w\s]|_))"
)


_MATRIX = re.compile(r"\\begin\{([bpv]?matrix)\}(.{0,300}?)\\end\{\1\}", re.DOTALL)
_Y = re.compile(r"(=[^,=]{1,40}?)\s+y\s+(?=[A-Za-z]\s*=)")


def tidy(text: str) -> str:
    """The text without the LaTeX that only sets it: spacing, sizes, dollar signs, fonts; matrices as bracketed rows."""
    text = _Y.sub(r"\1, ", _MATRIX.sub(_rows, text))
    text = _WORDS.sub(r" \1 ", text)
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cfrac", "\\frac")
    text = _WRAPPER.sub("", text)
    # "\$" is money and "\%" a sign of its own.
    text = text.replace("\\$", " ").replace("\\%", "%").replace("\\&", "&")
    return _IGNORED.sub(" ", text).strip()


def _rows(match: re.Match[str]) -> str:
    rows = [",".join(f"({cell})" for cell in row.split("&")) for row in re.split(r"\\\\", match[2]) if row.strip()]
    single = all("&" not in row for row in re.split(r"\\\\", match[2]))
    return "(" + ",".join(row if single else f"({row})" for row in rows) + ")"


def tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > MAX_CHARS:
        raise NotNotation("too long")
    for sign, fraction in _VULGAR.items():
        text = text.replace(sign, f" {fraction} ")
    text = tidy(text).rstrip(". ")
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotNotation("not a token")
        position = match.end()
        found.extend(_named(str(match.lastgroup), match[str(match.lastgroup)]))
        if len(found) > MAX_TOKENS:
            raise NotNotation("too many tokens")
    return found


def _named(kind: str, text: str) -> list[tuple[str, str]]:
    if kind == "number":
        return [("number", text.replace("{,}", ""))]
    if kind == "power":
        return [("sign", "^"), ("sign", "{"), *tokens(text.translate(_SUPERSCRIPTS)), ("sign", "}")]
    if kind == "command":
        return [_command(text)]
    if kind == "word":
        return _word(text)
    return [("sign", _PLAIN_SIGNS.get(text, "%" if text == "\\%" else text))]


def _command(name: str) -> tuple[str, str]:
    if name in _SIGNS:
        return "sign", _SIGNS[name]
    if name == "operatorname":
        return "skip", ""
    if name in ("frac", "sqrt", "binom", "infty", "pi") or name in FUNCTIONS:
        return "command", name
    if name in _GREEK:
        return "symbol", name
    raise NotNotation(name)


def _word(text: str) -> list[tuple[str, str]]:
    """A function, a connective, or letters that stand next to each other: `xy` is a product, a longer word is prose."""
    lower = text.lower()
    name = _ALIASES.get(lower, lower)
    if name in FUNCTIONS:
        return [("command", name)]
    if lower in ("pi", "π"):
        return [("command", "pi")]
    if lower in ("infinity", "inf", "infinito", "oo", "∞"):
        return [("command", "infty")]
    if lower in ("or", "and", "o", "y", "e", "u") and text != "y" and lower != "e":
        return [("sign", ",")]
    if len(text) > 3 or lower in _PROSE or (len(text) == 3 and set(lower) & set("aeiouáéíóú")):
        raise NotNotation(text)
    return [("symbol", letter) for letter in text]


# Words of two letters and some of three; as products of symbols they hardly occur.
_PROSE = frozenset(
    listed(
        """
    in is es de la el no si so of to an at as be by do go he if it me my on up us we un se le lo al su tu mi ya
    va da di am cm mm km kg mg ml lb oz ft hr why try mph min
    """
    )
)
