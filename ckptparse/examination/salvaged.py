"""What a damaged table still gives, as values: blocks, entries, and what is wrong with it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckptparse.errors import MalformedError
from ckptparse.examination.outcome import EvidenceRecord, PatchedRange
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import FileRange
from ckptparse.limits import Limits
from ckptparse.problems import Problem
from ckptparse.table.block import Block
from ckptparse.table.columns import TableColumns
from ckptparse.table.format import TRAILER_SIZE, decompress_block

__all__ = [
    "ENTRY_BYTES",
    "FAILED_BYTES",
    "INDEX_CODES",
    "LEGACY_CODES",
    "ROW_BYTES",
    "SalvagedBlock",
    "SalvagedEntry",
    "SalvagedRun",
    "SalvagedTable",
    "TableCodes",
    "iter_entries",
    "read_salvaged",
    "value_in_block",
]


ENTRY_BYTES = 3000
"""What an entry takes with all that is found out about its tensor, measured: 2.9 kB."""
FAILED_BYTES = 800
"""What a row takes more if its tensor has failed: what was found, and the sentence about it."""
ROW_BYTES = 350
"""What one takes that stays a row of columns, measured: 290 bytes."""


@dataclass(frozen=True, slots=True)
class TableCodes:
    """The problem codes for one kind of table."""

    foreign: str
    footer: str
    index_block: str
    block: str
    metaindex: str
    order: str
    text: str
    unreferenced: str


INDEX_CODES = TableCodes(
    "index.foreign",
    "index.footer",
    "index.index_block",
    "index.block",
    "index.metaindex",
    "index.order",
    "index.text",
    "index.unreferenced",
)
LEGACY_CODES = TableCodes(
    "v1.foreign",
    "v1.footer",
    "v1.index_block",
    "v1.block",
    "v1.metaindex",
    "v1.order",
    "v1.text",
    "v1.unreferenced",
)


@dataclass(frozen=True, slots=True)
class SalvagedBlock:
    """Where a block is, without its trailer, and what is known of it.

    Attributes:
        offset: Of its first byte.
        size: Of its contents as stored.
        proved: Whether its checksum agrees.
        framed: Whether both its ends are known, so that its trailer follows it.
        separator: Its key in the index block: not below its last key, and below the first of the
            next block. None if there is no index block.
    """

    offset: int
    size: int
    proved: bool
    framed: bool = True
    separator: bytes | None = None

    @property
    def end(self) -> int:
        """One past its last byte, trailer included."""
        return self.offset + self.size + (TRAILER_SIZE if self.framed else 0)


@dataclass(frozen=True, slots=True)
class SalvagedEntry:
    """A key and value.

    Attributes:
        key: The key, in full.
        value: The value; None if it is long and must be read from its block.
        proved: Whether a checksum covers both.
        chance: Chance that they are wrong; not 0 if a bit of the block was corrected.
        block: The block it is in; None if the value cannot be read from there again.
        grounds: Where it lies, and what proves it.
        patches: What was corrected in the block.
    """

    key: bytes
    value: bytes | None
    proved: bool = True
    chance: float = 0.0
    block: SalvagedBlock | None = None
    grounds: tuple[EvidenceRecord, ...] = ()
    patches: tuple[PatchedRange, ...] = ()


@dataclass(frozen=True, slots=True)
class SalvagedRun:
    """All entries of one block that a checksum covers, as columns: they make no object each.

    Attributes:
        columns: Keys, which rise, and values.
        skipped: How many of them at the start are none of the run's.
        chance: As of `SalvagedEntry`, as are those that follow.
        block, grounds, patches: The same of all.
    """

    columns: TableColumns
    skipped: int = 0
    chance: float = 0.0
    block: SalvagedBlock | None = None
    grounds: tuple[EvidenceRecord, ...] = ()
    patches: tuple[PatchedRange, ...] = ()

    def __len__(self) -> int:
        return len(self.columns) - self.skipped

    @property
    def first_key(self) -> bytes:
        """The lowest key."""
        return self.columns.key(self.skipped)

    @property
    def last_key(self) -> bytes:
        """The highest key."""
        return self.columns.key(len(self.columns) - 1)

    def entry(self, row: int) -> SalvagedEntry:
        """Return one row of the columns as an entry."""
        columns = self.columns
        return SalvagedEntry(
            columns.key(row),
            columns.value(row),
            chance=self.chance,
            block=self.block,
            grounds=self.grounds,
            patches=self.patches,
        )

    def __iter__(self) -> Iterator[SalvagedEntry]:
        return map(self.entry, range(self.skipped, len(self.columns)))


@dataclass(frozen=True, slots=True)
class SalvagedTable:
    """What can be read from a table.

    Attributes:
        file: What was read: the file, or the file with a conversion undone.
        size: Of the file as it is stored, in bytes.
        found: Entries and runs of them, in the order of the file; keys may repeat.
        blocks: The data blocks that are known, in that order.
        complete: Whether every block of the file was proved, so that nothing is missing.
        problems: What is wrong with it.
        ranges: What each run of its bytes is.
    """

    file: DataFile
    size: int
    found: list[SalvagedEntry | SalvagedRun]
    blocks: list[SalvagedBlock]
    complete: bool
    problems: list[Problem]
    ranges: list[FileRange]

    @property
    def entries(self) -> list[SalvagedEntry]:
        """Every entry, in the order of the file."""
        return list(iter_entries(self.found))

    @property
    def proves(self) -> bool:
        """Whether a checksum proves any of its entries."""
        return any(isinstance(one, SalvagedRun) or one.proved for one in self.found)

    def block_of(self, key: bytes) -> SalvagedBlock | None:
        """Return the block that holds a key, as the index block says; None if none does."""
        if not self.blocks or self.blocks[0].separator is None:
            return None
        place = bisect_left(self.blocks, key, key=lambda block: block.separator or b"")
        return self.blocks[place] if place < len(self.blocks) else None


def iter_entries(found: Iterable[SalvagedEntry | SalvagedRun]) -> Iterator[SalvagedEntry]:
    """Iterate over entries, those of runs one by one."""
    for one in found:
        if isinstance(one, SalvagedRun):
            yield from one
        else:
            yield one


def read_salvaged(files: DataFiles, file: DataFile, offset: int, size: int, key: bytes) -> bytes:
    """Read a value from its block. The stored contents of the block have `size` bytes.

    Raises:
        CheckpointError: The file has changed since it was looked at.
    """
    stored = bytes(files.read(file, offset, size + 1))
    return value_in_block(stored, key, limits=files.context.limits, path=file.path, offset=offset)


def value_in_block(stored: bytes, key: bytes, *, limits: Limits, path: str, offset: int) -> bytes:
    """Find a value in a block as stored, followed by the byte that names its compression.

    Raises:
        CheckpointError: The block breaks the format's rules, or has no such key.
    """
    contents = decompress_block(stored[:-1], stored[-1], limits=limits, path=path, offset=offset)
    value = Block.from_bytes(contents).find(key, limits=limits)
    if value is None:
        raise MalformedError(f"Expected an entry {key!r} in the block, found none", path=path)
    return value
