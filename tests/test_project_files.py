"""The files around the package say the same as pyproject.toml and the package itself."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
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


def test_the_conda_recipe_needs_what_the_package_and_its_command_need() -> None:
    run = text_of(RECIPE).partition("  run:\n")[2].partition("\ntests:")[0]
    listed = dict(
        name_and_least(line[6:]) for line in run.splitlines() if line.startswith("    - ")
    )
    python = listed.pop("python")
    needed = [*project()["dependencies"], *project()["optional-dependencies"]["cli"]]
    wanted = dict(sorted(map(name_and_least, needed)))
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


@pytest.fixture
def build_hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hook of the build, with a stand-in for the class of hatchling that it extends."""
    path = ROOT / "hatch_build.py"
    if not path.exists():
        pytest.skip("hatch_build.py is not part of what is unpacked here")
    interface = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object  # type: ignore[attr-defined]
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hook = module.ReadmeHook()
    hook.root = str(ROOT)
    return hook


RELATIVE = re.compile(r"\]\((?!https?:|#)")


def test_the_links_of_the_built_readme_are_absolute_once_the_project_has_an_address(
    build_hook: Any,
) -> None:
    own = text_of(ROOT / "README.md")
    metadata = {"version": "9.8.7", "urls": {"Source": "https://example.org/x/ckptparse/"}}
    build_hook.update(metadata)
    text = metadata["readme"]["text"]  # type: ignore[call-overload, index]
    assert RELATIVE.search(own)
    assert not RELATIVE.search(text)
    base = "https://example.org/x/ckptparse"
    assert f"]({base}/blob/v9.8.7/docs/convert.md)" in text
    assert f"]({base}/raw/v9.8.7/docs/page/damaged.png)" in text
    assert re.sub(rf"{base}/(blob|raw)/v9\.8\.7/", "", text) == own


def test_without_an_address_the_built_readme_is_the_readme(build_hook: Any) -> None:
    metadata: dict[str, Any] = {"version": "9.8.7"}
    build_hook.update(metadata)
    assert metadata["readme"]["text"] == text_of(ROOT / "README.md")


def test_every_test_that_a_promise_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", text_of(ROOT / "SECURITY.md")))
    assert "tests/attacks/test_messages.py" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
