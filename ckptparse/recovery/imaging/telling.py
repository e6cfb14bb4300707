"""Tell whether a block that was put together of several parts is of one save.

The checksum of the block, in its last part, holds for the bytes as they were put together. If the
first part is the same in every save of a model, it holds for the first part of another save, too.
Names, shapes and places are the same, and so are tensors whose elements are all equal. Other values
of tensors are not, nor are most checksums in an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ckptparse.errors import CheckpointError
from ckptparse.files.storage import Source
from ckptparse.legacy.record import find_values
from ckptparse.limits import Limits
from ckptparse.table.block import Block
from ckptparse.table.format import Compression, decompress_block

__all__ = ["head_tells"]

_LEAST = 64
"""Bytes of the part that must be other ones than in a tensor of equal elements."""
_LEAST_CHECKSUMS = 8
"""Distinct checksums that it must have in an index: tensors of zeros of one size share one."""
_LARGEST_ELEMENT = 16
_LOOKED_AT = 1 << 16
"""Bytes of a record that are looked at."""
_LARGE, _ENDS = 1 << 24, 1 << 12
"""Bytes of a block of which only what is near the border is read, and of its ends, which hold its
name and restarts."""
_RATIO = 20
"""Values that are all the same become a twentieth of their size in a block of Snappy."""
_CRC_TAG, _CRC_SIZE = 0x35, 5
"""The checksum in an entry of an index: field 6, which is the last one of most (section 2.2)."""


def head_tells(block: Source, size: int, split: int, *, legacy: bool, limits: Limits) -> bool:
    """Tell whether the first part of a whole block holds values that no other save has.

    Args:
        block: The block and its trailer, as they were put together.
        size: Bytes of its contents.
        split: Bytes of its first part.
        legacy: Whether it is of a V1 file; else of an index.
        limits: Bounds on what it may ask for.
    """
    if size > _LARGE:
        # One record, all of which is values but for its ends.
        start, stop = max(_ENDS, split - _LOOKED_AT), min(split, size - _ENDS)
        return _count_unlike([block.read_at(start, max(0, stop - start))]) >= _LEAST
    data = block.read_at(0, size + 1)
    try:
        raw = decompress_block(data[:size], data[size], limits=limits, path="", offset=0)
        if data[size] != Compression.NONE:
            # Which bytes of the stream became values is not known.
            spans = list(_iter_values(raw, len(raw), limits, legacy=legacy))
            values = sum(stop - start for start, stop in spans)
            return split >= len(raw) - values + values // _RATIO + _LEAST
        spans = list(_iter_values(raw, split, limits, legacy=legacy))
    except CheckpointError:
        return False
    head = [raw[max(start, split - _LOOKED_AT) : min(stop, split)] for start, stop in spans]
    return _count_unlike(head) >= _LEAST if legacy else _count_distinct(head) >= _LEAST_CHECKSUMS


def _count_unlike(values: Iterable[bytes]) -> int:
    """Count bytes that are others than in the elements before, of any size."""
    count = 0
    for one in values:
        if len(one) > _LARGEST_ELEMENT:
            raw = np.frombuffer(one, np.uint8)
            count += int(np.count_nonzero(raw[_LARGEST_ELEMENT:] != raw[:-_LARGEST_ELEMENT]))
    return count


def _count_distinct(values: Iterable[bytes]) -> int:
    """Count distinct checksums."""
    return len({one for one in values if len(one) == _CRC_SIZE})


def _iter_values(
    raw: bytes, end: int, limits: Limits, *, legacy: bool
) -> Iterator[tuple[int, int]]:
    """Iterate over where values begin and end, of the entries whose values begin before `end`."""
    entries = Block.from_bytes(raw).decode_entries(limits=limits)
    view = memoryview(raw)
    for key, start, stop in zip(entries.keys, entries.starts, entries.ends, strict=True):
        if start >= end:
            return
        if not key:
            # The list of a V1 file, or the header of an index.
            continue
        if legacy:
            # The values are the last field of a record.
            yield stop - len(find_values(view[start:stop])), stop
        elif stop - start >= _CRC_SIZE and raw[stop - _CRC_SIZE] == _CRC_TAG:
            yield stop - _CRC_SIZE, stop
