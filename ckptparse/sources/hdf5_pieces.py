"""What datasets of an HDF5 file take that do not lie in one piece, before the library reads them.

The library looks for each piece that a shape has, whether it is stored or not, and unpacks it
however large it becomes: a file of 447 bytes states 100 million pieces, a piece of 1 MB unpacks to
1 GB of which 4 KiB are taken.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

from ckptparse.errors import MalformedError, UnsupportedError
from ckptparse.limits import Members

__all__ = ["Packed", "check_pieces", "held_bytes"]

_ALONE = 6.5
"""How many members of an archive it takes as long as to read a dataset that does not lie in one
piece, beside what each dataset takes."""
_PIECES = 3
"""How many pieces take as long as a member."""

_DEFLATE, _SHUFFLE, _FLETCHER, _SZIP, _NBIT, _SCALE_OFFSET = range(1, 7)
"""Filters, by the numbers that HDF5 gives them: others come from packages that are installed."""
_LZF = 32000
_ONCE = (_DEFLATE, _SZIP, _NBIT, _SCALE_OFFSET, _LZF)
"""Filters that make a piece smaller."""
_CHECKSUM = 4
"""Bytes that Fletcher's checksum adds."""
_COUNT, _SIZE = 2, 4
"""Which of the values of N-bit and scale-offset are the number of elements, and bytes of each."""
_SPARE = 4096
"""Bytes by which a piece may become larger when it is packed, and an eighth of it."""


class Packed:
    """Counts the datasets of a file that do not lie in one piece."""

    def __init__(self, h5py: Any, size: int, members: Members) -> None:
        """Begin with none, of a file of so many bytes."""
        self._h5py = h5py
        self._left = size
        self._members = members

    def take(self, found: Any) -> None:
        """Count one, a `h5py.h5d.DatasetID` that has a shape.

        Raises:
            LimitError: They take longer than `Limits.members` allows.
            MalformedError: Their pieces lie over each other.
            UnsupportedError: Its elements are in other files, which are not read.
        """
        plan = found.get_create_plist()
        if plan.get_layout() == self._h5py.h5d.VIRTUAL or plan.get_external_count():
            raise UnsupportedError("Its elements lie in other files, which are not read")
        pieces = _count_pieces(self._h5py, found, plan)
        self._members.take(weight=_ALONE + pieces / _PIECES)
        self._left -= found.get_storage_size() if pieces else 0
        if self._left < 0:
            raise MalformedError("Pieces of datasets lie over each other")


def held_bytes(h5py: Any, found: Any, size: int) -> int:
    """Return how many bytes a dataset takes while it is read.

    Args:
        h5py: The package.
        found: Its `h5py.h5d.DatasetID`.
        size: Bytes of its elements. Pieces that are packed are unpacked as a whole, and may reach
            beyond its shape.
    """
    plan = found.get_create_plist()
    if not plan.get_nfilters():
        return size
    return max(size, _count_pieces(h5py, found, plan) * _piece_bytes(found, plan))


def check_pieces(h5py: Any, found: Any) -> None:
    """Make sure that no piece of a dataset unpacks to more than a piece has.

    Raises:
        MalformedError: One does, or cannot be unpacked.
        Exception: Whatever h5py raises of a damaged file.
    """
    plan = found.get_create_plist()
    if not _count_pieces(h5py, found, plan) or not plan.get_nfilters():
        return
    size = _piece_bytes(found, plan)
    codes = _list_filters(plan, size)
    if not {_DEFLATE, _SZIP, _LZF}.intersection(codes):
        return
    for stored in _list_stored(found):
        if stored.size > size + size // 8 + _SPARE:
            raise MalformedError(f"A piece of {size} bytes is stored as {stored.size}")
        mask, data = found.read_direct_chunk(stored.chunk_offset)
        _check_piece(data, size, [code for bit, code in enumerate(codes) if not mask >> bit & 1])


def _list_stored(found: Any) -> list[Any]:
    """Return what is stored of a dataset in pieces: where, and how many bytes."""
    pieces: list[Any] = []
    if hasattr(found, "chunk_iter"):
        found.chunk_iter(pieces.append)
        return pieces
    # HDF5 before 1.12.3. It goes through all for each.
    return [found.get_chunk_info(number) for number in range(found.get_num_chunks())]


def _list_filters(plan: Any, size: int) -> list[int]:
    """Return the numbers of the filters through which pieces of so many bytes went."""
    filters = [plan.get_filter(number) for number in range(plan.get_nfilters())]
    for code, _, values, _ in filters:
        # The library makes room for what these say.
        if code in (_NBIT, _SCALE_OFFSET) and values[_COUNT] * values[_SIZE] != size:
            raise MalformedError(f"Pieces of {size} bytes are packed as if they had others")
    codes = [code for code, _, _, _ in filters]
    if sum(code in _ONCE for code in codes) > 1:
        raise MalformedError("Its pieces are packed more than once")
    return codes


def _check_piece(data: bytes, size: int, codes: list[int]) -> None:
    """Undo the filters of a piece from the last one, as far as its size is concerned."""
    most = size + _CHECKSUM
    unpacked = 0
    while codes:
        code = codes.pop()
        if code == _FLETCHER:
            data = data[:-_CHECKSUM]
        elif code == _SZIP:
            unpacked = int.from_bytes(data[:4], "little")
        elif code == _DEFLATE:
            unpacked = _deflated_bytes(data, most)
        elif code == _LZF:
            unpacked = _lzf_bytes(data, most)
        if code in _ONCE:
            break
    if unpacked > most:
        raise MalformedError(f"A piece of {size} bytes unpacks to more")


def _deflated_bytes(data: bytes, most: int) -> int:
    """Return how many bytes Deflate unpacks to, or one more than `most`."""
    try:
        return len(zlib.decompressobj().decompress(data, most + 1))
    except zlib.error as error:
        raise MalformedError(f"A piece cannot be unpacked: {error}") from error


def _lzf_bytes(data: bytes, most: int) -> int:
    """Return how many bytes LZF unpacks to, or one more than `most`."""
    # 000nnnnn: n + 1 bytes follow. nnn-----: n + 2 are repeated, and of 7 the next byte adds more.
    total = position = 0
    while position < len(data) - 1 and total <= most:
        control = data[position]
        if control < 32:
            total += control + 1
            position += control + 2
        else:
            total += (control >> 5) + 2
            position += 2
            if control >= 224:
                total += data[position - 1]
                position += 1
    return total


def _count_pieces(h5py: Any, found: Any, plan: Any) -> int:
    """Return how many pieces a dataset has, stored or not; 0 if it is not divided."""
    if plan.get_layout() != h5py.h5d.CHUNKED:
        return 0
    return math.prod(-(-size // step) for size, step in zip(found.shape, _steps(plan), strict=True))


def _steps(plan: Any) -> tuple[int, ...]:
    return tuple(map(int, plan.get_chunk()))


def _piece_bytes(found: Any, plan: Any) -> int:
    return math.prod(_steps(plan)) * int(found.get_type().get_size())
