"""Find the parts of one block of a table, of which the last lies in a part that is known.

two parts    every border of a block of the image within it is tried
more         a large record of floats goes on behind gaps, which are unlike weights (`stretches`)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckptparse.coding.checksum import combine_crc
from ckptparse.crc.field import multiply, power_of_x
from ckptparse.files.storage import Source
from ckptparse.parallel import stream_crc
from ckptparse.recovery.imaging.laid_blocks import is_whole, merged, open_parts, placed, stored_crc
from ckptparse.recovery.imaging.pieces import Piece, Placement
from ckptparse.recovery.imaging.record_heads import HEAD, find_elements
from ckptparse.recovery.imaging.splits import find_split
from ckptparse.recovery.imaging.stretches import Stretches
from ckptparse.table.format import TRAILER_SIZE, BlockHandle

__all__ = ["BlockFits", "Reading"]

_SPARE, _READ_TIMES = 1 << 26, 4
"""Bytes of blocks whose checksums are computed: so many, and these times those of the image."""
_MOST_GAPS = 16
"""Blocks of one image that are sought behind gaps: each may take the judgement of 256 MB."""
_ALIGNMENT = 16
"""Bytes of the largest element."""


class Reading:
    """How much more of an image may be read."""

    def __init__(self, image: Source) -> None:
        self._left = _SPARE + _READ_TIMES * image.size
        self._gaps = _MOST_GAPS

    def may(self, size: int) -> bool:
        """Tell whether so many bytes more may be read; count them."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def may_judge(self) -> bool:
        """Tell whether one more block may be sought behind gaps; count it."""
        self._gaps -= 1
        return self._gaps >= 0


class BlockFits:
    """Finds the parts of blocks in one image."""

    def __init__(self, image: Source, block: int, reading: Reading) -> None:
        """Take the image, the size of its blocks, and how much may be read."""
        self._image = image
        self._block = block
        self._reading = reading
        self._stretches = Stretches(image, block)

    def find(
        self, handle: BlockHandle, distances: Sequence[int], behind: int
    ) -> list[list[Placement]]:
        """Return the parts that a block may have, for each first part that fits.

        Args:
            handle: The block.
            distances: Those at which it may begin.
            behind: The distance of what follows it.
        """
        fits = self.find_two(handle, distances, behind)
        return fits or list(self._iter_gaps(handle, distances, behind))

    def find_two(
        self, handle: BlockHandle, distances: Iterable[int], behind: int
    ) -> list[list[Placement]]:
        """Return the parts that a block may have if there are two; as `find`."""
        over = handle.end % self._block
        fits: list[list[Placement]] = []
        for distance in distances:
            if 0 < over < TRAILER_SIZE:
                fits.append(self._split_trailer(handle, distance, behind, over))
            elif self._reading.may(2 * handle.size):
                fits.append(self._split(handle, distance, behind))
        return [parts for parts in fits if parts]

    def place_damaged(
        self, handle: BlockHandle, before: int | None, behind: int | None
    ) -> Iterator[Placement]:
        """Iterate over what is likely of a block that is whole nowhere.

        What shares a block of the image with a neighbour lies in the same part as it does; then
        floats go on up to the next bytes that are unlike them.

        Args:
            handle: The block.
            before: The distance at which it begins; None if that is not known.
            behind: The distance of what follows it; None if that is not known.
        """
        first, last = self._inner(handle)
        last = max(last, handle.offset)
        piece = None if before is None else self._sought(handle, before)
        head = tail = 0
        if piece is not None and before is not None:
            head = self._room(piece, first + before, forward=True)
            if behind is not None:
                tail = self._room(piece, last + behind, forward=False)
            # What both of them claim is nobody's.
            if head + tail > piece.size:
                head, tail = piece.size - tail, piece.size - head
        reached = handle.offset
        if before is not None:
            reached = min(first + head, handle.end)
            yield placed(handle.offset, reached, before)
        if behind is not None:
            yield placed(max(last - tail, reached), handle.end, behind)

    def _room(self, piece: Piece, position: int, *, forward: bool) -> int:
        room = self._stretches.room(piece, position, forward=forward)
        return max(0, min(piece.size, room))

    def _inner(self, handle: BlockHandle) -> tuple[int, int]:
        """Return the first and the last border of blocks of the image, by offset in the file."""
        first = handle.offset + -handle.offset % self._block
        return first, handle.end - handle.end % self._block

    def _split(self, handle: BlockHandle, distance: int, behind: int) -> list[Placement]:
        """Return the two parts of a block whose trailer lies in the second one; [] if none fit."""
        crc = stored_crc(self._image, handle.offset + behind, handle.size)
        if crc is None:
            return []
        piece = Piece(handle.offset, handle.size + 1, crc)
        span = handle.offset + distance, handle.offset + piece.size + behind
        found = find_split(self._image, piece, span, self._block)
        # The checksum follows the type byte.
        return [*found[:1], *(placed(one.offset, handle.end, behind) for one in found[1:])]

    def _split_trailer(
        self, handle: BlockHandle, distance: int, behind: int, over: int
    ) -> list[Placement]:
        """Return the two parts of a block of which only bytes of the checksum are in the second."""
        border = handle.end - over
        parts = [placed(handle.offset, border, distance), placed(border, handle.end, behind)]
        if any(not 0 <= one.position <= self._image.size - one.size for one in parts):
            return []
        may = self._reading.may(handle.size)
        return parts if may and is_whole(open_parts(self._image, parts), 0, handle.size) else []

    def _iter_gaps(
        self, handle: BlockHandle, distances: Sequence[int], behind: int
    ) -> Iterator[list[Placement]]:
        """Iterate over the parts of a large record that goes on behind gaps; one fit at most.

        The blocks of the image in which it begins and ends have other bytes, too, so what is sought
        lies between them.
        """
        first, last = self._inner(handle)
        crc = stored_crc(self._image, handle.offset + behind, handle.size)
        rest = handle.offset + handle.size + 1 - last
        if crc is None or rest < 0:
            return
        tail = stream_crc(self._image.read_at, last + behind, rest)
        crc = multiply(crc ^ tail, power_of_x(-8 * rest))
        for distance in distances:
            sought = self._sought(handle, distance)
            if sought is None or not self._reading.may_judge():
                continue
            head = stream_crc(self._image.read_at, handle.offset + distance, first - handle.offset)
            piece = sought._replace(crc=crc ^ combine_crc(head, 0, sought.size))
            parts = self._stretches.find(piece, first + distance, forward=True)
            if not parts:
                parts = self._stretches.find(piece, last + behind, forward=False)
            if parts:
                begin = placed(handle.offset, first, distance)
                yield merged([begin, *parts, placed(last, handle.end, behind)])
                return

    def _sought(self, handle: BlockHandle, distance: int) -> Piece | None:
        """Return what a large record has between borders of blocks, if it begins at a distance."""
        first, last = self._inner(handle)
        start = handle.offset + distance
        if first >= last or not 0 <= start < self._image.size:
            return None
        head = self._image.read_at(start, min(HEAD, handle.size, self._image.size - start))
        elements = find_elements(head)
        if elements is None:
            return None
        lead = (handle.offset + elements.lead - first) % _ALIGNMENT
        return Piece(first, last - first, 0, elements.data_type, lead)
