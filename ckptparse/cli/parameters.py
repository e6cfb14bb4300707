"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ckptparse.cli.completion import complete_path

__all__ = ["Naming", "NamingOption", "OverwriteOption", "PathArgument"]


class Naming(str, Enum):
    """Whose names are shown and understood."""

    CHECKPOINT = "checkpoint"
    VARIABLE = "variable"


PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A prefix, an .index or .data file, a V1 file, a directory, a SavedModel.",
        autocompletion=complete_path,
    ),
]
NamingOption = Annotated[
    Naming,
    typer.Option(
        "--naming", help="The stored names, or the variables' own where the object graph tells."
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that is already there.")
]
