"""Find where blocks of a table may begin in an image: by the first entry that each must have.

The index block says of each data block how large it is, and between which keys its own are
(docs/format.md, section 1.5). A block begins with an entry that shares nothing with another:

    00   length of the key   length of the value   key   value

So at every place where the block can begin, these few bytes tell whether it may. In a block of
Snappy its own size and the tag of a literal come before them (section 1.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.varint import decode_varint
from ckptparse.files.storage import Source

__all__ = ["BlockStart", "find_starts", "may_begin"]

_PIECE = 1 << 24
"""Bytes of an image that are looked at together."""
_HEAD = 40
"""Bytes of a block that are looked at: six of Snappy, one, two numbers of five bytes, and a key."""
_KEY = 8
"""Bytes of a key that are compared for all places at once."""
_RESTARTS = 8
"""Bytes of the shortest list of restarts, which ends a block."""
_FEW_PACKED = 60
"""A literal of Snappy of more bytes than this says their number in bytes of its own, 1 to 4."""
_MOST_PLACES = 1024
"""Places of one block that are kept: more would be those of as many saves."""

_Rows = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[Any]


class BlockStart(NamedTuple):
    """What is known of the start of a data block."""

    offset: int
    """In the table."""
    size: int
    """Of its contents, in bytes."""
    after: bytes | None
    """Its keys are above this one; None of the first block."""
    last: bytes
    """They are at most this one."""
    packed: bool
    """Whether it may be compressed."""


def find_starts(
    image: Source, sought: Iterable[BlockStart], block: int
) -> dict[BlockStart, list[int]]:
    """Return the places of an image at which blocks may begin.

    Args:
        image: The image.
        sought: The blocks.
        block: Bytes of a block of the image: a table begins at a multiple of it.
    """
    found: dict[BlockStart, list[int]] = {start: [] for start in sought}
    for first in range(0, image.size, _PIECE):
        count = min(_PIECE, image.size - first)
        data = np.zeros(-(-count // block) * block + block + _HEAD, np.uint8)
        present = min(len(data), image.size - first)
        image.read_into(first, data.data[:present])
        for start, places in found.items():
            place = start.offset % block
            rows = _rows(data[place:], -(-count // block), block)
            for number in _select(rows, start):
                if len(places) == _MOST_PLACES:
                    break
                if _begins(rows[number].tobytes(), start):
                    places.append(first + number * block + place)
    return {start: places for start, places in found.items() if places}


def may_begin(image: Source, position: int, start: BlockStart) -> bool:
    """Tell whether a block may begin at a place of an image."""
    if not 0 <= position < image.size:
        return False
    return _begins(image.read_at(position, min(_HEAD, image.size - position)), start)


def _begins(head: bytes, start: BlockStart) -> bool:
    """Tell whether a block may begin with these bytes."""
    try:
        if head[0] == 0 and _begins_with_entry(head, 0, start.size, start):
            return True
        if not start.packed:
            return False
        size, position = decode_varint(head, 0, len(head))
        literal = head[position] & 3 == 0
        position += 1 + max(0, (head[position] >> 2) - (_FEW_PACKED - 1))
        return literal and head[position] == 0 and _begins_with_entry(head, position, size, start)
    except (IndexError, ValueError):
        return False


def _begins_with_entry(head: bytes, position: int, size: int, start: BlockStart) -> bool:
    """Tell whether an entry of the block, which has `size` bytes, begins at a position."""
    key_size, key_at = decode_varint(head, position + 1, len(head))
    value_size, key_at = decode_varint(head, key_at, len(head))
    # Only the first key of a checkpoint's table is empty, and no value is.
    if (key_size == 0) != (start.after is None) or not value_size:
        return False
    if key_at - position + key_size + value_size + _RESTARTS > size:
        return False
    key = head[key_at : key_at + key_size]
    return (start.after or b"")[: len(key)] <= key <= start.last[: len(key)]


def _rows(data: _Rows, count: int, step: int) -> _Rows:
    """Return the first bytes of `count` blocks, one in each row; a view."""
    return np.lib.stride_tricks.as_strided(data, (count, _HEAD), (step, 1), writeable=False)


def _select(rows: _Rows, start: BlockStart) -> list[int]:
    """Return the numbers of the rows that look like the start of a block, all at once."""
    plain = np.flatnonzero(rows[:, 0] == 0)
    found = _fit(rows[plain], np.zeros(len(plain), np.intp), start.size, start)
    chosen: list[int] = plain[found].tolist()
    if start.packed:
        position, size = _read_numbers(rows, np.zeros(len(rows), np.intp))
        position = _skip_literal(rows, position)
        fits = np.flatnonzero(rows[np.arange(len(rows)), position] == 0)
        found = _fit(rows[fits], position[fits], size[fits], start)
        chosen = sorted({*chosen, *fits[found].tolist()})
    return chosen


def _skip_literal(rows: _Rows, position: _Numbers) -> _Numbers:
    """Return where the bytes of a literal begin; the last place of a row if there is none."""
    tags = rows[np.arange(len(rows)), position]
    more = np.maximum(0, (tags >> 2).astype(np.intp) - (_FEW_PACKED - 1))
    return np.where(tags & 3, _HEAD - 1, position + 1 + more)


def _fit(rows: _Rows, position: _Numbers, size: Any, start: BlockStart) -> _Numbers:
    """Tell of each row whether an entry of the block begins at a position in it."""
    key_at, key_size = _read_numbers(rows, position + 1)
    key_at, value_size = _read_numbers(rows, key_at)
    columns = np.minimum(key_at[:, None] + np.arange(_KEY), _HEAD - 1)
    keys = np.take_along_axis(rows, columns, axis=1).copy()
    # What follows a shorter key counts as zeros.
    keys[np.arange(_KEY) >= key_size[:, None]] = 0
    number = keys.view(">u8")[:, 0]
    low, high = (_number_of(key) for key in (start.after or b"", start.last))
    room = key_at - position + key_size + value_size + _RESTARTS <= size
    # Only the first key of a checkpoint's table is empty, and no value is.
    right = (key_size == 0) == (start.after is None)
    return np.asarray(right & room & (value_size > 0) & (low <= number) & (number <= high))


def _number_of(key: bytes) -> Any:
    """Return the first bytes of a key as a number, in which keys are ordered as they are."""
    return np.uint64(int.from_bytes(key[:_KEY].ljust(_KEY, b"\0"), "big"))


def _read_numbers(rows: _Rows, position: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Decode a varint of up to five bytes in each row; return where it ends, and its value."""
    lines = np.arange(len(rows))
    value = np.zeros(len(rows), np.int64)
    going = np.ones(len(rows), np.bool_)
    for shift in range(0, 35, 7):
        bytes_ = rows[lines, np.minimum(position, _HEAD - 1)].astype(np.int64)
        value += np.where(going, (bytes_ & 0x7F) << shift, 0)
        position = position + going
        going = going & (bytes_ >= 0x80)
    return np.minimum(position, _HEAD - 1), value
