"""Find the data blocks of a table that may be damaged (docs/format.md, section 1).

The strict way is tried first: the footer and the index block say where the blocks are. If one of
the two is damaged, the blocks are found by their own checksums:

    block 0 | type crc | block 1 | type crc | ...

A raw block ends in its restart array, which is recognised by its bytes; the block's checksum proves
this end, and the next block starts right after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

from ckptparse.coding.checksum import crc32c, unmask_crc
from ckptparse.coding.varint import encode_varint
from ckptparse.errors import CheckpointError, MalformedError
from ckptparse.examination.carving import BlockFinder, fixed32
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import FileRange
from ckptparse.examination.resuming import Accept, Budget, iter_resumed
from ckptparse.examination.salvaged import SalvagedBlock, TableCodes
from ckptparse.files.storage import Source
from ckptparse.limits import Limits
from ckptparse.problems import Problem
from ckptparse.table.block import Block, LongRuns, decode_entry
from ckptparse.table.format import (
    FOOTER_SIZE,
    MAGIC,
    TRAILER_SIZE,
    BlockHandle,
    Footer,
    decompress_block,
    read_footer,
)

__all__ = ["LONGEST_BLOCK", "BlockSearch", "TableLook"]

LONGEST_BLOCK = 1 << 24
"""Bytes of an index block at most, if its end is not known: 64 times what TensorFlow writes. V1
blocks hold whole tensors, so they have no such bound."""
_EMPTY_BLOCK = bytes.fromhex("0000000001000000")
"""A block without entries, as writers leave the metaindex block: one restart, 0 (section 1.5)."""


class TableLook:
    """A table that is looked at: its bytes, and what has been found of them so far.

    Attributes:
        files: What opened it.
        file: Which file it is, and how its bytes are taken.
        source: Its bytes.
        codes: The codes of its problems.
        accept: Tells whether a key and a value that no checksum covers look right.
        limits: Bounds on what is decompressed.
        budget: What reading damaged blocks may still cost.
        problems: What is wrong with it.
        ranges: What runs of its bytes are.
        runs: How many of its entries lie in long runs.
    """

    def __init__(self, files: DataFiles, file: DataFile, codes: TableCodes, accept: Accept) -> None:
        if files.size(file) is None:
            raise files.failure(file) or MalformedError("It cannot be opened", path=file.path)
        self.files = files
        self.file = file
        self.source: Source = files.source(file)
        self.codes = codes
        self.accept = accept
        self.limits: Limits = files.context.limits
        self.budget = Budget(self.limits, self.source.size)
        self.problems: list[Problem] = []
        self.ranges: list[FileRange] = []
        self.runs = LongRuns(self.limits, self.source.size)

    def report(self, code: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem.of(code, self.file.path, message))

    def mark(self, start: int, stop: int, kind: str) -> None:
        """Note what a run of bytes is."""
        if start < stop:
            self.ranges.append(FileRange(start, min(stop, self.source.size), kind))

    def proved(self, offset: int, size: int) -> bool:
        """Tell whether the checksum of a block agrees; its contents have `size` bytes."""
        stored = self.source.read_at(offset, size + TRAILER_SIZE)
        crc = crc32c(memoryview(stored)[: size + 1])
        return unmask_crc(fixed32(stored, size + 1)) == crc

    def contents(self, place: SalvagedBlock) -> bytes | None:
        """Return what a block holds; None if it cannot be decompressed."""
        try:
            return self.decompressed(place)
        except CheckpointError:
            return None

    def decompressed(self, place: SalvagedBlock) -> bytes:
        """Return what a block holds.

        Raises:
            CheckpointError: It cannot be decompressed, or is larger than the limits allow.
        """
        stored = self.source.read_at(place.offset, place.size + 1)
        return decompress_block(
            stored[:-1],
            stored[-1],
            limits=self.limits,
            path=self.file.path,
            offset=place.offset,
        )


class BlockSearch:
    """Finds the data blocks of one table, and reports what is wrong with what says where they are.

    Attributes:
        complete: Whether the blocks were found up to the end of the data.
    """

    def __init__(self, look: TableLook, *, longest: int | None) -> None:
        """Take a table; `longest` bounds the bytes of a block whose end is not known."""
        self.complete = True
        self._look = look
        self._longest = longest
        self._most = look.limits.most_blocks(look.source.size)

    def find(self) -> list[SalvagedBlock]:
        """Return the blocks in the order of the file."""
        footer = self._footer()
        places = None if footer is None else self._listed(footer)
        return self._found() if places is None else places

    def _leave(self, start: int, stop: int, what: str) -> None:
        """Report that the blocks between two offsets are not looked at."""
        look = self._look
        look.mark(start, stop, "unverified")
        message = (
            f"{what}, and {self._most:,} blocks were looked at: Limits.blocks allows "
            f"{look.limits.blocks:,}, and one for each 4 KiB of the table"
        )
        look.report("limit.reached", message)
        self.complete = False

    # -- the strict way

    def _footer(self) -> Footer | None:
        try:
            footer = read_footer(self._look.source)
        except CheckpointError as error:
            self._look.report(self._look.codes.footer, error.message)
            return None
        if footer.index.end > self._look.source.size - FOOTER_SIZE:
            message = f"the footer places the index block beyond the file's end: {footer.index}"
            self._look.report(self._look.codes.footer, message)
            return None
        self._look.mark(self._look.source.size - FOOTER_SIZE, self._look.source.size, "verified")
        self._check_padding(footer)
        self._check_metaindex(footer)
        return footer

    def _check_padding(self, footer: Footer) -> None:
        """Report handles and padding that no writer leaves so. Readers ignore the difference.

        Handles are written in the fewest bytes, and zeros fill up to byte 40 (section 1.2).
        """
        handles = (footer.metaindex, footer.index)
        usual = b"".join(encode_varint(n) for one in handles for n in (one.offset, one.size))
        size = FOOTER_SIZE - len(MAGIC)
        found = self._look.source.read_at(self._look.source.size - FOOTER_SIZE, size)
        if found != usual.ljust(size, b"\0"):
            message = "expected zeros after the footer's two handles, found other bytes"
            self._look.report(self._look.codes.unreferenced, message)

    def _check_metaindex(self, footer: Footer) -> None:
        handle = footer.metaindex
        if handle.end > self._look.source.size - FOOTER_SIZE:
            message = f"the footer places the metaindex block beyond the file's end: {handle}"
            self._look.report(self._look.codes.metaindex, message)
            return
        good = self._look.proved(handle.offset, handle.size)
        if good:
            self._look.mark(handle.offset, handle.end, "verified")
            return
        self._look.mark(handle.offset, handle.end, "bad")
        message = f"the checksum of the block at offset {handle.offset} does not match"
        self._look.report(self._look.codes.metaindex, message)

    def _listed(self, footer: Footer) -> list[SalvagedBlock] | None:
        """Return the blocks that the index block lists; None if it cannot be used."""
        handle = footer.index
        contents = self._look.contents(SalvagedBlock(handle.offset, handle.size, proved=True))
        proved = self._look.proved(handle.offset, handle.size)
        self._look.mark(handle.offset, handle.end, "verified" if proved else "bad")
        if not proved:
            message = f"the checksum of the block at offset {handle.offset} does not match"
            self._look.report(self._look.codes.index_block, message)
            return None
        try:
            return self._decode_handles(contents or b"", handle)
        except MalformedError as error:
            self._look.report(self._look.codes.index_block, error.message)
            return None

    def _decode_handles(self, contents: bytes, index: BlockHandle) -> list[SalvagedBlock]:
        entries = Block.from_bytes(contents).decode_entries(limits=self._look.limits)
        places: list[SalvagedBlock] = []
        end = 0
        rows = zip(entries.keys, entries.starts, entries.ends, strict=True)
        for separator, start, stop in islice(rows, self._most):
            handle, _ = BlockHandle.from_bytes(contents[start:stop])
            if handle.offset < end or handle.end > index.offset:
                raise MalformedError(
                    f"Expected a block between bytes {end} and {index.offset}, found {handle}"
                )
            if handle.offset > end:
                self._look.mark(end, handle.offset, "unreferenced")
            end = handle.end
            proved = self._look.proved(handle.offset, handle.size)
            places.append(
                SalvagedBlock(handle.offset, handle.size, proved=proved, separator=separator)
            )
        if len(entries.keys) > self._most:
            self._leave(end, index.offset, f"the index block lists {len(entries.keys):,} blocks")
        return places

    # -- by the blocks' own checksums

    def _found(self) -> list[SalvagedBlock]:
        """Return the data blocks, found without the index block, and the bytes between them."""
        places: list[SalvagedBlock] = []
        position, size = 0, self._look.source.size
        finder = BlockFinder(self._look.source, longest=self._longest)
        while position < size and len(places) < self._most:
            places.append(self._next_block(position, finder))
            position = places[-1].end
        kept = list(self._without_end(places))
        if position < size:
            self._leave(position, size, "there may be more blocks")
        return kept

    def _without_end(self, places: list[SalvagedBlock]) -> Iterator[SalvagedBlock]:
        """Leave out metaindex block, index block and what follows: they hold no entries of data."""
        ended = False
        known: set[int] = set()
        for number, place in enumerate(places):
            contents = None if ended or not place.proved else self._look.contents(place)
            if contents is not None:
                ended = number > 0 and self._is_end(contents, known)
            if place.proved:
                known.add(place.size)
            if ended:
                self._look.mark(place.offset, place.end, "verified" if place.proved else "bad")
            elif number and place.size < FOOTER_SIZE and self._is_stump(place):
                # What is left of the metaindex block, the index block or the footer.
                self._look.mark(place.offset, place.end, "bad")
            else:
                yield place
        self.complete = ended

    def _is_stump(self, place: SalvagedBlock) -> bool:
        """Tell whether a few bytes that are no whole block hold no entry."""
        if place.framed:
            return False
        look = self._look
        data = look.source.read_at(place.offset, place.size)
        return next(iter_resumed(data, look.accept, look.budget, whole=False), None) is None

    def _is_end(self, contents: bytes, before: Collection[int]) -> bool:
        """Tell whether a block behind others is the metaindex block or the index block.

        Args:
            contents: Of the block.
            before: The sizes of the proved blocks before it.
        """
        return contents == _EMPTY_BLOCK or (
            bool(before) and _is_index_block(contents, before, self._look.limits)
        )

    def _next_block(self, position: int, finder: BlockFinder) -> SalvagedBlock:
        """Return the proved block that starts there, else the stretch up to the next one."""
        size = self._look.source.size
        end = finder.end_at(position)
        if end is not None:
            return SalvagedBlock(position, end - position, proved=True)
        start = finder.start_after(position)
        if start is None or start == position:
            return SalvagedBlock(position, size - position, proved=False, framed=False)
        framed = start - position >= TRAILER_SIZE
        length = start - position - (TRAILER_SIZE if framed else 0)
        return SalvagedBlock(position, length, proved=False, framed=framed)


def _is_index_block(contents: bytes, known: Collection[int], limits: Limits) -> bool:
    """Tell whether a block lists blocks: each value a handle, one of them of a known size."""
    try:
        block = Block.from_bytes(contents)
        if not _may_list_blocks(block):
            return False
        entries = block.decode_entries(limits=limits)
        handles = [
            BlockHandle.from_bytes(contents, start, stop)
            for start, stop in zip(entries.starts, entries.ends, strict=True)
        ]
    except CheckpointError:
        return False
    return bool(handles) and any(handle.size in known for handle, _ in handles)


def _may_list_blocks(block: Block) -> bool:
    """Tell whether the first two values are handles, of a block and one behind it.

    Raises:
        MalformedError: The block cannot be decoded, or they are no handles.
    """
    position = end = 0
    for _ in range(2):
        if position < block.entries_end:
            _, _, start, position = decode_entry(block.contents, position, block.entries_end)
            handle, _ = BlockHandle.from_bytes(block.contents, start, position)
            if handle.offset < end:
                return False
            end = handle.end
    return True
