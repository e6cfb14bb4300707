"""The options of `ckptparse recover`: what may help, what is written, and what is told."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from ckptparse.cli.completion import complete_path
from ckptparse.cli.options import Argument, Option

__all__ = [
    "DamagedArgument",
    "DfxmlOption",
    "EvidenceOption",
    "FillOption",
    "HashOption",
    "KeepSuspectOption",
    "MapOption",
    "MapfileOption",
    "Offer",
    "OfferOption",
    "RecoveryOutputOption",
    "ReplayOption",
    "ReportOnlyOption",
    "ReportOption",
    "ShapesOption",
    "SiblingsOption",
]


class Offer(str, Enum):
    """Which tensors are written."""

    PROVED = "proved"
    PLAUSIBLE = "plausible"


DamagedArgument = Annotated[
    str | None,
    Argument(
        metavar="PATH",
        help="A prefix, an index, a data or V1 file, a disk image.",
        complete=complete_path,
    ),
]
RecoveryOutputOption = Annotated[
    str | None,
    Option(
        "--output",
        "-o",
        metavar="OUT",
        help="model.ckpt, .safetensors, .npz, .h5, or a directory for .npy files; not in the "
        "directory of PATH or of a file of --from.",
    ),
]
OfferOption = Annotated[
    Offer | None,
    Option("--offer", help="Write what is proved, or all that was got back."),
]
FillOption = Annotated[
    float | None,
    Option("--fill", metavar="NUMBER", help="The value of elements that are lost: 0 or nan."),
]
KeepSuspectOption = Annotated[
    bool,
    Option("--keep-suspect", help="Keep elements that look wrong; --fill does not replace them."),
]
ReportOption = Annotated[
    str | None, Option("--report", metavar="FILE", help="Write the report as JSON.")
]
DfxmlOption = Annotated[
    str | None,
    Option("--dfxml", metavar="FILE", help="Write files and tensors as DFXML."),
]
HashOption = Annotated[
    bool | None,
    Option(
        "--hash/--no-hash",
        help="Give the SHA-256 of each input; the default if a report is written.",
    ),
]
ReplayOption = Annotated[
    str | None,
    Option(
        "--replay",
        metavar="REPORT",
        help="Repeat the recovery of a report, and compare the results.",
        complete=complete_path,
    ),
]
ReportOnlyOption = Annotated[
    bool, Option("--dry-run", "-n", help="Report what can be got back; write nothing.")
]
SiblingsOption = Annotated[
    bool,
    Option(
        "--siblings/--no-siblings",
        help="Whether to use other checkpoints of the directory as well.",
    ),
]
EvidenceOption = Annotated[
    list[str] | None,
    Option(
        "--from",
        metavar="PATH",
        help="A file or directory that may help: a copy, a graph, an archive, a disk image; "
        "may be given several times.",
        complete=complete_path,
    ),
]
ShapesOption = Annotated[
    str | None,
    Option(
        "--shapes",
        metavar="FILE",
        help="Shapes, if the index is lost: npz, .keras, or JSON such as "
        '{"w": [128, 128], "step": {"dtype": "int64", "shape": []}}',
    ),
]
MapfileOption = Annotated[
    str | None,
    Option(
        "--mapfile",
        metavar="FILE",
        help="The mapfile of ddrescue: which parts of the image it could not read.",
    ),
]
MapOption = Annotated[
    bool, Option("--map", help="Draw each file: what every range of its bytes is.")
]
