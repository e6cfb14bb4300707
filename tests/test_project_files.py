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
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the build, with a stand-in for the class of hatchling that it extends."""
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
    return module


RELATIVE = re.compile(r"\]\((?!https?:|#)")
CLONED = """[core]
\tbare = false
[remote "upstream"]
\turl = https://example.org/other.git
[remote "origin"]
\tfetch = +refs/heads/*:refs/remotes/origin/*
\turl = git@example.org:x/ckptparse.git
[branch "main"]
\tremote = origin
"""


def built_in(build: Any, root: Path) -> dict[str, Any]:
    """What the hook makes of the metadata if the project lies in a directory."""
    (root / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    hook = build.AddressHook()
    hook.root = str(root)
    metadata: dict[str, Any] = {"version": "9.8.7"}
    hook.update(metadata)
    return metadata


def test_what_is_built_says_where_its_checkout_came_from(build: Any, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text(CLONED)
    metadata = built_in(build, tmp_path)
    base = "https://example.org/x/ckptparse"
    assert metadata["urls"] == {
        "Source": base,
        "Documentation": f"{base}/tree/HEAD/docs",
        "Changelog": f"{base}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{base}/issues",
    }
    text, own = metadata["readme"]["text"], text_of(ROOT / "README.md")
    assert RELATIVE.search(own)
    assert not RELATIVE.search(text)
    assert f"]({base}/blob/v9.8.7/docs/convert.md)" in text
    assert f"]({base}/raw/v9.8.7/docs/page/damaged.png)" in text
    assert re.sub(rf"{base}/(blob|raw)/v9\.8\.7/", "", text) == own


def test_what_is_built_of_an_sdist_says_where_the_sdist_came_from(
    build: Any, tmp_path: Path
) -> None:
    (tmp_path / "PKG-INFO").write_text(
        "Metadata-Version: 2.4\nName: ckptparse\nProject-URL: Issues, https://example.org/x/issues\n"
        "Project-URL: Source, https://example.org/x\n\nText: of, the README\n"
    )
    assert built_in(build, tmp_path)["urls"]["Source"] == "https://example.org/x"
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: ckptparse\n\n")
    assert "urls" not in built_in(build, tmp_path)


def test_a_checkout_from_nowhere_has_no_address_and_the_readme_as_it_is(
    build: Any, tmp_path: Path
) -> None:
    metadata = built_in(build, tmp_path)
    assert "urls" not in metadata
    assert metadata["readme"]["text"] == text_of(ROOT / "README.md")


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://example.org/x/ckptparse.git", "https://example.org/x/ckptparse"),
        ("https://example.org/x/ckptparse/", "https://example.org/x/ckptparse"),
        ("https://me:secret@example.org/x/y", "https://example.org/x/y"),
        ("ssh://git@example.org:2222/x/y.git", "https://example.org/x/y"),
        ("git@example.org:x/y.git", "https://example.org/x/y"),
        ("http://10.0.0.7/x/y.git", None),
        ("https://10.0.0.7/x/y.git", None),
        ("https://localhost/x/y.git", None),
        ("https://example.org/", None),
        ("/srv/git/y.git", None),
        ("file:///srv/git/y.git", None),
        ("../y", None),
        ("https://[::1/x/y", None),
    ],
)
def test_the_page_of_a_repository_is_known_by_the_address_that_git_uses(
    build: Any, remote: str, page: str | None
) -> None:
    assert build.page_of(remote) == page


@pytest.mark.parametrize(
    "config",
    [
        b'[user]\n\tname = J\xe9r\xf4me\n[remote "origin"]\n\turl = https://example.org/x/y.git\n',
        b'\xef\xbb\xbf[remote "origin"]\r\n\turl = https://example.org/x/y.git\r\n',
        b'[Remote "origin"]\n\tURL = "https://example.org/x/y.git" ; a comment\n',
        b'[remote "origin"]\n\t# url = https://old.org/x\n  url=https://example.org/x/y.git # new',
        b'[remote "origin"]\n\turl = https://example.org/x/y\n\turl = https://example.org/2\n',
    ],
)
def test_the_address_is_found_in_all_that_git_takes(
    build: Any, config: bytes, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(config)
    assert build.find_source(tmp_path) == "https://example.org/x/y"


@pytest.mark.parametrize(
    ("stated", "page"),
    [
        (
            b"Author: J\xe9r\xf4me\nProject-URL: Source, https://example.org/x\n\n",
            "https://example.org/x",
        ),
        (b"Project-URL: Source, \n\n", None),
        (b"", None),
    ],
)
def test_a_statement_of_an_sdist_that_is_odd_ends_no_build(
    build: Any, stated: bytes, page: str | None, tmp_path: Path
) -> None:
    (tmp_path / "PKG-INFO").write_bytes(stated)
    assert build.find_source(tmp_path) == page


def test_every_test_that_a_promise_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", text_of(ROOT / "SECURITY.md")))
    assert "tests/attacks/test_messages.py" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
