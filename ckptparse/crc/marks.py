"""Marks of registers: 16 bits of each, taken back to position 0.

The register at position n, times b^n (`crc.sequences`), is what it would be at position 0: a window
of bytes adds the same to it wherever the window begins. So two marks and two pieces of a sequence
tell whether a window may be the one that is sought: three operations for each.

The bit of a mark that belongs to x^-t is the sum of f(b^p · x^(k - t)) over the powers x^k in a
word. Such sums for all t are a product of polynomials: of the word, whose lowest bit is x^31, and a
mask. Numpy multiplies numbers, with carries. So each half of the word, and its mask, is taken apart
into three classes of bits: every third. At each place where the product of two classes has a sum,
at most 6 bits meet, so that the sum has 3 bits and reaches no other. Its lowest bit is the one that
is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ckptparse.crc.field import ONE, multiply, power_of_x
from ckptparse.crc.sequences import MARK_BITS, SHARE, Marks, Sequences, Words, add_terms

__all__ = ["SHARE", "Marker"]

_TILE = 1 << 16
"""Words whose marks are made at once: with fewer, numpy's calls cost more than their work, and
threads wait for each other between them."""
_GAP = 3
_CLASSES = np.array([[0x49249249], [0x92492492], [0x24924924]], np.uint32)
"""Bits 0, 3, 6 ...; 1, 4, 7 ...; 2, 5, 8 ..."""
_HALF = np.uint32(0xFFFF)
_SPREAD = np.concatenate([_CLASSES, _CLASSES[: _GAP - 1]]) & _HALF
"""The classes of half a word, in a circle: the three from any one on lie side by side."""


class Marker:
    """Computes marks, in memory that is used again: a thread keeps one."""

    __slots__ = ("_half", "_mask", "_masks", "_products", "_sequences", "_spread", "_sums")

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self._half = np.empty(_TILE, np.uint32)
        self._spread = np.empty((len(_SPREAD), _TILE), np.uint32)
        self._mask = np.empty(_TILE, np.uint32)
        self._masks = np.empty((_GAP, _TILE), np.uint32)
        self._products = np.empty((_GAP, _TILE), np.uint32)
        self._sums = np.empty((_GAP, _TILE), np.uint32)

    def fill(self, words: Words, first: int, out: Marks, *, factor: int = ONE) -> None:
        """Compute the marks of words at consecutive positions: at most `SHARE` of them.

        Args:
            words: Registers, or what is added to registers.
            first: The position of the first word.
            out: Where the marks are put.
            factor: What every word is multiplied by, besides the power of b.
        """
        for low, marks in self._each(words, first, factor):
            np.right_shift(marks, MARK_BITS, out=marks)
            out[low : low + len(marks)] = marks

    def fill_sums(self, words: Words, first: int, out: Marks, start: int) -> None:
        """Compute running sums: the mark `start` plus those of all words up to each one.

        Args:
            words: What is added to registers, at consecutive positions: at most `SHARE`.
            first: The position of the first word.
            out: Where the sums are put.
            start: The mark before the first word.
        """
        for low, marks in self._each(words, first, ONE):
            marks[0] ^= np.uint32(start << MARK_BITS)
            # Numpy adds up words of 4 bytes five times as fast as those of 2.
            np.bitwise_xor.accumulate(marks, out=marks)
            np.right_shift(marks, MARK_BITS, out=marks)
            start = int(marks[-1])
            out[low : low + len(marks)] = marks

    def _each(self, words: Words, first: int, factor: int) -> Iterator[tuple[int, Words]]:
        """Iterate over tiles: where each begins, and the marks as the upper 16 bits of words."""
        sequences = self._sequences
        terms = sequences.terms(multiply(factor, power_of_x(-8 * sequences.step * first)))
        for low in range(0, len(words), _TILE):
            part = words[low : low + _TILE]
            yield low, self._marks(part, [low + term for term in terms])

    def _marks(self, words: Words, terms: list[int]) -> Words:
        """Return the marks of words, as the upper 16 bits of each; the others are anything."""
        size = len(words)
        sums = self._sums[:, :size]
        marks: Words = sums[0]
        if not terms:
            marks[:] = 0
            return marks
        low, high = self._sequences.masks
        self._add(words, low, terms, anew=True)
        half = self._half[:size]
        np.right_shift(words, MARK_BITS, out=half)
        self._add(half, high, terms)
        np.bitwise_and(sums, _CLASSES, out=sums)
        np.bitwise_or(marks, sums[1], out=marks)
        np.bitwise_or(marks, sums[2], out=marks)
        return marks

    def _add(self, halves: Words, sequence: Words, terms: list[int], *, anew: bool = False) -> None:
        """Add the products of the lower half of each word with the sum of pieces of masks."""
        size = len(halves)
        spread, mask = self._spread[:, :size], self._mask[:size]
        masks, products, sums = (
            array[:, :size] for array in (self._masks, self._products, self._sums)
        )
        np.bitwise_and(halves, _SPREAD, out=spread)
        add_terms(sequence, terms, mask)
        np.bitwise_and(mask, _CLASSES, out=masks)
        for number in range(_GAP):
            # Bits of the classes n and m meet at places of the class n + m.
            begin = (_GAP - number) % _GAP
            some = spread[begin : begin + _GAP]
            if anew and number == 0:
                np.multiply(some, masks[number], out=sums)
                continue
            np.multiply(some, masks[number], out=products)
            np.bitwise_xor(sums, products, out=sums)
