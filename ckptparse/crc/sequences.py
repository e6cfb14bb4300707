"""Sequences that all searches at one step share: 16 bits of each power of x^(-8 · step), and masks.

P is (x + 1) · Q. A mark is 16 bits of what a polynomial is modulo Q: bit t of the mark of z is
f(z · b^t). Here b is x^(-8 · step), and f(z) is the coefficient of x^0 in z · (x + 1). So the marks
of z, z · b, z · b^2 ... are one sequence of bits, seen through a window that moves.

Modulo Q, nearly every polynomial is the sum of two of the first 2^18 powers of b. So the sequence
of any polynomial is the sum of two pieces of that of 1: one operation for each mark of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ckptparse.crc.field import (
    ONE,
    WideTable,
    linear_table,
    multiply,
    multiply_each,
    multiply_table,
    power_of_x,
    powers_of_x,
)

__all__ = ["MARK_BITS", "ROWS", "SHARE", "SWAPS", "Marks", "Sequences", "Words", "sequences_of"]

Words = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.uint16]
_Some = TypeVar("_Some", Words, Marks)

MARK_BITS = 16
SHARE = 1 << 17
"""How many marks of a sequence follow each of the powers that sums are made of."""
SWAPS = (0, 4, 8, 12)
"""Distances in a word: which bit of it meets which bit of a mask (`crc.marks`)."""
_POWERS = 1 << 18
"""Powers that sums are made of. A pair of them is within reach for all but 1 in 10^8."""
_FIRST = 1 << 14
"""Powers that are computed together."""
_TRIED = 1 << 12
"""Powers that are tried at once as the first of a pair: about one in 13,000 has a second."""
_LOW = _POWERS - 1
_X_PLUS_1 = ONE | ONE >> 1
ROWS = 4
_NIBBLES = {0: 0x000F000F, 4: 0x00F000F0, 8: 0x0F000F00, 12: 0xF000F000}
"""Bits of a word by the number of the mark's bit that they belong to, without its two lowest."""


class Sequences:
    """What is made once for a step.

    Attributes:
        step: Bytes from one position to the next.
        masks: Shape (4, n). Which bits of a word are added to give a mark's (`crc.marks`).
    """

    __slots__ = (
        "_exponents",
        "_kept",
        "_marks",
        "_powers",
        "_recurrence",
        "_words",
        "masks",
        "step",
    )

    def __init__(self, step: int) -> None:
        self.step = step
        count = _POWERS + SHARE + MARK_BITS
        self._powers = _powers_of_x_plus_1(step, count)
        # Of powers with equal low bits, one is kept: two in three.
        low = self._powers[:_POWERS] & _LOW
        self._exponents = np.zeros(_POWERS, np.uint32)
        self._exponents[low] = np.arange(_POWERS)
        self._kept = self._powers[self._exponents]
        self._words, self.masks = _masks(self._powers)
        self._marks = _moving(self._powers)
        known = len(self._marks)
        self._recurrence = self.terms(power_of_x(-8 * step * known))

    def terms(self, element: int) -> tuple[int, ...]:
        """Return exponents n, each below 2^18: the sum of their b^n is the element modulo Q."""
        target = multiply(element, _X_PLUS_1)
        if not target:
            return ()
        for more in range(_POWERS):
            found = self._pair(target)
            if found is not None:
                return found if not more else (*found, more - 1)
            target = multiply(element, _X_PLUS_1) ^ int(self._powers[more])
        raise ArithmeticError("no sum of three powers: the table of powers is wrong")

    def mark(self, element: int) -> int:
        """Return the mark of one polynomial."""
        bits = ((element & word).bit_count() & 1 for word in self._words[:MARK_BITS].tolist())
        return sum(bit << place for place, bit in enumerate(bits))

    def marks(self, count: int) -> Marks:
        """Return the marks of 1, b, b^2 ...: `count` of them, and as many more as terms reach."""
        known = len(self._marks)
        if known >= count + _POWERS:
            return self._marks
        found = np.empty(count + _POWERS, np.uint16)
        found[:known] = self._marks
        most = known - max(self._recurrence)
        for start in range(known, len(found), most):
            part = found[start : start + most]
            add_terms(found[start - known :], self._recurrence, part)
        return found

    def _pair(self, target: int) -> tuple[int, ...] | None:
        """Return the exponents of one or two powers, times x + 1, whose sum is the target."""
        if int(self._kept[target & _LOW]) == target:
            return (int(self._exponents[target & _LOW]),)
        places = np.empty(_TRIED, np.intp)
        for start in range(0, _POWERS, _TRIED):
            others = self._powers[start : start + _TRIED] ^ np.uint32(target)
            np.bitwise_and(others, _LOW, out=places, casting="unsafe")
            hits = np.flatnonzero(np.take(self._kept, places, mode="clip") == others)
            if len(hits):
                return start + int(hits[0]), int(self._exponents[places[hits[0]]])
        return None


@lru_cache(maxsize=4)
def sequences_of(step: int) -> Sequences:
    """Return the sequences for a step: 8 MiB, made in some milliseconds."""
    return Sequences(step)


def add_terms(values: _Some, terms: Sequence[int], out: _Some) -> None:
    """Add the pieces of a sequence that begin at some exponents: one or more."""
    pieces = [values[term : term + len(out)] for term in terms]
    if len(pieces) == 1:
        out[:] = pieces[0]
        return
    np.bitwise_xor(pieces[0], pieces[1], out=out)
    for piece in pieces[2:]:
        np.bitwise_xor(out, piece, out=out)


def _powers_of_x_plus_1(step: int, count: int) -> Words:
    """Return x + 1 times each power of b: of those equal modulo Q, they are the same."""
    powers = np.empty(count, np.uint32)
    powers[:_FIRST] = powers_of_x(-8 * step, _FIRST)
    powers[:_FIRST] = multiply_each(powers[:_FIRST], multiply_table(_X_PLUS_1))
    table = WideTable(multiply_table(power_of_x(-8 * step * _FIRST)))
    for start in range(_FIRST, count, _FIRST):
        part = powers[start : start + _FIRST]
        part[:] = table.multiply(powers[start - _FIRST : start][: len(part)])
    return powers


def _masks(powers: Words) -> tuple[Words, Words]:
    """Return which bits are added to give f(word) for the first powers, and the masks for all.

    A part at a time: memory that is used again need not be made ready again.
    """
    table = WideTable(_functionals())
    first_words = table.multiply(powers[:MARK_BITS])
    count = len(powers) - MARK_BITS + ROWS
    masks = np.zeros((len(SWAPS), count), np.uint32)
    for start in range(0, count, _FIRST):
        size = min(_FIRST, count - start)
        words = table.multiply(powers[start : start + size + MARK_BITS - ROWS])
        for swap, mask in zip(SWAPS, masks, strict=True):
            moved = _swapped(words, swap)
            for first, bits in _NIBBLES.items():
                mask[start : start + size] |= moved[first : first + size] & np.uint32(bits)
    return first_words, masks


def _functionals() -> Words:
    """Return the table that turns a power of b, times x + 1, into the bits of a word for f.

    Bit n of these is the coefficient of x^0 in x^(31 - n) times the power.
    """
    images = []
    for place in range(32):
        bits = (power_of_x(62 - place - bit) >> 31 << bit for bit in range(32))
        images.append(sum(bits))
    return linear_table(images)


def _swapped(words: Words, distance: int) -> Words:
    """Return words in which bit p is bit p ^ distance of the others."""
    for single in (4, 8):
        if distance & single:
            low = np.uint32(0x0F0F0F0F if single == 4 else 0x00FF00FF)
            words = (words >> single & low | (words & low) << single).astype(np.uint32, copy=False)
    return words


def _moving(powers: Words) -> Marks:
    """Return at each position the highest bits of 16 powers from there on, the first one lowest."""
    count = len(powers) - MARK_BITS + 1
    found = np.zeros(count, np.uint16)
    for start in range(0, count, _FIRST):
        part = found[start : start + _FIRST]
        bits = powers[start : start + len(part) + MARK_BITS - 1] >> 31
        for place in range(MARK_BITS):
            part |= (bits[place : place + len(part)] << place).astype(np.uint16)
    return found
