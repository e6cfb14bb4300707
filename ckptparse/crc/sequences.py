"""Sequences that all searches at one step share: 16 bits of each power of x^(-8 · step), and masks.

P is (x + 1) · Q. A mark is 16 bits of what a polynomial is modulo Q: bit 15 - t of the mark of z is
f(z · x^-t), where f(z) is the coefficient of x^0 in z · (x + 1). Let b be x^(-8 · step). Then the
marks of 1, b, b^2 ... are a sequence, and modulo Q nearly every polynomial is the sum of two of the
first 2^18 powers of b. So the marks of z, z · b, z · b^2 ... are the sum of two pieces of that
sequence: one operation for each mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
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

__all__ = ["MARK_BITS", "MOST", "SHARE", "Marks", "Sequences", "Words", "add_terms", "sequences_of"]

Words = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.uint16]
_Some = TypeVar("_Some", Words, Marks)

MARK_BITS = 16
SHARE = 1 << 18
"""How many marks of a sequence follow each of the powers that sums are made of."""
_POWERS = 1 << 18
"""Powers that sums are made of. A pair of them is within reach for all but 1 in 10^8."""
MOST = 1 << 19
"""Marks of powers that are computed at once, at most."""
_FIRST = 1 << 14
"""Powers that are computed together."""
_TRIED = 1 << 12
"""Powers that are tried at once as the first of a pair: about one in 13,000 has a second."""
_LOW_BITS = 18
_LOW = _POWERS - 1
_X_PLUS_1 = ONE | ONE >> 1


class Sequences:
    """What is made once for a step.

    Attributes:
        step: Bytes from one position to the next.
        masks: For the lower and the upper half of a word: which bits of it are added to give a
            mark's. Bit n of a mask is f(b^p · x^n), or f(b^p · x^(n - 16)), at position p.
    """

    __slots__ = (
        "_exponents",
        "_kept",
        "_marks",
        "_next",
        "_powers",
        "masks",
        "step",
    )

    def __init__(self, step: int) -> None:
        self.step = step
        self._powers = _powers_of_x_plus_1(step, _POWERS + SHARE)
        # Of powers with equal low bits, one is kept: two in three.
        low = self._powers[:_POWERS] & _LOW
        self._exponents = np.zeros(_POWERS, np.uint32)
        self._exponents[low] = np.arange(_POWERS)
        self._kept = self._powers[self._exponents]
        self._next = (self._kept >> _LOW_BITS).astype(np.uint8)
        tables = (_mask_table(0), _mark_table())
        self.masks = tuple(table.multiply(self._powers) for table in tables)
        # A mark is f(b^p · x^-15) to f(b^p), which are bits 1 to 16 of the mask of the upper half.
        self._marks = self._longer((self.masks[1] >> 1).astype(np.uint16))

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
        target = np.array([multiply(element, _X_PLUS_1)], np.uint32)
        return int(_mark_table().multiply(target)[0] >> 1) & 0xFFFF

    def fill(self, first: int, out: Marks) -> None:
        """Compute the marks of b^first and the powers after it: at most `MOST` of them."""
        add_terms(self._marks, self.terms(power_of_x(-8 * self.step * first)), out)

    def _longer(self, known: Marks) -> Marks:
        """Continue the sequence of marks until it has `MOST` of them after each power in a sum."""
        recurrence = self.terms(power_of_x(-8 * self.step * len(known)))
        found = np.empty(_POWERS + MOST, np.uint16)
        found[: len(known)] = known
        most = len(known) - max(recurrence)
        for start in range(len(known), len(found), most):
            part = found[start : start + most]
            add_terms(found[start - len(known) :], recurrence, part)
        return found

    def _pair(self, target: int) -> tuple[int, ...] | None:
        """Return the exponents of one or two powers, times x + 1, whose sum is the target."""
        if int(self._kept[target & _LOW]) == target:
            return (int(self._exponents[target & _LOW]),)
        places = np.empty(_TRIED, np.intp)
        following, other = np.empty(_TRIED, np.uint8), np.empty(_TRIED, np.uint8)
        for start in range(0, _POWERS, _TRIED):
            others = self._powers[start : start + _TRIED] ^ np.uint32(target)
            np.bitwise_and(others, _LOW, out=places, casting="unsafe")
            # First 8 of the other bits, from a table that stays in the processor's cache.
            np.take(self._next, places, out=following, mode="clip")
            np.right_shift(others, _LOW_BITS, out=other, casting="unsafe")
            some = np.flatnonzero(following == other)
            hits = some[self._kept[places[some]] == others[some]]
            if len(hits):
                return start + int(hits[0]), int(self._exponents[places[hits[0]]])
        return None


@lru_cache(maxsize=4)
def sequences_of(step: int) -> Sequences:
    """Return the sequences for a step: 5 MiB, made in some milliseconds."""
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


@cache
def _mark_table() -> WideTable:
    """Return the table for masks of the upper half of a word: they contain the mark."""
    return _mask_table(-MARK_BITS)


def _mask_table(first: int) -> WideTable:
    """Return the table that turns b^p · (x + 1) into a mask, whose bit 0 is f(b^p · x^first).

    Bit n of a polynomial gives to bit m of the mask the coefficient of x^0 in
    x^(31 - n + first + m).
    """
    images = []
    for place in range(32):
        bits = (power_of_x(31 - place + first + bit) >> 31 << bit for bit in range(32))
        images.append(sum(bits))
    return WideTable(linear_table(images))
