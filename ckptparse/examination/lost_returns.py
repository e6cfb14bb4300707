"""A table that lost the carriage returns before line feeds, as text mode takes them: put back.

The footer says how long the table was, so how many are lost is known. Each block has a checksum,
which tells before which line feeds they stood (`returns`). If it does not tell, the next block that
agrees tells how many were lost.

    ... 0d 0a ...   ->   ... 0a ...        `Returned` puts the carriage returns back
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ckptparse.coding.checksum import crc32c, unmask_crc
from ckptparse.errors import CheckpointError
from ckptparse.examination import returns
from ckptparse.examination.carving import fixed32
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.limits import Limits
from ckptparse.table.block import Block
from ckptparse.table.format import (
    FOOTER_SIZE,
    TRAILER_SIZE,
    BlockHandle,
    Footer,
    decompress_block,
    read_footer,
)

__all__ = ["Returned", "find_lost_returns"]

_MOST_BYTES = 1 << 26
"""Bytes of a table in which they are sought: it is held in memory."""
_MOST_LOST = 1 << 12
"""How many are put back at most: four times as many as so many random bytes lose."""
_MOST_WAYS = 1 << 22
"""Choices that are tried for a block: one fits by chance 1 in 1,024. What other blocks have lost,
and what all lost together, must fit too."""
_WORK, _WORK_A_BYTE = 1 << 31, 200
"""What is done at most, in bytes of which a checksum is computed: half a second, and another for
each 10 MiB."""
_A_LOOK, _A_TRY, _A_BYTE, _A_FEED = 1 << 14, 1 << 21, 8, 1 << 13
"""What it costs to look whether a block lost nothing, to try more, and each byte and line feed."""
_A_SHIFT, _IN_VAIN = 150, 1000
"""What each byte costs more if shifts are looked for, and if these do not tell."""
_FLOAT = 4
"""Bytes of the elements of which most blocks of V1 files are made."""
_LEAST_SHIFTED = 1 << 11
"""Bytes of a block from which on shifts are looked for."""
_CHECKSUM_BYTES = TRAILER_SIZE - 1
_FEW = 2
"""Returns at most that the block has lost which tells how many others have."""


@dataclass(frozen=True, slots=True)
class Returned:
    """Opens a file with carriage returns put back before some line feeds."""

    places: tuple[int, ...]

    def __call__(self, source: Source) -> Source:
        """Open it."""
        letter = MemorySource(source.path, b"\r")
        ranges: list[Range] = []
        start = 0
        for place in self.places:
            ranges += [Range(source, start, place - start), Range(letter, 0, 1)]
            start = place
        return JoinedSource(source.path, [*ranges, Range(source, start, source.size - start)])


def find_lost_returns(source: Source, limits: Limits) -> tuple[int, ...] | None:
    """Return before which line feeds of a table carriage returns were; None if that is not so.

    The list of its blocks has its checksum with them, and so has each block, but for those that are
    damaged besides, or have lost too many: what these lack stands at their end.
    """
    if not FOOTER_SIZE <= source.size <= _MOST_BYTES:
        return None
    try:
        footer = read_footer(source)
        lost = footer.index.end + FOOTER_SIZE - source.size
        if not 0 < lost <= _MOST_LOST:
            return None
        return _Search(bytes(source.read_at(0, source.size)), limits, source.path).find(
            footer, lost
        )
    except CheckpointError:
        return None


class _Restored(NamedTuple):
    """A block as it was."""

    stored: bytes
    """With its trailer."""
    places: list[int]
    """Before which bytes of the table as it is now carriage returns were."""


class _Search:
    def __init__(self, data: bytes, limits: Limits, path: str) -> None:
        self._data = data
        self._limits = limits
        self._path = path
        self._left = _WORK + _WORK_A_BYTE * len(data)
        self._is_told = False
        """Whether the checksum of any block says that it has lost some."""

    def find(self, footer: Footer, lost: int) -> tuple[int, ...] | None:
        """Search all blocks in their order."""
        if b"\r\n" in self._data:
            return None
        index = footer.index
        # The index block is behind all others: what it lost itself is told first.
        ways = (
            self._restored(index, lost - inside, range(inside, inside + 1))
            for inside in range(lost + 1)
        )
        last = next(filter(None, ways), None)
        if last is None:
            return None
        lost -= len(last.places)
        found: list[int] = []
        unknown: list[BlockHandle] = []
        handles = sorted([*self._handles(last.stored, index), footer.metaindex])
        if handles[-1].end != index.offset:
            # Then the footer, of which nothing has a checksum, says another size than it had.
            return None
        for handle in handles:
            if self._left < 0:
                return None
            rest = lost - len(found)
            count = 0
            if unknown:
                count, restored = self._behind(handle, len(found), rest)
            else:
                restored = self._restored(handle, len(found), range(rest + 1), width=_FLOAT)
            if restored is None:
                unknown.append(handle)
                continue
            found += self._between(unknown, len(found), count)
            found += restored.places
            unknown = []
        found += self._between(unknown, len(found), lost - len(found))
        # If no block says so, other bytes may have been lost in the one that is damaged.
        return (*found, *last.places) if len(found) == lost and self._is_told else None

    def _behind(self, handle: BlockHandle, before: int, most: int) -> tuple[int, _Restored | None]:
        """Return how many returns were lost just before a block, and the block; None if in vain."""
        for inside in range(_FEW + 1):
            for count in range(most - inside + 1):
                restored = self._restored(handle, before + count, range(inside, inside + 1))
                if restored is not None:
                    return count, restored
        return 0, None

    def _between(self, unknown: list[BlockHandle], before: int, count: int) -> list[int]:
        """Return where the returns were that some blocks have lost together.

        The last ones may tell, now that it is known where they end. Those that do not tell have
        them at the end of the first.
        """
        found: list[int] = []
        for handle in reversed(unknown[1:]):
            usual = handle.size >> 16
            likely = sorted(range(count + 1), key=lambda one: abs(one - usual))
            ways = (
                self._restored(
                    handle, before + count - inside, range(inside, inside + 1), width=_FLOAT
                )
                for inside in likely
            )
            restored = next(filter(None, ways), None)
            if restored is None:
                break
            found = restored.places + found
            count -= len(restored.places)
        if not unknown:
            return found
        at = unknown[0].offset + unknown[0].size - before - count
        return [max(0, at)] * count + found

    def _handles(self, stored: bytes, handle: BlockHandle) -> list[BlockHandle]:
        contents = decompress_block(
            stored[: handle.size],
            stored[handle.size],
            limits=self._limits,
            path=self._path,
            offset=handle.offset,
        )
        entries = Block.from_bytes(contents).decode_entries(limits=self._limits)
        values = zip(entries.starts, entries.ends, strict=True)
        return [BlockHandle.from_bytes(contents[start:stop])[0] for start, stop in values]

    def _restored(
        self, handle: BlockHandle, before: int, counts: range, *, width: int = 1
    ) -> _Restored | None:
        """Return a block with the returns put back that it has lost; None if in vain.

        Args:
            handle: Where it was.
            before: How many were lost before it.
            counts: How many may have been lost in it.
            width: Bytes of its elements, by whose shifts returns are looked for; 1: by none.
        """
        begin, covered = handle.offset - before, handle.size + 1
        data = self._data[max(0, begin) : begin + covered + TRAILER_SIZE]
        whole = _Trailer(data, covered)
        self._left -= _A_LOOK + covered
        if begin < 0 or self._left < 0:
            return None
        if 0 in counts and crc32c(data[:covered]) == whole.crc(0):
            return _Restored(data, [])
        if counts.stop == 1:
            return None
        cost = _A_TRY + _A_BYTE * covered + _A_FEED * data.count(b"\n")
        # One may have been lost in the stored checksum, too.
        for trailer in (whole, *_Trailer.shortened(data, covered, counts)):
            self._left -= cost
            found = self._tried(data, trailer, counts, width)
            if found is not None:
                stored = found.build(data) + trailer.stored(len(found.places))
                places = [*found.places, *trailer.places(len(found.places))]
                self._is_told = True
                return _Restored(stored, [begin + place for place in places])
        return None

    def _tried(
        self, data: bytes, trailer: _Trailer, counts: range, width: int
    ) -> returns.Restored | None:
        """Return where a block lost returns, if its stored checksum is this; None if in vain."""
        covered = trailer.covered
        shifts = width > 1 and covered >= _LEAST_SHIFTED and self._left > _IN_VAIN * covered
        if self._left < 0:
            return None
        found = returns.restore_returns(
            data,
            covered,
            lambda lost: trailer.crc(lost) if lost + trailer.lost in counts else None,
            width=width if shifts else 1,
            most=_MOST_WAYS,
        )
        if shifts:
            self._left -= (_A_SHIFT if found else _IN_VAIN) * covered
        return found


@dataclass(frozen=True, slots=True)
class _Trailer:
    """The checksum behind a block, if so many of its bytes were lost."""

    data: bytes
    """The block as it is now, and what follows."""
    covered: int
    """Bytes that the checksum covers."""
    at: int | None = None
    """Before which of its bytes a return was lost; None: before none."""

    @classmethod
    def shortened(cls, data: bytes, covered: int, counts: range) -> Iterator[_Trailer]:
        """Iterate over those that have lost a return, if so many were lost with it."""
        first, last = max(0, covered - counts.stop + 2), max(0, covered - counts.start + 1)
        if b"\n" in data[first : last + _CHECKSUM_BYTES]:
            yield from (cls(data, covered, at) for at in range(_CHECKSUM_BYTES))

    @property
    def lost(self) -> int:
        """How many returns it has lost."""
        return self.at is not None

    def stored(self, lost: int) -> bytes:
        """Return it as it was, if so many returns were lost before it; else nothing."""
        start = self.covered - lost
        if start < 0:
            return b""
        if self.at is None:
            return self.data[start : start + _CHECKSUM_BYTES]
        now = self.data[start : start + _CHECKSUM_BYTES]
        if now[self.at : self.at + 1] != b"\n":
            return b""
        return now[: self.at] + b"\r" + now[self.at : -1]

    def places(self, lost: int) -> list[int]:
        """Return where it has lost one, if so many were lost before it."""
        return [] if self.at is None else [self.covered - lost + self.at]

    def crc(self, lost: int) -> int | None:
        """Return the checksum that it states, if so many returns were lost before it."""
        stored = self.stored(lost)
        return unmask_crc(fixed32(stored, 0)) if len(stored) == _CHECKSUM_BYTES else None
