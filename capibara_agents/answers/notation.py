"""Reads LaTeX and plain mathematical notation into a tree, in bounded time and without evaluating anything.

    "\\frac{1}{2}x^2"  ->  Node("*", (Node("/", (1, 2)), Node("^", (x, 2))))

Grammar, from loose to tight: relation, union, list, sum, product (also by juxtaposition), sign, power, postfix, atom.
Anything else, prose included, is no notation: `read` gives None. Nothing here calls `eval` or a computer algebra
system: a tree has at most MAX_TOKENS leaves and is MAX_DEPTH deep, whatever was written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from capibara_agents.answers.tokens import NotNotation, tokens

MAX_DEPTH = 40
"""Brackets and exponents within each other; each costs a few frames of Python's stack."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation on its arguments.

    Leaves are "number" (a Fraction in `number`) and "symbol" (`name`); "call" applies the function `name`;
    "sequence" holds items between the two characters of `name`, "  " for a bare list; "relation" has its sign there.
    """

    op: str
    args: tuple[Node, ...] = ()
    name: str = ""
    number: Fraction = Fraction(0)


@lru_cache(maxsize=2048)
def read(text: str) -> Node | None:
    """The tree of a notation; None when the text is none. Never raises."""
    try:
        return _Reader(tokens(text)).whole()
    except (NotNotation, RecursionError):
        return None


_OPENERS = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "⌊": "⌋", "⌈": "⌉"}
_RELATIONS = ("=", "<", ">", "<=", ">=", "!=", "in")


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = [token for token in tokens if token[0] != "skip"]
        self._at = 0
        self._depth = 0
        self._in_bars = 0

    def whole(self) -> Node:
        """The tree of all tokens."""
        if not self._tokens:
            raise NotNotation("empty")
        node = self._list()
        if self._at < len(self._tokens):
            raise NotNotation("trailing tokens")
        return node

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _sign(self, *signs: str) -> str | None:
        kind, text = self._peek()
        if kind == "sign" and text in signs:
            self._at += 1
            return text
        return None

    def _expect(self, *signs: str) -> str:
        sign = self._sign(*signs)
        if sign is None:
            raise NotNotation(f"{signs} expected")
        return sign

    def _nested(self, inner: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotNotation("too deep")
        node = inner()
        self._depth -= 1
        return node

    def _list(self) -> Node:
        items = [self._relation()]
        while self._sign(",", "or", "and"):
            # "1, 2, and 3" has two connectives in a row.
            self._sign(",", "or", "and")
            items.append(self._relation())
        return items[0] if len(items) == 1 else Node("sequence", tuple(items), "  ")

    def _relation(self) -> Node:
        node = self._union()
        while sign := self._sign(*_RELATIONS):
            node = Node("relation", (node, self._union()), sign)
        return node

    def _union(self) -> Node:
        node = self._sum()
        while self._sign("∪"):
            node = Node("union", (node, self._sum()))
        return node

    def _sum(self) -> Node:
        sign = self._sign("-", "+", "±")
        node = self._product()
        if sign in ("-", "±"):
            node = Node("negative" if sign == "-" else "±", (node,))
        while sign := self._sign("+", "-", "±"):
            node = Node(sign, (node, self._product()))
        return node

    def _product(self) -> Node:
        node = self._signed()
        while True:
            if sign := self._sign("*", "/"):
                node = Node(sign, (node, self._signed()))
            elif self._starts_factor():
                node = self._beside(node)
            else:
                return node

    def _starts_factor(self) -> bool:
        kind, text = self._peek()
        return kind in ("symbol", "command") or (kind == "sign" and text in ("(", "{", "\\{", "⌊", "⌈", "["))

    def _beside(self, left: Node) -> Node:
        """Juxtaposition: a product, but `2 \\frac{1}{2}` is a mixed number."""
        fraction_follows = self._peek() == ("command", "frac")
        right = self._power()
        mixed = fraction_follows and left.op == "number" and left.number.denominator == 1 and _proper(right)
        return Node("+" if mixed else "*", (left, right))

    def _signed(self) -> Node:
        if self._sign("-"):
            return Node("negative", (self._nested(self._signed),))
        if self._sign("+"):
            return self._nested(self._signed)
        return self._power()

    def _power(self) -> Node:
        node = self._postfix()
        if self._sign("^"):
            if self._sign("°"):
                return node
            if self._peek()[0] == "end":
                raise NotNotation("no exponent")
            node = Node("^", (node, self._nested(self._exponent)))
        return self._marks(node)

    def _exponent(self) -> Node:
        if self._sign("-"):
            return Node("negative", (self._power(),))
        return self._power()

    def _postfix(self) -> Node:
        return self._marks(self._atom())

    def _marks(self, node: Node) -> Node:
        while sign := self._sign("!", "%", "°"):
            if sign == "!":
                node = Node("factorial", (node,))
            elif sign == "%":
                node = Node("/", (node, _number(100)))
        return node

    def _atom(self) -> Node:
        kind, text = self._peek()
        self._at += 1
        if kind == "number":
            if self._peek()[0] == "number":
                raise NotNotation("two numbers in a row")
            return Node("number", number=Fraction(text if not text.endswith(".") else text[:-1]))
        if kind == "symbol":
            return self._symbol(text)
        if kind == "command":
            return self._nested(lambda: self._applied(text))
        return self._opened(text) if kind == "sign" else self._nothing()

    def _nothing(self) -> Node:
        raise NotNotation("nothing where something is needed")

    def _opened(self, sign: str) -> Node:
        if sign in _OPENERS:
            return self._nested(lambda: self._bracket(sign))
        if sign == "|" and not self._in_bars:
            return self._bars()
        if sign == "√":
            return Node("call", (self._nested(self._postfix),), "sqrt")
        return Node("symbol", name="infty") if sign == "∞" else self._nothing()

    def _symbol(self, name: str) -> Node:
        if self._sign("_"):
            name += f"_{self._plain_group()}"
        return Node("symbol", name=name)

    def _plain_group(self) -> str:
        """The characters of a subscript."""
        kind, text = self._peek()
        self._at += 1
        if (kind, text) != ("sign", "{"):
            if kind in ("number", "symbol"):
                return text
            raise NotNotation("subscript")
        inside = ""
        while not self._sign("}"):
            kind, text = self._peek()
            if kind == "end":
                raise NotNotation("subscript")
            inside += text
            self._at += 1
        return inside

    def _bars(self) -> Node:
        self._in_bars += 1
        inner = self._nested(self._sum)
        self._in_bars -= 1
        self._expect("|")
        return Node("call", (inner,), "abs")

    def _bracket(self, opener: str) -> Node:
        if opener == "\\{" and self._sign("\\}"):
            return Node("sequence", (), "{}")
        inner = self._list()
        closer = self._expect(*((")", "]") if opener in ("(", "[") else (_OPENERS[opener],)))
        if opener in ("⌊", "⌈"):
            return Node("call", (inner,), "floor" if opener == "⌊" else "ceil")
        if opener == "{":
            # Plain braces group in LaTeX and hold sets elsewhere.
            bare = inner.op == "sequence" and inner.name == "  "
            return Node("sequence", inner.args, "{}") if bare else inner
        bare = inner.op == "sequence" and inner.name == "  "
        if bare or opener == "\\{":
            return Node("sequence", inner.args if bare else (inner,), opener[-1] + closer[-1])
        if opener + closer not in ("()", "[]"):
            raise NotNotation("half a bracket")
        return inner

    def _applied(self, name: str) -> Node:
        if name in ("pi", "infty"):
            return Node("symbol", name=name)
        if name in ("frac", "binom"):
            above, below = self._argument(), self._argument()
            return Node("/", (above, below)) if name == "frac" else Node("call", (above, below), "binom")
        return self._root() if name == "sqrt" else self._called(name)

    def _argument(self) -> Node:
        """A group in braces, or a single digit as in `\\frac12`."""
        if self._sign("{"):
            inner = self._sum()
            self._expect("}")
            return inner
        kind, text = self._peek()
        if kind == "number" and text.isdigit() and len(text) > 1:
            self._tokens[self._at] = ("number", text[1:])
            return _number(int(text[0]))
        if kind == "number" and text.isdigit():
            self._at += 1
            return _number(int(text))
        return self._atom()

    def _root(self) -> Node:
        if self._sign("["):
            degree = self._sum()
            self._expect("]")
            return Node("root", (self._argument(), degree))
        return Node("call", (self._argument(),), "sqrt")

    def _called(self, name: str) -> Node:
        base = exponent = None
        if self._sign("_"):
            base = self._nested(self._argument)
        if self._sign("^"):
            exponent = self._nested(self._argument_signed)
        inside = self._nested(self._operand)
        if base is not None:
            node = Node("/", (Node("call", (inside,), "ln"), Node("call", (base,), "ln")))
        else:
            arguments = inside.args if inside.op == "sequence" else (inside,)
            node = Node("call", arguments, name)
        return node if exponent is None else Node("^", (node, exponent))

    def _argument_signed(self) -> Node:
        return Node("negative", (self._argument(),)) if self._sign("-") else self._argument()

    def _operand(self) -> Node:
        """What a function without brackets applies to: `\\sin 2x` takes all of 2x."""
        bracketed = self._peek() in (("sign", "("), ("sign", "{"))
        node = self._power() if not bracketed else self._postfix()
        while not bracketed and self._peek()[0] == "symbol":
            node = Node("*", (node, self._power()))
        return node


def _number(value: int) -> Node:
    return Node("number", number=Fraction(value))


def _proper(node: Node) -> bool:
    """A fraction of two whole numbers below one."""
    if node.op != "/" or any(part.op != "number" for part in node.args):
        return False
    return 0 < node.args[0].number < node.args[1].number
