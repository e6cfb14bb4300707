"""Read a table that may be broken: what its own checksums prove, and what merely looks right.

The strict way is tried first: footer, index block, data blocks (docs/format.md, section 1). Where
the footer or the index block is gone, the blocks are found by their own checksums:

    block 0 | type crc | block 1 | type crc | ...

A raw block ends in its restart array, whose first offset is 0 and whose count comes last, so the
ends of blocks can be told by their look and proved by their checksum; the next block starts right
there. Inside a block whose checksum fails, reading starts again at every restart point.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, mask_crc, unmask_crc
from ckptparse.coding.varint import encode_varint
from ckptparse.crc.field import WideTable, multiply, multiply_table, power_of_x
from ckptparse.crc.flips import HIGHEST_CHANCE, chance_of_bit, find_bit, find_crc_bit
from ckptparse.errors import CheckpointError, MalformedError, TruncatedError
from ckptparse.examination.readers import Reader, open_reader, undone_path
from ckptparse.examination.report import FileRange
from ckptparse.limits import Limits
from ckptparse.problems import Problem
from ckptparse.table.block import Block, decode_entry
from ckptparse.table.format import (
    FOOTER_SIZE,
    MAGIC,
    TRAILER_SIZE,
    BlockHandle,
    Footer,
    decompress_block,
)

__all__ = ["ScannedEntry", "ScannedTable", "scan_table", "scan_undone"]

Accept = Callable[[bytes, bytes], bool]
_BLOCK_KINDS = (0, 1)
_WINDOW = 1 << 19
_LONGEST_BLOCK = 1 << 24
"""Bytes of a block of an index at most, where its place is not known. V1 blocks can be longer."""
_MOST_CANDIDATES = 1 << 20
"""Places that are tried one by one: enough for any block that was ever written."""
_MOST_STARTS = 1 << 16
"""Places that are tried as the start of an entry in a damaged block: each takes longer."""
_CARVED = 1 << 24
"""Bytes in which blocks are looked for anywhere; elsewhere only where one block ends."""
_EMPTY_BLOCK = bytes.fromhex("0000000001000000")
_WORTH_OFFERING = 0.5
_WORD = 4


@dataclass(frozen=True, slots=True)
class ScannedEntry:
    """A key and value.

    Attributes:
        key: The key, written out.
        value: The value.
        proved: Whether a checksum covers both.
        chance: Chance that they are wrong: not 0 where a bit of the block was corrected.
        place: Offset and size of the block; None where the value is only to be had here.
    """

    key: bytes
    value: bytes
    proved: bool = True
    chance: float = 0.0
    place: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ScannedTable:
    """What a table still gives.

    Attributes:
        path: The file.
        size: Of the file.
        entries: In the order of the file; keys may repeat.
        complete: Whether every block of the file was proved, so that nothing is missing.
        problems: What is wrong with it.
        ranges: What each run of its bytes is.
    """

    path: str
    size: int
    entries: list[ScannedEntry]
    complete: bool
    problems: list[Problem]
    ranges: list[FileRange]

    @property
    def proves(self) -> bool:
        """Whether a checksum proves any of its entries."""
        return any(entry.proved for entry in self.entries)


@dataclass(frozen=True, slots=True)
class _Place:
    """A block's place, and whether its checksum holds; `end` includes the trailer."""

    offset: int
    size: int
    proved: bool
    framed: bool = True
    """Whether both its ends are known."""

    @property
    def end(self) -> int:
        return self.offset + self.size + (TRAILER_SIZE if self.framed else 0)


def scan_table(
    source: Reader,
    *,
    area: str,
    accept: Accept,
    limits: Limits,
    correct: bool = False,
    keep: int | None = None,
) -> ScannedTable:
    """Read whatever a table still gives.

    Args:
        source: The open file.
        area: First part of the codes of its problems: `index` or `v1`.
        accept: Tells whether a key and value that no checksum covers look right.
        limits: Bounds on what is read.
        correct: Whether to correct a block that one flipped bit explains.
        keep: Keep no proved value that is longer, since its place tells where to read it; None
            keeps all.
    """
    scan = _Scan(source, area, accept, limits, correct=correct, keep=keep)
    return scan.run()


def scan_undone(
    path: str, *, area: str, accept: Accept, limits: Limits, correct: bool
) -> ScannedTable | None:
    """Scan a file with a conversion of line ends undone; None where that gives nothing."""
    try:
        with closing(open_reader(undone_path(path))) as reader:
            table = scan_table(reader, area=area, accept=accept, limits=limits, correct=correct)
    except CheckpointError:
        return None
    if not table.proves:
        return None
    what = "its line feeds were turned into CR LF; with that undone, it can be read"
    return replace(
        table,
        path=path,
        problems=[*table.problems, Problem.of(f"{area}.text", path, what)],
        ranges=[FileRange(0, os.path.getsize(path), "bad")],
    )


class _Scan:
    """One scan of one table."""

    def __init__(
        self,
        source: Reader,
        area: str,
        accept: Accept,
        limits: Limits,
        *,
        correct: bool,
        keep: int | None,
    ) -> None:
        self.source = source
        self.area = area
        self.accept = accept
        self.limits = limits
        self.correct = correct
        self.keep = keep
        self.problems: list[Problem] = []
        self.ranges: list[FileRange] = []
        self.entries: list[ScannedEntry] = []
        self.complete = True

    def run(self) -> ScannedTable:
        if self.keep is None:
            self.limits.check("index_bytes", self.source.size, "The size", path=self.source.path)
        footer = self._footer()
        places = None if footer is None else self._listed(footer)
        if places is None:
            places = self._found()
        for place in places:
            self.complete &= self._take(place)
        self._check_order()
        ranges = _fill(self.ranges, self.source.size)
        strays = [part.stop - part.start for part in ranges if part.kind == "unreferenced"]
        if strays:
            self._report("unreferenced", f"{sum(strays)} bytes in {len(strays)} places")
        return ScannedTable(
            self.source.path,
            self.source.size,
            self.entries,
            self.complete,
            self.problems,
            ranges,
        )

    # -- problems and ranges

    def _report(self, kind: str, message: str) -> None:
        self.problems.append(Problem.of(f"{self.area}.{kind}", self.source.path, message))

    def _mark(self, start: int, stop: int, kind: str) -> None:
        if start < stop:
            self.ranges.append(FileRange(start, min(stop, self.source.size), kind))

    # -- the strict way

    def _footer(self) -> Footer | None:
        try:
            footer = self._read_footer()
        except CheckpointError as error:
            self._report("footer", error.message)
            return None
        if footer.index.end > self.source.size - FOOTER_SIZE:
            self._report("footer", f"it points beyond the file: {footer.index}")
            return None
        self._mark(self.source.size - FOOTER_SIZE, self.source.size, "verified")
        self._check_padding(footer)
        self._check_metaindex(footer)
        return footer

    def _read_footer(self) -> Footer:
        offset = self.source.size - FOOTER_SIZE
        if offset < 0:
            raise TruncatedError(
                f"The file is too short to be an sstable: expected at least {FOOTER_SIZE} bytes, "
                f"found {self.source.size}"
            )
        return Footer.from_bytes(self.source.read_at(offset, FOOTER_SIZE))

    def _check_padding(self, footer: Footer) -> None:
        """Report handles and padding that are not as every writer leaves them; readers take all."""
        handles = (footer.metaindex, footer.index)
        usual = b"".join(encode_varint(n) for one in handles for n in (one.offset, one.size))
        size = FOOTER_SIZE - len(MAGIC)
        found = self.source.read_at(self.source.size - FOOTER_SIZE, size)
        if found != usual.ljust(size, b"\0"):
            self._report("unreferenced", "the footer's padding is not zero")

    def _check_metaindex(self, footer: Footer) -> None:
        handle = footer.metaindex
        if handle.end > self.source.size - FOOTER_SIZE:
            self._report("metaindex", f"the footer places it beyond the file: {handle}")
            return
        good = self._proved(handle.offset, handle.size)
        if good:
            self._mark(handle.offset, handle.end, "verified")
            return
        self._mark(handle.offset, handle.end, "bad")
        self._report("metaindex", f"checksum does not match at offset {handle.offset}")

    def _listed(self, footer: Footer) -> list[_Place] | None:
        """Return the places that the index block lists, or None where it cannot be used."""
        handle = footer.index
        contents = self._contents(_Place(handle.offset, handle.size, proved=True))
        proved = self._proved(handle.offset, handle.size)
        self._mark(handle.offset, handle.end, "verified" if proved else "bad")
        if not proved:
            self._report("index_block", f"checksum does not match at offset {handle.offset}")
            return None
        try:
            return self._decode_handles(contents or b"", handle)
        except MalformedError as error:
            self._report("index_block", error.message)
            return None

    def _decode_handles(self, contents: bytes, index: BlockHandle) -> list[_Place]:
        entries = Block.from_bytes(contents).decode_entries(limits=self.limits)
        places: list[_Place] = []
        end = 0
        for start, stop in zip(entries.starts, entries.ends, strict=True):
            handle, _ = BlockHandle.from_bytes(contents[start:stop])
            if handle.offset < end or handle.end > index.offset:
                raise MalformedError(f"it places a block where none can be: {handle}")
            if handle.offset > end:
                self._mark(end, handle.offset, "unreferenced")
            end = handle.end
            proved = self._proved(handle.offset, handle.size)
            places.append(_Place(handle.offset, handle.size, proved=proved))
        return places

    # -- by the blocks' own checksums

    def _found(self) -> list[_Place]:
        """Return the data blocks, found without the index, and the stretches between them."""
        places: list[_Place] = []
        position, size = 0, self.source.size
        while position < size:
            place = self._next_block(position)
            if place is None:
                place = self._skip_to_block(position)
            places.append(place)
            position = place.end
        return list(self._without_end(places))

    def _without_end(self, places: list[_Place]) -> Iterator[_Place]:
        """Leave out metaindex block, index block and what follows: they hold no entries."""
        ended = False
        for number, place in enumerate(places):
            contents = self._contents(place) if place.proved else None
            ended |= contents is not None and self._is_end(contents, places[:number])
            if ended:
                self._mark(place.offset, place.end, "verified" if place.proved else "bad")
            elif number and place.size < FOOTER_SIZE and not place.framed:
                # A stump of the metaindex block, the index block or the footer.
                self._mark(place.offset, place.end, "bad")
            else:
                yield place
        self.complete &= ended

    def _is_end(self, contents: bytes, before: list[_Place]) -> bool:
        if contents == _EMPTY_BLOCK:
            return bool(before)
        return _is_index_block(contents, before, self.limits)

    def _next_block(self, position: int) -> _Place | None:
        """Find the proved block that starts at a position, by every end that looks like one."""
        size = self.source.size
        if self.area == "index":
            size = min(size, position + _LONGEST_BLOCK)
        window = _WINDOW
        seen = 0
        crc = 0
        while True:
            stop = min(position + window, size)
            data = self.source.read_at(position, stop - position)
            for end in _likely_ends(data, seen)[:_MOST_CANDIDATES]:
                crc = crc32c(memoryview(data)[seen : end + 1], crc)
                seen = end + 1
                if crc == unmask_crc(_fixed32(data, end + 1)):
                    return _Place(position, end, proved=True)
            if stop == size:
                return None
            window *= 2

    def _skip_to_block(self, position: int) -> _Place:
        """Return the stretch up to the next proved block, or to the end of the file."""
        size = self.source.size
        data = self.source.read_at(position, min(size - position, _CARVED))
        for start in _carve(data):
            if start >= TRAILER_SIZE:
                return _Place(position, start - TRAILER_SIZE, proved=False)
            if start:
                return _Place(position, start, proved=False, framed=False)
        return _Place(position, size - position, proved=False, framed=False)

    # -- the contents of a block

    def _take(self, place: _Place) -> bool:
        """Take over a block's entries; tell whether all of them are proved."""
        if place.proved:
            return self._take_proved(place)
        data = self.source.read_at(place.offset, place.end - place.offset)
        fixed = self._corrected(data) if self.correct and place.framed else None
        if fixed is None:
            self._mark(place.offset, place.end, "bad")
            self._report("block", self._describe(place))
            self.entries.extend(self._resume(data[: place.size]))
            return False
        contents, chance, what = fixed
        self._mark(place.offset, place.end, "bad")
        self._report("block", f"checksum does not match at offset {place.offset}: {what}")
        decoded = Block.from_bytes(contents).decode_entries(limits=self.limits)
        proved = chance <= HIGHEST_CHANCE
        for key, start, stop in zip(decoded.keys, decoded.starts, decoded.ends, strict=True):
            self.entries.append(
                ScannedEntry(key, contents[start:stop], proved=proved, chance=chance)
            )
        return proved

    def _describe(self, place: _Place) -> str:
        if place.framed:
            return f"checksum does not match in the {place.size} bytes at offset {place.offset}"
        return f"the {place.size} bytes from offset {place.offset} are no whole block"

    def _take_proved(self, place: _Place) -> bool:
        try:
            contents = self._decompressed(place)
        except CheckpointError as error:
            return self._take_broken(place, b"", error)
        try:
            decoded = Block.from_bytes(contents).decode_entries(limits=self.limits)
        except CheckpointError as error:
            return self._take_broken(place, contents, error)
        self._mark(place.offset, place.end, "verified")
        at = (place.offset, place.size)
        most = len(contents) if self.keep is None else self.keep
        for key, start, stop in zip(decoded.keys, decoded.starts, decoded.ends, strict=True):
            value = contents[start:stop] if stop - start <= most else b""
            self.entries.append(ScannedEntry(key, value, proved=True, place=at))
        return True

    def _take_broken(self, place: _Place, contents: bytes, error: CheckpointError) -> bool:
        """Take what looks right out of a block that has its checksum and breaks the rules."""
        self._mark(place.offset, place.end, "bad")
        kind = "order" if "strictly increase" in error.message else "block"
        self._report(kind, f"at offset {place.offset}: {error.message}")
        self.entries.extend(self._resume(contents))
        return False

    def _proved(self, offset: int, size: int) -> bool:
        stored = self.source.read_at(offset, size + TRAILER_SIZE)
        crc = crc32c(memoryview(stored)[: size + 1])
        return unmask_crc(_fixed32(stored, size + 1)) == crc

    def _contents(self, place: _Place) -> bytes | None:
        try:
            return self._decompressed(place)
        except CheckpointError:
            return None

    def _decompressed(self, place: _Place) -> bytes:
        stored = self.source.read_at(place.offset, place.size + 1)
        return decompress_block(
            stored[:-1],
            stored[-1],
            limits=self.limits,
            path=self.source.path,
            offset=place.offset,
        )

    def _corrected(self, stored: bytes) -> tuple[bytes, float, str] | None:
        """Return the contents with the one flipped bit corrected that explains the checksum."""
        size = len(stored) - TRAILER_SIZE
        masked = _fixed32(stored, size + 1)
        computed = crc32c(memoryview(stored)[: size + 1])
        fixed, what = stored, "one bit of the stored checksum differs"
        chance = 32 / 2**32
        if not find_crc_bit(masked, mask_crc(computed)):
            change = find_bit(unmask_crc(masked), computed, size + 1)
            chance = chance_of_bit(size + 1)
            if change is None or chance > _WORTH_OFFERING:
                return None
            fixed = change.apply(stored)
            what = f"bit {change.bit} of byte {change.offset} is flipped"
        return self._sound(fixed, size, chance, what)

    def _sound(
        self, stored: bytes, size: int, chance: float, what: str
    ) -> tuple[bytes, float, str] | None:
        """Return a corrected block if every entry in it keeps the rules."""
        try:
            contents = decompress_block(
                stored[:size], stored[size], limits=self.limits, path="", offset=0
            )
            decoded = Block.from_bytes(contents).decode_entries(limits=self.limits)
        except CheckpointError:
            return None
        values = zip(decoded.keys, decoded.starts, decoded.ends, strict=True)
        if all(self.accept(key, contents[start:stop]) for key, start, stop in values):
            return contents, chance, what
        return None

    def _resume(self, contents: bytes) -> Iterator[ScannedEntry]:
        """Iterate over the entries of damaged contents that look right, in order."""
        previous: bytes | None = None
        for key, value in _iter_resumed(contents, self.accept):
            if previous is None or key > previous:
                previous = key
                yield ScannedEntry(key, value, proved=False)

    def _check_order(self) -> None:
        """Report keys that do not increase; an unproved key out of order is left out."""
        kept: list[ScannedEntry] = []
        for entry in self.entries:
            if kept and entry.key <= kept[-1].key:
                if not entry.proved:
                    continue
                if kept[-1].proved:
                    self._report("order", f"found {entry.key!r} after {kept[-1].key!r}")
                kept.append(replace(entry, proved=False))
            else:
                kept.append(entry)
        self.entries = kept


def _fixed32(data: bytes, position: int) -> int:
    return int(struct.unpack_from("<I", data, position)[0])


def _fill(ranges: Sequence[FileRange], size: int) -> list[FileRange]:
    """Sort ranges, and call what lies between them unreferenced."""
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


def _is_index_block(contents: bytes, before: Sequence[_Place], limits: Limits) -> bool:
    """Tell whether a block lists blocks: each value a handle, the last that of a block before."""
    known = {place.size for place in before if place.proved}
    try:
        entries = Block.from_bytes(contents).decode_entries(limits=limits)
        handles = [
            BlockHandle.from_bytes(contents[start:stop])
            for start, stop in zip(entries.starts, entries.ends, strict=True)
        ]
    except CheckpointError:
        return False
    return bool(handles) and any(handle.size in known for handle, _ in handles)


def _likely_ends(data: bytes, start: int) -> list[int]:
    """Return the positions from `start` at which a block's contents may end: its type byte.

    A raw block ends in a restart array: its length, and before it so many offsets, the first 0. Of
    a compressed one only the type byte is known.
    """
    view = np.frombuffer(data, np.uint8)
    last = len(data) - TRAILER_SIZE
    if last < 8:
        return []
    kinds = view[: last + 1]
    raw = np.flatnonzero(kinds == 0)
    raw = raw[raw >= max(8, start)]
    counts = _words_at(view, raw - _WORD)
    firsts = raw - _WORD - _WORD * counts
    good = (counts > 0) & (firsts >= 0)
    raw, firsts = raw[good], firsts[good]
    raw = raw[_words_at(view, firsts) == 0]
    snappy = np.flatnonzero(kinds == 1)
    # Compressed bytes are random: one in 256 is 1.
    likely = snappy[snappy >= max(1, start)] if len(snappy) <= 64 + last // 16 else snappy[:0]
    ends: list[int] = np.sort(np.concatenate((raw, likely))).tolist()
    return ends


def _words_at(
    view: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    words = np.zeros(len(positions), np.int64)
    for byte in range(_WORD):
        words |= view[positions + byte].astype(np.int64) << 8 * byte
    return words


def _carve(data: bytes) -> list[int]:
    """Return the starts of the proved blocks that lie anywhere in the data, in order.

    With R the register after each byte, the block [s, e) has the checksum that follows it exactly
    when (F ^ R[s]) · x^-8s = (crc ^ F ^ R[e]) · x^-8e, with F all ones: a search for equal values.
    """
    ends = [end for end in _likely_ends(data, 0) if data[end] == 0]
    if not ends:
        return []
    registers = _byte_registers(data)
    turned = _turn_back(registers ^ np.uint32(0xFFFFFFFF))
    found: list[int] = []
    position = 0
    for end in ends:
        stored = unmask_crc(_fixed32(data, end + 1))
        wanted = multiply(stored ^ 0xFFFFFFFF ^ int(registers[end + 1]), power_of_x(-8 * (end + 1)))
        starts = np.flatnonzero(turned[position : end - 7] == np.uint32(wanted))
        if len(starts):
            found.append(position + int(starts[0]))
            position = end + TRAILER_SIZE
    return found


def _byte_registers(data: bytes) -> npt.NDArray[np.uint32]:
    """Return the register, started at all ones, before the first byte and after every byte."""
    from ckptparse.crc.search import word_registers

    view = np.frombuffer(data, np.uint8)
    after = np.empty(len(data) + 1, np.uint32)
    words = word_registers(view)
    after[::_WORD] = words[: len(after[::_WORD])]
    step = multiply_table(power_of_x(8))[0]
    for byte in range(1, _WORD):
        here = after[byte::_WORD]
        before = after[byte - 1 :: _WORD][: len(here)]
        here[:] = step[(before ^ view[byte - 1 :: _WORD][: len(here)]) & 0xFF] ^ before >> 8
    return after


def _turn_back(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Multiply the value at each position by x to the -8 times that position, by doubling."""
    padded = np.zeros(1 << (len(values) - 1).bit_length(), np.uint32)
    padded[: len(values)] = values
    length = 1
    while length < len(padded):
        later = padded.reshape(-1, 2 * length)[:, length:]
        later[:] = WideTable(power_of_x(-8 * length)).multiply(later)
        length *= 2
    return padded[: len(values)]


def _iter_resumed(contents: bytes, accept: Accept) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over the keys and values that damaged contents still show."""
    restarts, end = _restarts_of(contents)
    starts = restarts or [0]
    reached = 0
    for number, start in enumerate(starts):
        stop = starts[number + 1] if number + 1 < len(starts) else end
        reached = stop
        for key, value, position in _iter_run(contents, start, stop):
            if accept(key, value):
                yield key, value
            reached = position
        if not restarts and reached < end:
            yield from _iter_anywhere(contents, reached, end, accept)


def _restarts_of(contents: bytes) -> tuple[list[int], int]:
    """Return restarts that rise from 0, and where the entries end; no restarts where broken."""
    if len(contents) < 8:
        return [], len(contents)
    count = _fixed32(contents, len(contents) - _WORD)
    end = len(contents) - _WORD - _WORD * count
    if count < 1 or end < 0:
        return [], len(contents)
    found = np.frombuffer(contents, "<u4", count, end)[1:]
    found = found[(found > 0) & (found < end)]
    rising = np.ones(len(found), np.bool_)
    rising[1:] = found[1:] > np.maximum.accumulate(found)[:-1]
    good = [0, *found[rising].tolist()]
    return (good, end) if 2 * len(good) > count else ([], len(contents))


def _iter_run(contents: bytes, start: int, stop: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Iterate over the entries between two restarts up to the first that cannot be one."""
    key = b""
    position = start
    while position < stop:
        try:
            shared, key_start, value_start, value_end = decode_entry(contents, position, stop)
        except MalformedError:
            return
        if shared > len(key) or (position == start and shared):
            return
        if position and not shared and key_start == value_start:
            # Only the first key of a table is empty: these are zeros.
            return
        key = key[:shared] + contents[key_start:value_start]
        position = value_end
        yield key, contents[value_start:value_end], position


def _iter_anywhere(
    contents: bytes, start: int, end: int, accept: Accept
) -> Iterator[tuple[bytes, bytes]]:
    """Try every position for an entry that shares nothing and looks right; go on from there."""
    view = np.frombuffer(contents, np.uint8)[start:end]
    # Nothing shared, then a key and a value that are not empty.
    likely = (view[:-2] == 0) & (view[1:-1] > 0) & (view[2:] > 0)
    reached = 0
    for found in np.flatnonzero(likely)[:_MOST_STARTS].tolist():
        position = start + found
        if position < reached:
            continue
        for key, value, stop in _iter_run(contents, position, end):
            if not accept(key, value):
                break
            yield key, value
            reached = stop
