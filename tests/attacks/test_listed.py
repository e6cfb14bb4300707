"""README.md lists every threat with its test: what it names is there, and no line is left out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import test_bounds
import test_rows

HERE = Path(__file__).resolve().parent
README = (HERE / "README.md").read_text(encoding="utf-8")
NUMBERS = {
    *range(2, 15),
    *range(16, 79),
    *range(80, 89),
    *range(91, 103),
} - {15, 17, 45, 75, 79, 89, 90}
"""The rows of section 9.1 that have a number."""


@cache
def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def named() -> set[tuple[Path, str]]:
    """The tests that README.md names: a file here, or from the top, and a function."""
    found = re.findall(r"`([\w/]+\.py)::(\w+)`", README)
    return {
        ((HERE.parents[1] if "/" in file else HERE) / file, function) for file, function in found
    }


def table(name: str) -> list[list[str]]:
    """The cells of each row of the table after a comment with its name."""
    lines = README.partition(f"<!-- {name} -->\n")[2].splitlines()
    rows = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.split("|")[1:-1]])
    return rows


def test_every_test_that_is_named_is_there() -> None:
    assert len(named()) > 50
    assert [one for one in sorted(named()) if one[1] not in functions_of(one[0])] == []


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("ROWS", {key: {verdict} for key, (_, verdict) in test_rows.ROWS.items()}),
        ("V1_ROWS", {key: {verdict} for key, (_, verdict) in test_rows.V1_ROWS.items()}),
        ("STATES", {key: {verdict} for key, (_, verdict) in test_rows.STATES.items()}),
        ("BOUNDS", {key: verdicts for key, (_, verdicts) in test_bounds.BOUNDS.items()}),
    ],
)
def test_every_input_is_listed_with_its_verdict(name: str, rows: dict[str, set[str]]) -> None:
    listed = {
        " ".join(cells[:-1]): set(cells[-1].replace("`", "").split(" or ")) for cells in table(name)
    }
    assert listed == rows


def test_no_row_with_a_number_is_left_out() -> None:
    shown: set[int] = set()
    for key in test_rows.ROWS:
        first, _, last = key.partition(" ")[0].partition("-")
        if first and last:
            shown.update(range(int(first), int(last) + 1))
        else:
            shown.update(int(number) for number in first.split(",") if number)
    assert sorted(NUMBERS - shown) == []


def test_every_line_has_a_test() -> None:
    section = README.partition("## 9.3")[2].partition("\nThe inputs")[0]
    lines = [int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert lines == list(range(1, 16))


def test_every_promise_names_tests_that_are_there() -> None:
    text = (HERE.parents[1] / "SECURITY.md").read_text(encoding="utf-8")
    promises = text.partition("| promise | shown by |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(promises) > 10
    for promise in promises:
        files = re.findall(r"`(tests/(?:\w+/)*test_\w+\.py)`", promise.split("|")[2])
        assert files, promise
        for file in files:
            functions = functions_of(HERE.parents[1] / file)
            assert any(name.startswith("test_") for name in functions), file
