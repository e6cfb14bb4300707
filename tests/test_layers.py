"""A file imports only from levels below its own, and each call imports only what it needs.

The table is that of CONTRIBUTING.md. Imports inside functions count as those at the top do; what is
imported for annotations alone (`if TYPE_CHECKING`) does not run, and does not count.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import ckptparse

PACKAGE = Path(ckptparse.__file__).resolve().parent
CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"

LEVELS = {
    "errors": 0,
    "json_text": 0,
    "limits": 0,
    "locks": 0,
    "problems": 0,
    "text": 0,
    "files": 1,
    "coding": 1,
    "filenames": 1,
    "crc": 1,
    "parallel": 1,
    "table": 2,
    "proto": 3,
    "dtypes": 3,
    "elements": 3,
    "tensor_encoding": 3,
    "tensor_proto": 3,
    "tensor_protos": 3,
    "typed_fields": 3,
    "tensor": 3,
    "slices": 3,
    "backend": 3,
    "identification.identity": 3,
    "identification.sample": 3,
    "identification.text": 3,
    "identification.archive": 3,
    "identification.magic": 3,
    "identification.foreign": 3,
    "identification.stand_ins": 3,
    "tensor_like": 3,
    "statistics": 3,
    "foreign": 3,
    "bundle": 4,
    "legacy": 4,
    "graph": 5,
    "saved_model": 5,
    "identification": 6,
    "inventory": 6,
    "checkpoint": 6,
    "opening": 6,
    "model": 6,
    "rendering.notebook": 3,
    "rendering.dfxml": 6,
    "rendering.text": 6,
    "examination": 7,
    "annotation": 7,
    "explanation": 7,
    "recovery": 8,
    "sources": 8,
    "sinks": 8,
    "jobs": 8,
    "rendering": 8,
    "rendering.page": 9,
    "api": 9,
    "__init__": 9,
    "tf": 9,
    "cli": 10,
    "__main__": 10,
}
"""The table of CONTRIBUTING.md. A module with a line of its own stands apart from its package."""

ASKERS: dict[str, str] = {
    "cli.about.common": "tells how large the files are that the user names",
    "cli.commands.dump": "tells how large the file is that the user names",
    "cli.completion": "completes paths for the shell",
    "cli.errors": "says what lies beside a mistyped path",
    "cli.output": "asks how wide the terminal is",
    "cli.running": "ends the process after a broken pipe",
    "rendering.page.making": "reads the page's script and style, which are part of the package",
    "cli.writing": "refuses outputs beside an input, before the work starts",
}
"""Modules outside `files/` that ask the file system, and why they may."""


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
    while module not in LEVELS and "." in module:
        module = module.rpartition(".")[0]
    return module


MODULES = modules()


def test_every_module_has_its_level() -> None:
    assert {part(name) for name in MODULES} <= LEVELS.keys()


@cache
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
        assert below <= level, f"{name}:{line} (level {level}) imports {target} (level {below})"


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_written_with_the_whole_path(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}"


def test_no_two_parts_of_a_level_import_each_other() -> None:
    both_ways = {(a, b) for a, b in edges() if a < b and (b, a) in edges()}
    assert both_ways == set()


def test_the_command_line_uses_public_names_only() -> None:
    for name, tree in MODULES.items():
        if part(name) == "cli":
            targets = {target for _, target in imported(tree)}
            used = {target if target == "files.placing" else part(target) for target in targets}
            # Writing what the user names is no job of a reader's public face.
            # `ckptparse.text` is public as a whole; `json_text` prints.
            assert used - {"files.placing"} <= {"__init__", "cli", "text", "json_text"}, name


# Only `files/` asks a file system: files lie wherever a `Storage` finds them.

HARMLESS = {"PathLike", "fsdecode", "fsencode", "fspath", "environ", "cpu_count", "getpid", "name"}
HARMLESS |= {"sched_getaffinity", "register_at_fork"}
"""What of `os` looks at no file. All else does, or takes a path apart as this machine would."""

FILE_MODULES = {"pathlib", "shutil", "tempfile", "glob", "fileinput", "fcntl", "os", "os.path"}
FILE_MODULES |= {"ckptparse.files.local"}
"""Modules of which nothing is taken; `import os` itself is fine, for what is harmless of it."""
OPENING_CALLS = {"open", "io.open", "io.FileIO", "mmap.mmap", "codecs.open"}
OPENING_CALLS |= {"np.load", "np.fromfile", "np.memmap", "np.savez", "np.savetxt", "np.loadtxt"}
OPENERS_OF_ARCHIVES = {"zipfile.ZipFile", "tarfile.open", "tarfile.TarFile", "h5py.File"}
OPENERS_OF_ARCHIVES |= {"gzip.open", "gzip.GzipFile", "bz2.open", "lzma.open"}
"""What takes a path or an open stream: a stream is given by that name, or wrapped in the call."""
OPENING_METHODS = {"tofile", "read_bytes", "read_text", "write_bytes", "write_text"}


def questions(tree: ast.Module) -> Iterator[str]:
    """Iterate over what a module asks a file system, by how it is written."""
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in running(tree):
        line = getattr(node, "lineno", 0)
        if FILE_MODULES & imported_modules(node):
            yield f"{line}: {ast.unparse(node)}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("os", "os.path"):
            if node.attr not in HARMLESS | {"path"}:
                yield f"{line}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and opens_a_file(node, own):
            yield f"{line}: {ast.unparse(node)}"


def imported_modules(node: ast.AST) -> set[str]:
    """Name what an import takes names from; `import os` takes none."""
    if isinstance(node, ast.ImportFrom):
        return {node.module or ""}
    return {alias.name for alias in node.names} - {"os"} if isinstance(node, ast.Import) else set()


def opens_a_file(call: ast.Call, own_names: set[str]) -> bool:
    written = ast.unparse(call.func)
    if written == "mmap.mmap" and call.args and ast.unparse(call.args[0]) == "-1":
        return False  # memory of the process, no file
    if written in OPENING_CALLS:
        return written not in own_names
    if written in OPENERS_OF_ARCHIVES:
        given = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "fileobj")]
        return not any(
            ast.unparse(one) in ("file", "stream") or ast.unparse(one).startswith("io.Buffered")
            for one in given
        )
    return isinstance(call.func, ast.Attribute) and call.func.attr in OPENING_METHODS


def asks(name: str) -> list[str]:
    return list(questions(MODULES[name]))


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) != "files"])
def test_only_files_asks_a_file_system(name: str) -> None:
    if name not in ASKERS:
        assert asks(name) == []


def test_every_exception_still_asks() -> None:
    assert [name for name in ASKERS if name not in MODULES or not asks(name)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import os\nos.path.exists(p)",
        "import os\nos.stat(p)",
        "import os\nos.scandir(p)",
        "from os.path import isfile",
        "from pathlib import Path",
        "def f():\n    import shutil",
        "open(p)",
        "np.load(p)",
        "mmap.mmap(f, 3)",
        "array.tofile(p)",
        "zipfile.ZipFile(p)",
        "tarfile.open(p, mode='r:')",
        "h5py.File(path, 'r')",
    ],
)
def test_a_question_is_seen(line: str) -> None:
    assert list(questions(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "os.fsdecode(p)",
        "storage.open(p)",
        "mmap.mmap(-1, 3)",
        "def open(p): ...\nopen(p)",
        "zipfile.ZipFile(io.BufferedReader(SourceStream(source)))",
        "tarfile.open(fileobj=io.BufferedReader(SourceStream(source)), mode='r:')",
    ],
)
def test_what_is_no_question_is_not_taken_for_one(line: str) -> None:
    assert not list(questions(ast.parse(line)))


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
    for unneeded in ("snappy", "ml_dtypes", "click", "rich", "h5py", "safetensors"):
        assert unneeded not in roots(printed)
