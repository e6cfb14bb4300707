"""`scripts/mutate.py` finds what changed since a commit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("git") is None, reason="it needs git, and forks"
)

BEFORE = """\
LEAST = 4
MOST = 8

def alone(size):
    return size < 1

class Kept:
    def first(self, size):
        if size > 2:
            raise ValueError

        return size + 3

    def second(self, size):
        print(size)
        return size == 5
"""


@pytest.fixture
def mutate(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script as a module, of a checkout that holds one file."""
    monkeypatch.syspath_prepend(project / "scripts")
    import mutate as script

    monkeypatch.setattr(script, "ROOT", tmp_path)
    path = tmp_path / "ckptparse" / "table" / "kept.py"
    path.parent.mkdir(parents=True)
    path.write_text(BEFORE, encoding="utf-8")
    # Whoever runs this may have hooks, signatures, and prefixes of their own.
    options = ["core.hooksPath=/dev/null", "commit.gpgsign=false", "user.name=x", "user.email=x"]
    git = ["git", *(word for option in options for word in ("-c", option))]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    subprocess.run(["git", "config", "diff.noprefix", "true"], cwd=tmp_path, check=True)
    return script


def chosen(mutate: Any, before: str, after: str) -> set[str]:
    """Change the file, and return what then is tried of it."""
    path = mutate.ROOT / "ckptparse" / "table" / "kept.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")
    options = SimpleNamespace(at=(), rows=None, since="HEAD")
    return {one.before for one in mutate.choose(list(mutate.mutants_of(path)), options)}


FIRST = {"size > 2", "raise ValueError", "size + 3", "return size + 3"}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("raise ValueError", "raise TypeError", FIRST - {"raise ValueError"} | {"raise TypeError"}),
        ("        print(size)\n", "", {"size == 5", "return size == 5"}),
        ("MOST = 8", "MOST = 9", {"MOST = 9"}),
        ("\n\n        return", "\n        return", FIRST),
        ("class Kept", "# of a size\nclass Kept", set()),
        ("LEAST = 4\n", "", {"MOST = 8"}),
    ],
    ids=["a line", "a line that is gone", "of no function", "a gap", "a comment", "the first line"],
)
def test_all_changes_of_a_function_are_tried_if_a_line_of_it_is_another(
    mutate: Any, before: str, after: str, expected: set[str]
) -> None:
    assert chosen(mutate, before, after) == expected


def test_nothing_is_tried_of_a_file_that_is_as_it_was(mutate: Any) -> None:
    assert chosen(mutate, "MOST = 8", "MOST = 8") == set()
