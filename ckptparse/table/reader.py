"""Read a table: footer -> index block -> one data block (docs/format.md, sections 1.1 to 1.6).

The index block has one entry for each data block. Its value is the block's handle. Its key is at
least the block's last key, and below the first key of the next block. It need not be a key of the
table, so it is used for searching only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress

from ckptparse.errors import LimitError, MalformedError, located
from ckptparse.files.storage import Source
from ckptparse.limits import Limits, limit_error
from ckptparse.locks import make_lock
from ckptparse.table.block import (
    Block,
    BlockEntries,
    KeyOrderError,
    LongRuns,
    check_key_bytes,
)
from ckptparse.table.columns import TableColumns
from ckptparse.table.format import (
    FOOTER_SIZE,
    TRAILER_SIZE,
    BlockHandle,
    Footer,
    check_block,
    read_block,
    read_footer,
)
from ckptparse.table.part import read_part

__all__ = ["Table", "check_blocks"]

_CACHED_BLOCKS = 8
"""Blocks that are kept for single lookups: 8 blocks of 256 KiB hold some 80,000 entries."""
_LARGEST_CACHED = 1 << 20
"""Bytes of the largest block that is kept. Those of TensorFlow have 256 KiB; larger ones are single
tensors of V1 files."""
_PART_BYTES = 768 << 10
"""Bytes of blocks that are decoded together; their columns take about five times as much. With more
of them the columns do not fit into a processor's cache."""
_WORTH_BYTES = 32 << 10
"""From so many bytes of blocks on, the steps with numpy cost less than a loop over the entries."""


class Table:
    """An open table. Every block's checksum is checked when the block is used.

    Attributes:
        source: The open file; the caller closes it.
        footer: Where the metaindex block and the index block are.
        handles: Where each data block is, in the order of keys, which is that of the file too.
        separators: For each data block its key in the index block.
    """

    __slots__ = (
        "_asked",
        "_blocks",
        "_decoded",
        "_limits",
        "_lock",
        "_whole",
        "footer",
        "handles",
        "separators",
        "source",
    )

    def __init__(
        self,
        source: Source,
        footer: Footer,
        handles: tuple[BlockHandle, ...],
        separators: tuple[bytes, ...],
        limits: Limits,
        *,
        whole: bool,
    ) -> None:
        self.source = source
        self.footer = footer
        self.handles = handles
        self.separators = separators
        self._limits = limits
        self._whole = whole
        self._lock = make_lock()
        self._blocks: dict[int, Block] = {}
        """Those that are kept, the oldest first. Several threads keep some at the same time."""
        self._decoded: dict[int, BlockEntries] = {}
        """The entries of those blocks of which every key was looked at."""
        self._asked: set[int] = set()
        """Blocks that a lookup had a part of."""

    @classmethod
    def open(cls, source: Source, *, limits: Limits, whole: bool = False) -> Table:
        """Read the footer and the index block.

        Args:
            source: The file.
            limits: Bounds on what it may ask for.
            whole: Whether each block must keep the rules from end to end before anything in it is
                believed. Otherwise what one key needs is looked at, and all of it by a listing.

        Raises:
            TruncatedError: The file ends too early.
            ChecksumError: The index block is damaged.
            MalformedError: It is no table, or its index block breaks a rule: keys strictly
                increase, and blocks are in the order of the file, before the index block.
            LimitError: The index block is larger than `Limits.index_bytes`, or lists more blocks
                than `Limits.blocks` allows.
        """
        with located(path=source.path):
            footer = read_footer(source)
            # A size beyond the file's is a damaged handle, and `read_block` says so.
            size = min(footer.index.size, source.size)
            limits.check("index_bytes", size, "The size of the index block")
            with located(offset=footer.index.offset):
                contents = read_block(source, footer.index, limits=limits)
                entries = Block.from_bytes(contents).decode_entries(limits=limits)
                check_blocks(len(entries.keys), source.size, limits)
                handles = tuple(_iter_handles(entries, footer.index))
        return cls(source, footer, handles, tuple(entries.keys), limits, whole=whole)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if the table has no such key.

        At most one data block is read.
        """
        index = bisect_left(self.separators, key)
        if index == len(self.separators):
            return None
        with self._located(index):
            part = self._part(index, key)
            if part is not None:
                # A part in which something is wrong is read with the whole block, which says what.
                with suppress(MalformedError, LimitError):
                    return part.find(key, limits=self._limits)
            block = self._block(index)
            entries = self._decoded.get(index)
            if entries is None:
                return block.find(key, limits=self._limits)
        place = bisect_left(entries.keys, key)
        if place == len(entries.keys) or entries.keys[place] != key:
            return None
        return entries.contents[entries.starts[place] : entries.ends[place]]

    def check_others(self, keys: Iterable[bytes]) -> None:
        """Check the blocks that no lookup of these keys looks at, as a lookup would.

        Raises:
            DataLossError: One of them is damaged, breaks the rules, or holds keys that the index
                block does not place there.
        """
        others = set(range(len(self.handles)))
        others.difference_update(bisect_left(self.separators, key) for key in keys)
        for index in sorted(others):
            with self._located(index):
                self._block(index)

    def first(self) -> tuple[bytes, bytes] | None:
        """Return the first key and its value; None if the table is empty."""
        for index in range(len(self.handles)):
            with self._located(index):
                entry = self._first_of(index)
            if entry is not None:
                return entry
        return None

    def tiles(self) -> list[tuple[int, int]] | None:
        """Return the spans of all blocks and of the footer, if they fill the file as usual.

        That is: data blocks, metaindex block, index block and footer end to end from byte 0; the
        footer as a writer leaves it, and the metaindex block whole. None if any of it is not so.

        Raises:
            ChecksumError: The metaindex block is damaged.
        """
        footer, source = self.footer, self.source
        handles = [*self.handles, footer.metaindex, footer.index]
        spans = [(handle.offset, handle.end) for handle in handles]
        spans.append((source.size - FOOTER_SIZE, source.size))
        starts = [start for start, _ in spans]
        if starts != [0, *(end for _, end in spans[:-1])]:
            return None
        if source.read_at(starts[-1], FOOTER_SIZE) != footer.to_bytes():
            return None
        with located(path=source.path, offset=footer.metaindex.offset):
            stored = source.read_at(footer.metaindex.offset, footer.metaindex.size + TRAILER_SIZE)
            check_block(stored, path=source.path, offset=footer.metaindex.offset)
        return spans

    def iter_blocks(self) -> Iterator[BlockEntries]:
        """Decode the data blocks one after another.

        Raises:
            MalformedError: Keys do not strictly increase in the whole table, or a block has keys
                that the index block does not place there.
            LimitError: More than `Limits.entries` or `Limits.key_bytes`.
        """
        previous: bytes | None = None
        count = key_bytes = blocks = 0
        for index, separator in enumerate(self.separators):
            with self._located(index):
                entries = self._block(index).decode_entries(limits=self._limits)
                count += len(entries.keys)
                self._limits.check("entries", count, "The number of entries of the table")
                key_bytes += sum(map(len, entries.keys))
                blocks += len(entries.contents)
                check_key_bytes(key_bytes, blocks, self._limits)
                if entries.keys:
                    _check_between(entries.keys[0], entries.keys[-1], previous, separator)
            previous = separator
            yield entries

    def iter_columns(self) -> Iterator[TableColumns]:
        """Decode the data blocks, many at a time; raises as `iter_blocks` does.

        Raises:
            LimitError: Too many entries lie in long runs; see `Limits.single_entries`.
        """
        previous: bytes | None = None
        count = key_bytes = blocks = 0
        runs = LongRuns(self._limits, self.source.size)
        for first, part in self._iter_parts():
            columns = self._decode_part(first, part)
            count += len(columns)
            self._limits.check("entries", count, "The number of entries of the table")
            key_bytes += len(columns.keys) - len(columns)
            blocks += len(columns.contents)
            check_key_bytes(key_bytes, blocks, self._limits)
            low = 0
            for index, high in enumerate(columns.block_ends, first):
                separator = self.separators[index]
                runs.take(part[index - first], high - low)
                if low < high:
                    with self._located(index):
                        _check_between(columns.key(low), columns.key(high - 1), previous, separator)
                previous, low = separator, high
            yield columns

    def _iter_parts(self) -> Iterator[tuple[int, list[Block]]]:
        """Group the blocks; for each group the number of its first block, and the blocks."""
        part: list[Block] = []
        size = first = 0
        for index in range(len(self.handles)):
            with self._located(index):
                # None of them is kept: who lists them all does not ask for one of them again.
                part.append(self._blocks.get(index) or self._read_block(index))
            size += len(part[-1].contents)
            if size >= _PART_BYTES:
                yield first, part
                part, size, first = [], 0, index + 1
        if part:
            yield first, part

    def _decode_part(self, first: int, part: list[Block]) -> TableColumns:
        if sum(len(block.contents) for block in part) >= _WORTH_BYTES:
            from ckptparse.table.together import decode_together

            columns = decode_together(part, limits=self._limits)
            if columns is not None:
                return columns
        decoded = []
        for index, block in enumerate(part, first):
            with self._located(index):
                decoded.append(block.decode_entries(limits=self._limits))
        return TableColumns.of_blocks(decoded)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and values, in key order."""
        for entries in self.iter_blocks():
            for key, start, end in zip(entries.keys, entries.starts, entries.ends, strict=True):
                yield key, entries.contents[start:end]

    def _part(self, index: int, key: bytes) -> Block | None:
        """Return the part of a block that a key is in; None if all of it is to be looked at.

        What is asked for a second time is kept as a whole.
        """
        if self._whole or index in self._asked or index in self._blocks:
            return None
        self._asked.add(index)
        return read_part(self.source, self.handles[index], key)

    def _block(self, index: int) -> Block:
        block = self._blocks.get(index)
        if block is None:
            block = self._read_block(index)
            entries = self._check_whole(index, block) if self._whole else None
            if self._is_kept(block, entries):
                with self._lock:
                    self._keep(index, block, entries)
        return block

    def _read_block(self, index: int) -> Block:
        contents = read_block(self.source, self.handles[index], limits=self._limits)
        return Block.from_bytes(contents)

    def _is_kept(self, block: Block, entries: BlockEntries | None) -> bool:
        """Tell whether a block is kept for other lookups."""
        size = len(block.contents)
        # A large block is one tensor of a V1 file, which is rarely read twice in a row. If it has
        # many, reading it again for each of them would take the square of its size.
        return size <= _LARGEST_CACHED or (
            entries is not None and len(entries.keys) * _LARGEST_CACHED >= size
        )

    def _keep(self, index: int, block: Block, entries: BlockEntries | None) -> None:
        """Keep a block, and the entries that were decoded of it; of large blocks the last alone."""
        if len(block.contents) > _LARGEST_CACHED:
            for known in [one for one, kept in self._blocks.items() if _is_large(kept)]:
                del self._blocks[known]
        self._blocks[index] = block
        if len(self._blocks) > _CACHED_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        # Keys can take much more than their block.
        if entries is not None and sum(map(len, entries.keys)) <= 2 * max(
            len(block.contents), _LARGEST_CACHED
        ):
            self._decoded[index] = entries
        for known in self._decoded.keys() - self._blocks.keys():
            del self._decoded[known]

    def _first_of(self, index: int) -> tuple[bytes, bytes] | None:
        """Return the first entry of a block, if possible without all of it in memory."""
        known = self._whole or index in self._blocks
        head = None if known else read_part(self.source, self.handles[index], None)
        if head is not None:
            # An entry that does not fit is read with the whole block, which says what is wrong.
            with suppress(MalformedError):
                return head.first()
        return self._block(index).first()

    def _check_whole(self, index: int, block: Block) -> BlockEntries:
        entries = block.decode_entries(limits=self._limits)
        if entries.keys:
            previous = self.separators[index - 1] if index else None
            _check_between(entries.keys[0], entries.keys[-1], previous, self.separators[index])
        return entries

    def _located(self, index: int) -> AbstractContextManager[None]:
        return located(path=self.source.path, offset=self.handles[index].offset)


def check_blocks(count: int, size: int, limits: Limits) -> None:
    """Raise `LimitError` if a table of `size` bytes has more blocks than `Limits.blocks` allows."""
    if count > limits.most_blocks(size):
        beyond = count - (size >> 12)
        what = "The number of blocks of the table, beyond one for each 4 KiB,"
        raise limit_error(limits, "blocks", beyond, what)


def _is_large(block: Block) -> bool:
    return len(block.contents) > _LARGEST_CACHED


def _iter_handles(entries: BlockEntries, index: BlockHandle) -> Iterator[BlockHandle]:
    """Decode the handles of an index block's entries; each block must come after the one before."""
    end = 0
    for start, stop in zip(entries.starts, entries.ends, strict=True):
        handle, _ = BlockHandle.from_bytes(entries.contents, start, stop)
        following = handle.end
        if handle.offset < end or following > index.offset:
            raise MalformedError(
                f"Expected a data block between offset {end} and the index block at "
                f"{index.offset}, found {handle.size} bytes at {handle.offset}"
            )
        end = following
        yield handle


def _check_between(first: bytes, last: bytes, previous: bytes | None, separator: bytes) -> None:
    """Check a block's first and last key against its separator and the one before."""
    if (previous is not None and first <= previous) or last > separator:
        raise KeyOrderError(
            f"Keys of a table must strictly increase: expected keys after {previous!r} and up to "
            f"{separator!r}, found {first!r} to {last!r}"
        )
