"""Find tables in an image by the footer that ends each (docs/format.md, sections 1.1 and 1.2).

The footer says where the index block is, counted from the table's start. That block is right before
the footer. So the table's size is known, and its start too, if it is in one part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ckptparse.errors import CheckpointError
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.limits import Limits
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleHeaderProto
from ckptparse.table.format import FOOTER_SIZE, MAGIC, TRAILER_SIZE, Footer, check_block
from ckptparse.table.reader import Table

__all__ = [
    "SMALLEST_BLOCK",
    "FoundTable",
    "find_block_size",
    "iter_tables",
    "kind_of",
    "read_block_size",
]

_PIECE = 1 << 24
"""Bytes that are searched at once, so that memory stays small."""
_OVERLAPS, _SPARE = 2, 1 << 24
"""Bytes of index blocks that are read: so many times those of the range, and some more. The index
blocks of tables that were written do not overlap."""
_EXT_SUPERBLOCK = 1024
"""Offset of the superblock of ext2, ext3 and ext4, whatever the size of a block."""
_EXT_MAGIC = b"\x53\xef"
SMALLEST_BLOCK = 512
_DEFAULT_BLOCK = 4096
"""Bytes of a block if no superblock says it: the default of ext4, XFS, NTFS, APFS and btrfs."""


class FoundTable(NamedTuple):
    """A table of which the end is in an image."""

    start: int
    """Where it begins in the image, if it is in one part; else below 0, or among other bytes."""
    size: int
    """In bytes."""
    kind: str
    """`v2`: an index; `v1`: a V1 checkpoint; `damaged`: it cannot be read."""

    @property
    def end(self) -> int:
        """Where its footer ends in the image."""
        return self.start + self.size

    def source(self, image: Source) -> JoinedSource:
        """Return the table as a file, if it is in one part."""
        return JoinedSource(f"{image.path}@{self.start}", self.ranges(image))

    def ranges(self, image: Source) -> list[Range]:
        """Return where its bytes are, if it is in one part; before the image there are none."""
        before = max(0, -self.start)
        return [Range(None, 0, before), Range(image, self.start + before, self.size - before)]


def iter_tables(image: Source, start: int, stop: int, *, limits: Limits) -> Iterator[FoundTable]:
    """Iterate over the tables whose footers end within a range of an image.

    This takes about as long as reading the image.
    """
    # A magic that begins before the range may end in it.
    position = max(0, start - len(MAGIC) + 1)
    left = _SPARE + _OVERLAPS * (stop - start)
    while position < stop:
        count = min(_PIECE + len(MAGIC) - 1, image.size - position)
        data = image.read_at(position, count)
        place = data.find(MAGIC)
        while place >= 0:
            end = position + place + len(MAGIC)
            # A footer ends with its only magic: what follows within its length ends none.
            if start < end <= stop and MAGIC not in _before(data, place):
                found, size = _look_at(image, end, limits, left)
                left -= size
                if found is not None:
                    yield found
            place = data.find(MAGIC, place + 1)
        position += _PIECE


def _before(data: bytes, place: int) -> bytes:
    """Return the bytes that a footer has before its magic."""
    return data[max(0, place - FOOTER_SIZE + len(MAGIC)) : place]


def _look_at(image: Source, end: int, limits: Limits, left: int) -> tuple[FoundTable | None, int]:
    """Return the table whose footer ends there, and how many bytes were read for that.

    It is None if it cannot be a table. If its index block has more than `left` bytes, these are not
    looked at.
    """
    if end < FOOTER_SIZE:
        return None, 0
    try:
        footer = Footer.from_bytes(image.read_at(end - FOOTER_SIZE, FOOTER_SIZE))
    except CheckpointError:
        return None, 0
    size = footer.index.end + FOOTER_SIZE
    # It may lie in several parts, so that its end is nearer to the image's start than it is long.
    if size > min(image.size, limits.index_bytes + FOOTER_SIZE):
        return None, 0
    found = FoundTable(end - size, size, "damaged")
    block = footer.index.size + TRAILER_SIZE
    if block > min(left, end - FOOTER_SIZE):
        return found, 0
    try:
        # Where anything else has the magic, this tells it at once.
        stored = image.read_at(end - FOOTER_SIZE - block, block)
        check_block(stored, path=image.path, offset=end - FOOTER_SIZE - block)
    except CheckpointError:
        return found, block
    return found._replace(kind=kind_of(found.source(image), limits)), block


def kind_of(source: Source, limits: Limits) -> str:
    """Return the kind of a table; see `FoundTable`."""
    try:
        first = Table.open(source, limits=limits).first()
    except CheckpointError:
        return "damaged"
    if first is None or first[0]:
        return "damaged"
    try:
        header = parse_message(BundleHeaderProto, first[1], limits=limits, what="a header")
    except CheckpointError:
        return "v1"
    # Field 1 under the empty key is a number of shards in V2, and a message in V1 (section 3.5).
    return "v2" if header.num_shards > 0 else "v1"


def find_block_size(image: Source, starts: Iterable[int] = ()) -> int:
    """Return the size of blocks that the superblock of ext2 to ext4 states; else a guess.

    Args:
        image: The image.
        starts: Where files begin in it. Without any, the guess is 4 KiB, the usual size.
    """
    stated = read_block_size(image)
    if stated is not None:
        return stated
    borders = [start & -start for start in starts if start and not start % SMALLEST_BLOCK]
    return min([_DEFAULT_BLOCK, *borders])


def read_block_size(image: Source) -> int | None:
    """Return the size of blocks that the superblock of ext2 to ext4 states; None without one."""
    if image.size >= _EXT_SUPERBLOCK + 64:
        block = image.read_at(_EXT_SUPERBLOCK, 64)
        # At byte 24 the logarithm of the size: 0 is 1 KiB, 6 is 64 KiB, the largest.
        shift = int.from_bytes(block[24:28], "little")
        if block[56:58] == _EXT_MAGIC and shift <= 6:
            return min(1024 << shift, _DEFAULT_BLOCK)
    return None
