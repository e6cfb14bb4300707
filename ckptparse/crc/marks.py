"""Marks of registers: 16 bits of each, taken back to position 0.

The register at position n, times b^n (`crc.sequences`), is what it would be at position 0: a window
of bytes adds the same to it wherever the window begins. So two marks and two pieces of a sequence
tell whether a window may be the one that is sought: three operations for each.

Bit t of the mark of a word w at position n is the parity of `w & m[n + t]`, with a mask for each
power of b. The bits of 16 products are added in a tree, in the words themselves: each step adds two
products, one in half of the bits, the other in the other half. The first two of the steps depend on
masks alone, but for where the bits of w stand: they are done for all words when the masks are made.
"""

from __future__ import annotations

import numpy as np

from ckptparse.crc.field import ONE, multiply, power_of_x
from ckptparse.crc.sequences import (
    MARK_BITS,
    ROWS,
    SHARE,
    SWAPS,
    Marks,
    Sequences,
    Words,
    add_terms,
)

__all__ = ["SHARE", "Marker"]

_TILE = 1 << 16
"""Words whose marks are made at once: with fewer, numpy's calls cost more than their work, and
threads wait for each other between them."""
_LOW_NIBBLES = np.uint32(0x0F0F0F0F)
_STEPS = ((2, 0x33333333), (1, 0x55555555))
"""Distances of bits that are added, and which bits of a word get those of the first product."""


class Marker:
    """Computes marks, in memory that is used again: a thread keeps one."""

    __slots__ = ("_each", "_mask", "_products", "_rows", "_sequences", "_swapped", "_words")

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self._words = np.zeros(_TILE, np.uint32)
        self._swapped = np.empty((len(SWAPS), _TILE), np.uint32)
        self._mask = np.empty(_TILE + ROWS - 1, np.uint32)
        item = self._mask.itemsize
        # Row r is the mask from position r on.
        self._each = np.ndarray((ROWS, _TILE), np.uint32, self._mask, strides=(item, item))
        self._products = np.empty((ROWS, _TILE), np.uint32)
        self._rows = np.empty((ROWS, _TILE), np.uint32)

    def fill(self, words: Words, first: int, out: Marks, *, factor: int = ONE) -> None:
        """Compute the marks of words at consecutive positions: at most `SHARE` of them.

        Args:
            words: Registers, or what is added to registers.
            first: The position of the first word.
            out: Where the marks are put.
            factor: What every word is multiplied by, besides the power of b.
        """
        sequences = self._sequences
        terms = sequences.terms(multiply(factor, power_of_x(-8 * sequences.step * first)))
        if not terms:
            out[:] = 0
            return
        for low in range(0, len(words), _TILE):
            part = words[low : low + _TILE]
            if len(part) < _TILE:
                self._words[: len(part)] = part
                part = self._words
            marks = self._marks(part, [low + term for term in terms])
            out[low : low + _TILE] = marks[: len(out) - low]

    def _marks(self, words: Words, terms: list[int]) -> Words:
        """Return the marks of words, as the lower 16 bits of each."""
        self._swap(words)
        rows, products = self._rows, self._products
        for number, swapped in enumerate(self._swapped):
            add_terms(self._sequences.masks[number], terms, self._mask)
            np.bitwise_and(swapped, self._each, out=products if number else rows)
            if number:
                np.bitwise_xor(rows, products, out=rows)
        for distance, bits in _STEPS:
            self._fold(distance, np.uint32(bits))
        other: Words = products[0]
        np.right_shift(rows[0], MARK_BITS, out=other)
        np.bitwise_xor(rows[0], other, out=other)
        return other

    def _swap(self, words: Words) -> None:
        """Put the bits of words where the masks of each swap want them."""
        by_none, by_4, by_8, by_12 = self._swapped
        other = self._products[0]
        by_none[:] = words
        # The bytes of each half change places if the other byte order is written.
        by_8.view(">u2")[:] = by_none.view("<u2")
        for given, swapped in ((by_none, by_4), (by_8, by_12)):
            np.right_shift(given, 4, out=other)
            np.bitwise_and(other, _LOW_NIBBLES, out=other)
            np.left_shift(given, 4, out=swapped)
            np.bitwise_and(swapped, ~_LOW_NIBBLES, out=swapped)
            np.bitwise_or(swapped, other, out=swapped)

    def _fold(self, distance: int, bits: np.uint32) -> None:
        """Add rows to others: to each half of the bits of the sum, those of one row."""
        low, high = self._rows[:distance], self._rows[distance : 2 * distance]
        change = self._products[:distance]
        np.right_shift(low, distance, out=change)
        np.bitwise_xor(change, high, out=change)
        np.bitwise_and(change, bits, out=change)
        np.bitwise_xor(high, change, out=high)
        np.left_shift(change, distance, out=change)
        np.bitwise_xor(low, change, out=low)
        np.bitwise_xor(low, high, out=low)
