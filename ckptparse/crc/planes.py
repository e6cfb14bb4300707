"""Planes of bits: one operation of numpy on the same bit of 32 words at once.

Consecutive words lie in 32 lanes, shape (32, n): lane i is the run of n words that begins at word
i · n. Plane k of them, of n numbers, holds in bit i of each number bit k of the word of lane i.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["LANES", "MARK_BITS", "MASKS", "fill_masks", "joined", "make_rows", "swap_bits"]

Words = npt.NDArray[np.uint32]

LANES = 32
MARK_BITS = 16
MASKS = LANES + MARK_BITS - 1
"""Planes of masks: any bit of a word may give any bit of a mark. What it is multiplied by depends
on the difference of the two."""
_GAP = 16
"""Numbers between two rows. numpy takes rows that follow each other for one long row, finds that
another operand has none, and copies that into a buffer: this takes as long as the work."""
_SQUARES = {16: 0x0000FFFF, 8: 0x00FF00FF, 4: 0x0F0F0F0F, 2: 0x33333333, 1: 0x55555555}
"""For squares of so many rows: the lower bits of each pair of squares."""


def make_rows(count: int, length: int) -> Words:
    """Return memory for rows of so many numbers: operations on several at once are quick."""
    return np.empty((count, length + _GAP), np.uint32)[:, :length]


def joined(rows: Words) -> Words:
    """Return memory for rows as one row, with what lies between them: that is quicker still."""
    memory: Words | None = rows.base
    return rows.reshape(-1) if memory is None else memory.reshape(-1)


def swap_bits(rows: Words, spare: Words, source: Words | None = None) -> None:
    """Turn lanes into planes in place, or planes into lanes.

    Args:
        rows: Shape (32, n). Of 16 rows, each half of every number is turned by itself.
        spare: Memory for at least half as many rows of n numbers.
        source: What is turned, if it is not what the rows hold: they only take the result.
    """
    count = len(rows)
    source = rows if source is None else source
    other_half = spare[: count // 2]
    for size, mask in _SQUARES.items():
        if size >= count:
            continue
        # Of each block of 2 x 2 squares, the two beside the diagonal change places.
        first, second = _pairs(source, size)
        new_first, new_second = _pairs(rows, size)
        changed = other_half.reshape(first.shape)
        np.right_shift(first, size, out=changed)
        np.bitwise_xor(changed, second, out=changed)
        np.bitwise_and(changed, mask, out=changed)
        np.bitwise_xor(second, changed, out=new_second)
        np.left_shift(changed, size, out=changed)
        np.bitwise_xor(first, changed, out=new_first)
        source = rows


def _pairs(rows: Words, size: int) -> tuple[Words, Words]:
    """Return the first and the second of each pair of blocks of so many rows."""
    blocks = rows.reshape(-1, 2, size, rows.shape[1])
    return blocks[:, 0], blocks[:, 1]


def fill_masks(low: Words, high: Words, out: Words, spare: Words) -> None:
    """Turn masks into planes.

    Args:
        low: Masks of the lower halves of words (`crc.sequences`), in lanes, shape (32, n).
        high: Those of the upper halves.
        out: Shape (47, n). Plane d is what belongs to x^(d - 15).
        spare: For `swap_bits`.
    """
    swap_bits(out[MARK_BITS - 1 :], spare, low)
    planes = make_rows(LANES, out.shape[1])
    swap_bits(planes, spare, high)
    out[: MARK_BITS - 1] = planes[1:MARK_BITS]
