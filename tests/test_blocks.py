"""Every block of code in the documentation is run by a test or by a session, or says why not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^>\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *map(str, (ROOT / "docs").glob("*.md"))]
"""CONTRIBUTING.md may be away where the tests run without the repository."""


def blocks() -> Iterator[tuple[str, str, str, str]]:
    """Iterate over blocks: the page, the remark above, the language, the text."""
    for page in PAGES:
        path = ROOT / page
        if path.exists():
            for found in BLOCK.finditer(path.read_text(encoding="utf-8")):
                yield path.name, found["mark"] or "", found["language"], found["text"]


def is_run(page: str, mark: str, language: str, text: str) -> bool:
    """Tell whether a test runs a block, by its form or by the remark above it."""
    if language == "python" and ">>> " in text:
        # tests/cli/test_docs.py and tests/test_readme.py
        return text.count("\n>>> ") + text.startswith(">>> ") >= 1
    if language == "console" and page != "README.md":
        # tests/cli/test_docs.py
        return text.startswith("$ ckptparse ")
    # .ci/run, from the README alone
    return page == "README.md" and mark.startswith("run: ")


def sessions() -> set[str]:
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return set(re.findall(r"^def (\w+)\(session: nox\.Session", text, re.MULTILINE))


@pytest.mark.parametrize(("page", "mark", "language", "text"), list(blocks()))
def test_every_block_is_run_or_says_why_not(page: str, mark: str, language: str, text: str) -> None:
    if is_run(page, mark, language, text):
        return
    kind, _, rest = mark.partition(": ")
    if kind == "run by":
        assert rest in sessions()
        return
    assert kind == "not run", f"{page}: no test runs {text[:60]!r}"
    assert rest


@pytest.mark.parametrize(
    "page", sorted({page for page, mark, *_ in blocks() if mark == "run by: tests"})
)
def test_a_block_that_is_a_script_runs(page: str, tmp_path: Path) -> None:
    scripts = [text for name, mark, _, text in blocks() if (name, mark) == (page, "run by: tests")]
    for script in scripts:
        (tmp_path / "script.py").write_text(script, encoding="utf-8")
        command = [sys.executable, str(tmp_path / "script.py")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_few_blocks_are_not_run() -> None:
    assert sum(mark.startswith("not run: ") for _, mark, _, _ in blocks()) <= 2


def test_a_block_that_no_test_knows_is_found() -> None:
    text = "```sh\nrm -rf /\n```\n"
    (found,) = BLOCK.finditer(text)
    assert not is_run("README.md", found["mark"] or "", found["language"], found["text"])
