"""Runs the command as a user does: in a shell, piped or in a terminal of some width."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are Unix's", allow_module_level=True)

import fcntl
import pty
import struct
import termios

SCRIPT = '#!/bin/sh\nexec "{python}" -m ckptparse "$@"\n'
LEFT_OUT = ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES", "CLICOLOR_FORCE")


@dataclass(frozen=True)
class Done:
    """What a command line printed, and its exit code."""

    code: int
    out: str
    err: str


class Shell:
    """A directory with `fixtures` in it, and `ckptparse` among the commands."""

    def __init__(self, home: Path, project: Path, bin_directory: Path) -> None:
        self.home = home
        search = os.pathsep.join(entry for entry in sys.path if entry)
        self.environment = {
            name: value for name, value in os.environ.items() if name not in LEFT_OUT
        }
        self.environment |= {
            "PATH": f"{bin_directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": search,
            "PYTHONIOENCODING": "utf-8",
            "TERM": "xterm-256color",
        }
        (home / "fixtures").symlink_to(project / "fixtures")

    def run(self, command: str, *, width: int | None = None, **environment: str) -> Done:
        """Run a command line; in a terminal where a width is given, else piped."""
        env = self.environment | environment
        if width is None:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.home, env=env, capture_output=True, check=False
            )
            return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
        return self._run_in_terminal(command, width, env)

    def _run_in_terminal(self, command: str, width: int, env: dict[str, str]) -> Done:
        outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        with subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.home,
            env=env,
            stdin=inner,
            stdout=inner,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(inner)
            printed = b""
            while chunk := _read(outer):
                printed += chunk
            os.close(outer)
            assert process.stderr is not None
            err = process.stderr.read()
        # The terminal turns each line's end into two characters.
        return Done(process.returncode, printed.decode().replace("\r\n", "\n"), err.decode())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        # How Linux says that the other end is closed.
        return b""


@pytest.fixture(scope="session")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a command `ckptparse` that runs this code."""
    directory = tmp_path_factory.mktemp("bin")
    script = directory / "ckptparse"
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    return directory


@pytest.fixture
def shell(tmp_path: Path, project: Path, bin_directory: Path) -> Shell:
    """Return a shell in an empty directory that has `fixtures`."""
    return Shell(tmp_path, project, bin_directory)


@pytest.fixture
def run(shell: Shell) -> Callable[..., Done]:
    """Return a function that runs a command line there."""
    return shell.run


@pytest.fixture
def call(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], Done]:
    """Return a function that runs a command line, piped, in this very process: ten times faster."""
    from ckptparse.cli import main

    def run_here(command: str) -> Done:
        monkeypatch.chdir(shell.home)
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        return Done(int(stop.value.code or 0), out, err)

    return run_here
