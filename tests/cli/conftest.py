"""Runs the command as a user does: in a shell, piped or in a terminal of some width."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

pytest.importorskip("click")
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


class Here:
    """Runs command lines in this very process, which is ten times faster than in a new one."""

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.home = home
        self.monkeypatch = monkeypatch
        self.capfd = capfd

    def __call__(self, command: str, *, width: int | None = None, **environment: str) -> Done:
        """Run `ckptparse ...`; in a terminal where a width is given, else piped."""
        self.capfd.readouterr()
        with self.monkeypatch.context() as patch:
            patch.chdir(self.home)
            patch.setattr(sys, "argv", shlex.split(command))
            if width is None:
                code = run_main()
                return Done(code, *self.capfd.readouterr())
            for name in LEFT_OUT:
                patch.delenv(name, raising=False)
            for name, value in {"TERM": "xterm-256color", **environment}.items():
                patch.setenv(name, value)
            with Terminal(width) as terminal:
                patch.setattr(sys, "stdout", terminal.stream)
                patch.setattr(sys, "__stdout__", terminal.stream)
                code = run_main()
            return Done(code, terminal.printed(), self.capfd.readouterr().err)


class Terminal:
    """A pseudo-terminal, with a stream that writes into it."""

    def __init__(self, width: int) -> None:
        self.outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        self.stream = os.fdopen(inner, "w", encoding="utf-8")
        self.chunks: list[bytes] = []
        self.reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        while chunk := _read(self.outer):
            self.chunks.append(chunk)

    def __enter__(self) -> Self:
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.reader.join()
        os.close(self.outer)

    def printed(self) -> str:
        return b"".join(self.chunks).decode().replace("\r\n", "\n")


def run_main() -> int:
    """Run the command line, and return its exit code."""
    from ckptparse.cli import main

    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def call(shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """Return a function that runs a command line in this process."""
    return Here(shell.home, monkeypatch, capfd)
