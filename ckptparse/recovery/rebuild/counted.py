"""Measure strings and variants at a known place: how many bytes they take, and their checksum.

Their bytes say how long they are, with a checksum over the lengths. So a wrong place is noticed at
the first of them (docs/format.md, section 2.4).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.strings import decode_lengths
from ckptparse.coding.checksum import crc32c, mask_crc, unmask_crc
from ckptparse.coding.varint import MAX_VARINT64_BYTES, decode_varint
from ckptparse.errors import CheckpointError
from ckptparse.files.storage import Source
from ckptparse.parallel import stream_crc

__all__ = [
    "MOST_COUNTED",
    "Counted",
    "count_strings",
    "find_last_string",
    "find_last_strings",
    "measure_strings",
    "measure_variants",
    "stated_size",
    "text_size",
]

_CRC_SIZE = 4
MOST_COUNTED = 1 << 20
"""Strings at most, if their number is not known: each is one more try, so that a wrong number fits
by chance 1 in 4,096 at this bound."""
_LARGEST_TAIL = 1 << 28
"""Bytes at the end of a file that are searched for its object graph; a larger one is not found."""
_MOST_STRINGS = 1 << 20
"""Bytes at the end of a file that are searched for several strings: weights are tried at each 64
of them, which fits by chance 1 in 2^32."""
_MOST_SUMMED = 1 << 28
"""Lengths whose checksums are made: of weights a half of that, of zeros much more."""
_LONGEST_LENGTH = 5
"""Bytes of a length of up to 35 bits."""
_PIECE = 1 << 20
"""Bytes that are searched at once, so that memory stays small."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A payload of strings or variants."""

    count: int
    """How many elements."""
    size: int
    """In bytes."""
    crc: int
    """Of the entry, unmasked."""


def measure_strings(source: Source, offset: int, count: int) -> Counted | None:
    """Measure `count` strings at an offset; None unless the checksum of their lengths agrees."""
    stated = _stated_lengths(source, offset, count)
    if stated is None or stated[0] > source.size - offset:
        return None
    size, position, crc = stated
    crc = stream_crc(source.read_at, offset + position, size - position, crc=crc)
    return Counted(count, size, crc)


def stated_size(source: Source, offset: int, count: int) -> int | None:
    """Return the bytes of `count` strings, by their lengths, also if the file ends within them."""
    stated = _stated_lengths(source, offset, count)
    return None if stated is None else stated[0]


def _stated_lengths(source: Source, offset: int, count: int) -> tuple[int, int, int] | None:
    """Return what lengths with their checksum say: the size of all, where they end, and their crc.

    None if they do not have it.
    """
    available = source.size - offset
    head = source.read_at(offset, max(0, min(available, count * MAX_VARINT64_BYTES + _CRC_SIZE)))
    position = total = 0
    try:
        for _ in range(count):
            length, position = decode_varint(head, position, len(head))
            total += length
        size = position + _CRC_SIZE + total
        _, position, crc = decode_lengths(head, count, size, big_endian=False)
    except (ValueError, CheckpointError):
        return None
    return size, position, crc


def count_strings(source: Source, offset: int, most: int) -> Counted | None:
    """Measure strings at an offset, if their number is not known.

    It is the smallest number for which a checksum of the lengths follows them. Each number that is
    tried fits by chance 1 in 2^32.
    """
    room = min(most, source.size - offset)
    head = source.read_at(offset, min(room, MOST_COUNTED * 2)) if room > 0 else b""
    running = position = count = total = 0
    while position + _CRC_SIZE <= len(head) and count < MOST_COUNTED:
        # With no string at all, the payload is only the checksum of nothing.
        (masked,) = struct.unpack_from("<I", head, position)
        if unmask_crc(masked) == running and position + _CRC_SIZE + total <= room:
            return measure_strings(source, offset, count)
        try:
            length, position = decode_varint(head, position, len(head))
        except ValueError:
            return None
        total += length
        if total > room:
            return None
        # The checksum takes a length as 4 bytes; as 8 if it does not fit into 4 (section 2.4).
        wide = length > 0xFFFFFFFF
        running = crc32c(struct.pack("<Q" if wide else "<I", length), running)
        count += 1
    return None


def measure_variants(source: Source, offset: int, count: int) -> Counted | None:
    """Measure `count` variants at an offset; None unless the checksum of each agrees."""
    position, crc = offset, 0
    for _ in range(count):
        head = source.read_at(position, max(0, min(MAX_VARINT64_BYTES, source.size - position)))
        try:
            length, taken = decode_varint(head, 0, len(head))
        except ValueError:
            return None
        start = position + taken
        position = start + length + _CRC_SIZE
        if position > source.size:
            return None
        # Of variants each length counts as 8 bytes, and the stored checksum itself (section 2.4).
        crc = crc32c(struct.pack("<Q", length), crc)
        crc = stream_crc(source.read_at, start, length, crc=crc)
        stored = source.read_at(position - _CRC_SIZE, _CRC_SIZE)
        if unmask_crc(int.from_bytes(stored, "little")) != crc:
            return None
        crc = crc32c(stored, crc)
    return Counted(count, position - offset, crc)


def text_size(data: bytes) -> int:
    """Return the length of the one string in a payload, by its varint."""
    size = shift = 0
    for byte in data:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return size


def find_last_string(source: Source) -> int | None:
    """Return where the string begins that ends the file: the object graph of a shard.

    It is a length, the checksum of the length, and exactly so many bytes up to the end of the file.
    Another place fits by chance 1 in 2^32. The last 256 MiB are searched.
    """
    end = source.size
    lowest = max(0, end - _LARGEST_TAIL)
    stop = end
    while stop > lowest:
        start = max(lowest, stop - _PIECE)
        # A length and its checksum that begin in this piece may end up to 14 bytes after it.
        data = source.read_at(start, min(end, stop + MAX_VARINT64_BYTES + _CRC_SIZE) - start)
        found = _find_head(data, start, stop - start, end)
        if found is not None:
            return found
        stop = start
    return None


def find_last_strings(source: Source) -> int | None:
    """Return where strings begin that end the file, if their number is not known.

    They are lengths, the checksum of these, and as many bytes as they say, up to the end of the
    file. The last 1 MiB is searched.
    """
    base = max(0, source.size - _MOST_STRINGS)
    data = source.read_at(base, source.size - base)
    if len(data) <= _CRC_SIZE:
        return None
    lengths, left = _Lengths(data[:-_CRC_SIZE]), _MOST_SUMMED
    for start, stop, crc in lengths.adding_up():
        left -= stop - start
        if left < 0:
            break
        (masked,) = struct.unpack_from("<I", data, stop)
        if crc() == unmask_crc(masked):
            return base + start
    return None


class _Lengths:
    """Bytes, each of them read as part of a varint: before a byte, the sum of those that end there.

    The first varint may begin within what looks like one: it is read by itself.
    """

    def __init__(self, data: bytes) -> None:
        view = self._view = np.frombuffer(data, np.uint8).astype(np.int64)
        places = np.arange(len(view))
        last = view < 0x80
        before = np.concatenate(([-1], np.maximum.accumulate(np.where(last, places, -1))[:-1]))
        place = np.minimum(places - before - 1, _LONGEST_LENGTH - 1)
        ends = np.where(last, places + 1, len(view) + 1)[::-1]
        self._end = np.minimum.accumulate(ends)[::-1]
        """Where the varint of a byte ends; beyond all bytes if it does not."""
        self._sums = np.concatenate(([0], np.cumsum((view & 0x7F) << 7 * place)))
        self._ends = np.flatnonzero(last) + 1
        values = np.diff(self._sums[self._ends], prepend=0)
        self._values = memoryview(values.astype("<u4").tobytes())
        """What ends at each end, as it is in a checksum: 4 bytes each."""

    def adding_up(self) -> Iterator[tuple[int, int, Callable[[], int]]]:
        """Iterate over where lengths begin and end that say as much as follows their checksum.

        With each, what makes that checksum. The last ones come first: they are the fewest.
        """
        size = len(self._view)
        short = (self._end <= size) & (self._end - np.arange(size) <= _LONGEST_LENGTH)
        starts = np.flatnonzero(short)
        ends = self._end[starts]
        # It is sum(stop) - sum(end) + first = size - stop, and all stops give different sums.
        wanted = self._sums[ends] - self._firsts(starts) + size
        known = self._sums + np.arange(size + 1)
        stops = np.searchsorted(known, wanted)
        there = (stops >= ends) & (stops <= size)
        stops = np.minimum(stops, size)
        there &= known[stops] == wanted
        starts, stops = starts[there][::-1], stops[there][::-1]
        firsts = self._firsts(starts).astype("<u4").tobytes()
        lows = 4 * np.searchsorted(self._ends, starts, "right") + 4
        highs = 4 * np.searchsorted(self._ends, stops, "right")
        found = zip(starts.tolist(), stops.tolist(), lows.tolist(), highs.tolist(), strict=True)
        for number, (start, stop, low, high) in enumerate(found):
            first = firsts[4 * number : 4 * number + 4]
            yield start, stop, partial(self._crc, first, low, high)

    def _crc(self, first: bytes, low: int, high: int) -> int:
        return crc32c(self._values[low:high], crc32c(first))

    def _firsts(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the varints that begin there."""
        found = np.zeros(len(starts), np.int64)
        for number in range(_LONGEST_LENGTH):
            within = starts + number < self._end[starts]
            found[within] |= (self._view[starts[within] + number] & 0x7F) << 7 * number
        return found


def _find_head(data: bytes, start: int, count: int, end: int) -> int | None:
    """Return the last place of a piece where a length fits the rest of the file, and its checksum.

    Lengths have one to five bytes here: 35 bits.
    """
    view = np.frombuffer(data, np.uint8)
    for width in range(1, 6):
        places = min(count, len(view) - width - _CRC_SIZE + 1)
        # The length must be what is left after its varint and the checksum.
        longest = end - start - width - _CRC_SIZE
        shortest = longest - places + 1
        if places <= 0 or longest < 1 << 7 * (width - 1) or shortest >= 1 << 7 * width:
            continue
        for place in _fitting(view[: places + width - 1], longest, width):
            stored = int.from_bytes(data[place + width : place + width + _CRC_SIZE], "little")
            if stored == mask_crc(crc32c(struct.pack("<I", longest - place))):
                return start + place
    return None


def _fitting(view: npt.NDArray[np.uint8], longest: int, width: int) -> list[int]:
    """Return where a varint of that width gives what `longest` lacks there, the last place first.

    One of 128 places or fewer passes by the first byte, whose low seven bits count down.
    """
    count = len(view) - width + 1
    # All bytes of a varint but the last have the high bit set (section 1.3).
    high = 0x80 if width > 1 else 0
    pattern = (longest - np.arange(128) & 0x7F | high).astype(np.uint8)
    places = np.flatnonzero(view[:count] == np.resize(pattern, count))
    length = longest - places
    fits = (length < 1 << 7 * width) & (length >= (1 << 7 * (width - 1) if width > 1 else 0))
    for number in range(1, width):
        more = 0x80 if number < width - 1 else 0
        fits &= view[places + number] == ((length >> 7 * number & 0x7F) | more)
    found: list[int] = places[fits][::-1].tolist()
    return found
