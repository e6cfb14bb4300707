"""What a format says of stored values, and what proves it. It is the same for V1 and V2.

    tensor  ->  one payload, or one for each slice  ->  bytes of a file, and their checksum

A payload of a V2 checkpoint is a byte range of a data file, and has a checksum. A payload of a V1
checkpoint is a record in a block of a table, and has its block's checksum. To check or mend bytes,
file, offset, size and checksum are enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ckptparse.dtypes import DataType
from ckptparse.examination.outcome import ByteRange, EvidenceRecord, PatchedRange
from ckptparse.examination.readers import DataFile
from ckptparse.inventory.survey import Origin
from ckptparse.slices import TensorSlice

__all__ = ["Form", "ListedTensor", "PartName", "Payload", "Record"]


class Form(Enum):
    """How values lie in the bytes of a payload."""

    PLAIN = "plain"
    """Elements of one size, end to end."""
    STRINGS = "strings"
    """Lengths, their checksum, then the strings (docs/format.md, section 2.4)."""
    VARIANTS = "variants"
    """Each element with its length, and checksums between them (section 2.4)."""
    RECORD = "record"
    """A block of a table: one of its records holds the values (section 3.3)."""


_FORMS: dict[int, Form] = {
    DataType.DT_STRING: Form.STRINGS,
    DataType.DT_VARIANT: Form.VARIANTS,
}
"""Of the kinds whose elements have several sizes."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record in a block of a V1 file.

    Attributes:
        key: Its key in the block.
        value: Its value, if it was kept; None if it must be read from the block.
        sound: Whether the checksum of its block agrees, as it is or with one bit corrected.
    """

    key: bytes
    value: bytes | None
    sound: bool


@dataclass(frozen=True, slots=True)
class Payload:
    """The stored values of a tensor, or of one slice of it.

    Attributes:
        data_type: DataType number.
        shape: Of the tensor, or of the slice.
        file: The file that the bytes belong in.
        offset: Of their first byte there.
        size: In bytes. Of a record: that of its block, with the byte that names the compression.
        crc32c: Of these bytes, unmasked; None if the format states none.
        proved: Whether a checksum covers all of the above, the name and the byte order too.
        doubt: Why it is not proved, in a sentence.
        chance: Chance that the proof is wrong.
        index: Path of the index, or V1 file, that says so.
        origin: Where that index comes from.
        shard: Number of the data file.
        big_endian: The byte order of its bundle.
        waiting: Whether only the byte order lacks proof, because the header is lost.
        block: Offset of the index block that holds the entry; None if that block is not whole.
        record: The record in the block; None if it is not of a V1 file.
        contested: Whether another part of the same save says something else of this tensor, or what
            says it may be of another save.
        grounds: What says all of the above.
        patches: What was corrected in that.
    """

    data_type: int
    shape: tuple[int, ...]
    file: DataFile
    offset: int
    size: int
    crc32c: int | None
    proved: bool
    doubt: str
    chance: float
    index: str
    origin: Origin
    shard: int = 0
    big_endian: bool = False
    waiting: bool = False
    block: int | None = None
    record: Record | None = None
    contested: bool = False
    grounds: tuple[EvidenceRecord, ...] = ()
    patches: tuple[PatchedRange, ...] = ()

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.offset + self.size

    @property
    def form(self) -> Form:
        """How the values lie in the bytes."""
        if self.record is not None:
            return Form.RECORD
        return _FORMS.get(self.data_type, Form.PLAIN)

    @property
    def in_damaged_block(self) -> bool:
        """Whether it is a record of a block whose checksum disagrees."""
        return self.record is not None and not self.record.sound

    @property
    def place(self) -> ByteRange:
        """The byte range where they belong."""
        return ByteRange(self.file.path, self.offset, self.size, self.file.inside)

    def part(self, start: int, stop: int) -> ByteRange:
        """Return the range of some of their bytes."""
        return replace(self.place, offset=self.offset + start, size=stop - start)

    def moved(self, file: DataFile, delta: int = 0) -> Payload:
        """Return the same payload in another file, `delta` bytes further on."""
        return replace(self, file=file, offset=self.offset + delta)

    def says_the_same(self, other: Payload) -> bool:
        """Tell whether two indexes say the same of a payload, except its checksum and file."""
        return (
            self.data_type == other.data_type
            and self.shape == other.shape
            and (self.shard, self.offset, self.size) == (other.shard, other.offset, other.size)
        )


@dataclass(frozen=True, slots=True)
class PartName:
    """What a payload is called: its tensor, and which slice of it, if it is a slice."""

    tensor: str
    piece: TensorSlice | None = None


@dataclass(frozen=True, slots=True)
class ListedTensor:
    """A tensor as an index lists it.

    Attributes:
        name: Its stored name.
        data_type: DataType number.
        shape: Of the whole.
        proved: Whether a checksum covers name, dtype, shape and slices.
        doubt: Why it is not proved, in a sentence.
        chance: Chance that the proof is wrong.
        payload: Its values; None if it is sliced, or if nothing says where they are.
        slices: Its slices, each with its values; None if nothing says where these are.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    proved: bool
    doubt: str
    chance: float
    payload: Payload | None
    slices: tuple[tuple[TensorSlice, Payload | None], ...] = ()

    @classmethod
    def named(cls, name: str, doubt: str) -> ListedTensor:
        """Make one of which nothing but the name is known."""
        return cls(name, DataType.DT_INVALID, (), False, doubt, 0.0, None)

    @property
    def has_kind(self) -> bool:
        """Whether its dtype and its shape are known."""
        told = self.payload is not None or bool(self.slices)
        return told or self.data_type != DataType.DT_INVALID
