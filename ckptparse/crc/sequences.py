"""Sequences that all searches at one step share: 16 bits of each power of x^(-8 · step), and masks.

P is (x + 1) · Q. A mark is 16 bits of what a polynomial is modulo Q: bit 15 - t of the mark of z is
f(z · x^-t), where f(z) is the coefficient of x^0 in z · (x + 1). Let b be x^(-8 · step). Then the
marks of 1, b, b^2 ... are a sequence, and modulo Q nearly every polynomial is the sum of two of the
first 2^18 powers of b. So the marks of z, z · b, z · b^2 ... are the sum of two pieces of that
sequence: one operation for each mark.

What the marks of words are made with, masks, is longer. So it is kept for fewer powers, and nearly
every polynomial is the sum of three of the first 2^14.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

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
from ckptparse.crc.planes import LANES, MASKS, fill_masks, make_rows
from ckptparse.locks import make_lock

__all__ = ["LANE", "MOST", "SHARE", "Marks", "Sequences", "Words", "add_terms", "sequences_of"]

Words = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.uint16]
_Some = TypeVar("_Some", Words, Marks)

SHARE = 1 << 17
"""Marks that one thread makes at a time."""
LANE = SHARE // LANES
"""Marks of each lane of a share."""
_POWERS = 1 << 18
"""Powers that sums are made of. A pair of them is within reach for all but 1 in 10^8."""
_NEAR = 1 << 14
"""Powers that sums of three are made of."""
MOST = 5 << 18
"""Marks of powers that are computed at once, at most."""
_FIRST = 1 << 14
"""Powers that are computed together."""
_TRIED = 1 << 13
"""Powers that are tried at once as the first of a pair: about one in 13,000 has a second."""
_LOW_BITS = 18
_LOW = _POWERS - 1
_X_PLUS_1 = ONE | ONE >> 1


class Sequences:
    """What is made once for a step.

    Attributes:
        step: Bytes from one position to the next.
        masks: For the lower and the upper half of a word: which bits of it are added to give a
            mark's. Bit n of a mask is f(b^p · x^n), or f(b^p · x^(n - 16)), at position p. After
            each of the powers in a sum of `near` there are `SHARE` of them.
    """

    __slots__ = ("_far", "_kept_planes", "_lock", "_marks", "_near", "_powers", "masks", "step")

    def __init__(self, step: int) -> None:
        self.step = step
        self._powers = _powers_of_x_plus_1(step, _NEAR + _POWERS)
        near = self._powers[:_NEAR]
        # Sums of two at different distances: with a third one, few sums of three are equal.
        distances = range(1, 1 + _POWERS // _NEAR)
        sums = np.concatenate([near ^ np.roll(near, -distance) for distance in distances])
        self._far, self._near = _Pairs(self._powers[:_POWERS]), _Pairs(sums)
        tables = (_mask_table(0), _mark_table())
        self.masks = tuple(table.multiply(self._powers) for table in tables)
        self._kept_planes: Words | None = None
        self._lock = make_lock()
        # A mark is f(b^p · x^-15) to f(b^p), which are bits 1 to 16 of the mask of the upper half.
        self._marks = self._longer((self.masks[1] >> 1).astype(np.uint16))

    def terms(self, element: int) -> tuple[int, ...]:
        """Return exponents n, each below 2^18: the sum of their b^n is the element modulo Q."""
        target = multiply(element, _X_PLUS_1)
        if not target:
            return ()
        if (place := self._far.place_of(target)) is not None:
            return (place,)
        return self._far.sum_of(target, self._powers[:_POWERS])

    def near(self, element: int) -> tuple[int, ...]:
        """Return exponents n, each below 2^14: the sum of their b^n is the element modulo Q."""
        target = multiply(element, _X_PLUS_1)
        if not target:
            return ()
        *others, place = self._near.sum_of(target, self._powers[:_NEAR])
        distance, first = divmod(place, _NEAR)
        return (*others, first, (first + 1 + distance) % _NEAR)

    def planes(self) -> Words:
        """Return the masks of lanes (`crc.planes`), 2^14 and a whole lane of them; made once."""
        with self._lock:
            if self._kept_planes is None:
                length = _NEAR + LANE
                planes = make_rows(MASKS, length)
                low, high = (
                    sliding_window_view(masks, length)[:SHARE:LANE] for masks in self.masks
                )
                fill_masks(low, high, planes, make_rows(LANES // 2, length))
                self._kept_planes = planes
            return self._kept_planes

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


class _Pairs:
    """Tells which one of some elements gives, with one of others, the sum that is wanted."""

    __slots__ = ("_kept", "_next", "_places")

    def __init__(self, elements: Words) -> None:
        """Take 2^18 elements. Of those with equal low bits, one is kept: two in three."""
        low = elements & _LOW
        self._places = np.zeros(_POWERS, np.uint32)
        self._places[low] = np.arange(_POWERS, dtype=np.uint32)
        # Of the same number the last one is kept too. Where none is, the first fits nothing.
        self._kept = np.full(_POWERS, elements[0])
        self._kept[low] = elements
        self._next = (self._kept >> _LOW_BITS).astype(np.uint8)

    def place_of(self, target: int) -> int | None:
        """Return the place of an element."""
        low = target & _LOW
        return int(self._places[low]) if int(self._kept[low]) == target else None

    def sum_of(self, target: int, others: Words) -> tuple[int, ...]:
        """Return places: first one, or seldom more, of the others, then one of the elements."""
        if (found := self._pair(target, others)) is not None:
            return found
        for more, other in enumerate(others):
            if (found := self._pair(target ^ int(other), others)) is not None:
                return (more, *found)
        raise ArithmeticError("no sum of so few powers: the table of powers is wrong")

    def _pair(self, target: int, others: Words) -> tuple[int, ...] | None:
        """Return the places of one of the others and of an element whose sum is the target."""
        places = np.empty(_TRIED, np.intp)
        following, other = np.empty(_TRIED, np.uint8), np.empty(_TRIED, np.uint8)
        for start in range(0, len(others), _TRIED):
            missing = others[start : start + _TRIED] ^ np.uint32(target)
            np.bitwise_and(missing, _LOW, out=places, casting="unsafe")
            # First 8 of the other bits, from a table that stays in the processor's cache.
            np.take(self._next, places, out=following, mode="clip")
            np.right_shift(missing, _LOW_BITS, out=other, casting="unsafe")
            some = np.flatnonzero(following == other)
            hits = some[self._kept[places[some]] == missing[some]]
            if len(hits):
                return start + int(hits[0]), int(self._places[places[hits[0]]])
        return None


@lru_cache(maxsize=4)
def sequences_of(step: int) -> Sequences:
    """Return the sequences for a step: 14 MiB, made in some milliseconds."""
    return Sequences(step)


def add_terms(values: _Some, terms: Sequence[int], out: _Some) -> None:
    """Add the pieces of a sequence, along its last axis, that begin at some exponents."""
    pieces = [values[..., term : term + out.shape[-1]] for term in terms]
    if len(pieces) < 2:
        out[...] = pieces[0] if pieces else 0
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
    return _mask_table(-16)


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
