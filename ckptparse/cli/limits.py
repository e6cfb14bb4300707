"""`--limit NAME=NUMBER`: the limits of a call, on the command line."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Annotated

import ckptparse
from ckptparse.cli.errors import UsageError
from ckptparse.cli.options import Option
from ckptparse.cli.sizes import read_count

__all__ = ["LimitOption", "read_limits"]

LimitOption = Annotated[
    list[str] | None,
    Option(
        "--limit",
        metavar="NAME=NUMBER",
        help="Change a limit that a report or an error names: entries=50000000. Can be repeated.",
    ),
]


def read_limits(given: list[str] | None) -> ckptparse.Limits:
    """Return the default limits with those of the command line in their place.

    Raises:
        UsageError: There is no such limit, or it is no whole number from 0 on.
    """
    known = [field.name for field in fields(ckptparse.Limits)]
    changed: dict[str, int] = {}
    for text in given or ():
        name, _, number = text.partition("=")
        if name not in known:
            raise UsageError(
                f"Expected NAME=NUMBER with the name of a limit, found {text!r}",
                f"the limits are {', '.join(known)}",
            )
        value = read_count(number)
        if value is None:
            raise UsageError(
                f"Expected a whole number for the limit {name}, found {number!r}",
                f"give it as {name}=1000000",
            )
        changed[name] = value
    return replace(ckptparse.DEFAULT_LIMITS, **changed)
