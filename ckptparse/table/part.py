"""Look into a large block without all of it in memory: what one lookup needs of it, or its head.

Its bytes are read by the piece, checked against its checksum, and let go, but for the run of
entries that is wanted. Fresh memory for a whole block takes longer than reading it: TensorFlow's
have 256 KiB, which are 64 pages.
"""

from __future__ import annotations

from bisect import bisect_left

from ckptparse.coding.checksum import crc32c
from ckptparse.errors import MalformedError
from ckptparse.files.storage import Source
from ckptparse.table.block import Block, decode_entry, read_restarts
from ckptparse.table.format import TRAILER_SIZE, BlockHandle, Compression, check_crc

__all__ = ["PART_PIECE", "read_part"]

PART_PIECE = 1 << 14
"""Bytes of a large block that are read at once: with fewer, calls of the system cost more than
memory."""
_MOST_PIECES = 4
"""Pieces that a run may lie in: one that is longer is read with the whole block."""


def read_part(source: Source, handle: BlockHandle, key: bytes | None) -> Block | None:
    """Check the checksum of a block, and return a part of it as a block of its own.

    Args:
        source: The file.
        handle: Where the block is.
        key: Of the entry that is looked for: if the block has it, so has the part. None: the part
            is the beginning of the block, up to anywhere.

    Returns:
        None if it is better read whole: it is small, compressed, or breaks a rule, which is told
        by what reads it whole; or each read is a request.

    Raises:
        TruncatedError: The file ends before it.
        ChecksumError: The block is damaged.
    """
    if handle.size < 2 * PART_PIECE or source.concurrency is not None:
        return None
    try:
        return _read_part(source, handle, key)
    except MalformedError:
        return None


def _read_part(source: Source, handle: BlockHandle, key: bytes | None) -> Block | None:
    last = handle.size - PART_PIECE
    stored = source.read_at(handle.offset + last, PART_PIECE + TRAILER_SIZE)
    tail, trailer = stored[:PART_PIECE], stored[PART_PIECE:]
    if trailer[0] != Compression.NONE:
        return None
    part = _Part(*read_restarts(tail, handle.size), key)
    crc = 0
    for start in range(0, last, PART_PIECE):
        at, size = handle.offset + start, min(PART_PIECE, last - start)
        if part.end is not None:
            # It has no name, so that its memory serves the next one.
            crc = crc32c(source.read_at(at, size), crc)
            continue
        piece = source.read_at(at, size)
        crc = crc32c(piece, crc)
        if not part.take(start, piece):
            return None
    crc = crc32c(tail, crc)
    if part.end is None and not part.take(last, tail):
        return None
    check_crc(trailer, crc, handle.size, path=source.path, offset=handle.offset)
    return part.to_block()


class _Part:
    """The runs among which a key would be, while the pieces of a block go by in order.

    Attributes:
        end: Where they end in the block; None as long as a later run may be the one.
    """

    __slots__ = ("_begin", "_entries_end", "_held", "_key", "_restarts", "_run", "end")

    def __init__(self, restarts: tuple[int, ...], entries_end: int, key: bytes | None) -> None:
        self._restarts = restarts
        self._entries_end = entries_end
        self._key = key
        self._held = b""
        self._begin = self._run = 0
        self.end: int | None = None

    def take(self, start: int, piece: bytes) -> bool:
        """Look at a piece, and hold what may be needed of it.

        Returns:
            Whether it is what a block may be; it is not if too much would be held.

        Raises:
            MalformedError: The first entry of its first run breaks the rules.
        """
        stop = min(start + len(piece), self._entries_end)
        if self._key is None:
            self.end = stop
        elif start:
            run = bisect_left(self._restarts, start)
            if run < len(self._restarts) and self._restarts[run] < stop:
                at = self._restarts[run] - start
                shared, key_start, key_end, _ = decode_entry(piece, at, stop - start)
                if shared:
                    return False
                if piece[key_start:key_end] > self._key:
                    self.end = stop = self._restarts[run]
                else:
                    self._held, self._begin, self._run = b"", start, run
        self._held += piece[: stop - start]
        return len(self._held) <= _MOST_PIECES * PART_PIECE

    def to_block(self) -> Block:
        """Return what is held as a block of its own."""
        end = self._entries_end if self.end is None else self.end
        first = self._restarts[self._run]
        runs = self._restarts[self._run : bisect_left(self._restarts, end)]
        contents = self._held[first - self._begin :]
        return Block(contents, len(contents), tuple(restart - first for restart in runs))
