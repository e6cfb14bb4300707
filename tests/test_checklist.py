"""Every line of the list of behaviours is shown by a test, or listed in checklist.md with a reason.

A test says which lines it shows with `@pytest.mark.checklist(41, 42)`; a whole file, or a value of
a parametrised test, with the same mark. They are found by reading the files, not by running them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LINES = range(1, 128)
MARK = "pytest.mark.checklist"


def marks(path: Path) -> Iterator[tuple[int, int]]:
    """Iterate over the marks in a file: where, and which line of the list."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == MARK:
            for argument in node.args:
                assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a plain number"
                yield node.lineno, argument.value


@cache
def shown() -> dict[int, list[str]]:
    """Collect the places that show each line."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for lineno, line in marks(path):
            found.setdefault(line, []).append(f"{path.relative_to(TESTS)}:{lineno}")
    return found


@cache
def listed() -> dict[int, str]:
    """Read the table of checklist.md: the reason for each line that it lists."""
    text = (TESTS / "checklist.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+(?:, \d+)*) \| (.+?) \|$", text, re.MULTILINE)
    return {int(number): why for numbers, why in rows for number in numbers.split(", ")}


def test_every_line_of_the_list_is_shown_by_a_test_or_listed_with_a_reason() -> None:
    missing = [line for line in LINES if line not in shown() and line not in listed()]
    assert missing == []


def test_no_line_is_both_shown_by_a_test_and_listed() -> None:
    assert sorted(shown().keys() & listed().keys()) == []


def test_marks_and_the_table_name_only_lines_that_there_are() -> None:
    assert sorted(line for line in shown() | listed() if line not in LINES) == []
