"""The README's commands are those that CI runs, and its example gives what it says."""

from __future__ import annotations

import doctest
import re
import subprocess
from pathlib import Path

import pytest

MARK = re.compile(r"^<!-- run: (?P<name>.+) -->\n```sh\n(?P<command>(?:.+\n)+?)```$", re.MULTILINE)


def commands(project: Path) -> dict[str, str]:
    """Take the marked commands out of the README by name."""
    text = (project / "README.md").read_text(encoding="utf-8")
    return {found["name"]: found["command"] for found in MARK.finditer(text)}


def extracted_by_ci(project: Path, name: str) -> str:
    """Run the very function that CI takes its commands out of the README with."""
    script = (project / ".ci" / "run").read_text(encoding="utf-8")
    start = script.index("readme_command() {")
    function = script[start : script.index("\n}\n", start) + 3]
    done = subprocess.run(
        ["bash", "-c", f'{function}readme_command "$1"', "bash", name],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_readme_has_one_command_for_the_main_job_and_one_for_the_tests(project: Path) -> None:
    found = commands(project)
    assert list(found) == ["main job", "tests"]
    for command in found.values():
        assert command.count("\n") == 1, "one line each"


@pytest.mark.parametrize("name", ["main job", "tests"])
def test_ci_runs_the_commands_of_the_readme_to_the_letter(project: Path, name: str) -> None:
    assert extracted_by_ci(project, name) == commands(project)[name]
    script = (project / ".ci" / "run").read_text(encoding="utf-8")
    assert f'from_readme "{name}"' in script


def test_ci_repeats_no_command_of_the_readme(project: Path) -> None:
    script = (project / ".ci" / "run").read_text(encoding="utf-8")
    for repeated in ("ckptparse ls", "-m pytest", "[test]", "[cli]"):
        assert repeated not in script


def test_the_main_job_reads_a_checkpoint_that_is_in_fixtures(project: Path) -> None:
    prefix = commands(project)["main job"].split()[-1]
    assert prefix.startswith("fixtures/")
    assert (project / f"{prefix}.index").is_file()


@pytest.mark.parametrize(("page", "least"), [("README.md", 4), ("SECURITY.md", 3)])
def test_the_examples_of_the_first_pages_give_what_they_say(
    page: str, least: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    result = doctest.testfile(str(project / page), module_relative=False)
    assert result.attempted >= least
    assert result.failed == 0


def test_the_example_of_the_readme_is_about_ten_lines(project: Path) -> None:
    text = (project / "README.md").read_text(encoding="utf-8")
    typed = re.findall(r"^(?:>>>|\.\.\.) .", text, re.MULTILINE)
    assert 6 <= len(typed) <= 10


def test_every_file_the_readme_links_to_is_there(project: Path) -> None:
    text = (project / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (project / target).exists(), target
