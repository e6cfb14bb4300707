"""Tell in which parts of some bytes tensors may lie: not in noise, text, or one byte repeated.

All bytes are looked at, 1 KiB at a time, and counted. What the counts rule out:

    text     each byte from 80 on has its place in a character of UTF-8, and few bytes are zero.
             Weights break that within some elements; those that were rounded, and small integers,
             have many zeros
    UTF-16   every other byte is zero, of the others hardly any: no element of 4 bytes or more is so
    noise    a byte equals the one 8 before it once in 256 times. The exponents of weights are a few
             values: their bytes do so several times as often, whatever their alignment
    aside    of weights, the bytes with the exponents are every fourth. Where those look like noise
             no weights are whose elements begin so; others may be that begin further on
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Hopes", "Kind", "is_all_text"]

Spans = tuple[tuple[int, int], ...]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_Bytes = npt.NDArray[np.uint8]

_WINDOW = 1 << 10
"""Bytes that are counted together."""
_TILE = 1 << 18
"""Bytes that are looked at at once: what is made of them fits into the processor's cache."""
_LAG = 8
"""Bytes between two that are compared: a multiple of the size of every float."""
_ALIKE = 34
"""So many of 4 KiB equal the byte 8 before them in 1 of 16,000 windows of noise, where 16 do on
average. Of float32 weights some 250 do; of float16, which have the most leading bytes, 100."""
_ASIDE = 16
"""Of the 1 KiB of them that is every fourth byte so many do in 1 of 200,000, where 4 do on average.
Of float32 weights some 230 do; of those of which so few do, all 4 KiB look like noise, too."""
_LANES = 4
"""Bytes of the smallest element whose exponents are looked at so."""
_AROUND = 4
"""Windows on both sides of one that count as it does. So many in a row, and their neighbours, have
to look like noise before they are taken for it."""
_NEARLY_ALL = 0.99
"""Share of windows that look like noise where all are noise: by chance, some do not."""
_LEAST = 64
"""Bytes of the smallest run of elements that text and UTF-16 cannot hold,"""
_LEAST_WEIGHTS = 1 << 10
"""and of the smallest run of weights that shows in noise: 64 of its bytes or more are alike."""


class Kind(NamedTuple):
    """What is sought: elements of so many bytes."""

    width: int
    is_float: bool
    big_endian: bool = False

    def lane(self, residue: int | None) -> int | None:
        """Return which of four bytes hold exponents if elements begin so; None if that is open."""
        if residue is None or not self.is_float or self.width < _LANES:
            return None
        return (residue if self.big_endian else residue - 1) % _LANES


class _Tile(NamedTuple):
    """Counts of each window of some bytes."""

    alike: Counts
    """Bytes that equal the one 8 before them, at each of four offsets,"""
    odd: Counts
    """that have no place in a character of UTF-8,"""
    zeros: Counts
    """and zeros, at even and at odd offsets."""


class _Run(NamedTuple):
    """Bytes that are not ruled out, and between where those lie that are not one byte repeated."""

    start: int
    stop: int
    first: int
    last: int


class Hopes:
    """Where in some bytes tensors may lie."""

    def __init__(self, data: bytes | memoryview) -> None:
        """Look at all bytes."""
        whole = np.frombuffer(data, np.uint8)
        self._size = len(whole)
        self._known: dict[tuple[Kind, int | None], list[_Run]] = {}
        if self._size < _WINDOW:
            return
        stop = self._size // _WINDOW * _WINDOW
        tiles = [_count(whole[at : min(at + _TILE, stop)]) for at in range(0, stop, _TILE)]
        if stop < self._size:
            last = _count(whole[-_WINDOW:])
            tiles.append(last._replace(alike=np.roll(last.alike, self._size % _LANES, axis=1)))
        lanes, odd, zeros = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
        alike = lanes.sum(axis=1)
        self._is_fill = alike >= _WINDOW - _LAG
        self._is_text = (odd == 0) & (zeros.sum(axis=1) <= _WINDOW // 8)
        self._is_utf16 = (zeros.max(axis=1) >= 3 * _WINDOW // 8) & (
            zeros.min(axis=1) <= _WINDOW // 16
        )
        self._is_noise = _around(alike) < _ALIKE
        self._is_aside = _around(lanes) < _ASIDE

    @property
    def is_text(self) -> bool:
        """Whether all bytes are text; False of few."""
        return self._size >= _WINDOW and bool(self._is_text.all())

    @property
    def is_noise(self) -> bool:
        """Whether nearly all bytes are noise; False of few."""
        return self._size >= _WINDOW and float(self._is_noise.mean()) > _NEARLY_ALL

    def spans(self, kind: Kind, size: int, residue: int | None = None) -> Spans:
        """Return in which parts so many bytes of a kind may lie, in order.

        Of few bytes hardly anything can be said: then that is everywhere.

        Args:
            kind: The elements.
            size: Bytes of all of them.
            residue: What their offset leaves when divided by 4; None: anything. The parts lie
                within those that are returned for None.
        """
        if size > self._size:
            return ()
        if kind.width < 2 or size < _LEAST or self._size < _WINDOW:
            return ((0, self._size),)
        told = Kind(kind.width, kind.is_float and size >= _LEAST_WEIGHTS, kind.big_endian)
        key = told, told.lane(residue)
        if key not in self._known:
            self._known[key] = self._find(*key)
        spans = (
            # One byte repeated may be a part of what is sought, and is never all of it.
            (max(run.start, run.first - size), min(run.stop, run.last + size))
            for run in self._known[key]
        )
        return tuple(span for span in spans if span[1] - span[0] >= size)

    def _find(self, kind: Kind, lane: int | None) -> list[_Run]:
        hopeless = self._is_text | self._is_fill
        if kind.width >= 4:
            hopeless |= self._is_utf16
        if kind.is_float:
            hopeless |= self._is_noise
        if lane is not None:
            hopeless |= self._is_aside[:, lane]
        hopeful = _widened(~hopeless)
        may_be = hopeful | self._is_fill
        edges = np.flatnonzero(np.diff(np.concatenate(([False], may_be, [False])).astype(np.int8)))
        found = []
        for start, stop in edges.reshape(-1, 2).tolist():
            told = np.flatnonzero(hopeful[start:stop]) + start
            if len(told):
                inner = int(told[0]), int(told[-1]) + 1
                found.append(_Run(*(min(_WINDOW * at, self._size) for at in (start, stop, *inner))))
        return found


def _widened(mask: Mask) -> Mask:
    """Return a mask in which the neighbours of what is true are true, too."""
    found: Mask = mask.copy()
    for distance in range(1, _AROUND + 1):
        found[distance:] |= mask[:-distance]
        found[:-distance] |= mask[distance:]
    return found


def _count(data: _Bytes) -> _Tile:
    data = data[: len(data) // _WINDOW * _WINDOW]
    alike = np.zeros(len(data), np.bool_)
    np.equal(data[_LAG:], data[:-_LAG], out=alike[_LAG:])
    return _Tile(_sums(alike, _LANES), _sums(_find_odd(data), 1)[:, 0], _sums(data == 0, 2))


def _find_odd(data: _Bytes) -> Mask:
    """Tell which bytes have no place in a character of UTF-8."""
    # From 80 to BF a byte continues a character; a first byte says by how many it is continued.
    odd: Mask = data.view(np.int8) < -64
    for follows, first in enumerate((0xC0, 0xE0, 0xF0), 1):
        odd[follows:] ^= data[:-follows] >= first
    odd[:3] = False
    return odd


def _sums(mask: Mask, lanes: int) -> Counts:
    """Return how many are true in each window, at offsets that leave 0, 1, ... by that number."""
    # Eight bytes are added at once: none of the sums is above 255.
    sums = mask.view(np.uint64).reshape(-1, _WINDOW // 8).sum(axis=1, dtype=np.uint64)
    counts: Counts = sums.view(np.uint8).reshape(-1, 8 // lanes, lanes).sum(axis=1, dtype=np.int64)
    return counts


def _around(counts: Counts) -> npt.NDArray[np.float64]:
    """Return the mean of each window and those beside it, of four, as a sum of four."""
    sums = np.concatenate((np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)))
    numbers = np.arange(len(counts))
    low, high = np.maximum(numbers - 1, 0), np.minimum(numbers + 3, len(counts))
    shape = -1, *[1] * (counts.ndim - 1)
    found: npt.NDArray[np.float64] = (sums[high] - sums[low]) * 4 / (high - low).reshape(shape)
    return found


def is_all_text(data: memoryview) -> bool:
    """Tell whether bytes are text in UTF-8 from start to end, with letters beyond ASCII or not."""
    if len(data) < _WINDOW:
        return False
    # Weights are none within the first few.
    first = np.frombuffer(data, np.uint8, _WINDOW)
    return not _find_odd(first).any() and Hopes(data).is_text
