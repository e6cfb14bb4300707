"""Put back carriage returns that a conversion of text took away.

A program that turns CR LF into LF takes one byte out of each such pair: in weights one byte in
65,536. Afterwards any line feed may have had a return before it.

1. The elements tell roughly where. After a lost byte all of them are one byte off. Bytes of
   exponents have few different values, and now they are in the place of mantissas. A Viterbi path
   over the shifts, which change at line feeds only, says near which line feed a return was lost.
2. Among several line feeds close together, the checksum chooses. Moving a return to another line
   feed changes the checksum by a value that depends only on the bytes between the two. So this is a
   linear system (`crc.choices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb, prod

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.choices import find_choices
from ckptparse.crc.field import multiply, power_of_x

__all__ = ["Restored", "restore_returns"]

_LINE_FEED, _RETURN = 10, 13
_CHECKSUMS = 2**32
"""Values of a checksum: a wrong way fits with a chance of 1 in so many."""
_MOST_TRIED = 1 << 14
"""Ways that are tried without looking at the elements: one fits by chance 1 in 262,144."""
_FEW_FEEDS = 256
"""Line feeds at most, if all ways are tried: a register for each piece and shift is kept."""
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
    data: bytes | memoryview, size: int, crc: int, *, width: int = 1
) -> Restored | None:
    """Put back the returns that a run of bytes has lost; None if the checksum never agrees.

    Args:
        data: The bytes as they are now, from the start of the run: `size` of them, or fewer at the
            end of the file.
        size: How many bytes the run had.
        crc: The unmasked checksum that it had.
        width: Bytes of an element. With 1 a shift cannot be seen, so only few losses are found.
    """
    view = memoryview(data)[:size]
    if len(view) == size and crc32c(view) == crc:
        return Restored((), size, 0.0)
    array = np.frombuffer(view, np.uint8)
    feeds = np.flatnonzero(array == _LINE_FEED)
    pieces = _Pieces(array, feeds, size, crc)
    tried = 1
    for count in range(1, 5):
        ways = comb(len(feeds), count)
        if size - count > len(array) or tried + ways > _MOST_TRIED or len(feeds) > _FEW_FEEDS:
            break
        tried += ways
        found = pieces.try_all(count)
        if found is not None:
            return Restored(found, size - count, tried / _CHECKSUMS)
    return _by_shifts(pieces, width, tried) if width > 1 else None


class _Pieces:
    """The bytes between line feeds, and what each adds to the checksum at any place."""

    def __init__(self, array: Bytes, feeds: npt.NDArray[np.intp], size: int, crc: int) -> None:
        self.array = array
        self.feeds = feeds
        self.size = size
        # A register started at zero is the sum of what every byte adds.
        self._wanted = crc ^ crc_of_zeros(size)

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

    def misses(self, places: Sequence[int]) -> int:
        """Return the difference of that register from the one that the checksum needs."""
        return self.returns(places) ^ self._wanted

    def try_all(self, count: int) -> tuple[int, ...] | None:
        """Try every choice of `count` line feeds with returns before them."""
        feeds = [place for place in self.feeds.tolist() if place < self.size - count]
        if count > len(feeds):
            return None
        edges = [0, *feeds, self.size - count]
        # What each piece adds, with 0 ... count returns before it.
        parts = [
            [self.register(start, stop, self.size - stop - before) for before in range(count + 1)]
            for start, stop in pairwise(edges)
        ]
        sums = [[0] * (count + 1)]
        for part in parts:
            sums.append([total ^ one for total, one in zip(sums[-1], part, strict=True)])
        for chosen in combinations(range(len(feeds)), count):
            total, last = 0, 0
            for before, number in enumerate(chosen):
                total ^= sums[number + 1][before] ^ sums[last][before]
                total ^= _return_at(self.size - feeds[number] - before - 1)
                last = number + 1
            total ^= sums[-1][count] ^ sums[last][count]
            if total == self._wanted:
                return tuple(feeds[number] for number in chosen)
        return None

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


def _return_at(behind: int) -> int:
    register = crc32c(b"\r") ^ crc_of_zeros(1)
    return multiply(register, power_of_x(8 * behind))


def _by_shifts(pieces: _Pieces, width: int, tried: int) -> Restored | None:
    """Find lost returns by the shifts of the elements after them.

    The first bytes are not shifted, so they tell which bytes are usual at each place of an element.
    Few of them tell little; among many a return may have been lost already.
    """
    seen: list[list[int]] = []
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
    choices = find_choices(changes, pieces.misses(places))
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
