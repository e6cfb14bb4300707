"""Find strings between other tensors, of which neither the place nor the number is known.

They begin with their lengths; behind these comes the checksum of them, and then as many bytes as
they say (docs/format.md, section 2.4). Each byte may be the first of a length, and any number of
lengths may follow it: all of that is compared at once. Let the lengths v be numbered by where they
end in the file. The checksum C behind number j is that of the lengths from number i on if

    (C + 1...1) · x^(-32 j) + S(j)  =  (first + 1...1) · x^(32 (1 - i)) + S(i)
    with S(k) = the sum of v · x^(32 (1 - number)) up to number k

The left side is known for each end, the right side for each start: equal ones are found by sorting.
Other bytes fit by chance 1 in 2^32 for each pair of a start and an end. So what is found must be
text, or the file so small that this does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import mask_crc
from ckptparse.crc.field import (
    multiply_each,
    multiply_pairs,
    multiply_table,
    power_of_x,
    powers_of_x,
)
from ckptparse.files.storage import Source
from ckptparse.recovery.rebuild.counted import Counted, measure_strings

__all__ = ["LARGEST", "find_inner_strings"]

Column = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

LARGEST = 1 << 20
"""Bytes that are searched at most: they take a second, and 100 MB of memory."""
_MOST_PAIRS = 1 << 12
"""Pairs of a start and an end that are looked at. Of other bytes 1 MiB has 130 by chance."""
_LONGEST_LENGTH = 4
"""Bytes of a length of up to 28 bits."""
_CRC_SIZE = 4
_ALL_ONES = np.uint32(0xFFFFFFFF)
_NO_STRINGS = mask_crc(0).to_bytes(_CRC_SIZE, "little")
"""Strings of which there are none: the checksum of nothing."""
_SURE = 1 << 22
"""Pairs of which one fits by chance 1 in 1,000 times: so many prove it."""
_LEAST_TEXT = 6
"""Bytes of text that other bytes are not by chance: of two bytes one in nine is."""


def find_inner_strings(
    source: Source, start: int, stop: int, *, none: bool = False
) -> list[tuple[int, Counted]]:
    """Return where strings lie within a range, by offset; of those that overlap, none.

    Args:
        source: The file.
        start, stop: The range, of 1 MiB at most.
        none: Whether strings may be there of which there are none.
    """
    data = source.read_at(start, stop - start)
    found: dict[int, Counted] = {}
    for place, count in _iter_likely(data):
        counted = measure_strings(source, start + place, count)
        if counted is not None and start + place + counted.size <= stop:
            found.setdefault(start + place, counted)
    if none:
        place = data.find(_NO_STRINGS)
        while place >= 0:
            found.setdefault(start + place, Counted(0, _CRC_SIZE, 0))
            place = data.find(_NO_STRINGS, place + 1)
    known = sorted(found.items())
    return [one for number, one in enumerate(known) if not _overlaps(known, number)]


def _overlaps(known: list[tuple[int, Counted]], number: int) -> bool:
    begin, counted = known[number]
    before = known[:number]
    behind = known[number + 1 : number + 2]
    return any(at + other.size > begin for at, other in before) or any(
        at < begin + counted.size for at, _ in behind
    )


def _iter_likely(data: bytes) -> Iterator[tuple[int, int]]:
    """Iterate over where strings may begin, and how many."""
    if len(data) <= _CRC_SIZE:
        return
    view = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(view[:-_CRC_SIZE] < 0x80)
    if not len(last):
        return
    starts, numbers, firsts = _firsts(view, last)
    ends = last + 1
    # Each length begins behind the end of the one before: it is one of the starts.
    values = np.zeros(len(ends), np.int64)
    at = np.searchsorted(starts, np.concatenate(([0], ends[:-1])))
    whole = (at < len(starts)) & (starts[np.minimum(at, len(starts) - 1)] == [0, *ends[:-1]])
    values[whole] = firsts[np.minimum(at, len(starts) - 1)][whole]
    # Behind what is no length, nothing goes on.
    breaks = np.cumsum(~whole)
    sums = np.cumsum(values)
    powers = _powers(len(ends))
    terms = np.bitwise_xor.accumulate(multiply_pairs(values.astype(np.uint32), powers))
    stored = np.stack([view[ends + byte].astype(np.uint32) << 8 * byte for byte in range(4)])
    crcs = _unmasked(np.bitwise_or.reduce(stored))
    back = multiply_each(powers, multiply_table(power_of_x(-32)))
    left = multiply_pairs(crcs ^ _ALL_ONES, back) ^ terms
    right = multiply_pairs(firsts.astype(np.uint32) ^ _ALL_ONES, powers[numbers]) ^ terms[numbers]
    sure = len(starts) * len(ends) <= _SURE
    for one, end in _pairs(right, left):
        first = int(numbers[one])
        total = int(firsts[one]) + int(sums[end] - sums[first])
        begin = int(ends[end]) + _CRC_SIZE
        if end < first or breaks[end] != breaks[first] or begin + total > len(data):
            continue
        if sure or _is_text(data[begin : begin + total]):
            yield int(starts[one]), end - first + 1


def _firsts(view: npt.NDArray[np.uint8], last: Column) -> tuple[Column, Column, Column]:
    """Return where lengths may begin, the number of the end of each, and the lengths."""
    places = np.arange(int(last[-1]) + 1)
    numbers = np.searchsorted(last, places)
    widths = last[numbers] - places + 1
    short = widths <= _LONGEST_LENGTH
    starts, numbers, widths = places[short], numbers[short], widths[short]
    values = np.zeros(len(starts), np.int64)
    for byte in range(_LONGEST_LENGTH):
        more = widths > byte
        values[more] |= (view[starts[more] + byte].astype(np.int64) & 0x7F) << 7 * byte
    return starts, numbers, values


def _pairs(right: Words, left: Words) -> Iterator[tuple[int, int]]:
    """Iterate over the numbers of equal values, the first ones of which there are."""
    order = np.argsort(right, kind="stable")
    values = right[order]
    low = np.searchsorted(values, left, "left")
    high = np.searchsorted(values, left, "right")
    taken = 0
    for end in np.flatnonzero(high > low).tolist():
        for one in order[low[end] : high[end]].tolist():
            taken += 1
            if taken > _MOST_PAIRS:
                return
            yield one, end


def _powers(count: int) -> Words:
    """Return x^(32 (1 - number)) for the numbers from 0 on."""
    return multiply_each(powers_of_x(-32, count), multiply_table(power_of_x(32)))


def _unmasked(stored: Words) -> Words:
    """Return checksums as they are before they are masked; see `unmask_crc`."""
    turned = stored - np.uint32(mask_crc(0))
    found: Words = turned >> np.uint32(17) | turned << np.uint32(15)
    return found


def _is_text(data: bytes) -> bool:
    """Tell whether bytes are text, and so many that others are not by chance."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return len(data) >= _LEAST_TEXT and "\0" not in text
