"""Change the strict reader in one place at a time, and see whether a test notices.

    python scripts/mutate.py [--only PART] [--sample 40] [--seed 0] [--seconds 60]

Each change (a mutant) is one comparison, number, operator, condition, `raise` or call of a check
that is another one. It runs in a forked child, in which the tests of that part are run until the
first fails. What no test notices has survived: it is printed, with its line. First the tests are
run with nothing changed: they must pass.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

TESTS: dict[str, Sequence[str]] = {
    "coding": ("test_coding_numbers", "test_table_blocks", "test_bundle_rules", "test_legacy"),
    "table": ("test_table_blocks", "test_table_files", "test_blocks", "test_table_columns"),
    "bundle": ("test_bundle_rules", "test_bundle_reading", "test_bundle_damage", "test_hostile"),
    "legacy": ("test_legacy", "test_legacy_damage"),
}
"""The tests of each part, the most telling first."""
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module, the number of its node, and what it says before and after."""

    path: Path
    node: int
    way: int
    line: int
    before: str
    after: str


def ways_of(node: ast.AST) -> int:
    """Count the ways in which a node can be changed."""
    if isinstance(node, ast.Compare):
        return len(node.ops)
    if isinstance(node, ast.BinOp):
        return int(type(node.op) in _OPERATORS)
    if isinstance(node, ast.Constant):
        return 1 if type(node.value) in (int, bool) else 0
    if isinstance(node, ast.UnaryOp):
        return int(isinstance(node.op, ast.Not))
    if isinstance(node, ast.Expr):
        return int(isinstance(node.value, ast.Call))
    return int(isinstance(node, (ast.BoolOp, ast.Raise)))


def change(node: Any, way: int) -> None:
    """Change a node in place; a statement becomes one that does nothing."""
    if isinstance(node, ast.Compare):
        node.ops[way] = _COMPARISONS[type(node.ops[way])]()
    elif isinstance(node, ast.BinOp):
        node.op = _OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.UnaryOp):
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Raise):
        # `raise` ends a function: what comes after may not stand alone, so None is returned.
        node.__class__ = ast.Return
        node.value = None
        node._fields = ("value",)
    else:
        node.value = ast.Constant(None)


def nodes_of(tree: ast.Module) -> list[ast.AST]:
    """List the nodes that run: no annotations, no docstrings, no parts of messages."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                left_out.update(map(id, ast.walk(part)))
        if isinstance(node, (ast.JoinedStr, ast.ImportFrom, ast.Import)):
            left_out.update(map(id, ast.walk(node)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "dataclass",
            "lru_cache",
        ):
            left_out.update(map(id, ast.walk(node)))
    return [node for node in ast.walk(tree) if id(node) not in left_out]


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Iterate over all changes of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for number, node in enumerate(nodes_of(tree)):
        for way in range(ways_of(node)):
            changed = copy.deepcopy(node)
            before = ast.unparse(node)
            change(changed, way)
            after = "return" if isinstance(node, ast.Raise) else ast.unparse(changed)
            yield Mutant(path, number, way, getattr(node, "lineno", 0), before, after)


def source_of(mutant: Mutant) -> ast.Module:
    """Return the changed module."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    if mutant.node >= 0:
        change(nodes_of(tree)[mutant.node], mutant.way)
    return ast.fix_missing_locations(tree)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module changed."""

    def __init__(self, mutant: Mutant) -> None:
        parts = mutant.path.relative_to(ROOT).with_suffix("").parts
        self.name = ".".join(parts).removesuffix(".__init__")
        self.mutant = mutant

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find the changed module only."""
        if fullname != self.name:
            return None
        file = self.mutant.path
        package = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=package
        )

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        exec(compile(source_of(self.mutant), str(self.mutant.path), "exec"), module.__dict__)  # noqa: S102


def survives(mutant: Mutant, tests: Sequence[str], seconds: int) -> bool:
    """Run the tests in a child with a changed module; tell whether all pass."""
    child = os.fork()
    if not child:
        code = 1
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            signal.alarm(seconds)
            sys.meta_path.insert(0, Finder(mutant))
            import pytest

            files = [str(ROOT / "tests" / f"{name}.py") for name in tests]
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-n0", *files]))
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    """Run the chosen mutants, and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TESTS)
    parser.add_argument("--sample", type=int, default=40, help="how many of each part; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=180, help="what takes longer is killed")
    options = parser.parse_args()
    import crc32c  # noqa: F401 - loaded once, for all children
    import ml_dtypes  # noqa: F401
    import numpy as np  # noqa: F401
    from google.protobuf import message  # noqa: F401

    rng = random.Random(options.seed)  # noqa: S311
    for part in [options.only] if options.only else list(TESTS):
        found = [
            mutant
            for path in sorted((ROOT / "ckptparse" / part).rglob("*.py"))
            for mutant in mutants_of(path)
        ]
        chosen = rng.sample(found, options.sample) if options.sample else found
        if not survives(Mutant(found[0].path, -1, 0, 0, "", ""), TESTS[part], 10 * options.seconds):
            sys.exit(f"the tests of {part} fail although nothing is changed")
        killed = 0
        began = time.monotonic()
        for mutant in chosen:
            if not survives(mutant, TESTS[part], options.seconds):
                killed += 1
                continue
            place = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
            print(
                f"SURVIVED {place}\n    {mutant.before[:200]}\n    {mutant.after[:200]}", flush=True
            )
        spent = time.monotonic() - began
        print(
            f"{part}: {killed} of {len(chosen)} killed, of {len(found)} there are; {spent:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
