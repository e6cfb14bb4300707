"""Damage as a value: what is wrong and where, how bad it is, and the state of each tensor.

A `Problem` has one of the stable codes of `PROBLEM_CODES`. The part before the dot says what it is
about (the index, a V1 file, a shard, a tensor, a slice, the set of files, leftovers), and the part
after it says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from ckptparse.text import clean

__all__ = ["PROBLEM_CODES", "Cause", "EvidenceRule", "Problem", "Severity", "Status"]


class _Word(str, Enum):
    """A word that equals the plain string of its value, prints as it and sorts as it."""

    def __str__(self) -> str:
        return str(self.value)


class Severity(_Word):
    """An error means that a reader can get wrong bytes, or none. A warning means that it cannot."""

    ERROR = "error"
    WARNING = "warning"


class Status(_Word):
    """What is known about the values of one tensor."""

    VERIFIED = "verified"
    """Bytes were read and the stored checksum agrees."""
    CORRECTED = "corrected"
    """Bytes were changed, or taken from elsewhere, by a named method; the checksum agrees."""
    DERIVED = "derived"
    """No bytes were read: the checksum alone determines the value."""
    PARTIAL = "partial"
    """Some elements are there. `verify` says this of a tensor that was cut off, too; `recover` only
    if checksums prove these elements."""
    UNVERIFIED = "unverified"
    """Bytes are offered, but nothing proves them."""
    CORRUPT = "corrupt"
    """Bytes are present and the checksum disagrees."""
    MISSING = "missing"
    """There are no bytes."""

    @property
    def proved(self) -> bool:
        """Whether the value is a promise: wrong at most with the chance that is stated."""
        return self in (Status.VERIFIED, Status.CORRECTED, Status.DERIVED)


class Cause(_Word):
    """What most likely happened to a tensor that is not whole."""

    ZEROS = "zeros"
    TRUNCATED = "truncated"
    MIXED = "mixed save"
    SHIFTED = "shifted"
    SWAPPED = "swapped"
    BITS = "bits"
    FOREIGN = "foreign"
    TEXT = "text"
    ENTRY = "entry"
    SHARD = "shard missing"
    SLICE = "slice missing"
    NO_CHECKSUM = "no checksum"
    UNKNOWN = "unknown"


class EvidenceRule(_Word):
    """What kind of reason one piece of evidence is."""

    # Who says what the values are called, and where they lie.
    ENTRY = "entry"
    """A block of the index says so, and the block's own checksum agrees."""
    CORRECTED_ENTRY = "corrected entry"
    """A block of the index says so, after one flipped bit of it was flipped back."""
    DAMAGED_ENTRY = "damaged entry"
    """A part of the index says so, but its checksum does not agree or is lost."""
    SAME_ENTRY = "same entry"
    """The index of another checkpoint has the same entry."""
    SAVE_OP = "save op"
    """The save operation of a graph writes it there."""
    STAND_IN = "stand-in index"
    """The index of another checkpoint has it there."""
    CUT_INDEX = "cut index"
    """The remaining entries of the index leave only this place for it."""
    GIVEN_SHAPES = "given shapes"
    """The shapes that the caller gave put it there, in their order."""
    SORTED_NAMES = "sorted names"
    """The shapes that the caller gave put it there, sorted by name."""
    OBJECT_GRAPH = "object graph"
    """The order of the object graph's keys puts it there."""
    GUESSED_SIZES = "guessed sizes"
    """Guessed sizes put it there, by the rules that follow."""
    COUNTER_SIZE = "size of a counter"
    """It is a counter, so it is one integer of 64 bits."""
    STEP_SIZE = "size of a step"
    """It is a step: of 64 bits if the higher half is zero, else of 32."""
    SCALAR_SIZE = "size of a scalar"
    """An optimizer's object holds it itself, or it is the total or count of a mean: one float."""
    SEED_SIZE = "size of a seed"
    """It is the state of a seed generator: two words of 32 bits."""
    STRING_SIZE = "size of a string"
    """It is a string whose length has its checksum there."""
    SLOT_SIZE = "size of a slot"
    """A slot is as large as its variable."""
    LAYER_SIZE = "size of a layer"
    """What normalizes a layer is of one size."""
    PAIRS = "Adam's pairs"
    """The slots lie there as Adam's do: no square below zero, no mean beyond 7.3 of its roots."""
    SLOT_BLOCKS = "blocks of slots"
    """The blocks of slots that end the file, as large as the variables, leave this place for it;
    the values there are such as it has."""
    LAYER_CHAIN = "chain of layers"
    """It is of dense layers one behind the other: what training left in the slots has rows and
    columns of these sizes."""
    ONES = "values about one"
    """It lies where values are about one, as in the gamma of a normalization and in the bias of an
    LSTM's forget gates, or beside such a vector of its size."""
    REST = "rest"
    """It takes what the tensors beside it leave."""

    # Where the values come from.
    CHECKSUM = "checksum"
    """The bytes there have the stored checksum, after the steps that are listed before."""
    MISMATCH = "mismatch"
    """The checksum of the bytes there differs from the stored one."""
    PLACE = "place"
    """The bytes are at their place; their checksum is not known."""
    CUT_OFF = "cut off"
    """The file ends inside these bytes, so no checksum can agree."""
    TWIN = "twin"
    """Another whole tensor of the checkpoint has the same size and checksum."""
    SHIFTED = "shifted"
    """The bytes are shifted: some distance from their place."""
    SWAPPED = "swapped"
    """The bytes are in another data file of the checkpoint."""
    CONVERTED = "conversion undone"
    """The file was converted like text."""
    REORDERED = "stripes in order"
    """The stripes of the file were put in order."""
    GATHERED = "tensors in order"
    """The tensors of the file were put in order."""
    IMAGE = "image"
    """The bytes are in a disk image."""
    BESIDE = "beside"
    """The bytes lie in a disk image beside tensors that were found. Nothing else says that they
    belong there."""
    LIKE_SIBLING = "like sibling"
    """Which bytes lie where was told by how near elements are to those of another checkpoint."""
    COPY = "copy"
    """The bytes are at their place in a copy of the data file: its index states the same checksum,
    or most of the other tensors are whole there."""
    SAME_BYTES = "same bytes"
    """The index of another checkpoint states the checksum of the bytes there: they are that save's,
    and nothing says that they are this one's."""
    SIBLING = "sibling"
    """Another checkpoint holds bytes of the same size and checksum."""
    FILE = "file"
    """A file that the caller named holds bytes of the same size and checksum."""
    AXES = "axes in order"
    """A file that the caller named holds the tensor with its axes in another order. Put in their
    own, its bytes have the same size and checksum."""
    FILLED = "filled"
    """Lost bytes were filled with these bytes of another checkpoint."""
    MERGED = "merged"
    """With these bytes of a copy, the checksum agrees."""
    BIT = "bit"
    """One bit there was flipped back; the checksum then agrees."""
    BYTES = "bytes"
    """One or two bytes there were changed; the checksum then agrees."""
    TAIL = "tail"
    """The last bytes were calculated from the checksum."""
    VALUE = "value"
    """The checksum determines the value."""
    EXPECTED = "expected value"
    """The checksum agrees with a number that is stored elsewhere."""
    FITTING = "fitting value"
    """The checksum agrees with this number, and with larger ones."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        code: A key of `PROBLEM_CODES`.
        severity: Whether it can affect what a reader gets.
        where: The file, the tensor, or a file and a name in it.
        message: What was expected and what was found, in a sentence.
        fetch: For a file that only stands for another: the commands that fetch it; else empty.
    """

    code: str
    severity: Severity
    where: str
    message: str
    fetch: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(
        cls,
        code: str,
        where: str,
        message: str,
        *,
        severity: Severity | None = None,
        fetch: tuple[str, ...] = (),
    ) -> Problem:
        """Make a problem of the severity that its code usually has."""
        usual = Severity.WARNING if code in _WARNINGS else Severity.ERROR
        return cls(code, severity or usual, where, clean(message), fetch)

    @property
    def is_aside(self) -> bool:
        """Whether it is about something else than the checkpoint: then it is no warning of it."""
        return self.code in _ASIDE

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain strings."""
        return {
            "code": self.code,
            "severity": self.severity._value_,
            "where": self.where,
            "message": self.message,
        }

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.code}: {self.where}: {self.message}"


PROBLEM_CODES: Mapping[str, str] = MappingProxyType(
    {
        "index.missing": "There is no index, so names, shapes and checksums are not known.",
        "index.foreign": "The index is a file of another kind, such as a Git LFS pointer.",
        "index.footer": "The last 48 bytes of the index are missing, damaged, or not the last.",
        "index.index_block": "The block that lists the index's blocks is damaged.",
        "index.block": "A block of entries in the index is damaged.",
        "index.metaindex": "The index's metaindex block is damaged; nothing reads it.",
        "index.order": "Keys of the index do not strictly increase.",
        "index.header": "The index's header entry is missing or breaks the format's rules.",
        "index.entry": "An entry of the index breaks the format's rules.",
        "index.text": "The index was changed by a conversion, as of text, which can be undone.",
        "index.unreferenced": "The index holds bytes that nothing refers to.",
        "v1.foreign": "The V1 file is a file of another kind, such as a Git LFS pointer.",
        "v1.footer": "The last 48 bytes of a V1 file are missing, damaged, or not the last.",
        "v1.index_block": "The block that lists a V1 file's blocks is damaged.",
        "v1.block": "A block of records in a V1 file is damaged.",
        "v1.metaindex": "A V1 file's metaindex block is damaged; nothing reads it.",
        "v1.order": "Keys of a V1 file do not strictly increase.",
        "v1.meta": "The first entry of a V1 file, which lists its tensors, is damaged or missing.",
        "v1.record": "A record of a V1 file breaks the format's rules, or is not listed.",
        "v1.missing": "A file of a sharded V1 checkpoint is not there.",
        "v1.text": "A V1 file was changed by a conversion, as of text, which can be undone.",
        "v1.unreferenced": "A V1 file holds bytes that nothing refers to.",
        "shard.missing": "A data file that the index refers to is not there.",
        "shard.foreign": "A data file is a file of another kind, such as a Git LFS pointer.",
        "shard.truncated": "A data file is shorter than the index expects.",
        "shard.trailing": "A data file has bytes after the last tensor that the index names.",
        "shard.gap": "A data file has bytes between tensors that nothing refers to.",
        "shard.overlap": "Two tensors share bytes of a data file.",
        "shard.zeros": "A data file has runs of zeros, on 4 KiB boundaries, in place of data.",
        "shard.swapped": "A data file has the bytes of another one.",
        "shard.renamed": "The bytes of a data file are in a file with another name.",
        "shard.shifted": "Bytes of a data file are some bytes before or after their place.",
        "shard.text": "A data file was changed by a conversion of text.",
        "tensor.missing": "No bytes of a tensor are there.",
        "tensor.truncated": "A data file ends within a tensor.",
        "tensor.checksum": "The checksum of a tensor's bytes is not the stored one.",
        "tensor.zeros": "A tensor's checksum disagrees, and it has holes of zeros or only zeros.",
        "tensor.no_checksum": "The index stores no checksum for a tensor.",
        "tensor.decode": "A tensor's bytes break the format's rules: its strings do not fit them.",
        "tensor.entry": "The entry of a tensor comes from a damaged part of the index.",
        "slice.missing": "A sliced tensor lists a slice that is not stored.",
        "slice.layout": "The slices of a tensor overlap, leave gaps, or do not fit its shape.",
        "slice.orphan": "A slice is stored, but no tensor lists it.",
        "object_graph.damaged": "The object graph cannot be read, or names missing values.",
        "fingerprint.mismatch": "The SavedModel's fingerprint was made from another index.",
        "fingerprint.damaged": "The SavedModel's fingerprint cannot be read.",
        "graph.damaged": "A graph cannot be read, or one of its constants does not decode.",
        "path.taken": "The path means no whole checkpoint. The report is about another one there.",
        "path.refused": "The strict reader refuses the path.",
        "state.elsewhere": "The `checkpoint` state file names a checkpoint in another directory.",
        "state.stale": "The `checkpoint` state file names checkpoints that are not there.",
        "state.damaged": "The `checkpoint` state file cannot be read.",
        "set.mixed": "Index and data are of different saves, or data changed in many places.",
        "set.unfinished": "The save that wrote these files ended before it was done.",
        "leftover.conflict": "Parts of an unfinished save have different values of a tensor.",
        "leftover.temporary": "There are temporary files of an unfinished save.",
        "leftover.beside": "Another save was left unfinished in the directory, or still goes on.",
        "archive.damaged": "The archive is damaged. What can be unpacked of it was read.",
        "file.unreadable": "The operating system does not allow reading a file.",
        "limit.reached": "A file asks for more than the limits allow: the rest was not read.",
        "evidence.unsearched": "A file of the evidence was searched in part only.",
        "shapes.unused": "The shapes that were given fit no data file of a lost index.",
        "scan.others": "Other checkpoints were found there. The report is about one of them.",
        "scan.unsearched": "A directory has more files than a scan looks at: others were left out.",
    }
)
"""Every code that a `Problem` can have, and what it means."""

_WARNINGS = frozenset(
    {
        "index.unreferenced",
        "v1.unreferenced",
        "shard.trailing",
        "shard.gap",
        "shard.overlap",
        "slice.orphan",
        "state.elsewhere",
        "state.stale",
        "state.damaged",
        "leftover.temporary",
        "leftover.beside",
        "evidence.unsearched",
        "shapes.unused",
        "scan.others",
        "scan.unsearched",
    }
)
_ASIDE = frozenset({"leftover.beside", "scan.others"})
