"""Put back carriage returns that a conversion of text took away.

A program that turns CR LF into LF takes one byte out of each such pair: in weights one byte in
65,536. Afterwards any line feed may have had a return before it.

If few bytes may have lost few returns, every choice is tried: what each adds to the checksum does
not depend on the others, so two halves are looked up in each other (`_Pieces.choose`). If not:

1. The elements tell roughly where. After a lost byte all of them are one byte off. Bytes of
   exponents have few different values, and now they are in the place of mantissas. A Viterbi path
   over the shifts, which change at line feeds only, says near which line feed a return was lost.
2. Among several line feeds close together, the checksum chooses. Moving a return to another line
   feed changes the checksum by a value that depends only on the bytes between the two. So this is a
   linear system (`crc.choices`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import comb, prod

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.choices import find_choices
from ckptparse.crc.field import (
    Registers,
    multiply,
    multiply_each,
    multiply_pairs,
    multiply_table,
    power_of_x,
    powers_of_x,
)

__all__ = ["Restored", "restore_returns"]

_LINE_FEED, _RETURN = 10, 13
_CHECKSUMS = 2**32
"""Values of a checksum: a wrong way fits with a chance of 1 in so many."""
_MOST_TRIED = 1 << 20
"""Ways that are tried without looking at the elements: one fits by chance 1 in 4,096."""
_MOST_LOST = 4
"""Returns at most, if all ways are tried."""
_STEP = 1 << 12
"""Powers of x^8 that are kept, and as far apart are others: a product of two is any power."""
_DENSE = 16
"""Bytes for each line feed, at least, if shifts are looked for. In weights it is one in 256."""
_ALL_ONES = 0xFFFFFFFF
_LEARNED = (1 << 11, 1 << 14)
"""First bytes from which the usual bytes are learned. A return is lost every 65,536 bytes: 97% of
first 2,048 bytes have lost none, of first 16,384 it is 78%, but they say more."""
_PIECE = 1 << 15
"""Bytes that are scored at once, so that the tables stay in the processor's cache."""
_ROUNDS = 4
"""Times that the usual bytes are learned again from the shifts found. The path is the same after
two or three rounds, and the search ends then."""
_LOST = np.log(1 / 256)
"""The chance, as a logarithm, that a line feed had a return before it: one byte in 256 is one."""
_DOUBT = 14.0
"""Another line feed is tried if it is at most e^14 (a million) times less likely."""
_MOST_WAYS = 1 << 30
"""Choices among line feeds at most: one of 2^30 fits by chance 1 in 4. With more, what fits says
nothing."""

Bytes = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]
Chances = npt.NDArray[np.float32]
"""Logarithms, a row for each byte of an element, a column for each value of it."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Where returns were put back so that the checksum agrees."""

    places: tuple[int, ...]
    """Offsets, in the bytes as they are now, of the line feeds that had a return before them."""
    taken: int
    """How many of those bytes belong to the run: its size, less the returns."""
    chance: float
    """Chance that this choice is wrong: how many were tried, / 2^32; 0 if nothing was lost."""

    def build(self, data: bytes | memoryview) -> bytes:
        """Return the bytes with the returns put back."""
        edges = [0, *self.places, self.taken]
        return b"\r".join(bytes(data[start:stop]) for start, stop in pairwise(edges))


def restore_returns(
    data: bytes | memoryview,
    size: int,
    crc: int | Callable[[int], int | None],
    *,
    width: int = 1,
    most: int = _MOST_TRIED,
) -> Restored | None:
    """Put back the returns that a run of bytes has lost; None if the checksum never agrees.

    Args:
        data: The bytes as they are now, from the start of the run: `size` of them, or fewer at the
            end of the file.
        size: How many bytes the run had.
        crc: The unmasked checksum that it had; or what returns it if so many returns were lost.
        width: Bytes of an element. With 1 a shift cannot be seen, so only few losses are found.
        most: Ways that are tried without looking at the elements.
    """
    view = memoryview(data)[: size + 1]
    wanted = crc if callable(crc) else lambda _: crc
    if len(view) >= size and crc32c(view[:size]) == wanted(0):
        return Restored((), size, 0.0)
    array = np.frombuffer(view, np.uint8)
    pieces = _Pieces(array, size, wanted)
    tried = 1
    for count in range(1, _MOST_LOST + 1):
        ways = comb(len(pieces.feeds), count)
        if tried + ways > most:
            break
        if size - count <= len(array):
            tried += ways
            found = pieces.choose(count)
            if found is not None:
                return Restored(found, size - count, tried / _CHECKSUMS)
    return _by_shifts(pieces, width, tried) if width > 1 else None


class _Pieces:
    """The bytes between line feeds, and what each adds to the checksum at any place."""

    def __init__(self, array: Bytes, size: int, crc_of: Callable[[int], int | None]) -> None:
        self.array = array
        self.feeds = np.flatnonzero(array == _LINE_FEED)
        self.size = size
        self._crc_of = crc_of

    def wanted(self, lost: int) -> int | None:
        """Return what every byte adds, if so many returns were lost; None if nothing says it."""
        crc = self._crc_of(lost)
        # A register started at zero is that sum.
        return None if crc is None else crc ^ crc_of_zeros(self.size)

    def register(self, start: int, stop: int, behind: int) -> int:
        """Return what bytes add to the register if `behind` bytes of the run follow them."""
        piece = self.array[start:stop].data
        return multiply(crc32c(piece) ^ crc_of_zeros(stop - start), power_of_x(8 * behind))

    def returns(self, places: Sequence[int]) -> int:
        """Return the register of the run with returns before some line feeds."""
        total, start, written = 0, 0, 0
        taken = self.size - len(places)
        for place in (*places, taken):
            written += place - start
            total ^= self.register(start, place, self.size - written)
            if place != taken:
                written += 1
                total ^= _return_at(self.size - written)
            start = place
        return total

    def misses(self, places: Sequence[int]) -> int | None:
        """Return the difference of that register from the one that the checksum needs."""
        wanted = self.wanted(len(places))
        return None if wanted is None else self.returns(places) ^ wanted

    @cached_property
    def _before(self) -> tuple[Registers, Registers]:
        """What the bytes before each line feed add, and what a return before it adds.

        This is so if no return was lost before. With n of them, all that is x^-8n times as much.
        """
        registers = np.empty(len(self.feeds), np.uint32)
        register, start = 0, 0
        for number, place in enumerate(self.feeds.tolist()):
            piece = self.array[start:place].data
            register = crc32c(piece, register ^ _ALL_ONES) ^ _ALL_ONES
            registers[number], start = register, place
        count = self.size - self.feeds
        behind = multiply_pairs(
            powers_of_x(8, _STEP)[count % _STEP],
            powers_of_x(8 * _STEP, self.size // _STEP + 1)[count // _STEP],
        )
        one = crc32c(b"\r") ^ crc_of_zeros(1)
        return multiply_pairs(registers, behind), multiply_each(behind, multiply_table(one))

    def choose(self, count: int) -> tuple[int, ...] | None:
        """Find `count` line feeds so that with returns before them the sum is right.

        None if there is none, or more than one.
        """
        wanted = self.wanted(count)
        usable = int(np.searchsorted(self.feeds, self.size - count, "right"))
        if wanted is None or usable < count:
            return None
        before, returned = (one[:usable] for one in self._before)
        terms = []
        for _ in range(count):
            # The bytes between the line feed and the next return move by one.
            moved = multiply_each(before, multiply_table(power_of_x(-8)))
            returned = multiply_each(returned, multiply_table(power_of_x(-8)))
            terms.append(before ^ moved ^ returned)
            before = moved
        whole = self.array[: self.size - count].data
        found = _match(terms, wanted ^ crc32c(whole) ^ crc_of_zeros(len(whole)))
        return None if found is None else tuple(int(self.feeds[number]) for number in found)

    def change(self, place: int, other: int, before: int) -> int:
        """Return what moving a return to another line feed changes the register by.

        Args:
            place: The line feed that it is before now.
            other: The other line feed; no other return was lost between the two.
            before: How many returns come before both.
        """
        low, high = sorted((place, other))
        behind = self.size - high - before
        # The bytes between the two move by one; so does the return.
        moved = self.register(low, high, behind) ^ self.register(low, high, behind - 1)
        both = _return_at(self.size - low - before - 1) ^ _return_at(self.size - high - before - 1)
        return moved ^ both if place != other else 0


def _match(terms: Sequence[Registers], target: int) -> tuple[int, ...] | None:
    """Choose rising numbers, one for each array, so that what they name adds up to the target.

    None if there is no such choice, or more than one.
    """
    half = len(terms) // 2
    first, chosen = _combine(terms[:half])
    second, others = _combine(terms[half:])
    order = np.argsort(second, kind="stable")
    second = second[order]
    needed = first ^ np.uint32(target)
    low, high = np.searchsorted(second, needed), np.searchsorted(second, needed, "right")
    found: list[tuple[int, ...]] = []
    for number in np.flatnonzero(high > low).tolist():
        for other in order[low[number] : high[number]].tolist():
            numbers = (*(one[number] for one in chosen), *(one[other] for one in others))
            if all(one < next_one for one, next_one in pairwise(numbers)):
                found.append(tuple(map(int, numbers)))
    return found[0] if len(found) == 1 else None


def _combine(terms: Sequence[Registers]) -> tuple[Registers, list[npt.NDArray[np.intp]]]:
    """Return the sums of rising choices among none, one or two arrays, and what was chosen."""
    if not terms:
        return np.zeros(1, np.uint32), []
    if len(terms) == 1:
        return terms[0], [np.arange(len(terms[0]))]
    low, high = np.triu_indices(len(terms[0]), 1)
    return terms[0][low] ^ terms[1][high], [low, high]


def _return_at(behind: int) -> int:
    register = crc32c(b"\r") ^ crc_of_zeros(1)
    return multiply(register, power_of_x(8 * behind))


def _by_shifts(pieces: _Pieces, width: int, tried: int) -> Restored | None:
    """Find lost returns by the shifts of the elements after them.

    The first bytes are not shifted, so they tell which bytes are usual at each place of an element.
    Few of them tell little; among many a return may have been lost already.
    """
    seen: list[list[int]] = []
    if len(pieces.feeds) * _DENSE > len(pieces.array):
        return None
    for count in _LEARNED:
        first = pieces.array[:count]
        chances = _learn(first, width, np.zeros(len(first), np.intp))
        for _ in range(_ROUNDS):
            scores = _score_pieces(pieces.array, pieces.feeds, chances, width)
            path = _find_path(scores, chances, pieces.feeds, width)
            if path in seen:
                break
            seen.append(path)
            found, ways = _settle(pieces, path, scores, width)
            tried += ways
            if found is not None:
                chance = min(1.0, tried / _CHECKSUMS)
                return Restored(found, pieces.size - len(found), chance)
            places = np.arange(len(pieces.array))
            shifts = np.searchsorted(pieces.feeds[path], places, "right")
            chances = _learn(pieces.array, width, shifts)
    return None


def _settle(
    pieces: _Pieces, path: Sequence[int], scores: Scores, width: int
) -> tuple[tuple[int, ...] | None, int]:
    """Return the places near a path for which the checksum agrees, and how many ways were tried."""
    taken = pieces.size - len(path)
    # A return that was lost after the end belongs to another run.
    inside = list(path)
    while inside and int(pieces.feeds[inside[-1]]) >= taken:
        inside.pop()
        taken += 1
    if not inside or taken > len(pieces.array):
        return None, 0
    options = _options(pieces, inside, scores, width)
    ways = prod(len(group) for group in options)
    return (_choose(pieces, inside, options), ways) if ways <= _MOST_WAYS else (None, 0)


def _choose(
    pieces: _Pieces, path: Sequence[int], options: Sequence[Sequence[int]]
) -> tuple[int, ...] | None:
    """Choose among the places of each return by the checksum."""
    feeds = pieces.feeds
    places = [int(feeds[number]) for number in path]
    changes = [
        [pieces.change(place, int(feeds[other]), before) for other in group]
        for before, (place, group) in enumerate(zip(places, options, strict=True))
    ]
    misses = pieces.misses(places)
    choices = [] if misses is None else find_choices(changes, misses)
    if len(choices) != 1:
        return None
    return tuple(int(feeds[group[n]]) for group, n in zip(options, choices[0], strict=True))


def _learn(array: Bytes, width: int, shifts: npt.NDArray[np.intp]) -> Chances:
    """Return logarithms of the chances of bytes at each place of an element."""
    lanes = (np.arange(len(array)) + shifts) % width
    # A quarter more of each, so that no byte is impossible.
    counts = np.bincount(lanes * 256 + array, minlength=256 * width).reshape(width, 256) + 0.25
    chances: Chances = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return chances


def _score_pieces(
    array: Bytes, feeds: npt.NDArray[np.intp], chances: Chances, width: int
) -> Scores:
    """Return how likely each piece is at each shift; one begins at the start and at each feed."""
    edges = np.concatenate(([0], feeds)) if len(feeds) else np.zeros(1, np.intp)
    scores = np.zeros((len(edges), width))
    for start in range(0, len(array), _PIECE):
        part = array[start : start + _PIECE]
        first = int(np.searchsorted(edges, start, "right")) - 1
        last = int(np.searchsorted(edges, start + len(part), "left"))
        cuts = np.maximum(edges[first:last] - start, 0)
        by_lane = chances[:, part]
        for shift in range(width):
            values = np.empty(len(part), np.float32)
            for place in range(width):
                lane = (start + place + shift) % width
                values[place::width] = by_lane[lane, place::width]
            sums = np.add.reduceat(values, cuts)
            # Between two equal cuts nothing lies, but reduceat gives the element there.
            sums[:-1][cuts[1:] == cuts[:-1]] = 0
            scores[first:last, shift] += sums
    return scores


def _find_path(
    scores: Scores, chances: Chances, feeds: npt.NDArray[np.intp], width: int
) -> list[int]:
    """Return the numbers of the line feeds that have a return before them on the likeliest path."""
    rows = scores.tolist()
    returns = (chances[:, _RETURN] + _LOST).tolist()
    best = [-np.inf] * width
    best[0] = rows[0][0]
    steps: list[list[bool]] = []
    for row, feed in zip(rows[1:], feeds.tolist(), strict=True):
        chosen, after = [], []
        for shift in range(width):
            stay = best[shift]
            lost = best[shift - 1] + returns[(feed + shift - 1) % width]
            chosen.append(lost > stay)
            after.append(max(stay, lost) + row[shift])
        best = after
        steps.append(chosen)
    shift = max(range(width), key=best.__getitem__)
    path = []
    for number in range(len(steps) - 1, -1, -1):
        if steps[number][shift]:
            path.append(number)
            shift = (shift - 1) % width
    return path[::-1]


def _options(pieces: _Pieces, path: Sequence[int], scores: Scores, width: int) -> list[list[int]]:
    """Return for each return the line feeds that it may have been before, the likeliest first."""
    options = []
    for before, number in enumerate(path):
        lowest = path[before - 1] + 1 if before else 0
        highest = path[before + 1] if before + 1 < len(path) else len(pieces.feeds)
        here, there = before % width, (before + 1) % width
        group = [number]
        # At an earlier feed the pieces from there on are shifted; at a later one, fewer are.
        lost = 0.0
        for other in range(number - 1, lowest - 1, -1):
            lost += scores[other + 1, here] - scores[other + 1, there]
            if lost > _DOUBT:
                break
            group.append(other)
        lost = 0.0
        for other in range(number + 1, highest):
            lost += scores[other, there] - scores[other, here]
            if lost > _DOUBT:
                break
            group.append(other)
        options.append(group)
    return options
