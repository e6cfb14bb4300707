"""Marks of registers: 16 bits of each, taken back to position 0.

The register at position n, times b^n (`crc.sequences`), is what it would be at position 0: a window
of bytes adds the same to it wherever the window begins. So two marks and two pieces of a sequence
tell whether a window may be the one that is sought: three operations for each.

The bit of a mark that belongs to x^-t is the sum of f(b^p · x^(k - t)) over the powers x^k in a
word. So each bit of a word, and each bit of its mark, takes a product of two bits, and a sum. Both
are done for 32 words at once: planes of bits of words, of masks, and of marks (`crc.planes`).
"""

from __future__ import annotations

import numpy as np

from ckptparse.crc.field import ONE, multiply, power_of_x
from ckptparse.crc.planes import (
    LANES,
    MARK_BITS,
    MASKS,
    join_masks,
    make_rows,
    swap_bits,
)
from ckptparse.crc.sequences import LANE, SHARE, Marks, Sequences, Words, add_terms

__all__ = ["SHARE", "Marker"]


class Marker:
    """Computes marks, in memory that is used again (3 MiB): a thread keeps one."""

    __slots__ = ("_marks", "_masks", "_products", "_sequences", "_spare", "_sums", "_words")

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self._words = make_rows(LANES, LANE)
        self._spare = make_rows(LANES // 2, LANE)
        self._masks = make_rows(MASKS, LANE)
        self._sums = make_rows(MARK_BITS, LANE)
        self._products = make_rows(MARK_BITS, LANE)
        self._marks = np.empty(LANES * LANE, np.uint16)

    def fill(self, words: Words, first: int, out: Marks, *, factor: int = ONE) -> None:
        """Compute the marks of words at consecutive positions: at most `SHARE` of them.

        Args:
            words: Registers, or what is added to registers.
            first: The position of the first word.
            out: Where the marks are put.
            factor: What every word is multiplied by, besides the power of b.
        """
        out[:] = self._lanes(self._planes(words, first, factor)).reshape(-1)[: len(out)]

    def fill_sums(self, words: Words, first: int, out: Marks, start: int) -> None:
        """Compute running sums: the mark `start` plus those of all words up to each one.

        Args:
            words: What is added to registers, at consecutive positions: at most `SHARE`.
            first: The position of the first word.
            out: Where the sums are put.
            start: The mark before the first word.
        """
        planes = self._planes(words, first, ONE)
        np.bitwise_xor.accumulate(planes, axis=1, out=planes)
        lanes = self._lanes(planes)
        # That was each lane by itself. To it belongs what all lanes before it add up to.
        ends = lanes[:, -1]
        before = (np.bitwise_xor.accumulate(ends) ^ ends ^ np.uint16(start))[:, None]
        if len(out) == lanes.size:
            np.bitwise_xor(lanes, before, out=out.reshape(lanes.shape))
        else:
            out[:] = (lanes ^ before).reshape(-1)[: len(out)]

    def _planes(self, words: Words, first: int, factor: int) -> Words:
        """Return the planes of the marks, shape (16, n): plane k is bit k of each."""
        length = -(-len(words) // LANES)
        element = multiply(factor, power_of_x(-8 * self._sequences.step * first))
        masks = self._masks_of(self._sequences.near(element), length)
        bits, spare = self._words[:, :length], self._spare[:, :length]
        if len(words) == LANES * length:
            swap_bits(bits, spare, words.reshape(LANES, length))
        else:
            whole, rest = divmod(len(words), length)
            bits[:whole] = words[: whole * length].reshape(whole, length)
            bits[whole:] = 0
            bits[whole : whole + 1, :rest] = words[whole * length :]
            swap_bits(bits, spare)
        sums, products = self._sums[:, :length], self._products[:, :length]
        np.bitwise_and(masks[LANES - 1 :], bits[0], out=sums)
        for bit in range(1, LANES):
            # Bit n is x^(31 - n), and plane k of the marks is x^(k - 15).
            some = masks[LANES - 1 - bit : MASKS - bit]
            np.bitwise_and(some, bits[bit], out=products)
            np.bitwise_xor(sums, products, out=sums)
        return sums

    def _masks_of(self, terms: tuple[int, ...], length: int) -> Words:
        """Return the planes of masks for lanes of some length, shape (47, n)."""
        masks: Words = self._masks[:, :length]
        if length == LANE:
            add_terms(self._sequences.planes(), terms, masks)
            return masks
        halves = np.empty((2, LANES * length), np.uint32)
        for half, known in zip(halves, self._sequences.masks, strict=True):
            add_terms(known, terms, half)
            swap_bits(half.reshape(LANES, length), self._spare[:, :length])
        low, high = halves.reshape(2, LANES, length)
        join_masks(low, high, masks)
        return masks

    def _lanes(self, planes: Words) -> Marks:
        """Return the marks in lanes, shape (32, n), until the next call; the planes are changed."""
        length = planes.shape[1]
        lanes: Marks = self._marks[: LANES * length].reshape(LANES, length)
        swap_bits(planes, self._spare[:, :length])
        np.copyto(lanes[:MARK_BITS], planes, casting="unsafe")
        np.right_shift(planes, MARK_BITS, out=planes)
        np.copyto(lanes[MARK_BITS:], planes, casting="unsafe")
        return lanes
