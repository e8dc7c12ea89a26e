"""What the sandbox accepts and rejects, and what it costs, on public problems with tests.

    .venv/bin/python benchmarks/sandbox.py --data FOLDER [--rows N] [--json]

FOLDER holds humaneval/HumanEval.jsonl (`prompt`, `canonical_solution`, `test`, `entry_point`) and
consensus/crux_zeroeval.jsonl (`prompt`, `reference`).

Mutants are canonical solutions with one token changed: an operator, a comparison, a constant by one, a truth value, a
slice or an `and`. Whether a mutant fails the tests is found out without the sandbox: code, tests and `check` in one
plain process, as the data set's own harness does, within 3 s of processor time and 512 MB. Those that pass there mean
the same, as far as the tests go, and are left out. "By examples" gives the sandbox only what the docstring says.

Times are from the call to the result, of runs on a sandbox that has started; five side by side from five threads.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import platform
import resource
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from capibara_agents.verify.examples import find_examples
from capibara_agents.verify.prints import same_answer, settle_print_question
from capibara_agents.verify.sandbox import Example, Limits, Program, available, run

LIMITS = Limits(wall_s=30, cpu_s=3)
MUTANTS_EACH = 12
ROUNDS = 100

BINARY: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.BitXor: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def mutants(source: str) -> Iterator[str]:
    """Every program that differs from this one in one token."""
    tree = ast.parse(source)
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in docstrings:
            continue
        for changed in changes(node):
            other = copy.deepcopy(tree)
            target = list(ast.walk(other))[place]
            for field, value in changed.items():
                setattr(target, field, value)
            yield ast.unparse(other)


def changes(node: ast.AST) -> Iterator[dict[str, Any]]:
    """What one token of this node may become."""
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in BINARY:
            yield {"op": BINARY[type(op)]()}
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                if type(op) in BINARY:
                    yield {"ops": [*ops[:i], BINARY[type(op)](), *ops[i + 1 :]]}
        case ast.Constant(value=bool(value)):
            yield {"value": not value}
        case ast.Constant(value=int() | float()):
            yield {"value": node.value + 1}
            yield {"value": node.value - 1}
        case ast.Constant(value=str(value)) if value:
            yield {"value": value + "x"}


def passes_plainly(program: str) -> bool:
    """Without the sandbox, in a process of its own: the program runs to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (3, 4))
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            signal.alarm(20)
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
            exec(program, {"__name__": "plain"})
            status = 0
        except BaseException:  # noqa: BLE001 - whatever stops it, it does not pass
            pass
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def humaneval(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of canonical solutions accepted and of failing mutants rejected, by tests and by examples."""
    count: Counter[str] = Counter()
    astray: list[str] = []
    for row in rows:
        canonical = row["prompt"] + row["canonical_solution"]
        examples = find_examples(row["prompt"])
        by_tests = Program(source=canonical, tests=row["test"], entry_point=row["entry_point"])
        by_examples = Program(source=canonical, examples=examples)
        count["problems"] += 1
        count["canonical: accepted by tests"] += run(by_tests, LIMITS).outcome == "passed"
        if examples:
            count["problems with examples"] += 1
            count[f"canonical, by examples: {run(by_examples, LIMITS).outcome}"] += 1
        for mutant in spread(list(dict.fromkeys(mutants(canonical))), MUTANTS_EACH):
            if passes_plainly(f"{mutant}\n{row['test']}\ncheck({row['entry_point']})"):
                count["mutants that pass the tests, left out"] += 1
                continue
            count["mutants"] += 1
            result = run(by_tests.model_copy(update={"source": mutant}), LIMITS)
            count[f"mutants, by tests: {result.outcome}"] += 1
            if result.outcome != "failed":
                astray.append(f"{row['task_id']} {result.reason} {result.detail}")
            if examples:
                count["mutants of problems with examples"] += 1
                result = run(by_examples.model_copy(update={"source": mutant}), LIMITS)
                count[f"mutants, by examples: {result.outcome}"] += 1
    return {**dict(sorted(count.items())), "mutants not rejected by tests": astray}


def spread(found: list[str], most: int) -> list[str]:
    """At most so many, evenly over all of them."""
    return found if len(found) <= most else [found[i * len(found) // most] for i in range(most)]


def crux(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How often running the code of the question gives the reference."""
    settled = [settle_print_question(row["prompt"]) for row in rows]
    right = sum(s is not None and same_answer(row["reference"], s) for row, s in zip(rows, settled, strict=True))
    return {
        "rows": len(rows),
        "settled": sum(s is not None for s in settled),
        "right": right,
        "share": right / len(rows),
    }


def times() -> dict[str, float]:
    """Milliseconds of one run, and of five side by side from the first call to the last result."""
    source = "def add(a, b):\n    return a + b\n" + "# " + "x" * 1500
    program = Program(source=source, examples=(Example(source="add(1, 2)", wanted="3"),), tests="assert add(2, 2) == 4")
    one, five = [], []
    with ThreadPoolExecutor(5) as pool:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            run(program)
            middle = time.perf_counter()
            list(pool.map(run, [program] * 5))
            one.append((middle - began) * 1000)
            five.append((time.perf_counter() - middle) * 1000)
    cpu = [run(program).cpu_ms for _ in range(20)]
    return {
        "one, p50 ms": round(statistics.median(one), 1),
        "one, p95 ms": round(statistics.quantiles(one, n=20)[-1], 1),
        "five side by side, p50 ms": round(statistics.median(five), 1),
        "five side by side, p95 ms": round(statistics.quantiles(five, n=20)[-1], 1),
        "processor time of one, p50 ms": round(statistics.median(cpu), 1),
    }


def rows_of(file: Path, most: int | None) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines][:most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="without it only times are measured")
    parser.add_argument("--rows", type=int, help="only so many rows of each set")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    able, locks = available()
    if not able:
        sys.exit(f"nothing can be run here: {locks}")
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": sys.version.split()[0],
        "load": round(os.getloadavg()[0], 1),
        "locks": locks,
        "start ms": round((time.perf_counter() - began) * 1000),
        "times": times(),
    }
    if options.data:
        report["CRUXEval"] = crux(rows_of(options.data / "consensus/crux_zeroeval.jsonl", options.rows))
        report["HumanEval"] = humaneval(rows_of(options.data / "humaneval/HumanEval.jsonl", options.rows))
    print(json.dumps(report, indent=None if options.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
