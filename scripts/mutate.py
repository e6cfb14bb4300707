"""Change the strict reader in one place at a time, and see whether a test notices.

    python scripts/mutate.py [--only PART ...] [--sample 40] [--seed 0] [--at MODULE:LINE ...]
                             [--since COMMIT] [--modules MODULE ...] [--rows FILE] [--notes FILE]

Each change (a mutant) is one comparison, number, operator, condition, `raise` or call of a check
that is another one. First the tests of the part run with nothing changed: they must pass, and it
is noted which test runs which line. Then each mutant runs in a forked child, with the tests that
run its line, until one fails. What no test notices has survived: it is printed as a row of
`tests/mutants.md`, which lists the survivors that change nothing, each with its reason.

Some parts of calls are no check and no choice, and are left alone (`tests/mutants.md` counts them):

    zip(..., strict=True)   a statement about our own lists, which one function makes
    array.reshape(-1)       "what is left": to numpy any negative number says it
    @lru_cache(4096)        how much is remembered
    @dataclass(slots=True)  how a class is made

A survivor costs the time of all tests that run its line. With `--longest 0.1 --most 100`, long
tests and tests beyond a hundred are left out: what a few quick tests kill is killed, and what is
left is tried with all tests by `--rows FILE`, the file into which it was printed.

With `--since COMMIT`, all changes are tried of the functions in which a line is another one than in
that commit, and of such lines that stand in no function.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from enum import EnumMeta
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

LISTED = ROOT / "tests" / "mutants.md"
MEMORY = 6 << 30
"""Bytes of address space for a child: a mutant may ask for more than there is."""
TESTS: dict[str, Sequence[str]] = {
    "coding": (
        "test_coding_numbers",
        "test_ways_taken",
        "test_table_blocks",
        "test_bundle_rules",
        "test_bundle_damage",
        "test_bundle_values",
        "test_legacy",
        "test_legacy_damage",
    ),
    "table": (
        "test_table_checks",
        "test_table_parts",
        "test_ways_taken",
        "test_table_blocks",
        "test_table_files",
        "test_table_columns",
        "test_table_building",
        "test_bundle_damage",
        "test_bundle_rules",
        "test_legacy_damage",
        "test_limits",
    ),
    "bundle": (
        "test_bundle_checks",
        "test_ways_taken",
        "test_bundle_plans",
        "test_bundle_regions",
        "test_bundle_shapes",
        "test_bundle_many",
        "test_bundle_ways",
        "test_bundle_payloads",
        "test_bundle_rules",
        "test_bundle_damage",
        "test_bundle_values",
        "test_bundle_columns",
        "test_bundle_checkpoint",
        "test_bundle_reading",
        "test_places",
        "test_bundle_indexing",
        "test_bundle_writing",
        "test_slices_assembly",
        "test_small_payloads",
        "test_small_tensors",
        "test_limits",
        "test_lacking_kinds",
        "test_pickling",
    ),
    "legacy": (
        "test_legacy_records",
        "test_legacy_checks",
        "test_legacy_limits",
        "test_legacy",
        "test_legacy_cost",
        "test_legacy_damage",
        "test_limits",
        "test_problem_codes",
        "attacks/test_verdicts",
    ),
}
"""The tests of each part."""
KINDS = ("zip", "reshape", "lru_cache", "dataclass")
"""Calls with a part that is left alone."""
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
_AROUND = (ast.expr, ast.keyword, ast.Assign, ast.AnnAssign, ast.Return)
_SHORT, _LONG = 30, 100
"""A number is shown with what stands around it: so many characters, and not more than these."""
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
    """One change: the module, the number of its node, and what it says before and after.

    `lines` are those of the statement, `body` those of the function around it.
    """

    path: Path
    node: int
    way: int
    lines: range
    body: range
    function: str
    before: str
    after: str

    @property
    def place(self) -> str:
        """Its module and line: `coding/varint.py:36`."""
        return f"{self.path.relative_to(ROOT / 'ckptparse').as_posix()}:{self.lines.start}"

    @property
    def row(self) -> tuple[str, str, str]:
        """What names it in `tests/mutants.md`: no number of a line, which every commit moves."""
        module = self.path.relative_to(ROOT / "ckptparse").as_posix()
        place = f"{module} {self.function}".strip()
        return place, " ".join(self.before.split())[:120], " ".join(self.after.split())[:120]


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


def left_out(tree: ast.Module, kinds: Container[str] = KINDS) -> set[ast.AST]:
    """Return the nodes of some kinds that are no check and no choice: see the module's text."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            parts: list[ast.AST] = []
            if name in ("dataclass", "lru_cache"):
                parts = [node]
            elif name == "zip":
                parts = [keyword for keyword in node.keywords if keyword.arg == "strict"]
            elif name == "reshape":
                parts = [one for one in node.args if ast.unparse(one) == "-1"]
            if name in kinds:
                found.update(inner for part in parts for inner in ast.walk(part))
    return found


def nodes_of(tree: ast.Module) -> list[ast.AST]:
    """List the nodes that run: no annotations, no docstrings, no parts of messages."""
    others = left_out(tree)
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                others.update(ast.walk(part))
        if isinstance(node, (ast.JoinedStr, ast.ImportFrom, ast.Import)):
            others.update(ast.walk(node))
    return [node for node in ast.walk(tree) if node not in others]


def functions_of(tree: ast.Module) -> dict[int, tuple[str, range]]:
    """Map each node to the function that it stands in: its name, and its lines."""
    found: dict[int, tuple[str, range]] = {}

    def walk(node: ast.AST, name: str, lines: range) -> None:
        found[id(node)] = name, lines
        outer = lines
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = f"{name}.{node.name}".lstrip(".")
            # Lines of a class run when the module is imported, whatever test is running.
            if isinstance(node, ast.FunctionDef):
                lines = range(node.body[0].lineno, (node.end_lineno or 0) + 1)
        for child in ast.iter_child_nodes(node):
            # Defaults and decorators run when the function is defined.
            outside = isinstance(node, ast.FunctionDef) and child not in node.body
            walk(child, name, outer if outside else lines)

    walk(tree, "", range(0))
    return found


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Iterate over all changes of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = functions_of(tree)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for number, node in enumerate(nodes_of(tree)):
        for way in range(ways_of(node)):
            before, after = describe(node, way, parents)
            first = getattr(node, "lineno", 0)
            lines = range(first, (getattr(node, "end_lineno", None) or first) + 1)
            function, body = functions[id(node)]
            yield Mutant(path, number, way, lines, body, function, before, after)


def describe(node: ast.AST, way: int, parents: Mapping[ast.AST, ast.AST]) -> tuple[str, str]:
    """Say what a node is before and after a change; of a number, also what stands around it."""
    shown = node
    if isinstance(node, ast.Constant):
        while len(ast.unparse(shown)) < _SHORT and isinstance(parents[shown], _AROUND):
            if len(ast.unparse(parents[shown])) > _LONG:
                break
            shown = parents[shown]
    number = list(ast.walk(shown)).index(node)
    changed = copy.deepcopy(shown)
    change(list(ast.walk(changed))[number], way)
    return ast.unparse(shown), "return" if isinstance(node, ast.Raise) else ast.unparse(changed)


def source_of(mutant: Mutant) -> ast.Module:
    """Return the changed module."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    if mutant.node >= 0:
        change(nodes_of(tree)[mutant.node], mutant.way)
    return ast.fix_missing_locations(tree)


@dataclass(slots=True)
class Runner:
    """A plugin of pytest that, in place of running tests, runs the mutants of a part.

    All is imported once. Each mutant lives in a forked child: there the code of its function is
    replaced, or what its module has computed.
    """

    part: str
    seconds: int
    longest: float
    """Seconds of a test: those that take longer are left out."""
    notes: Path | None
    """Where to keep which test runs which line, for another time."""
    most: int
    """How many tests a mutant meets at most."""
    work: Callable[[Runner], None]
    items: dict[str, Any] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time of each test, with what sets it up, while its lines are noted."""
    tests: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    """Which tests run a line of a file."""
    functions: list[FunctionType] = field(default_factory=list)
    _ran: set[tuple[str, int]] = field(default_factory=set)
    _noting: bool = False
    _late: bool = False
    _failed: bool = False
    _calling: bool = False

    def pytest_runtestloop(self, session: Any) -> bool:
        """Note what the tests run, then do the work."""
        self.items = {item.nodeid: item for item in session.items}
        folder = str(ROOT / "ckptparse" / self.part)
        # What is imported only when it is needed must be there to be changed.
        for path in Path(folder).rglob("*.py"):
            importlib.import_module(name_of(path))
        self.functions = [
            one
            for one in gc.get_objects()
            if isinstance(one, FunctionType) and one.__code__.co_filename.startswith(folder)
        ]
        with tempfile.TemporaryDirectory() as folder:
            notes = self.notes or Path(folder, "notes.json")

            def note() -> None:
                self._noting = True
                signal.signal(signal.SIGPROF, self.leave_out)
                self.run(list(self.items))
                notes.write_text(json.dumps([self.took, list(self.tests.items())]))

            if not notes.exists() and in_child(note, 600 * self.seconds, silent=False):
                sys.exit(f"the tests of {self.part} do not end")
            took, tests = json.loads(notes.read_text())
        self.took = {test: spent for test, spent in took.items() if spent < self.longest}
        self.tests = {
            tuple(place): [name for name in names if name in self.took] for place, names in tests
        }
        gc.freeze()  # A child then copies less of what it does not use.
        self.work(self)
        return True

    def run(self, names: Sequence[str]) -> None:
        """Run tests until the first fails."""
        items = [self.items[name] for name in names]
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._ran.clear()
            self._late = self._failed = False
            began = time.process_time()
            if self._noting:
                signal.setitimer(signal.ITIMER_PROF, self.longest)
                threading.settrace(self.trace)
                sys.settrace(self.trace)
            else:
                # A mutant that goes round for ever ends here, however busy the machine is.
                signal.setitimer(signal.ITIMER_PROF, 3 + 3 * self.took[item.nodeid])
            with suppress(BaseException) if self._noting else nullcontext():
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            signal.setitimer(signal.ITIMER_PROF, 0)
            sys.settrace(None)
            if self._noting:
                self.took[item.nodeid] = time.process_time() - began
                if self._late or self._failed:
                    self.took[item.nodeid] = math.inf
                if self._failed and not self._late:
                    print(f"{item.nodeid} fails although nothing is changed", file=sys.stderr)
            for place in self._ran:
                self.tests.setdefault(place, []).append(item.nodeid)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        """Note a line of the part; look into no other function."""
        name = frame.f_code.co_filename
        if f"/ckptparse/{self.part}/" not in name:
            return None
        if event == "line":
            self._ran.add((name, frame.f_lineno))
        return self.trace

    def leave_out(self, *_: object) -> None:
        """End a test that has taken too long while its lines are noted."""
        import pytest

        self._late = True
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self._calling:
            pytest.skip("it takes too long")

    def pytest_pyfunc_call(self) -> None:
        """Note that a test begins, after what it takes has been made."""
        self._calling = True

    def pytest_runtest_logreport(self, report: Any) -> None:
        """End with the first test that fails."""
        self._calling = False
        if report.failed and not self._noting:
            os._exit(1)
        self._failed |= report.failed

    def tests_of(self, mutant: Mutant) -> list[str]:
        """List the tests that run the lines of a mutant, one of each function first, then a second.

        What runs when the module is imported concerns all.
        """
        path = str(mutant.path)
        found = set() if mutant.body else set(self.took)
        for lines in (mutant.lines, mutant.body):
            found = found or {test for line in lines for test in self.tests.get((path, line), ())}
        functions: Counter[str] = Counter()
        order = []
        for test in sorted(found, key=lambda test: self.took[test]):
            name = test.partition("[")[0]
            order.append((functions[name], self.took[test], test))
            functions[name] += 1
        return [test for *_, test in sorted(order)][: self.most]

    def survives(self, mutant: Mutant) -> bool:
        """Run the tests in a child with a changed module; tell whether all pass."""
        tests = self.tests_of(mutant)
        if not tests:
            return True

        def work() -> None:
            self.put(mutant)
            self.run(tests)

        needed = sum(self.took[test] for test in tests)
        # What waits takes no processor time. A busy machine must not kill what would survive.
        return in_child(work, 5 * self.seconds + int(30 * needed)) == 0

    def put(self, mutant: Mutant) -> None:
        """Replace the code of functions, or what the module computes when it is imported."""
        code = compile(source_of(mutant), str(mutant.path), "exec")
        if not mutant.body:
            replace_globals(mutant, code)
            return
        found = {(one.co_name, one.co_firstlineno): one for one in codes_in(code)}
        for function in self.functions:
            former = function.__code__
            if former.co_filename == code.co_filename:
                function.__code__ = found[former.co_name, former.co_firstlineno]


def name_of(path: Path) -> str:
    """Return the name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Iterate over the functions in compiled code."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from codes_in(one)


def replace_globals(mutant: Mutant, code: CodeType) -> None:
    """Compute the module anew, and put what differs into all modules that took it."""
    module = sys.modules[name_of(mutant.path)]
    space = {"__name__": module.__name__, "__file__": module.__file__}
    exec(code, space)  # noqa: S102
    for name, value in space.items():
        former = getattr(module, name, None)
        take_defaults(former, value)
        if not differs(former, value):
            continue
        for other in list(sys.modules.values()):
            if vars(other).get(name) is former:
                setattr(other, name, value)


def differs(former: object, made: object) -> bool:
    """Tell whether what a module computed is another value; of classes, those of enums are."""
    if isinstance(made, EnumMeta):
        return list(map(repr, made)) != list(map(repr, cast("EnumMeta", former)))
    if isinstance(made, (type, FunctionType, ModuleType)):
        return False
    if isinstance(made, re.Pattern):
        return made != former  # Of a long one the text is cut.
    return repr(made) != repr(former)


def take_defaults(former: object, made: object) -> None:
    """Give functions the defaults of those that were made anew, and classes what they hold."""
    former, made = getattr(former, "__func__", former), getattr(made, "__func__", made)
    if isinstance(made, FunctionType) and isinstance(former, FunctionType):
        former.__defaults__, former.__kwdefaults__ = made.__defaults__, made.__kwdefaults__
    elif isinstance(made, type) and isinstance(former, type):
        for name, value in vars(made).items():
            take_defaults(vars(former).get(name), value)
            if type(value) in (bool, int) and not name.startswith("__"):
                setattr(former, name, value)


def in_child(work: Callable[[], None], seconds: int, *, silent: bool = True) -> int:
    """Run work in a child with little time and memory, and return its exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            if silent:
                os.dup2(nowhere, 2)
            signal.alarm(seconds)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            work()
            code = 0
        except Exception:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rows_of(path: Path) -> set[tuple[str, ...]]:
    """Read the rows of `tests/mutants.md`, or of what was printed: place, before, after."""
    rows = [
        line.replace("\\|", "\0").split("|")[1:-1]
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and ".py" in line and "| `" in line[1:]
    ]
    return {tuple(cell.replace("\0", "|").strip().strip("`") for cell in row[:3]) for row in rows}


def changed_since(commit: str) -> dict[Path, list[range]]:
    """Ask git which lines of the package are other ones than in a commit.

    If lines are gone, those before and after them count as changed.
    """
    command = ["git", "diff", "--unified=0", "--no-color", "--no-ext-diff", "--no-renames"]
    command += ["--src-prefix=a/", "--dst-prefix=b/", commit, "--", "ckptparse"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[Path, list[range]] = {}
    path = ROOT
    for line in done.stdout.splitlines():
        if line.startswith("+++ "):
            path = ROOT / line[4:].removeprefix("b/")
        elif place := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, count = int(place[1]), int(place[2] or 1)
            found.setdefault(path, []).append(range(first, first + (count or 2)))
    return found


def is_touched(mutant: Mutant, lines: Mapping[Path, Sequence[range]]) -> bool:
    """Tell whether a line is among these of its function, or its own if it stands in none."""
    around = mutant.body or mutant.lines
    return any(one.start < around.stop and around.start < one.stop for one in lines[mutant.path])


def choose(found: list[Mutant], options: argparse.Namespace) -> list[Mutant]:
    """Return the mutants that the options name, or a sample."""
    if options.at or options.rows:
        rows = rows_of(options.rows) if options.rows else set()
        return [one for one in found if one.row in rows or one.place in options.at]
    if options.since:
        lines = changed_since(options.since)
        return [one for one in found if one.path in lines and is_touched(one, lines)]
    rng = random.Random(options.seed)  # noqa: S311
    return rng.sample(found, min(options.sample, len(found))) if options.sample else found


def run_all(
    runner: Runner, chosen: Sequence[Mutant], known: set[tuple[str, ...]]
) -> tuple[int, int]:
    """Run mutants, and print those that survive; return how many are killed, and how many known."""
    killed = alike = 0
    for number, mutant in enumerate(chosen):
        if number % 25 == 0:
            print(f"{runner.part}: {number} of {len(chosen)}", file=sys.stderr, flush=True)
        if mutant.row in known:
            alike += 1
        elif not runner.survives(mutant):
            killed += 1
        else:
            cells = " | ".join(f"`{cell}`".replace("|", "\\|") for cell in mutant.row)
            print(f"| {cells} | line {mutant.lines.start} |", flush=True)
    return killed, alike


def try_part(part: str, options: argparse.Namespace, known: set[tuple[str, ...]]) -> None:
    """Run the chosen mutants of a part, and print those that survive."""
    import pytest

    paths = sorted((ROOT / "ckptparse" / part).rglob("*.py"))
    found = [
        one
        for path in paths
        if not options.modules or path.name in options.modules
        for one in mutants_of(path)
    ]
    chosen = choose(found, options)
    began = time.monotonic()

    def work(runner: Runner) -> None:
        killed, alike = run_all(runner, chosen, known)
        counted = len(chosen) - alike
        print(
            f"{part}: {killed} of {counted} killed ({killed / max(counted, 1):.1%}), {alike}"
            f" listed; {len(chosen)} of {len(found)} tried in {time.monotonic() - began:.0f} s",
            flush=True,
        )

    plugin = Runner(part, options.seconds, options.longest, options.notes, options.most, work)
    files = [f"tests/{name}.py" for name in options.tests or TESTS[part]]
    pytest.main(["-x", "-q", "-s", "-p", "no:cacheprovider", "-n0", *files], plugins=[plugin])
    for row in sorted(known - {one.row for one in found}):
        if row[0].startswith(f"{part}/") and not options.modules:
            print(f"{part}: {LISTED.name} lists what is no more: {row}")


def main() -> None:
    """Run the chosen mutants, and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TESTS, nargs="+", default=list(TESTS))
    parser.add_argument("--sample", type=int, default=40, help="how many of each part; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--at", nargs="+", default=(), help="all of these lines: coding/varint.py:36"
    )
    parser.add_argument("--since", metavar="COMMIT", help="all functions that changed since then")
    parser.add_argument("--tests", nargs="+", help="in place of those of the part: test_limits")
    parser.add_argument("--rows", type=Path, help="those that were printed into this file")
    parser.add_argument("--modules", nargs="+", default=(), help="of these files: entry.py")
    parser.add_argument("--seconds", type=int, default=20, help="what waits longer is killed")
    parser.add_argument(
        "--longest", type=float, default=1e6, help="leave out tests that take more seconds"
    )
    parser.add_argument(
        "--most", type=int, default=1_000_000, help="leave out more tests than these"
    )
    parser.add_argument(
        "--notes", type=Path, help="keep here which test runs which line, for another time"
    )
    options = parser.parse_args()
    # Hypothesis draws the same examples for every mutant.
    os.environ["CI"] = "1"
    os.chdir(ROOT)
    for part in options.only:
        # A process for each: pytest imports and collects once in its life.
        child = os.fork()
        if not child:
            try:
                try_part(part, options, rows_of(LISTED))
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
