"""Undo what put a file into a zip: the only file of it, or its first, is given.

50 4b 03 04 …  name  extra  packed bytes  [descriptor]  directory
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

__all__ = ["ZIP_MARK", "Zipped"]

ZIP_MARK = b"PK\x03\x04"
"""With this a member begins, and so does a zip."""
_HEADER = struct.Struct("<4sHHHHHIIIHH")
_LARGE = 0xFFFFFFFF
"""In place of a size that the extra field has."""
_ZIP64 = re.compile(rb"\x01\x00\x10\x00.{8}(.{8})", re.DOTALL)
"""The extra field that has both sizes in 64 bits: the packed one last."""
_MOST_DIRECTORIES = 64
"""Members before the first file: the directories in which it is."""
_STEP = 1 << 16
"""Bytes that zlib is given at once."""
_LARGEST_PIECE = 1 << 22
"""Bytes that are given in one go, so that memory stays small."""


class _Reached(NamedTuple):
    """How far a zip has been read.

    Attributes:
        inflater: Unpacks the member; None if it is stored as it is.
        left: Bytes of a stored member that are left.
    """

    inflater: Any = None
    left: int = 0


class Zipped:
    """The first file in a zip. What comes behind it is left out."""

    def start(self) -> None:
        """Return the state before the header."""
        return

    def convert(
        self,
        data: bytes,
        state: _Reached | None,
        *,
        last: bool,  # noqa: ARG002 - as the protocol
    ) -> tuple[bytes, int, _Reached | None]:
        """Undo it for some bytes."""
        start = 0
        if state is None:
            start, state = _read_headers(data)
            data = data[start:]
        if state.inflater is not None:
            found, taken, state = self._inflate(data, state.inflater)
            return found, start + taken, state
        found = data[: state.left]
        left = state.left - len(found)
        # Behind the member nothing more is given.
        return found, start + (len(found) if left else len(data)), _Reached(None, left)

    def _inflate(self, data: bytes, before: Any) -> tuple[bytes, int, _Reached]:
        inflater = before.copy()
        found, taken = bytearray(), 0
        try:
            while taken < len(data) and len(found) < _LARGEST_PIECE and not inflater.eof:
                step = data[taken : taken + _STEP]
                found += inflater.decompress(step, _LARGEST_PIECE - len(found))
                taken += len(step) - len(inflater.unconsumed_tail)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        return bytes(found), len(data) if inflater.eof else taken, _Reached(inflater)


def _read_headers(data: bytes) -> tuple[int, _Reached]:
    """Read headers up to the first that is of a file; return where its bytes begin, and how."""
    at = 0
    for _ in range(_MOST_DIRECTORIES):
        if len(data) < at + _HEADER.size:
            break
        mark, _, _, method, _, _, _, packed, size, *lengths = _HEADER.unpack_from(data, at)
        name_end = at + _HEADER.size + lengths[0]
        at = name_end + lengths[1]
        if mark != ZIP_MARK or at > len(data):
            break
        if data[name_end - 1 : name_end] == b"/":
            # Some writers pack even the nothing that it holds.
            at += packed
            continue
        if _LARGE in (packed, size):
            wide = _ZIP64.search(data[name_end:at])
            packed = int.from_bytes(wide[1], "little") if wide else 0
        if method == zipfile.ZIP_DEFLATED:
            return at, _Reached(zlib.decompressobj(-zlib.MAX_WBITS))
        if method == zipfile.ZIP_STORED and packed:
            return at, _Reached(None, packed)
        break
    raise ValueError("Expected the header of a member that is packed by Deflate or stored")
