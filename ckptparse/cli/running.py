"""How a command runs: the options that all share, its answer printed, its errors and exit codes.

0   good
1   damage: a `DataLossError`, a report that is not ok, a recovery that has lost something
2   could not run: usage, not found, no checkpoint, unsupported, a limit, a refused output
3   warnings only; a recovery that is whole after repairs
130 interrupted, 141 whoever read the output went away
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import ckptparse
from ckptparse.cli.errors import UsageError, describe_error, error_to_dict
from ckptparse.cli.options import Option, to_click
from ckptparse.cli.output import Output
from ckptparse.json_text import iter_json
from ckptparse.text import clean

if TYPE_CHECKING:
    import click

__all__ = ["DAMAGE", "GOOD", "NOT_RUN", "WARNED", "Answer", "Run", "as_command", "refuse_usage"]

GOOD, DAMAGE, NOT_RUN, WARNED = 0, 1, 2, 3
_INTERRUPTED, _BROKEN_PIPE = 130, 141
"""What a shell says of a process that a signal ended: 128 and the number, SIGINT 2, SIGPIPE 13."""
SCHEMA_VERSION = 1
"""Of the JSON, as in `docs/cli.schema.json`: rises if a field goes or changes its meaning."""


class Answer(Protocol):
    """What a command found out."""

    @property
    def code(self) -> int:
        """The exit code."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        ...

    def write(self, out: Output) -> None:
        """Write it for a person, or for a pipe."""
        ...


@dataclass(slots=True)
class Run:
    """What a command is told besides its own arguments."""

    command: str | None
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    debug: bool = False
    cache: str | None = None
    """Directory that keeps what is read of buckets and servers."""
    own: set[str] = field(default_factory=set)
    """Files that options name, such as rules: one that is broken is a wrong option, no damage."""
    warnings: list[str] = field(default_factory=list)
    """Warnings that came up, in order, each once."""
    errors: list[Exception] = field(default_factory=list)
    """Errors that were reported, in order."""

    def note(self, message: str) -> None:
        """Say something on standard error, unless told to be quiet."""
        if not self.quiet:
            sys.stderr.write(f"{message}\n")

    def warn(self, message: str) -> None:
        """Say a warning, once."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.note(f"ckptparse: warning: {clean(message)}")

    def report(self, error: Exception) -> None:
        """Say an error, once, after which the command may go on."""
        if any(str(error) == str(known) for known in self.errors):
            return
        self.errors.append(error)
        if self.debug:
            lines = "".join(traceback.format_exception(error)).splitlines()
            sys.stderr.write("".join(f"{clean(line)}\n" for line in lines))
        sys.stderr.write(describe_error(error))

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Say an error that comes up in here, and go on after it."""
        try:
            yield
        except (ckptparse.CheckpointError, OSError) as error:
            self.report(error)

    def detail(self, message: str) -> None:
        """Say something on standard error if told to be verbose."""
        if self.verbose:
            sys.stderr.write(f"{message}\n")


_SHARED: dict[str, Any] = {
    "json_": Annotated[bool, Option("--json", help="Print the answer as JSON.")],
    "quiet": Annotated[bool, Option("--quiet", "-q", help="No messages besides errors.")],
    "verbose": Annotated[bool, Option("--verbose", "-v", help="More messages.")],
    "debug": Annotated[bool, Option("--debug", help="Errors with their traceback.")],
    "cache": Annotated[
        str | None,
        Option("--cache", metavar="DIR", help="Keep here what is read of buckets and servers."),
    ],
}


def as_command(function: Callable[..., Answer]) -> click.Command:
    """Turn `function(run, ...) -> Answer` into click's command.

    The examples of its help are a paragraph of the docstring: commands with names as users have
    them.
    """
    import click

    from ckptparse.cli.helping import HelpfulCommand

    name = function.__name__.rstrip("_")

    def command(**arguments: Any) -> None:
        flags = {flag: arguments.pop(flag) for flag in _SHARED}
        json_ = flags.pop("json_")
        run = Run(name, json=json_, **flags)
        raise click.exceptions.Exit(_run(run, lambda: function(run, **arguments)))

    help_text, examples = _split_docstring(inspect.getdoc(function) or "")
    return HelpfulCommand(
        name, callback=command, params=_parameters(function), help=help_text, epilog=examples
    )


def _parameters(function: Callable[..., Answer]) -> list[click.Parameter]:
    """Make the parameters of a command: those of its function, less the first, and those of all."""
    hints = typing.get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    empty = inspect.Parameter.empty
    found = [
        to_click(
            one.name,
            hints[one.name],
            None if one.default is empty else one.default,
            required=one.default is empty,
        )
        for one in own
    ]
    shared = [
        to_click(name, kind, None if name == "cache" else False, required=False)
        for name, kind in _SHARED.items()
    ]
    return [*found, *shared]


def _split_docstring(text: str) -> tuple[str, str]:
    """Split the help from the examples, whose lines a backspace keeps apart."""
    paragraphs = text.split("\n\n")
    examples = [part for part in paragraphs if part.startswith("ckptparse ")]
    help_text = "\n\n".join(part for part in paragraphs if part not in examples)
    lines = [line.strip() for part in examples for line in part.splitlines()]
    return help_text, "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _run(run: Run, call: Callable[[], Answer]) -> int:
    """Call a command and print its answer, or why there is none; return the exit code."""
    try:
        code = _answer(run, call)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        sys.stderr.write("ckptparse: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # At a usual exit Python would flush what is still in the buffer, into the closed pipe.
        os._exit(_BROKEN_PIPE)
    except Exception as error:  # noqa: BLE001 - whatever it is, no traceback unless asked for
        return _fail(run, error)


def _answer(run: Run, call: Callable[[], Answer]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: run.warn(str(message))
        answer = call()
    # The code is asked for last: an answer may be made while it is written.
    if run.json:
        result = answer.to_dict()
        _print_json(run, answer.code, result)
    else:
        answer.write(Output(quiet=run.quiet))
    return answer.code


def _fail(run: Run, error: Exception) -> int:
    is_answer = (ckptparse.DataLossError, ckptparse.TensorNotFoundError)
    is_damage = isinstance(error, is_answer) and error.path not in run.own
    code = DAMAGE if is_damage else NOT_RUN
    try:
        run.report(error)
        if run.json:
            _print_json(run, code, None)
            sys.stdout.flush()
    except OSError:
        # Nothing can be said there (the disk is full, the reader is gone): the code says it.
        return NOT_RUN
    return code


def refuse_usage(message: str, command: str | None) -> None:
    """Say that a command line is wrong, as JSON too: for `--json`, before any command could run."""
    run = Run(command, json=True)
    run.report(UsageError(message, f"see `ckptparse {command or ''} --help`".replace("  ", " ")))
    _print_json(run, NOT_RUN, None)


def _print_json(run: Run, code: int, result: dict[str, Any] | None) -> None:
    whole = {
        "schema": SCHEMA_VERSION,
        "command": run.command,
        "exit": code,
        "result": result,
        "errors": [error_to_dict(error) for error in run.errors],
        "warnings": run.warnings,
    }
    for piece in iter_json(whole, indent=2):
        sys.stdout.write(piece)
    sys.stdout.write("\n")
