"""Open an HDF5 file so that its library comes to an end.

Strings of any length lie in heaps of the file. The library goes through a heap from object to
object. If one says that it has no bytes, or nearly 2**64, it stays there for ever, and no signal
ends it. So whatever it reads is looked through for heaps, and these are checked before it has them.

heap     47 43 4f 4c 01 000000, its size with this header: 8 bytes
object   its number and its references: 2 bytes each, 4 zeros, the size of its data: 8 bytes;
         the data, filled up to a multiple of 8
free     as an object with the number 0, but its size counts these 16 bytes, too
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

from ckptparse.errors import MalformedError, UnsupportedError
from ckptparse.files.storage import Source
from ckptparse.files.stream import SourceStream
from ckptparse.sources.hdf5_objects import SLOTS

__all__ = ["open_hdf5"]

_MARK = b"GCOL\x01"
_HEAP = struct.Struct("<8sQ")
_OBJECT = struct.Struct("<HHIQ")
_LEAST = 4096
"""Bytes of a heap: the library refuses smaller ones, and those that end behind the file."""
_MOST = (1 << 64) - 1
_LENGTH = 8
"""Bytes of a size in the file."""
_WINDOW = 1 << 16
"""Bytes of a heap that are looked at together."""
_TIMES = 4
"""Bytes of all heaps, in files. They lie beside each other, but what a tensor holds may look so."""


def open_hdf5(h5py: Any, source: Source) -> Any:
    """Open an HDF5 file for reading; the source stays open when it is closed.

    Every dataset is read as a whole, if at all: no piece of it is kept.

    Raises:
        CheckpointError: It has a heap that the library would never leave, or odd sizes.
        Exception: Whatever h5py raises of a damaged file.
    """
    stream = io.BufferedReader(_CheckedStream(source))
    file = h5py.File(stream, "r", rdcc_nslots=SLOTS)
    length = file.id.get_create_plist().get_sizes()[1]
    if length != _LENGTH:
        file.close()
        raise UnsupportedError(f"Expected sizes of {_LENGTH} bytes in the file, found {length}")
    return file


class _CheckedStream(SourceStream):
    """What is read through it holds no heap that has not been checked."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._checked: set[int] = set()
        self._left = _TIMES * source.size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what it is given
        """Read what fits, up to the end.

        Raises:
            MalformedError: A heap in it is bad.
        """
        start = self._position
        count = super().readinto(buffer)
        data = bytes(memoryview(buffer).cast("B")[:count])
        for place in _iter_marks(data):
            self._check_heap(start + place)
        return count

    def _check_heap(self, start: int) -> None:
        """Check a heap if one begins there."""
        if start in self._checked or not 0 <= start <= self._source.size - _LEAST:
            return
        mark, size = _HEAP.unpack(self._source.read_at(start, _HEAP.size))
        if not mark.startswith(_MARK) or not _LEAST <= size <= self._source.size - start:
            return
        self._left -= size
        if self._left < 0:
            raise MalformedError(f"Bad heap at byte {start}: expected none that overlaps others")
        position, end = start + _HEAP.size, start + size
        window, first = b"", position
        while end - position >= _OBJECT.size:
            if position + _OBJECT.size > first + len(window):
                first = position
                window = self._source.read_at(position, min(_WINDOW, end - position))
            number, _, _, length = _OBJECT.unpack_from(window, position - first)
            # As the library counts: in 64 bits.
            step = length if number == 0 else _OBJECT.size + (length + 7 & ~7) & _MOST
            if not 0 < step <= _MOST >> 1:
                raise MalformedError(
                    f"Bad heap at byte {start}: expected an object of {_OBJECT.size} to "
                    f"{end - position} bytes at {position}, found that it says {length}"
                )
            # What ends behind the heap the library refuses, when it needs that one.
            position += step
        self._checked.add(start)


def _iter_marks(data: bytes) -> Iterator[int]:
    """Iterate over the places where a mark may begin, those before and behind `data` included."""
    place = data.find(_MARK)
    while place >= 0:
        yield place
        place = data.find(_MARK, place + 1)
    for cut in range(1, len(_MARK)):
        if data.startswith(_MARK[cut:]):
            yield -cut
        if data.endswith(_MARK[:cut]):
            yield len(data) - cut
