"""Every command explains itself, and its examples work."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckptparse
from ckptparse.cli.app import COMMANDS
from ckptparse.cli.completion import RULE_FILES

GOOD_CODES = (0, 1, 3)
"""Examples may be of damaged checkpoints."""


def examples(help_text: str) -> list[str]:
    """Take the examples out of a command's help."""
    return re.findall(r"^\s+(ckptparse .+)$", help_text.partition("Examples:")[2], re.MULTILINE)


@pytest.fixture
def usual_files(shell: Any, fixtures: Path) -> None:
    """Put files beside each other under the names that the examples of the help have."""
    for path in fixtures.glob("saver/my_model.*"):
        shutil.copy(path, shell.home / path.name.replace("my_model", "model.ckpt-1000"))
    shutil.copytree(fixtures / "saver" / "scopes", shell.home / "training")
    shutil.copytree(fixtures / "saved_model" / "keras2_sequential", shell.home / "saved_model")
    disk = b"".join(
        path.read_bytes() + bytes(-path.stat().st_size % 4096)
        for path in (fixtures / "saver").glob("my_model.*")
    )
    (shell.home / "disk.img").write_bytes(disk)


@pytest.mark.usefixtures("usual_files")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_two_examples_or_more_and_they_work(
    command: str, run: Callable[..., Any]
) -> None:
    if command == "page":
        pytest.importorskip("jinja2")
    done = run(f"ckptparse {command} --help", width=300)
    assert done.code == 0
    found = examples(done.out)
    assert len(found) >= 2
    for example in found:
        assert example.startswith(f"ckptparse {command} ")
        assert "fixtures" not in example, "users have no such directory"
        # A shell, since examples may have patterns of files.
        answer = run(example)
        assert answer.code in GOOD_CODES, f"{example}\n{answer.err}"
        assert answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_80_columns(command: str, run: Callable[..., Any]) -> None:
    text = run(f"ckptparse {command} --help", width=80).out
    body, _, shown = text.partition("Examples:")
    assert all(len(line) <= 80 for line in body.splitlines())
    assert shown


def test_the_list_of_commands_cuts_no_sentence_short(run: Callable[..., Any]) -> None:
    text = run("ckptparse --help", width=80).out
    assert "..." not in text.partition("Commands:")[2]
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.MULTILINE)


def test_without_arguments_the_help_is_shown(run: Callable[..., Any]) -> None:
    assert "Commands:" in run("ckptparse").out + run("ckptparse").err


def test_a_mistyped_command_gets_the_nearest_one(run: Callable[..., Any]) -> None:
    done = run("ckptparse verfy x")
    assert done.code == 2
    assert "verify" in done.err


def test_the_list_says_what_the_commands_say() -> None:
    for name, line in COMMANDS.items():
        module = importlib.import_module(f"ckptparse.cli.commands.{name}")
        assert (getattr(module, name).__doc__ or "").partition("\n")[0] == line


def test_the_help_imports_no_command(run: Callable[..., Any]) -> None:
    code = (
        "import sys, ckptparse.cli as cli\n"
        "sys.argv = ['ckptparse', '--help']\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(sorted({'numpy', 'rich', 'google.protobuf'} & set(sys.modules)))"
    )
    done = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")
    assert done.out.endswith("[]\n"), done.out + done.err


def test_the_version_is_told(run: Callable[..., Any]) -> None:
    assert run("ckptparse --version").out == f"ckptparse {ckptparse.__version__}\n"


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_shells_complete_commands(name: str, run: Callable[..., Any]) -> None:
    word = "ver" if name == "fish" else "1"
    asked = f"_CKPTPARSE_COMPLETE={name}_complete COMP_WORDS='ckptparse ver' COMP_CWORD={word}"
    done = run(f"{asked} ckptparse")
    assert "verify" in done.out, done.err


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_what_teaches_a_shell_is_printed(name: str, run: Callable[..., Any]) -> None:
    done = run(f"ckptparse --completion {name}")
    assert f"_CKPTPARSE_COMPLETE={name}_complete" in done.out
    if name == "bash":
        assert run(f"bash -n <<'END'\n{done.out}\nEND").code == 0


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ls fixtures/saver/my", ["fixtures/saver/my_model", "fixtures/saver/my_model.json"]),
        ("verify fixtures/sav", ["fixtures/saved_model/", "fixtures/saver/"]),
        ("show fixtures/saver/my_model we", ["weights"]),
        ("show nix we", []),
        ("convert --rules be", ["bert"]),
        ("diff --rules al", ["albert"]),
        ("convert --undo fixtures/saver/my", ["fixtures/saver/my_model"]),
        ("write fixtures/saver/my", ["fixtures/saver/my_model"]),
        ("average fixtures/saver/my", ["fixtures/saver/my_model"]),
        ("stats fixtures/saver/my", ["fixtures/saver/my_model"]),
    ],
)
def test_shells_complete_paths_and_names(
    typed: str, offered: list[str], run: Callable[..., Any]
) -> None:
    words = len(typed.split())
    done = run(
        f"_CKPTPARSE_COMPLETE=bash_complete COMP_WORDS='ckptparse {typed}' COMP_CWORD={words} "
        "ckptparse"
    )
    found = [line.partition(",")[2] for line in done.out.splitlines() if line]
    assert set(offered) <= set(found)
    assert bool(found) == bool(offered)


def test_the_rule_files_that_are_offered_are_those_that_come_along() -> None:
    folder = Path(ckptparse.__file__).parent / "jobs" / "rule_files"
    assert tuple(sorted(path.stem for path in folder.glob("*.toml"))) == RULE_FILES
