"""Find strings that look wrong: those in lost sectors, and those that are no text among text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ckptparse.examination.outcome import Span, merge_spans
from ckptparse.recovery.statistics import SECTOR

__all__ = ["find_odd_strings", "strings_in"]

_ROWS = 1 << 11
"""Sectors that are looked at together: 1 MiB."""
_NOISE = 176
"""Different bytes in a sector from which on it is noise: that has 221, and fewer than 176 by a
chance of less than 1 in 10^9; text and messages have up to 120."""
_LEAST_PART = 128
"""Bytes of a sector at least that tell of those at both ends: noise has 101 different ones, and
fewer than four fifths of that by a chance of 1 in 10^7."""
_MOST_NOISY = 0.75
"""Share of the sectors that are noise at most: of packed strings nearly all are."""
_MOSTLY = 0.9
"""Share of the strings, or of the sectors, that must look right for others to look wrong."""
_LEAST_STRINGS = 16
_MOST_STRINGS = 1 << 20
"""Strings that are decoded, at 0.3 µs each."""
_LEAST_FILL = 64
"""Bytes ff in a row, of which there are none in UTF-8."""


def find_odd_strings(data: bytes, spans: Sequence[Span], offset: int) -> tuple[Span, ...]:
    """Return which strings look wrong.

    Args:
        data: The stored bytes of a tensor of strings.
        spans: Where each string is in them.
        offset: Where they lie in their file: sectors begin at its multiples of 512.
    """
    odd = list(
        strings_in(merge_spans([*_noisy_sectors(data, offset), *_fills(data, offset)]), spans)
    )
    if _LEAST_STRINGS <= len(spans) <= _MOST_STRINGS:
        wrong = [number for number, span in enumerate(spans) if not _is_text(data[slice(*span)])]
        if len(wrong) <= (1 - _MOSTLY) * len(spans):
            odd += [(number, number + 1) for number in wrong]
    return merge_spans(odd)


def strings_in(zeros: Sequence[Span], spans: Sequence[Span]) -> tuple[Span, ...]:
    """Return the strings of which some bytes lie in some ranges, which are in order."""
    starts = np.array([start for start, _ in zeros], np.int64)
    stops = np.array([stop for _, stop in zeros], np.int64)
    if not len(starts) or not spans:
        return ()
    begins, ends = np.array(spans, np.int64).T
    # The first range that ends behind the start of a string must begin before its end.
    first = np.searchsorted(stops, begins, side="right")
    there = first < len(starts)
    hit = there & (starts[np.minimum(first, len(starts) - 1)] < ends) & (begins < ends)
    return merge_spans([(number, number + 1) for number in np.flatnonzero(hit).tolist()])


def _is_text(value: bytes) -> bool:
    if value.isascii():
        return not value.translate(None, _PRINTABLE)
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return not value.translate(None, _NO_CONTROLS)


_PRINTABLE = bytes([*range(0x20, 0x7F), *b"\t\n\r"])
_NO_CONTROLS = bytes([*_PRINTABLE, *range(0x80, 0x100)])


def _noisy_sectors(data: bytes, offset: int) -> Iterator[Span]:
    """Iterate over the sectors that are noise, if some others are none."""
    ahead = -offset % SECTOR
    count = (len(data) - ahead) // SECTOR
    if count <= 1:
        return
    rows = np.frombuffer(data, np.uint8, count * SECTOR, ahead).reshape(count, SECTOR)
    parts = [_count_different(rows[n : n + _ROWS]) for n in range(0, count, _ROWS)]
    noisy = np.flatnonzero(np.concatenate(parts) >= _NOISE)
    if len(noisy) >= _MOST_NOISY * count:
        return
    for number in noisy.tolist():
        yield ahead + number * SECTOR, ahead + (number + 1) * SECTOR
    for start, stop in ((0, ahead), (ahead + count * SECTOR, len(data))):
        if stop - start >= _LEAST_PART and _is_noisy(data[start:stop]):
            yield start, stop


def _is_noisy(part: bytes) -> bool:
    """Tell whether a part of a sector has four fifths of the different bytes that noise has."""
    return len(set(part)) >= 0.8 * 256 * (1 - math.exp(-len(part) / 256))


def _count_different(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Count the different bytes of each row."""
    ordered = np.sort(rows, axis=1)
    different: npt.NDArray[np.int64] = np.count_nonzero(np.diff(ordered, axis=1), axis=1)
    return different + 1


def _fills(data: bytes, offset: int) -> Iterator[Span]:
    """Iterate over runs of the byte ff that begin or end where sectors do."""
    run = b"\xff" * _LEAST_FILL
    at = data.find(run)
    while at >= 0:
        stop = at + _LEAST_FILL
        stop += len(data) - stop - len(data[stop:].lstrip(b"\xff"))
        if not (offset + at) % SECTOR or not (offset + stop) % SECTOR:
            yield at, stop
        at = data.find(run, stop)
