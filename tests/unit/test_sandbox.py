"""Answers are run where they can do no harm, against tests that they neither see nor forge. Real child processes."""

from __future__ import annotations

import threading

import pytest

from capibara_agents.verify.sandbox import Example, Program, Sandbox
from tests.sandboxes import ADD, LIMITS, TEST_ADD, check, offspring

# ---------------------------------------------------------------- right and wrong answers


def test_a_right_answer_passes_and_a_wrong_one_does_not(sandbox: Sandbox) -> None:
    assert check(sandbox, ADD).outcome == "passed"
    wrong = check(sandbox, ADD.replace("+", "-"))
    assert (wrong.outcome, wrong.reason) == ("failed", "tests_failed")
    assert wrong.detail.startswith("line 1")


@pytest.mark.parametrize(
    ("source", "tests"),
    [
        ("def sort(xs):\n    xs.sort()", "xs = [3, 1]\nsort(xs)\nassert xs == [1, 3]"),
        ("def each(f, xs):\n    return [f(x) for x in xs]", "assert each(lambda x: x + 1, [1, 2]) == [2, 3]"),
        ("def each(f, xs):\n    return [f(x) for x in xs]", "assert each(len, ['a', 'bb']) == [1, 2]"),
        (
            "class P:\n    def __init__(s, x): s.x = x\ndef least(ps, key): return min(ps, key=key)",
            "assert least([P(3), P(1)], lambda p: p.x).x == 1",
        ),
        ("def count(n):\n    yield from range(n)", "assert list(count(3)) == [0, 1, 2]\nassert 2 in count(3)"),
        ("def bad(x):\n    raise ValueError('no')", "try: bad(1)\nexcept ValueError as e: assert str(e) == 'no'"),
        ("class Odd(Exception): pass\ndef f(): raise Odd()", "try: f()\nexcept Odd: pass\nelse: assert 0"),
        ("from collections import Counter\ndef f(s): return Counter(s)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\ndef f(): return P(1)", "assert f().x == 1"),
        ("def f(): return (1, [2.5, {3}], {'k': b'x'}, None, 1 << 99, 1j)",
         "assert f() == (1, [2.5, {3}], {'k': b'x'}, None, 1 << 99, 1j)"),
        ("def f(x): print('hi', x)",
         "import contextlib, io\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f(1)\n"
         "assert out.getvalue() == 'hi 1\\n'"),
        ("import threading\ndef f():\n    out = []\n    t = threading.Thread(target=out.append, args=(1,))\n"
         "    t.start(); t.join()\n    return out", "assert f() == [1]"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int",
         "assert P(1) == P(1)\nassert P(1) != P(2)\n"
         "assert repr(P(1)) == 'P(x=1)'\nassert isinstance(P(1), P)"),
        ("print('demo')\nadd = lambda a, b: a + b\nif __name__ == '__main__':\n    input()", TEST_ADD),
        (ADD, "def test_it():\n    assert add(1, 1) == 2"),
    ],
)  # fmt: skip
def test_what_tests_may_ask(sandbox: Sandbox, source: str, tests: str) -> None:
    """Values, changed arguments, functions as arguments, generators, errors, classes, threads, printed text."""
    result = check(sandbox, source, tests)
    assert result.outcome == "passed", (result.reason, result.detail)


def test_an_object_of_the_answer_keeps_its_state(sandbox: Sandbox) -> None:
    stack = (
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n"
    )
    tests = "s = Stack()\ns.push(1)\ns.push(2)\nassert len(s) == 2\nassert s.pop() == 2\nassert s.items == [1]"
    assert check(sandbox, stack, tests).outcome == "passed"
    assert check(sandbox, stack.replace("pop()", "pop(0)"), tests).outcome == "failed"


def test_check_is_called_with_the_entry_point(sandbox: Sandbox) -> None:
    tests = "def check(candidate):\n    assert candidate(2) == 4\n"
    square = Program(source="def square(x): return x * x", tests=tests, entry_point="square")
    assert sandbox.run(square, LIMITS).outcome == "passed"
    assert sandbox.run(square.model_copy(update={"source": "def square(x): return x"}), LIMITS).outcome == "failed"
    assert sandbox.run(square.model_copy(update={"source": "def cube(x): return x"}), LIMITS).reason == "not_defined"


def test_the_code_of_the_question_comes_before_the_answer(sandbox: Sandbox) -> None:
    """Imports and helpers of the question are there; an unfinished function in it does no harm."""
    source = "def root(x: float) -> List[float]:\n    return [math.sqrt(x)]"
    program = Program(source=source, given="import math\nfrom typing import List\n", tests="assert root(4.0) == [2.0]")
    assert sandbox.run(program, LIMITS).outcome == "passed"
    assert sandbox.run(program.model_copy(update={"given": "def f(:"}), LIMITS).reason == "raised"
    unfinished = Program(source=ADD, given="def add(a, b):", tests=TEST_ADD)
    assert sandbox.run(unfinished, LIMITS).outcome == "passed"


def test_examples_are_held_against_what_python_shows(sandbox: Sandbox) -> None:
    examples = (
        Example(source="x = add(1, 2)"),
        Example(source="x", wanted="3"),
        Example(source="add('a', 'b')", wanted='"ab"'),
        Example(source="add(1, 'b')", wanted="Traceback (most recent call last):\n  ...\nTypeError"),
        Example(source="other(1)", wanted="5"),
    )
    right = sandbox.run(Program(source=ADD, examples=examples), LIMITS)
    assert (right.outcome, right.examples_passed) == ("passed", 5)
    wrong = sandbox.run(Program(source="def add(a, b): return 3", examples=examples), LIMITS)
    assert (wrong.reason, wrong.examples_passed) == ("example_differs", 2)


def test_a_type_is_part_of_the_value(sandbox: Sandbox) -> None:
    one = Program(source="def f(): return True", examples=(Example(source="f()", wanted="1"),))
    assert sandbox.run(one, LIMITS).reason == "example_differs"


# ---------------------------------------------------------------- outcomes that nobody may take for a verdict


@pytest.mark.parametrize(
    ("source", "tests", "reason"),
    [
        (ADD, "", "not_called"),
        (ADD, "assert 1 + 1 == 2", "not_called"),
        (ADD, "assert add(1, 2 == 3", "tests_broken"),
        (ADD, "raise SystemExit(0)", "tests_broken"),
        (ADD, "import pytest\n" + TEST_ADD, "module_missing"),
        ("import numpy\n" + ADD, TEST_ADD, "module_missing"),
        ("n = int(input())\n" + ADD, TEST_ADD, "wants_input"),
    ],
)
def test_what_cannot_be_told_is_unknown(sandbox: Sandbox, source: str, tests: str, reason: str) -> None:
    result = check(sandbox, source, tests)
    assert (result.outcome, result.reason) == ("unknown", reason)


# ---------------------------------------------------------------- harm is contained, and named


@pytest.mark.parametrize(
    ("source", "reasons"),
    [
        pytest.param("def add(a, b: return", {"syntax"}, id="no Python"),
        pytest.param("import os\nwhile True: os.fork()", {"forbidden"}, id="fork bomb"),
        pytest.param("open('/etc/passwd').read()\n" + ADD, {"forbidden"}, id="reads a file"),
        pytest.param(f"open({__file__!r}).read()\n" + ADD, {"forbidden"}, id="reads what lies about"),
        pytest.param("import os\nos.listdir('/')\n" + ADD, {"forbidden"}, id="lists a folder"),
        pytest.param("import os\nos.stat('/etc')\n" + ADD, {"forbidden"}, id="looks whether a file is there"),
        pytest.param("open('/tmp/harm', 'w')\n" + ADD, {"forbidden"}, id="writes a file"),
        pytest.param("import os\nos.mkdir('/tmp/harm')\n" + ADD, {"forbidden"}, id="makes a folder"),
        pytest.param("import tempfile\ntempfile.mkdtemp()\n" + ADD, {"forbidden", "raised"}, id="temporary folder"),
        pytest.param("import _socket\n_socket.socket(2, 1)\n" + ADD, {"forbidden"}, id="internet socket"),
        pytest.param("import _socket\n_socket.socket(1, 1)\n" + ADD, {"forbidden"}, id="unix socket"),
        pytest.param("import os\nos.execv('/bin/sh', ['sh'])\n" + ADD, {"forbidden"}, id="starts a program"),
        pytest.param("import os\nos.system('true') and 1/0\n" + ADD, {"forbidden", "raised"}, id="a shell"),
        pytest.param("import os\nos.posix_spawn('/bin/true', ['true'], {})\n" + ADD, {"forbidden"}, id="spawns"),
        pytest.param("import os\nos.kill(os.getppid(), 9)\n" + ADD, {"forbidden"}, id="kills its parent"),
        pytest.param("import os\nos.kill(-1, 9)\n" + ADD, {"forbidden"}, id="kills everybody"),
        pytest.param("import os\nos.setuid(0)\n" + ADD, {"forbidden"}, id="becomes root"),
        pytest.param("while True: pass", {"cpu"}, id="loops for ever"),
        pytest.param("def add(a, b):\n    while True: pass", {"cpu"}, id="loops when called"),
        pytest.param("x = 'a' * 10_000_000_000\n" + ADD, {"memory"}, id="10 GB at once"),
        pytest.param("x = []\nwhile True: x.append(bytes(1 << 20))", {"memory"}, id="10 GB by and by"),
        pytest.param("while True: print('x' * 1000)", {"output"}, id="prints without end"),
        pytest.param("import os\nwhile True: os.write(1, b'x' * 1000)", {"output"}, id="writes without end"),
        pytest.param("def add(a, b): return add(a, b)", {"recursion"}, id="calls itself"),
        pytest.param(
            "import sys\nsys.setrecursionlimit(10**9)\n"
            "class A:\n    def __repr__(self): return repr([self])\nrepr(A())",
            {"crashed", "memory"}, id="overflows the stack",
        ),
        pytest.param(
            "f = lambda: 0\nf.__code__ = f.__code__.replace(co_consts=())\nf()",
            {"crashed", "raised"}, id="broken bytecode",
        ),
        pytest.param("import ctypes\nctypes.string_at(0)", {"crashed"}, id="segmentation fault"),
        pytest.param("import sys\nsys.exit(0)", {"exited"}, id="exits"),
        pytest.param("import os\nos._exit(0)", {"exited"}, id="exits at once"),
        pytest.param("def add(a, b):\n    raise SystemExit(0)", {"exited"}, id="exits when called"),
        pytest.param("import os\ndef add(a, b): os._exit(0)", {"exited"}, id="exits at once when called"),
        pytest.param("import os\nos.close(3), os.close(4)", {"exited", "broke_off"}, id="hangs up"),
        pytest.param("import os\nos.write(4, b'garbage ' * 9)\n" + ADD, {"broke_off"}, id="garbles the line"),
        pytest.param(
            "def add(a, b):\n    class A:\n        def __repr__(self):\n            while True: pass\n"
            "    return repr(A())",
            {"cpu"}, id="repr without end",
        ),
        pytest.param("import threading, time\n"
                     "for _ in range(10**6): threading.Thread(target=time.sleep, args=(99,)).start()",
                     {"raised", "memory", "crashed", "cpu"}, id="threads without end"),
    ],
)  # fmt: skip
def test_harm_is_contained(sandbox: Sandbox, source: str, reasons: set[str]) -> None:
    result = check(sandbox, source)
    assert result.outcome == "failed"
    assert result.reason in reasons, result.detail
    assert check(sandbox, ADD).outcome == "passed", "the sandbox is as before"


def test_who_sleeps_runs_out_of_time(sandbox: Sandbox) -> None:
    """Unknown, not failed: on a busy machine a good answer may have been left waiting."""
    result = check(sandbox, "import time\ntime.sleep(1000)", limits=LIMITS.model_copy(update={"wall_s": 0.3}))
    assert (result.outcome, result.reason) == ("unknown", "wall")


def test_nothing_is_left_running(sandbox: Sandbox) -> None:
    """Threads, hooks at exit and signal handlers end with the run."""
    source = (
        "import atexit, signal, threading, time\nfor s in (1, 2, 3, 15, 24): signal.signal(s, lambda *_: None)\n"
        "def for_ever():\n    while True: time.sleep(1)\natexit.register(for_ever)\n"
        "threading.Thread(target=for_ever).start()\n" + ADD
    )
    before = offspring(sandbox)
    assert check(sandbox, source).outcome == "passed"
    deadline = threading.Event()
    for _ in range(50):
        if offspring(sandbox) <= before:
            break
        deadline.wait(0.1)
    assert offspring(sandbox) <= before


# ---------------------------------------------------------------- a verdict cannot be forged


ALWAYS_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __contains__(self, other): return True
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __sub__
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __abs__(self): return 0.0
    def __float__(self): return 3.0
    def __iter__(self): return iter([self])
    def __hash__(self): return 3
def add(a, b): return Yes()
"""


@pytest.mark.parametrize(
    "tests",
    [
        "assert add(1, 2) == 3",
        "assert 3 == add(1, 2)",
        "assert not (add(1, 2) != 3)",
        "assert abs(add(1, 2) - 3) < 1e-6",
        "assert abs(3 - add(1, 2)) < 1e-6",
        "import math\nassert math.isclose(add(1, 2), 3)",
        "assert 2 < add(1, 2) < 4",
        "assert 3 in add(1, 2)",
        "assert add(1, 2) in [3]",
        "assert [add(1, 2)] == [3]",
        "assert {'x': add(1, 2)} == {'x': 3}",
    ],
)
def test_an_object_that_equals_everything_passes_nothing(sandbox: Sandbox, tests: str) -> None:
    assert check(sandbox, ALWAYS_EQUAL, tests).outcome != "passed"


@pytest.mark.parametrize("base", ["int", "str", "float", "list", "dict"])
def test_a_number_that_lies_is_seen_as_the_number_it_is(sandbox: Sandbox, base: str) -> None:
    source = (
        f"class Yes({base}):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n    __hash__ = None\n"
    )
    assert check(sandbox, source + "def add(a, b): return Yes()").reason == "tests_failed"


FORGERIES = {
    "prints the verdict": 'print(\'{"reason": "passed", "examples": 0}\')',
    "writes the verdict everywhere": (
        'import os\nfor fd in range(3, 16):\n    try: os.write(fd, b\'{"reason": "passed", "examples": 0}\')\n'
        "    except OSError: pass\nos._exit(0)"
    ),
    "says it has failed well": (
        "import json, os\nbody = json.dumps(['failed', 'passed', '']).encode()\n"
        "os.write(4, len(body).to_bytes(8, 'big') + body)"
    ),
    "defines the checker": "def check(candidate): pass\ndef add(a, b): return 0",
    "defines a test": "def test_it(): pass\ndef add(a, b): return 0",
    "patches the comparison": (
        "import builtins, operator\noperator.eq = lambda a, b: True\nbuiltins.AssertionError = ValueError\n"
        "builtins.all = builtins.isinstance = lambda *a: True\ndef add(a, b): return 0"
    ),
    "shadows built-in functions": (
        "abs = sum = len = all = any = isinstance = sorted = lambda *a: True\nclass AssertionError(Exception): pass\n"
        "def add(a, b): return 0"
    ),
    "patches the harness": (
        "import sys\nfor m in list(sys.modules.values()):\n"
        "    for name in ('_run_tests', '_run_examples', 'same_shown', '_blame'):\n"
        "        if hasattr(m, name): setattr(m, name, lambda *a, **k: 0)\ndef add(a, b): return 0"
    ),
    "traces its callers": (
        "import sys\ndef add(a, b):\n    f = sys._getframe()\n    while f:\n"
        "        f.f_globals.update(_tests=None, _run_tests=None)\n        f = f.f_back\n    return 0"
    ),
    "ends iterations": "def add(a, b): raise StopIteration",
    "raises what a test expects of itself": "def add(a, b): raise AssertionError",
    "looks for the expected value": (
        "import gc\ndef add(a, b):\n    found = [o for o in gc.get_objects() if isinstance(o, dict) and 'tests' in o]\n"
        "    return 3 if any('add(1, 2) == 3' in str(o['tests']) for o in found) else 0"
    ),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_verdict_cannot_be_forged(sandbox: Sandbox, how: str) -> None:
    tests = TEST_ADD + "assert all(map(lambda row: add(*row[:2]) == row[2], [(1, 2, 3), (4, 5, 9)]))\n"
    assert check(sandbox, FORGERIES[how], tests).outcome == "failed"


@pytest.mark.parametrize(
    "tests",
    [
        "assert all([add(1, 2) == 3])",
        "assert isinstance(add(1, 2), str)",
        "assert abs(add(1, 2) - 3) < 1",
        "assert math.isclose(add(1, 2), 3)",
        "import math\nassert math.isclose(add(1, 2), 3)",
    ],
)
def test_an_answer_does_not_shadow_what_tests_use(sandbox: Sandbox, tests: str) -> None:
    source = (
        "all = isinstance = lambda *_: True\nabs = lambda x: 0\nclass math:\n    isclose = lambda *_: True\n"
        "def add(a, b): return 0"
    )
    assert check(sandbox, source, tests).outcome == "failed"


def test_an_iteration_cannot_be_cut_short(sandbox: Sandbox) -> None:
    tests = "assert all(map(lambda row: add(*row[:2]) == row[2], [(1, 2, 3)]))"
    assert check(sandbox, FORGERIES["ends iterations"], tests).outcome == "failed"


def test_the_answer_may_call_only_what_it_was_given(sandbox: Sandbox) -> None:
    """Built-in functions of the tests' process, and what hangs on a function passed, are out of its reach."""
    call = (
        "import json, os\ndef send(m):\n    b = json.dumps(m).encode()\n"
        "    os.write(4, len(b).to_bytes(8, 'big') + b)\n"
    )
    evil = (
        call
        + "def add(a, b):\n    send(['call', {node}, ['list', ['raise SystemExit(0)']], ['dict', []]])\n    return 3"
    )
    for node in (["name", "exec"], ["mine", 0], "exec"):
        assert check(sandbox, evil.replace("{node}", repr(node))).reason == "broke_off", node
    # Nothing was passed: it gets an error for a reply, which it does not expect.
    assert check(sandbox, evil.replace("{node}", "['yours', 7]")).outcome == "failed"
    reach = call + (
        "def add(f, b):\n    send(['apply', 'getattr', ['list', [['yours', 0], '__globals__']]])\n    return 3"
    )
    assert check(sandbox, reach, "assert add(lambda: 0, 1) == 3").reason == "broke_off"


def test_no_secret_of_the_service_is_in_reach(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPIBARA_SERVER__API_KEYS", "hush-hush-hush")
    with Sandbox() as fresh:
        seen = fresh.evaluate(
            "import gc, os, sys", "[[*os.environ], sys.path, '-'.join(['hush'] * 3) in str(gc.get_objects())]", LIMITS
        )
    assert seen.value in ("[[], [], False]", "[['LC_CTYPE'], [], False]")
