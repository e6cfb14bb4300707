"""Read a table that may be damaged: what its own checksums prove, and what only looks right.

The strict way is tried first: footer, index block, data blocks (docs/format.md, section 1). If the
footer or the index block is damaged, the blocks are found by their own checksums:

    block 0 | type crc | block 1 | type crc | ...

A raw block ends in its restart array, which is recognised by its bytes; the block's checksum proves
this end, and the next block starts right after it. Inside a block whose checksum fails, reading
starts again at every restart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from ckptparse.coding.checksum import crc32c, mask_crc, unmask_crc
from ckptparse.coding.varint import encode_varint
from ckptparse.crc.flips import HIGHEST_CHANCE, chance_of_bit, find_bit, find_crc_bit
from ckptparse.errors import CheckpointError, LimitError, MalformedError
from ckptparse.examination.carving import BlockFinder, fixed32
from ckptparse.examination.conversions import UndoneLineEnds
from ckptparse.examination.outcome import (
    CHECKSUM_CHANCE,
    ByteRange,
    EvidenceRecord,
    PatchedRange,
)
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import FileRange
from ckptparse.examination.resuming import Accept, Budget, iter_resumed, longest_rising
from ckptparse.files.storage import Source
from ckptparse.limits import Limits
from ckptparse.problems import EvidenceRule, Problem
from ckptparse.table.block import Block, KeyOrderError
from ckptparse.table.format import (
    FOOTER_SIZE,
    MAGIC,
    TRAILER_SIZE,
    BlockHandle,
    Footer,
    decompress_block,
    read_footer,
)

__all__ = [
    "INDEX_CODES",
    "LEGACY_CODES",
    "SalvagedBlock",
    "SalvagedEntry",
    "SalvagedTable",
    "TableCodes",
    "read_salvaged",
    "salvage_table",
]

_LONGEST_BLOCK = 1 << 24
"""Bytes of an index block at most, if its end is not known: 64 times what TensorFlow writes. V1
blocks hold whole tensors, so they have no such bound."""
_LEAST_BLOCKS, _SMALL_BLOCK = 4096, 256
"""A table has at most so many blocks, and one more for each 256 bytes. Writers make blocks of 4 to
256 KiB; each costs 30 us, and a hostile table would have one for each 13 bytes."""
_MOST_CORRECTED = 256
"""Damaged blocks of one table in which a flipped bit is looked for, at 3 ms each."""
_EMPTY_BLOCK = bytes.fromhex("0000000001000000")
"""A block without entries, as writers leave the metaindex block: one restart, 0 (section 1.5)."""
_WORTH_OFFERING = 0.5
"""A corrected bit is not offered if it is wrong more often than right."""
_CRC_BITS = 32
"""Bits of a stored checksum. That one of them is flipped fits any damage with 32 in 2^32."""
_TEXT_SAMPLE = 1 << 20
"""Bytes of a table's start that show whether its line feeds were turned into CR LF."""


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
class SalvagedTable:
    """What can be read from a table.

    Attributes:
        file: What was read: the file, or the file with a conversion undone.
        size: Of the file as it is stored, in bytes.
        entries: In the order of the file; keys may repeat.
        blocks: The data blocks that are known, in that order.
        complete: Whether every block of the file was proved, so that nothing is missing.
        problems: What is wrong with it.
        ranges: What each run of its bytes is.
    """

    file: DataFile
    size: int
    entries: list[SalvagedEntry]
    blocks: list[SalvagedBlock]
    complete: bool
    problems: list[Problem]
    ranges: list[FileRange]

    @property
    def proves(self) -> bool:
        """Whether a checksum proves any of its entries."""
        return any(entry.proved for entry in self.entries)

    def block_of(self, key: bytes) -> SalvagedBlock | None:
        """Return the block that holds a key, as the index block says; None if none does."""
        if not self.blocks or self.blocks[0].separator is None:
            return None
        place = bisect_left(self.blocks, key, key=lambda block: block.separator or b"")
        return self.blocks[place] if place < len(self.blocks) else None


def salvage_table(
    files: DataFiles,
    path: str,
    codes: TableCodes,
    *,
    accept: Accept,
    correct: bool = False,
    keep: int | None = None,
) -> SalvagedTable:
    """Read what a table still gives. If nothing is proved, undo a conversion of line ends first.

    Args:
        files: What opens it.
        path: The file.
        codes: The codes of its problems.
        accept: Tells whether a key and a value that no checksum covers look right.
        correct: Whether to correct a block if one flipped bit explains its checksum.
        keep: Keep proved values of up to so many bytes; longer ones are read from their block when
            they are needed. None keeps all.

    Raises:
        CheckpointError: It cannot be opened, or is larger than the limits allow.
    """
    table = _Scan(files, DataFile(path), codes, accept, correct=correct, keep=keep).run()
    if table.proves or not _may_be_text(files, DataFile(path)):
        return table
    file = DataFile(path, UndoneLineEnds)
    try:
        undone = _Scan(files, file, codes, accept, correct=correct, keep=keep).run()
    except CheckpointError:
        return table
    if not undone.proves:
        return table
    what = "every line feed in it became CR LF; with this undone, the file can be read"
    return replace(
        undone,
        size=table.size,
        problems=[*undone.problems, Problem.of(codes.text, path, what)],
        ranges=[FileRange(0, table.size, "bad")],
    )


def _may_be_text(files: DataFiles, file: DataFile) -> bool:
    """Tell whether every line feed at the start of a file follows a carriage return."""
    source = files.source(file)
    sample = source.read_at(0, min(_TEXT_SAMPLE, source.size))
    feeds = sample.count(b"\n")
    return feeds > 0 and feeds == sample.count(b"\r\n")


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


@dataclass(frozen=True, slots=True)
class _Corrected:
    """A block with one flipped bit flipped back.

    Attributes:
        contents: What it holds then.
        chance: Chance that it was another change.
        what: Which bit it was, in words.
        change: Offset in the block, the bytes that stand there, and those that belong there.
    """

    contents: bytes
    chance: float
    what: str
    change: tuple[int, bytes, bytes]


class _Scan:
    """One scan of one table."""

    def __init__(
        self,
        files: DataFiles,
        file: DataFile,
        codes: TableCodes,
        accept: Accept,
        *,
        correct: bool,
        keep: int | None,
    ) -> None:
        if files.size(file) is None:
            raise files.failure(file) or MalformedError("It cannot be opened", path=file.path)
        self.files = files
        self.file = file
        self.source: Source = files.source(file)
        self.codes = codes
        self.accept = accept
        self.limits: Limits = files.context.limits
        self.correct = correct
        self.keep = keep
        self.problems: list[Problem] = []
        self.ranges: list[FileRange] = []
        self.entries: list[SalvagedEntry] = []
        self.complete = True
        self.corrected = 0
        """How many damaged blocks were looked at for a flipped bit."""
        self.budget = Budget(self.limits, self.source.size)
        self.lower: bytes | None = None
        """The separator of the block before the one that is read; the keys of this come after."""

    def run(self) -> SalvagedTable:
        if self.keep is None:
            self.limits.check("index_bytes", self.source.size, "The size", path=self.file.path)
        footer = self._footer()
        places = None if footer is None else self._listed(footer)
        if places is None:
            places = self._found()
        for place in places:
            self.complete &= self._take(place)
            self.lower = place.separator
            self.files.note_read(place.end - place.offset)
        self._check_order()
        ranges = _fill(self.ranges, self.source.size)
        strays = [part.stop - part.start for part in ranges if part.kind == "unreferenced"]
        if strays:
            what = f"nothing refers to {sum(strays)} bytes in {len(strays)} places"
            self._report(self.codes.unreferenced, what)
        return SalvagedTable(
            self.file,
            self.source.size,
            self.entries,
            places,
            self.complete,
            self.problems,
            ranges,
        )

    @property
    def _most_blocks(self) -> int:
        """How many blocks are looked at: writers make larger ones, and each costs 30 us."""
        return _LEAST_BLOCKS + self.source.size // _SMALL_BLOCK

    # -- problems and ranges

    def _report(self, code: str, message: str) -> None:
        self.problems.append(Problem.of(code, self.file.path, message))

    def _mark(self, start: int, stop: int, kind: str) -> None:
        if start < stop:
            self.ranges.append(FileRange(start, min(stop, self.source.size), kind))

    # -- the strict way

    def _footer(self) -> Footer | None:
        try:
            footer = read_footer(self.source)
        except CheckpointError as error:
            self._report(self.codes.footer, error.message)
            return None
        if footer.index.end > self.source.size - FOOTER_SIZE:
            message = f"the footer places the index block beyond the file's end: {footer.index}"
            self._report(self.codes.footer, message)
            return None
        self._mark(self.source.size - FOOTER_SIZE, self.source.size, "verified")
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
        found = self.source.read_at(self.source.size - FOOTER_SIZE, size)
        if found != usual.ljust(size, b"\0"):
            message = "expected zeros after the footer's two handles, found other bytes"
            self._report(self.codes.unreferenced, message)

    def _check_metaindex(self, footer: Footer) -> None:
        handle = footer.metaindex
        if handle.end > self.source.size - FOOTER_SIZE:
            message = f"the footer places the metaindex block beyond the file's end: {handle}"
            self._report(self.codes.metaindex, message)
            return
        good = self._proved(handle.offset, handle.size)
        if good:
            self._mark(handle.offset, handle.end, "verified")
            return
        self._mark(handle.offset, handle.end, "bad")
        message = f"the checksum of the block at offset {handle.offset} does not match"
        self._report(self.codes.metaindex, message)

    def _listed(self, footer: Footer) -> list[SalvagedBlock] | None:
        """Return the blocks that the index block lists; None if it cannot be used."""
        handle = footer.index
        contents = self._contents(SalvagedBlock(handle.offset, handle.size, proved=True))
        proved = self._proved(handle.offset, handle.size)
        self._mark(handle.offset, handle.end, "verified" if proved else "bad")
        if not proved:
            message = f"the checksum of the block at offset {handle.offset} does not match"
            self._report(self.codes.index_block, message)
            return None
        try:
            return self._decode_handles(contents or b"", handle)
        except MalformedError as error:
            self._report(self.codes.index_block, error.message)
            return None

    def _decode_handles(self, contents: bytes, index: BlockHandle) -> list[SalvagedBlock]:
        entries = Block.from_bytes(contents).decode_entries(limits=self.limits)
        if len(entries.keys) > self._most_blocks:
            raise MalformedError(
                f"it lists {len(entries.keys)} blocks in a table of {self.source.size} bytes"
            )
        places: list[SalvagedBlock] = []
        end = 0
        rows = zip(entries.keys, entries.starts, entries.ends, strict=True)
        for separator, start, stop in rows:
            handle, _ = BlockHandle.from_bytes(contents[start:stop])
            if handle.offset < end or handle.end > index.offset:
                raise MalformedError(
                    f"Expected a block between bytes {end} and {index.offset}, found {handle}"
                )
            if handle.offset > end:
                self._mark(end, handle.offset, "unreferenced")
            end = handle.end
            proved = self._proved(handle.offset, handle.size)
            places.append(
                SalvagedBlock(handle.offset, handle.size, proved=proved, separator=separator)
            )
        return places

    # -- by the blocks' own checksums

    def _found(self) -> list[SalvagedBlock]:
        """Return the data blocks, found without the index block, and the bytes between them."""
        places: list[SalvagedBlock] = []
        position, size = 0, self.source.size
        finder = BlockFinder(self.source, longest=_LONGEST_BLOCK if self.keep is None else None)
        while position < size:
            if len(places) < self._most_blocks:
                place = self._next_block(position, finder)
            else:
                place = SalvagedBlock(position, size - position, proved=False, framed=False)
            places.append(place)
            position = place.end
        return list(self._without_end(places))

    def _without_end(self, places: list[SalvagedBlock]) -> Iterator[SalvagedBlock]:
        """Leave out metaindex block, index block and what follows: they hold no entries of data."""
        ended = False
        known: set[int] = set()
        for number, place in enumerate(places):
            contents = None if ended or not place.proved else self._contents(place)
            if contents is not None:
                ended = number > 0 and self._is_end(contents, known)
            if place.proved:
                known.add(place.size)
            if ended:
                self._mark(place.offset, place.end, "verified" if place.proved else "bad")
            elif number and place.size < FOOTER_SIZE and self._is_stump(place):
                # What is left of the metaindex block, the index block or the footer.
                self._mark(place.offset, place.end, "bad")
            else:
                yield place
        self.complete &= ended

    def _is_stump(self, place: SalvagedBlock) -> bool:
        """Tell whether a few bytes that are no whole block hold no entry."""
        if place.framed:
            return False
        data = self.source.read_at(place.offset, place.size)
        return next(iter_resumed(data, self.accept, self.budget, whole=False), None) is None

    def _is_end(self, contents: bytes, before: Collection[int]) -> bool:
        """Tell whether a block behind others is the metaindex block or the index block.

        Args:
            contents: Of the block.
            before: The sizes of the proved blocks before it.
        """
        return contents == _EMPTY_BLOCK or (
            bool(before) and _is_index_block(contents, before, self.limits)
        )

    def _next_block(self, position: int, finder: BlockFinder) -> SalvagedBlock:
        """Return the proved block that starts there, else the stretch up to the next one."""
        size = self.source.size
        end = finder.end_at(position)
        if end is not None:
            return SalvagedBlock(position, end - position, proved=True)
        start = finder.start_after(position)
        if start is None or start == position:
            return SalvagedBlock(position, size - position, proved=False, framed=False)
        framed = start - position >= TRAILER_SIZE
        length = start - position - (TRAILER_SIZE if framed else 0)
        return SalvagedBlock(position, length, proved=False, framed=framed)

    # -- the contents of a block

    def _take(self, place: SalvagedBlock) -> bool:
        """Take a block's entries, and tell whether all of them are proved."""
        if place.proved:
            return self._take_proved(place)
        data = self.source.read_at(place.offset, place.end - place.offset)
        fixed = self._corrected(data) if self.correct and place.framed else None
        if fixed is None:
            self._mark(place.offset, place.end, "bad")
            self._report(self.codes.block, self._describe(place))
            self.entries.extend(self._resume(data[: place.size], place))
            return False
        self._mark(place.offset, place.end, "bad")
        message = f"the checksum of the block at offset {place.offset} does not match: {fixed.what}"
        self._report(self.codes.block, message)
        return self._take_corrected(place, fixed)

    def _take_corrected(self, place: SalvagedBlock, fixed: _Corrected) -> bool:
        contents, chance = fixed.contents, fixed.chance
        decoded = Block.from_bytes(contents).decode_entries(limits=self.limits)
        proved = chance <= HIGHEST_CHANCE
        grounds = (self._ground(EvidenceRule.CORRECTED_ENTRY, place, chance),)
        at, old, new = fixed.change
        patches = (PatchedRange.of(self.file.path, place.offset + at, old, new),)
        for key, start, stop in zip(decoded.keys, decoded.starts, decoded.ends, strict=True):
            value = contents[start:stop]
            entry = SalvagedEntry(key, value, proved, chance, None, grounds, patches)
            self.entries.append(entry)
        return proved

    def _ground(
        self, rule: EvidenceRule, place: SalvagedBlock, chance: float | None
    ) -> EvidenceRecord:
        where = ByteRange(self.file.path, place.offset, place.end - place.offset)
        return EvidenceRecord.at(rule, where, chance)

    def _describe(self, place: SalvagedBlock) -> str:
        if place.framed:
            return (
                f"the checksum of the block at offset {place.offset} ({place.size} bytes) does not "
                "match"
            )
        return (
            f"expected a block at offset {place.offset}, found {place.size} bytes that are no "
            "whole block"
        )

    def _take_proved(self, place: SalvagedBlock) -> bool:
        try:
            contents = self._decompressed(place)
        except CheckpointError as error:
            return self._take_broken(place, b"", error)
        try:
            decoded = Block.from_bytes(contents).decode_entries(limits=self.limits)
        except LimitError:
            raise
        except CheckpointError as error:
            return self._take_broken(place, contents, error)
        self._mark(place.offset, place.end, "verified")
        most = len(contents) if self.keep is None else self.keep
        grounds = (self._ground(EvidenceRule.ENTRY, place, CHECKSUM_CHANCE),)
        for key, start, stop in zip(decoded.keys, decoded.starts, decoded.ends, strict=True):
            value = contents[start:stop] if stop - start <= most else None
            self.entries.append(SalvagedEntry(key, value, block=place, grounds=grounds))
        return True

    def _take_broken(self, place: SalvagedBlock, contents: bytes, error: CheckpointError) -> bool:
        """Take what looks right out of a block whose checksum agrees and which breaks the rules."""
        self._mark(place.offset, place.end, "bad")
        unsorted = isinstance(error, KeyOrderError)
        code = self.codes.order if unsorted else self.codes.block
        self._report(code, f"the block at offset {place.offset}: {error.message}")
        self.entries.extend(self._resume(contents, place))
        return False

    def _proved(self, offset: int, size: int) -> bool:
        stored = self.source.read_at(offset, size + TRAILER_SIZE)
        crc = crc32c(memoryview(stored)[: size + 1])
        return unmask_crc(fixed32(stored, size + 1)) == crc

    def _contents(self, place: SalvagedBlock) -> bytes | None:
        try:
            return self._decompressed(place)
        except CheckpointError:
            return None

    def _decompressed(self, place: SalvagedBlock) -> bytes:
        stored = self.source.read_at(place.offset, place.size + 1)
        return decompress_block(
            stored[:-1],
            stored[-1],
            limits=self.limits,
            path=self.file.path,
            offset=place.offset,
        )

    def _corrected(self, stored: bytes) -> _Corrected | None:
        """Return the contents with the one flipped bit corrected that explains the checksum."""
        if self.corrected >= _MOST_CORRECTED:
            return None
        self.corrected += 1
        size = len(stored) - TRAILER_SIZE
        # The type byte is covered by the checksum too, so the flipped bit may be in it: size + 1.
        masked = fixed32(stored, size + 1)
        computed = crc32c(memoryview(stored)[: size + 1])
        fixed, what = stored, "one bit of the stored checksum is flipped"
        chance = _CRC_BITS / 2**32
        right = mask_crc(computed).to_bytes(4, "little")
        changed = size + 1, stored[size + 1 : size + 5], right
        if not find_crc_bit(masked, mask_crc(computed)):
            change = find_bit(unmask_crc(masked), computed, size + 1)
            chance = chance_of_bit(size + 1)
            if change is None or chance > _WORTH_OFFERING:
                return None
            fixed = change.apply(stored)
            what = f"bit {change.bit} of byte {change.offset} is flipped"
            part = slice(change.offset, change.offset + len(change.mask))
            changed = change.offset, stored[part], fixed[part]
        contents = self._sound(fixed, size)
        return None if contents is None else _Corrected(contents, chance, what, changed)

    def _sound(self, stored: bytes, size: int) -> bytes | None:
        """Return the contents of a corrected block if every entry in it follows the rules."""
        try:
            contents = decompress_block(
                stored[:size], stored[size], limits=self.limits, path="", offset=0
            )
            decoded = Block.from_bytes(contents).decode_entries(limits=self.limits)
        except CheckpointError:
            return None
        values = zip(decoded.keys, decoded.starts, decoded.ends, strict=True)
        if all(self.accept(key, contents[start:stop]) for key, start, stop in values):
            return contents
        return None

    def _resume(self, contents: bytes, place: SalvagedBlock) -> Iterator[SalvagedEntry]:
        """Iterate over the entries of damaged contents that look right, in order.

        Their keys must lie between the separators of the block before and of this block.
        """
        block = place if place.framed and not place.proved else None
        lower = self.lower
        grounds = (self._ground(EvidenceRule.DAMAGED_ENTRY, place, None),)
        found = [
            (key, value)
            for key, value in iter_resumed(contents, self.accept, self.budget, whole=place.framed)
            if (lower is None or key > lower)
            and (place.separator is None or key <= place.separator)
        ]
        for number in longest_rising([key for key, _ in found]):
            key, value = found[number]
            yield SalvagedEntry(key, value, proved=False, block=block, grounds=grounds)

    def _check_order(self) -> None:
        """Report keys that do not rise; of those without proof, keep the longest rising chain."""
        kept: list[SalvagedEntry] = []
        waiting: list[SalvagedEntry] = []
        for entry in self.entries:
            if not entry.proved:
                waiting.append(entry)
                continue
            kept += _between(kept[-1].key if kept else None, waiting, entry.key)
            waiting = []
            if kept and entry.key <= kept[-1].key:
                message = f"expected a key above {kept[-1].key!r}, found {entry.key!r}"
                self._report(self.codes.order, message)
                kept.append(replace(entry, proved=False))
            else:
                kept.append(entry)
        kept += _between(kept[-1].key if kept else None, waiting, None)
        self.entries = kept


def _between(
    lower: bytes | None, entries: Sequence[SalvagedEntry], upper: bytes | None
) -> list[SalvagedEntry]:
    """Return the longest chain of entries whose keys rise, between two proved keys."""
    fitting = [
        entry
        for entry in entries
        if (lower is None or entry.key > lower) and (upper is None or entry.key < upper)
    ]
    return [fitting[number] for number in longest_rising([entry.key for entry in fitting])]


def _fill(ranges: Sequence[FileRange], size: int) -> list[FileRange]:
    """Sort ranges. The bytes between them become ranges of the kind `unreferenced`."""
    filled: list[FileRange] = []
    position = 0
    for part in sorted(ranges, key=lambda part: part.start):
        if part.start > position:
            filled.append(FileRange(position, part.start, "unreferenced"))
        if part.stop > position:
            filled.append(FileRange(max(position, part.start), part.stop, part.kind))
            position = part.stop
    if position < size:
        filled.append(FileRange(position, size, "unreferenced"))
    return filled


def _is_index_block(contents: bytes, known: Collection[int], limits: Limits) -> bool:
    """Tell whether a block lists blocks: each value a handle, one of them of a known size."""
    try:
        entries = Block.from_bytes(contents).decode_entries(limits=limits)
        handles = [
            BlockHandle.from_bytes(contents[start:stop])
            for start, stop in zip(entries.starts, entries.ends, strict=True)
        ]
    except CheckpointError:
        return False
    return bool(handles) and any(handle.size in known for handle, _ in handles)
