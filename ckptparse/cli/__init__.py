"""The command `ckptparse`: a client of the public API, with one file for each command.

    commands/     what each command asks for, and how its answer looks
    app           the list of the commands, and the program made of them
    running       options that all commands share; errors; exit codes
    output        tables and lines, in a terminal and piped

Only this file may be imported if click and rich are not installed.
"""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main() -> None:
    """Run the command line with the arguments of the process; exits with the command's code."""
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
