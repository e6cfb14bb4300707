"""How a command runs: the options that all share, its answer printed, its errors and exit codes.

0   good
1   damage: a `DataLossError`, a report that is not ok, a recovery that has lost something
2   could not run: usage, not found, no checkpoint, unsupported, a limit, a refused output
3   warnings only; a recovery that is whole after repairs
130 interrupted, 141 whoever read the output went away
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import typer

import ckptparse
from ckptparse.cli.errors import UsageError, describe_error, error_to_dict
from ckptparse.cli.output import Output
from ckptparse.text import clean

__all__ = ["DAMAGE", "GOOD", "NOT_RUN", "WARNED", "Answer", "Run", "as_command", "refuse_usage"]

GOOD, DAMAGE, NOT_RUN, WARNED = 0, 1, 2, 3
_INTERRUPTED, _BROKEN_PIPE = 130, 141
SCHEMA_VERSION = 1


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
            traceback.print_exception(error)
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
    "json_": Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="No messages besides errors.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="More messages.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Errors with their traceback.")],
}


def as_command(function: Callable[..., Answer]) -> tuple[Callable[..., None], str, str]:
    """Turn `function(run, ...) -> Answer` into what typer takes, its help and its examples.

    The examples are a paragraph of the docstring: commands with names as users have them.
    """

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        flags = {name: arguments.pop(name) for name in _SHARED}
        run = Run(name, flags["quiet"], flags["verbose"], flags["json_"], flags["debug"])
        raise typer.Exit(_run(run, lambda: function(run, **arguments)))

    name = function.__name__.rstrip("_")
    _extend_signature(command, function)
    help_text, examples = _split_docstring(inspect.getdoc(function) or "")
    return command, help_text, examples


def _extend_signature(command: Callable[..., None], function: Callable[..., Answer]) -> None:
    """Give a command the parameters of its function, less the first, and those of all."""
    hints = typing.get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own
    ]
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=False
        )
        for name, annotation in _SHARED.items()
    ]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del command.__wrapped__  # type: ignore[attr-defined] # else its hints would be the function's
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]


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
    code = DAMAGE if isinstance(error, is_answer) else NOT_RUN
    run.report(error)
    if run.json:
        _print_json(run, code, None)
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
    sys.stdout.write(json.dumps(whole, indent=2, allow_nan=False) + "\n")
