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
    fill_masks,
    joined,
    make_rows,
    swap_bits,
)
from ckptparse.crc.sequences import LANE, SHARE, Marks, Sequences, Words, add_terms

__all__ = ["SHARE", "Marker"]


class _Rows:
    """Memory for lanes of one length, that is used again (3 MiB for whole shares).

    Attributes:
        length: Words in a lane.
        words: Planes of words.
        spare: For `swap_bits`.
        masks: Planes of masks.
        sums: Planes of marks.
        products: What is added to them.
        steps: For each bit of the words: the planes of masks that it takes, and its plane.
        marks: The marks themselves.
    """

    __slots__ = ("length", "marks", "masks", "products", "spare", "steps", "sums", "words")

    def __init__(self, length: int) -> None:
        self.length = length
        self.words = make_rows(LANES, length)
        self.spare = make_rows(LANES // 2, length)
        self.masks = make_rows(MASKS, length)
        self.sums = make_rows(MARK_BITS, length)
        self.products = make_rows(MARK_BITS, length)
        self.marks = np.empty((LANES, length), np.uint16)
        # Bit n is x^(31 - n), and plane k of the marks is x^(k - 15).
        firsts = range(LANES - 1, -1, -1)
        self.steps = [
            (self.masks[first : first + MARK_BITS], plane)
            for first, plane in zip(firsts, self.words, strict=True)
        ]


class Marker:
    """Computes marks, in memory that is used again: a thread keeps one."""

    __slots__ = ("_rows", "_sequences")

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self._rows = _Rows(0)

    def fill(self, words: Words, first: int, out: Marks, *, factor: int = ONE) -> None:
        """Compute the marks of words at consecutive positions: at most `SHARE` of them.

        Args:
            words: Registers, or what is added to registers.
            first: The position of the first word.
            out: Where the marks are put.
            factor: What every word is multiplied by, besides the power of b.
        """
        rows = self._fill_planes(words, first, factor)
        out[:] = _to_lanes(rows).reshape(-1)[: len(out)]

    def fill_sums(self, words: Words, first: int, out: Marks, start: int) -> None:
        """Compute running sums: the mark `start` plus those of all words up to each one.

        Args:
            words: What is added to registers, at consecutive positions: at most `SHARE`.
            first: The position of the first word.
            out: Where the sums are put.
            start: The mark before the first word.
        """
        rows = self._fill_planes(words, first, ONE)
        np.bitwise_xor.accumulate(rows.sums, axis=1, out=rows.sums)
        lanes = _to_lanes(rows)
        # That was each lane by itself. To it belongs what all lanes before it add up to.
        ends = lanes[:, -1]
        before = (np.bitwise_xor.accumulate(ends) ^ ends ^ np.uint16(start))[:, None]
        if len(out) == lanes.size:
            np.bitwise_xor(lanes, before, out=out.reshape(lanes.shape))
        else:
            out[:] = (lanes ^ before).reshape(-1)[: len(out)]

    def _fill_planes(self, words: Words, first: int, factor: int) -> _Rows:
        """Return memory whose sums are the planes of the marks: plane k is bit k of each."""
        length = -(-len(words) // LANES)
        if length != self._rows.length:
            self._rows = _Rows(length)
        rows = self._rows
        element = multiply(factor, power_of_x(-8 * self._sequences.step * first))
        self._fill_masks(self._sequences.near(element))
        bits = rows.words
        if len(words) == bits.size:
            swap_bits(bits, rows.spare, words.reshape(bits.shape))
        else:
            whole, rest = divmod(len(words), length)
            bits[:whole] = words[: whole * length].reshape(whole, length)
            bits[whole:] = 0
            bits[whole : whole + 1, :rest] = words[whole * length :]
            swap_bits(bits, rows.spare)
        products, all_sums, all_products = rows.products, joined(rows.sums), joined(rows.products)
        (masks, plane), *steps = rows.steps
        np.bitwise_and(masks, plane, rows.sums)
        for masks, plane in steps:
            np.bitwise_and(masks, plane, products)
            np.bitwise_xor(all_sums, all_products, all_sums)
        return rows

    def _fill_masks(self, terms: tuple[int, ...]) -> None:
        """Compute the planes of masks."""
        rows = self._rows
        if rows.length == LANE:
            add_terms(self._sequences.planes(), terms, rows.masks)
            return
        halves = np.empty((2, LANES * rows.length), np.uint32)
        for half, known in zip(halves, self._sequences.masks, strict=True):
            add_terms(known, terms, half)
        low, high = halves.reshape(2, LANES, rows.length)
        fill_masks(low, high, rows.masks, rows.spare)


def _to_lanes(rows: _Rows) -> Marks:
    """Return the marks in lanes, shape (32, n), of the planes; these are changed."""
    planes, lanes = rows.sums, rows.marks
    swap_bits(planes, rows.spare)
    np.copyto(lanes[:MARK_BITS], planes, casting="unsafe")
    np.right_shift(planes, MARK_BITS, out=planes)
    np.copyto(lanes[MARK_BITS:], planes, casting="unsafe")
    return lanes
