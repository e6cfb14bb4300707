"""The pages of docs/ say what is so: commands run, examples hold, links lead somewhere.

`CKPTPARSE_GOLDEN=write pytest tests/cli/test_docs.py` writes what commands print into the pages.
"""

from __future__ import annotations

import doctest
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckptparse
from ckptparse.cli.app import COMMANDS

PACKAGE = Path(ckptparse.__file__).resolve().parent
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
CONSOLE = re.compile(
    r"^```console\n\$ (?P<command>.+)\n(?P<printed>(?:(?!```).*\n)*)```$", re.MULTILINE
)
CODES_THAT_ARE_MEANT = {0, 1, 3}
SECTION = re.compile(r"docs/format\.md, sections? ([0-9., and]+[0-9])")


def commands() -> list[tuple[str, str]]:
    """List every command of every page."""
    return [
        (page, found["command"])
        for page in PAGES
        for found in CONSOLE.finditer((DOCS / page).read_text())
    ]


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_prints_what_its_page_says(
    page: str, command: str, run: Callable[..., Any]
) -> None:
    if command.startswith("ckptparse page"):
        pytest.importorskip("jinja2")
    done = run(command, width=100, NO_COLOR="1")
    assert done.code in CODES_THAT_ARE_MEANT, done.err
    printed = "\n".join(line.rstrip() for line in (done.out + done.err).splitlines())
    path = DOCS / page
    text = path.read_text()
    (found,) = (match for match in CONSOLE.finditer(text) if match["command"] == command)
    if os.environ.get("CKPTPARSE_GOLDEN") == "write":
        fresh = f"```console\n$ {command}\n{printed}\n```".replace("\n\n```", "\n```")
        path.write_text(text.replace(found[0], fresh))
    else:
        assert found["printed"].rstrip("\n") == printed


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_hold(
    page: str, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shell.home)
    assert doctest.testfile(str(DOCS / page), module_relative=False).failed == 0


def test_every_rule_of_evidence_is_in_the_page_on_repair() -> None:
    text = (DOCS / "repair.md").read_text()
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE))
    rules = [rule.value for rule in ckptparse.EvidenceRule]
    assert [name for name in rows if name in rules] == rules


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = (DOCS / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = DOCS / (file or page)
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


def anchors(text: str) -> set[str]:
    """Make the anchors of a page's headings, as they are made where pages are shown."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_listed() -> None:
    listed = (DOCS / "README.md").read_text()
    for page in PAGES:
        assert page == "README.md" or f"({page})" in listed


def test_the_page_of_the_command_line_has_every_command() -> None:
    text = (DOCS / "cli.md").read_text()
    for command in COMMANDS:
        assert f"| `ckptparse {command} " in text


def test_the_page_of_problems_has_every_code_and_cause_in_the_words_of_the_program() -> None:
    text = (DOCS / "problems.md").read_text()
    rows = dict(re.findall(r"^\| `(.+)` \| (.+) \|$", text, re.MULTILINE))
    assert {code: rows[code] for code in ckptparse.PROBLEM_CODES} == ckptparse.PROBLEM_CODES
    causes = {cause.value for cause in ckptparse.Cause}
    assert rows.keys() == ckptparse.PROBLEM_CODES.keys() | causes


def test_the_codes_of_messages_are_on_a_page_in_the_words_of_the_program() -> None:
    text = (DOCS / "look-inside.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+\.\w+)` \| (.+) \|$", text, re.MULTILINE))
    assert rows == ckptparse.MESSAGE_CODES


def test_every_section_that_the_code_refers_to_is_there() -> None:
    titles = re.findall(r"^#+ (\d+(?:\.\d+)?)[. ]", (DOCS / "format.md").read_text(), re.MULTILINE)
    for path in PACKAGE.rglob("*.py"):
        for numbers in SECTION.findall(path.read_text()):
            for number in re.findall(r"\d+(?:\.\d+)?", numbers):
                assert number in titles, f"{path}: {number}"


def test_every_module_that_a_page_names_is_there() -> None:
    text = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`(ckptparse/[\w/.]+)`", text))
    assert len(named) > 25
    for path in named:
        assert (PACKAGE.parent / path).exists(), path
    assert len(text.splitlines()) <= 60, "one screen"


def test_the_code_that_the_formats_page_names_is_there() -> None:
    text = (DOCS / "format.md").read_text()
    named = set(re.findall(r"`(ckptparse/[\w/.]+)`", text))
    assert len(named) > 30
    for path in named:
        assert (PACKAGE.parent / path).exists(), path
    for line in re.findall(r"^Code: (.+)$", text, re.MULTILINE):
        for path, name in re.findall(r"`(ckptparse/[\w/]+\.py)`, `(\w+)`", line):
            assert re.search(rf"\b{name}\b", (PACKAGE.parent / path).read_text()), f"{path}: {name}"
