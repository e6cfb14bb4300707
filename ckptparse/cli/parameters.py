"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from ckptparse.cli.completion import complete_path
from ckptparse.cli.options import Argument, Option

__all__ = [
    "DryRunOption",
    "ExcludeOption",
    "Format",
    "FormatOption",
    "IncludeOption",
    "Naming",
    "NamingOption",
    "OutputArgument",
    "OverwriteOption",
    "PathArgument",
    "PrefixArgument",
    "ShardSizeOption",
    "SourceArgument",
]


class Format(str, Enum):
    """The formats that are written."""

    V2 = "v2"
    SAFETENSORS = "safetensors"
    NPZ = "npz"
    NPY = "npy"
    HDF5 = "hdf5"


class Naming(str, Enum):
    """Whose names are shown and understood."""

    CHECKPOINT = "checkpoint"
    VARIABLE = "variable"


PathArgument = Annotated[
    str,
    Argument(
        metavar="PATH",
        help="A prefix, an .index or .data file, a V1 file, a directory, a SavedModel.",
        complete=complete_path,
    ),
]
NamingOption = Annotated[
    Naming,
    Option("--naming", help="Use the stored names, or the variables' own from the object graph."),
]
FormatOption = Annotated[
    Format | None,
    Option("--format", "-f", help="Needed only if the ending of OUT does not say the format."),
]
DryRunOption = Annotated[
    bool, Option("--dry-run", "-n", help="Show what would be done; write nothing.")
]
OverwriteOption = Annotated[
    bool, Option("--overwrite", help="Replace a file that is already there.")
]
SourceArgument = Annotated[
    str,
    Argument(
        metavar="PATH",
        help="A checkpoint, or .safetensors, .npz, .h5, .keras, a directory of .npy.",
        complete=complete_path,
    ),
]
OutputArgument = Annotated[
    str,
    Argument(
        metavar="OUT",
        help="A prefix, .safetensors, .npz, .h5, or a directory with a slash; not in the "
        "directory of PATH.",
        complete=complete_path,
    ),
]
PrefixArgument = Annotated[
    str,
    Argument(
        metavar="OUT",
        help="The prefix of the checkpoint; not in the directory of PATH.",
        complete=complete_path,
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    Option(
        "--include",
        metavar="GLOB",
        help="Only names that match this pattern; may be given several times.",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    Option(
        "--exclude",
        metavar="GLOB",
        help="Leave out names that match this pattern; may be given several times.",
    ),
]
ShardSizeOption = Annotated[
    str | None,
    Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Split into files of at most this size, such as 5GB.",
    ),
]
