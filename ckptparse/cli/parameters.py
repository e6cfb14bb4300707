"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ckptparse.cli.completion import complete_path

__all__ = [
    "DryRunOption",
    "ExcludeOption",
    "IncludeOption",
    "LimitOption",
    "Naming",
    "NamingOption",
    "OutputArgument",
    "OverwriteOption",
    "PathArgument",
    "SourceArgument",
]


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
        "--naming", help="The stored names, or the variables' own if the object graph tells."
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Show what would be done; write nothing.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that is already there.")
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A checkpoint, or .safetensors, .npz, .h5, .keras, a directory of .npy.",
        autocompletion=complete_path,
    ),
]
OutputArgument = Annotated[
    str,
    typer.Argument(
        metavar="OUT",
        help="A prefix, .safetensors, .npz, .h5, or a directory with a slash.",
        autocompletion=complete_path,
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="GLOB", help="Only names that match one."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="No name that matches one."),
]
LimitOption = Annotated[
    str | None,
    typer.Option("--max-shard-size", metavar="SIZE", help="In parts of at most so much: 5GB."),
]
