"""A file imports only from levels below its own, and each call imports only what it needs.

The table is that of CONTRIBUTING.md. Imports inside functions count as those at the top do; what is
imported for annotations alone (`if TYPE_CHECKING`) does not run, and does not count.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ckptparse

PACKAGE = Path(ckptparse.__file__).resolve().parent
CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"

LEVELS = {
    "errors": 0,
    "limits": 0,
    "problems": 0,
    "text": 0,
    "files": 1,
    "coding": 1,
    "crc": 1,
    "table": 2,
    "parallel": 2,
    "proto": 3,
    "dtypes": 3,
    "elements": 3,
    "tensor_proto": 3,
    "tensor": 3,
    "backend": 3,
    "bundle": 4,
    "legacy": 4,
    "graph": 5,
    "saved_model": 5,
    "identification": 6,
    "inventory": 6,
    "checkpoint": 6,
    "resolve": 6,
    "opening": 6,
    "rendering.text": 6,
    "examination": 7,
    "annotation": 7,
    "explanation": 7,
    "recovery": 8,
    "sinks": 8,
    "jobs": 8,
    "rendering": 8,
    "api": 9,
    "__init__": 9,
    "tf": 9,
    "cli": 10,
    "__main__": 10,
}
"""The table of CONTRIBUTING.md. A module with a line of its own stands apart from its package."""

NOT_YET = {("examination", "recovery"): "V1 files have a pipeline of their own in recovery.legacy"}
"""Imports that point up, and why they are still there."""

OPENERS: dict[str, str] = {
    "files.local": "the one place that opens data files",
    "recovery.result": "writes what was got back",
    "cli.writing": "writes results into files that the command line names",
}
"""Modules that open files, and why they may."""


def modules() -> dict[str, ast.Module]:
    """Parse every module of the package, by its dotted name below the package."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.name.endswith("_pb2.py")]
    return {dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Iterate over the nodes that run: all but the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from running(child)


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Iterate over what a module imports of the package: line, dotted name below the package."""
    for node in running(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "ckptparse":
            names = [whose(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            package, _, below = name.partition(".")
            if package == "ckptparse":
                yield node.lineno, below or "__init__"


def whose(name: str) -> str:
    """Say where `from ckptparse import name` gets it: a public name, else a module of ours."""
    return "ckptparse" if name in ckptparse.__all__ else f"ckptparse.{name}"


def part(module: str) -> str:
    """Return the part of the package that a module belongs to, as the table names it."""
    return module if module in LEVELS else module.partition(".")[0]


MODULES = modules()


def test_every_module_has_its_level() -> None:
    assert {part(name) for name in MODULES} <= LEVELS.keys()


def edges() -> set[tuple[str, str]]:
    """Return which part imports which."""
    return {
        (part(name), part(target)) for name, tree in MODULES.items() for _, target in imported(tree)
    }


def test_the_table_of_contributing_is_this_one() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", CONTRIBUTING.read_text("utf-8"), re.MULTILINE)
    told = {
        name.strip("/").replace("/", "."): int(level)
        for level, names in rows
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert told == LEVELS


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_below_or_from_its_own_level(name: str) -> None:
    level = LEVELS[part(name)]
    for line, target in imported(MODULES[name]):
        below = LEVELS[part(target)]
        if (part(name), part(target)) not in NOT_YET:
            assert below <= level, f"{name}:{line} (level {level}) imports {target} (level {below})"


def test_every_import_that_may_point_up_is_still_there() -> None:
    assert NOT_YET.keys() <= edges()


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_written_with_the_whole_path(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}"


def test_no_two_parts_of_a_level_import_each_other() -> None:
    straight = edges() - NOT_YET.keys()
    both_ways = {(a, b) for a, b in straight if a < b and (b, a) in straight}
    assert both_ways == set()


def test_the_command_line_uses_public_names_only() -> None:
    for name, tree in MODULES.items():
        if part(name) == "cli":
            used = {part(target) for _, target in imported(tree)}
            assert used <= {"__init__", "cli"}, name


# Opening files.

OPENING_METHODS = {"read_bytes", "read_text", "write_bytes", "write_text", "fromfile", "memmap"}
OPENING_CALLS = {"io.open", "os.open", "os.fdopen", "mmap.mmap", "np.load", "np.save", "np.savez"}


def opens_a_file(call: ast.Call, own_names: set[str]) -> bool:
    """Tell whether a call opens a file, by how it is written."""
    written = ast.unparse(call.func)
    if written == "open":
        return "open" not in own_names
    if written in OPENING_CALLS:
        # A mapping of -1 is memory of the process, no file.
        return not call.args or ast.unparse(call.args[0]) != "-1"
    if not isinstance(call.func, ast.Attribute):
        return False
    # `LocalSource.open`, `storage.open`, `ckptparse.open` are ours, and go through `files`.
    receiver = ast.unparse(call.func.value)
    ours = (
        receiver == "ckptparse"
        or receiver.endswith("storage")
        or (receiver[:1].isupper() and receiver != "Path")
    )
    return call.func.attr in OPENING_METHODS or (call.func.attr == "open" and not ours)


def openings(tree: ast.Module) -> list[int]:
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if opens_a_file(call, own)]


@pytest.mark.parametrize("name", MODULES)
def test_only_source_opens_files(name: str) -> None:
    if name not in OPENERS:
        assert openings(MODULES[name]) == []


def test_every_exception_still_opens_a_file() -> None:
    assert [name for name in OPENERS if not openings(MODULES[name])] == []


# What is imported when.


def roots(printed: str) -> set[str]:
    return {name.partition(".")[0] for name in printed.split()} - sys.stdlib_module_names


def test_import_ckptparse_pulls_numpy_and_the_standard_library(
    fresh_python: Callable[[str], str],
) -> None:
    printed = fresh_python(
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        "import ckptparse\n"
        "print(*(set(sys.modules) - before))"
    )
    assert roots(printed) == {"ckptparse"}


def test_reading_plain_numbers_imports_nothing_that_only_other_files_need(
    fresh_python: Callable[[str], str], fixtures: Path
) -> None:
    printed = fresh_python(
        "import sys, ckptparse\n"
        f"ckptparse.read({str(fixtures / 'saver' / 'my_model')!r})\n"
        "print(*sys.modules)"
    )
    for unneeded in ("snappy", "ml_dtypes", "typer", "rich", "h5py", "safetensors"):
        assert unneeded not in roots(printed)
