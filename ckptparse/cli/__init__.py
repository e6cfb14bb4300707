"""The command `ckptparse`: a client of the public API, with one file for each command.

    commands/     what each command asks for, and how its answer looks
    app           the list of the commands, and the program made of them
    running       options that all commands share; errors; exit codes
    output        tables and lines, in a terminal and piped

Only this file may be imported if click and rich are not installed.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main() -> None:
    """Run the command line with the arguments of the process; exits with the command's code."""
    _replace_closed_streams()
    try:
        app = import_module("ckptparse.cli.app")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write(
            f"ckptparse: the command line needs the package {error.name!r}, which is not here. "
            "Install it with: pip install 'ckptparse[cli]'\n"
        )
        raise SystemExit(2) from None
    app.run()


class _Nowhere(io.RawIOBase):
    """Takes what is written, and keeps nothing."""

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def write(self, data: Buffer) -> int:
        """Take all of it."""
        return memoryview(data).nbytes


def _replace_closed_streams() -> None:
    """Replace what the caller closed (`>&-`), in whose place Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(_Nowhere()), encoding="utf-8"))
