"""The list of the commands, and the program made of them.

A new command is a file in `commands/` and a line in `COMMANDS`.
"""

from __future__ import annotations

import io
import sys
from difflib import get_close_matches
from importlib import import_module

import click

import ckptparse
from ckptparse.cli.running import NOT_RUN, as_command, refuse_usage

__all__ = ["COMMANDS", "PROGRAM", "run"]

COMMANDS = {
    "ls": "List the tensors of a checkpoint: name, type, shape, size.",
    "show": "Show a tensor's values; of a part, only those bytes are read.",
    "info": "Tell what it is: format, writer, step, signatures, layers.",
    "verify": "Check every byte of checkpoints, and report what is damaged.",
    "recover": "Save what can be read of a damaged checkpoint to a new place.",
    "scan": "List the checkpoints inside a disk image.",
    "convert": "Write tensors to another format, under other names.",
    "write": "Write a checkpoint of the arrays in an npz or safetensors file.",
    "diff": "Say what differs between two checkpoints.",
    "average": "Average checkpoints of one model; counters are the newest's.",
    "stats": "Print statistics of the values of every tensor.",
    "identify": "Tell what files are by their content, and what to do.",
    "explain": "Explain a message that TensorFlow printed about a checkpoint.",
    "latest": "Print the prefix of a directory's newest checkpoint.",
    "dump": "Show what each byte of a file is, down to the fields.",
    "page": "Make one page to look at, or to send.",
}
"""Every command, in the order of the help, and the first line of its own help: to list them,
none of them is imported."""
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def run() -> None:
    """Run the program with the arguments of the process; of the commands, only the one named."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is shown by its number.
            stream.reconfigure(errors="backslashreplace")
    sys.argv[1:] = map(_local, sys.argv[1:])
    words = sys.argv[1 : sys.argv.index("--") if "--" in sys.argv else None]
    named = next((word for word in words if not word.startswith("-")), None)
    if "--json" not in words:
        PROGRAM.main(prog_name="ckptparse")
    try:
        code = PROGRAM.main(prog_name="ckptparse", standalone_mode=False)
    except click.UsageError as error:
        refuse_usage(error.format_message(), named if named in COMMANDS else None)
        code = NOT_RUN
    raise SystemExit(code)


def _local(word: str) -> str:
    """Return the path that a word means as a URL of this machine; any other word as it is."""
    option, mark, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not value.lower().startswith("file://"):
        return word
    from ckptparse.files.placing import local_path

    try:
        return option + mark + local_path(value)
    except ckptparse.CheckpointError:
        return word  # The command that it is for says what is wrong.


class _Program(click.Group):
    """The program. A command is imported when it is run, or when its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - all of them always
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        function = getattr(import_module(f"ckptparse.cli.commands.{cmd_name}"), cmd_name)
        return as_command(function)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], COMMANDS, 1)
            if not near or near[0] in error.message:
                raise
            message = f"{error.message.rstrip('.')}. Did you mean {near[0]!r}?"
            raise click.UsageError(message, ctx) from error


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"ckptparse {ckptparse.__version__}")
        context.exit()


def _print_completion(
    context: click.Context, _parameter: click.Parameter, shell: str | None
) -> None:
    if shell is None:
        return
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(PROGRAM, {}, "ckptparse", "_CKPTPARSE_COMPLETE").source())
    context.exit()


PROGRAM = _Program(
    name="ckptparse",
    help="Look into TensorFlow checkpoints, check them and save what can be saved.",
    no_args_is_help=True,
    context_settings=_SETTINGS,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version.",
        ),
        click.Option(
            ["--completion"],
            type=click.Choice(["bash", "zsh", "fish"]),
            is_eager=True,
            expose_value=False,
            callback=_print_completion,
            help="Print a script for a shell, which then completes commands, paths and names.",
        ),
    ],
)
"""What `ckptparse` runs."""
