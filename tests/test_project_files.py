"""The files around the package say the same as pyproject.toml and the package itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import ckptparse

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
RECIPE = ROOT / ".ci" / "conda" / "recipe.yaml"
CITATION = ROOT / "CITATION.cff"


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    return dict(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"])


def text_of(path: Path) -> str:
    if not path.exists():
        pytest.skip(f"{path.name} is not part of what is unpacked here")
    return path.read_text(encoding="utf-8")


def name_and_least(requirement: str) -> tuple[str, str]:
    name, least = re.match(r"([\w.-]+) ?>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
    return name, least


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    run = text_of(RECIPE).partition("  run:\n")[2].partition("\ntests:")[0]
    listed = dict(
        name_and_least(line[6:]) for line in run.splitlines() if line.startswith("    - ")
    )
    python = listed.pop("python")
    wanted = dict(sorted(map(name_and_least, project()["dependencies"])))
    assert f">={python}" == project()["requires-python"]
    assert listed.keys() == wanted.keys()
    assert {name: listed[name] for name in wanted} == wanted


@pytest.mark.parametrize("path", [RECIPE, CITATION], ids=lambda path: path.name)
def test_the_version_is_that_of_the_package(path: Path) -> None:
    found = re.search(r'^\s*version: "?([\d.]+)"?$', text_of(path), re.MULTILINE)
    assert found is not None
    assert found[1] == ckptparse.__version__


def test_every_supported_python_has_a_classifier() -> None:
    classifiers = project()["classifiers"]
    for minor in range(10, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers


def test_the_core_needs_four_packages() -> None:
    names = {name_and_least(requirement)[0] for requirement in project()["dependencies"]}
    assert names == {"numpy", "protobuf", "crc32c", "python-snappy"}
