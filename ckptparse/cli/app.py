"""The list of the commands, and the program made of them.

A new command is a file in `commands/` and a line in `COMMANDS`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

import ckptparse
from ckptparse.cli.running import NOT_RUN, as_command, refuse_usage

__all__ = ["COMMANDS", "make_app", "run"]

COMMANDS = (
    "ls",
    "show",
    "info",
    "verify",
    "recover",
    "scan",
    "convert",
    "write",
    "diff",
    "average",
    "stats",
    "identify",
    "explain",
    "latest",
    "dump",
    "page",
)
"""Every command, in the order of the help."""

_USAGE_ERROR: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"
)
"""What typer raises for a command line that is wrong: of click, or of its own copy of click."""
_SETTINGS = {"help_option_names": ["-h", "--help"]}


def run() -> None:
    """Run the program with the arguments of the process; of the commands, only the one named."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is shown by its number.
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
    named = next((word for word in words if not word.startswith("-")), None)
    app = make_app([named] if named in COMMANDS else COMMANDS)
    if "--json" not in words:
        app(prog_name="ckptparse")
        return
    try:
        code = typer.main.get_command(app).main(prog_name="ckptparse", standalone_mode=False)
    except _USAGE_ERROR as error:
        refuse_usage(error.format_message(), named if named in COMMANDS else None)
        code = NOT_RUN
    raise SystemExit(code)


def make_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """Make the program out of commands: each is a function of its name in a module of its name."""
    app = typer.Typer(
        name="ckptparse",
        help="Look into TensorFlow checkpoints, check them and save what can be saved.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )
    app.callback()(_options)
    for name in names:
        function = getattr(import_module(f"ckptparse.cli.commands.{name}"), name)
        command, help_text, examples = as_command(function)
        app.command(name, help=help_text, epilog=examples, context_settings=_SETTINGS)(command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ckptparse {ckptparse.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""
