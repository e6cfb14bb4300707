"""What each command prints, to the letter: piped, and in terminals of 80 and 140 columns.

`CKPTPARSE_GOLDEN=write pytest tests/cli/test_golden.py` writes the files anew; read the difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from golden_cases import CASES
from rich.cells import cell_len

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = {"piped": None, "80": 80, "140": 140}


def as_text(done: object) -> str:
    """Write down what a run printed on both outputs, and its code."""
    code, out, err = (getattr(done, name) for name in ("code", "out", "err"))
    parts = [out if not out or out.endswith("\n") else f"{out}(no line end)\n"]
    if err:
        parts += ["---- standard error\n", err]
    if code:
        parts.append(f"---- exit code {code}\n")
    return "".join(parts)


@pytest.mark.parametrize("where", WIDTHS)
@pytest.mark.parametrize("name", CASES)
def test_a_command_prints_what_it_did(name: str, where: str, call: Callable[..., object]) -> None:
    printed = as_text(call(f"ckptparse {CASES[name]}", width=WIDTHS[where]))
    path = GOLDEN / f"{name}.{where}.txt"
    if os.environ.get("CKPTPARSE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(printed)
    assert printed == path.read_text()


def test_every_golden_file_belongs_to_a_case() -> None:
    expected = {f"{name}.{where}.txt" for name in CASES for where in WIDTHS}
    assert {path.name for path in GOLDEN.iterdir()} == expected


@pytest.mark.parametrize("where", WIDTHS)
def test_a_process_of_its_own_prints_the_same(
    where: str, call: Callable[..., object], run: Callable[..., object]
) -> None:
    command, width = f"ckptparse {CASES['ls_slots']}", WIDTHS[where]
    assert as_text(run(command, width=width)) == as_text(call(command, width=width))


@pytest.mark.parametrize("name", CASES)
def test_no_line_is_wider_than_the_terminal_but_for_names_which_are_never_cut(name: str) -> None:
    for width in (80, 140):
        for line in plain((GOLDEN / f"{name}.{width}.txt").read_text()).splitlines():
            if line.startswith("----"):
                break
            a_long_name = any(cell_len(word) > width // 2 for word in line.split())
            assert cell_len(line) <= width or a_long_name


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_a_terminal_would_obey_is_printed(name: str) -> None:
    for where in WIDTHS:
        text = (GOLDEN / f"{name}.{where}.txt").read_text()
        if where != "piped":
            text = plain(text)
        assert all(character.isprintable() or character in "\n\t" for character in text)


def plain(text: str) -> str:
    """Take out the codes of colours, as this program writes them, and nothing else."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
