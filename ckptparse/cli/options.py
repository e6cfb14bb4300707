"""What a command's parameters are on the command line: an annotation each.

    path: Annotated[str, Argument(metavar="PATH", help="A prefix.")]
    sort: Annotated[Sort | None, Option("--sort", help="By name or by size.")] = None

`to_click` makes click's parameter of one: click is imported when a program is made, and then alone.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click

__all__ = ["Argument", "Completer", "Option", "to_click"]

_PLACES = ("PATH", "OTHER", "OUT", "DIR", "IMAGE", "FILE")
"""What stands for a path in a usage line."""
Completer = Callable[[Mapping[str, Any], str], list[str]]
"""The parameters that are known, and the word that is being typed -> what may stand there."""


class Option:
    """A parameter that is named: `--sort size`, or `--long` alone if it is a bool."""

    def __init__(
        self,
        *names: str,
        help: str,
        metavar: str | None = None,
        min: int | None = None,
        complete: Completer | None = None,
    ) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.min = min
        self.complete = complete


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter that is told by its place."""

    metavar: str
    help: str
    complete: Completer | None = None


def to_click(name: str, annotation: Any, default: Any, *, required: bool) -> click.Parameter:
    """Make click's parameter of one of a command's function.

    Args:
        name: Of the parameter.
        annotation: `Annotated[T, Option(...)]` or `Annotated[T, Argument(...)]`; T is `bool`,
            `str`, `int`, `float`, an enum, or a list of `str`, and perhaps `None`.
        default: What it is if it is not given.
        required: Whether it must be given.
    """
    import click

    from ckptparse.cli.helping import HelpfulArgument

    kind, given = typing.get_args(annotation)
    several, plain = _take_apart(kind)
    common: dict[str, Any] = {
        "type": _click_type(plain, given),
        "required": required,
        "shell_complete": None if given.complete is None else _completer(given.complete),
        "callback": _caster(plain, several=several, place=given.metavar in _PLACES),
    }
    shown = default.value if isinstance(default, Enum) else default
    if isinstance(given, Argument):
        nargs = -1 if several else 1
        return HelpfulArgument(name, help=given.help, metavar=given.metavar, nargs=nargs, **common)
    flag = plain is bool
    return click.Option(
        [name, *given.names],
        help=given.help,
        metavar=given.metavar,
        # If told False, click lets the value of a required option be left out.
        is_flag=flag or None,
        multiple=several,
        # A number is told; that a flag is off, or a list empty, is no news.
        show_default=not flag and shown is not None,
        # To click 8.3, what has a default is given, and be it None.
        **({} if required else {"default": shown}),
        **{key: value for key, value in common.items() if not (flag and key == "type")},
    )


def _take_apart(kind: Any) -> tuple[bool, Any]:
    """Tell whether a type is a list, and of what, with `None` left out."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        (kind,) = (one for one in typing.get_args(kind) if one is not type(None))
    if typing.get_origin(kind) is list:
        return True, typing.get_args(kind)[0]
    return False, kind


def _click_type(plain: Any, given: Option | Argument) -> Any:
    import click

    if issubclass(plain, Enum):
        return click.Choice([one.value for one in plain])
    least = given.min if isinstance(given, Option) else None
    if least is None:
        return plain
    return click.IntRange(min=least) if plain is int else _number_from(least)


def _number_from(least: int) -> Any:
    """Make the type of numbers that are at least so much; NaN is not."""
    import click

    class Number(click.FloatRange):
        name = "float"

        def convert(self, value: Any, param: Any, ctx: Any) -> Any:
            number = super().convert(value, param, ctx)
            if math.isnan(number):
                self.fail(f"{value!r} is no number to compare with.", param, ctx)
            return number

    return Number(min=least)


def _caster(plain: Any, *, several: bool, place: bool) -> Callable[..., Any]:
    """Give a value the type that the command expects: a member of an enum, a list."""
    import click

    def cast(context: Any, parameter: Any, value: Any) -> Any:
        if place and "" in (value if several else (value,)):
            raise click.BadParameter("expected a path, found nothing.", context, parameter)
        if several:
            return [str(one) for one in value] or None
        if value is not None and issubclass(plain, Enum):
            return plain(value)
        return value

    return cast


def _completer(complete: Completer) -> Callable[..., Any]:
    def offer(context: Any, _parameter: Any, incomplete: str) -> list[str]:
        return complete(context.params, incomplete)

    return offer
