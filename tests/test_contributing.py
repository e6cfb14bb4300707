"""CONTRIBUTING.md leads a newcomer from any module to the tests of it."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

import ckptparse

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(ckptparse.__file__).resolve().parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if not path.name.endswith("_pb2.py")
)


def areas() -> dict[str, tuple[list[str], list[str]]]:
    """Take the table area, modules, tests out of the page."""
    _, _, below = TEXT.partition("| area | modules | tests |\n")
    below = below.partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", below, re.MULTILINE)
    return {
        area: (re.findall(r"`([^`]+)`", modules), re.findall(r"`([^`]+)`", tests))
        for area, modules, tests in rows
        if not area.startswith("-")
    }


AREAS = areas()


def belongs(module: str, named: str) -> bool:
    """Tell whether a module is the one that the table names, or lies in that directory."""
    return module.startswith(named) if named.endswith("/") else module == named


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_in_the_table(module: str) -> None:
    found = [
        area
        for area, (modules, _) in AREAS.items()
        if any(belongs(module, named) for named in modules)
    ]
    assert found, f"{module}: CONTRIBUTING.md names no area and no tests of it"


def test_every_file_of_tests_has_its_area_or_is_named_as_one_that_has_none() -> None:
    apart = TEXT.partition("Tests that belong to no area")[2].partition("\n\n")[0]
    named = [pattern for _, tests in AREAS.values() for pattern in tests]
    named += re.findall(r"`([^`]+)`", apart)
    tests = ROOT / "tests"
    files = [path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")]
    assert [file for file in files if not any(fnmatch.fnmatch(file, one) for one in named)] == []


@pytest.mark.parametrize("area", AREAS)
def test_every_area_names_modules_and_tests_that_are_there(area: str) -> None:
    modules, tests = AREAS[area]
    assert modules and tests
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")]
    for named in modules:
        assert any(belongs(module, named) for module in MODULES), named
    for pattern in tests:
        assert fnmatch.filter(files, f"tests/{pattern}"), pattern
