"""What is left of a damaged zip: members by their own headers, and what they hold before damage.

local header      50 4b 03 04 … flags, method, …, CRC-32, packed size, size, lengths; name; extra
data              packed
data descriptor   [50 4b 07 08] CRC-32, packed size, size; if flag 8 is set, which then has no sizes
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ckptparse.errors import MalformedError
from ckptparse.files.archives.members import MemberSource
from ckptparse.files.archives.unpacking import (
    Inflater,
    SourceFile,
    explained,
    iter_member,
    unpacks_in_pieces,
)
from ckptparse.files.storage import Source
from ckptparse.limits import Limits

__all__ = ["LocalMember", "find_kept", "iter_before_damage", "iter_local_members"]

_WINDOW, _PIECE = 1 << 16, 1 << 20
"""Bytes that are read, and unpacked or searched, at once."""
_HEADER = struct.Struct("<4sHHHHHIIIHH")
_MARK = b"PK\x03\x04"
_SIZES_BEHIND = 0x8
"""The flag of a member whose sizes stand behind it."""
_UTF8 = 0x800
"""The flag of a member whose name is UTF-8; other names are of code page 437."""
_LARGE = 0xFFFFFFFF
"""In place of a size that the extra field has."""
_ZIP64 = re.compile(rb"\x01\x00\x10\x00(.{16})", re.DOTALL)
"""The extra field that has both sizes in 64 bits: the unpacked one first."""
_NEXT = re.compile(rb"PK(?:\x07\x08|\x03\x04|\x01\x02)")
"""What a descriptor begins with, or what comes after one that has no mark."""
_DESCRIPTOR = b"PK\x07\x08"
_MOST_MARKS = 8
"""Marks within a member that are no end of it. By chance there is one in 1.4 GB."""
_FIRST_PIECE = 1 << 10
"""Bytes of a member that are searched first for its end: each time twice as many, so that members
cost as many bytes as they have."""
_BEYOND = 1 << 16
"""Bytes that a damaged member may have more than it should: wrong bits may make some more."""


class LocalMember(NamedTuple):
    """A member of a zip as its own header describes it.

    Attributes:
        info: As a directory would describe it. Its sizes and its checksum are 0 if they are not
            known: then `stop` is the end of the file.
        start: Where its bytes begin.
        stop: Where they end, at most at the end of the file.
    """

    info: zipfile.ZipInfo
    start: int
    stop: int


def iter_local_members(source: Source) -> Iterator[LocalMember]:
    """Iterate over the members of a zip by their own headers, one after another, until one fails.

    Of a member of which the header does not know the size, the end is sought.
    """
    file = SourceFile(source, most=source.size)
    position: int | None = 0
    while position is not None:
        found = _read_header(file, position)
        if found is None:
            return
        info, start = found
        position = start + info.compress_size
        if info.flag_bits & _SIZES_BEHIND:
            position = _take_descriptor(source, file, info, start)
        yield LocalMember(info, start, min(start + info.compress_size, source.size))


def _read_header(file: SourceFile, position: int) -> tuple[zipfile.ZipInfo, int] | None:
    """Read the header of a member, and tell where its bytes begin; None if there is none."""
    if position + _HEADER.size > file.size:
        return None
    file.seek(position)
    header = _HEADER.unpack(file.read(_HEADER.size))
    mark, _, flags, method, _, _, crc, packed, size, name_size, extra_size = header
    start = position + _HEADER.size + name_size + extra_size
    if mark != _MARK or start > file.size:
        return None
    name, extra = file.read(name_size), file.read(extra_size)
    if _LARGE in (packed, size):
        found = _ZIP64.search(extra)
        if found is None:
            return None
        size, packed = struct.unpack("<QQ", found[1])
    info = zipfile.ZipInfo(name.decode("utf-8" if flags & _UTF8 else "cp437", "replace"))
    info.compress_type, info.flag_bits, info.header_offset = method, flags, position
    info.CRC, info.compress_size, info.file_size = crc, packed, size
    return info, start


def _take_descriptor(
    source: Source, file: SourceFile, info: zipfile.ZipInfo, start: int
) -> int | None:
    """Put what stands behind a member into its description; return where the next one begins.

    If its end is not found, it has all bytes to the end of the file: None.
    """
    if info.compress_size:
        end = start + info.compress_size
        return end + _size_of_descriptor(file, end)
    found = _find_descriptor(source, start)
    if found is None:
        info.compress_size = source.size - start
        return None
    info.CRC, info.compress_size, info.file_size, after = found
    return after


def _find_descriptor(source: Source, start: int) -> tuple[int, int, int, int] | None:
    """Find what stands behind a member: its checksum, both sizes, where the next one begins."""
    marks = 0
    place, piece = start, _FIRST_PIECE
    while place < source.size:
        # What begins in this piece may end three bytes behind it.
        data = source.read_at(place, min(piece + 3, source.size - place))
        for found in _NEXT.finditer(data):
            marks += 1
            if marks > _MOST_MARKS:
                return None
            at = place + found.start()
            told = _read_descriptor(source, start, at, is_marked=found[0] == _DESCRIPTOR)
            if told is not None:
                return told
        place, piece = place + piece, min(2 * piece, _PIECE)
    return None


def _read_descriptor(
    source: Source, start: int, at: int, *, is_marked: bool
) -> tuple[int, int, int, int] | None:
    """Read a descriptor that begins, or ends, at some place; None if it is of no member there."""
    for form in ("<III", "<IQQ"):
        size = struct.calcsize(form)
        begin = at + 4 if is_marked else at - size
        if begin < start or begin + size > source.size:
            continue
        crc, packed, unpacked = struct.unpack(form, source.read_at(begin, size))
        if packed == (at if is_marked else begin) - start:
            return crc, packed, unpacked, begin + size
    return None


def _size_of_descriptor(file: SourceFile, at: int) -> int:
    """Return how long a descriptor is that repeats what the header says."""
    file.seek(at)
    data = file.read(28)
    found = data.find(b"PK", 4)
    return 0 if data.startswith((_MARK, b"PK\x01\x02")) else max(0, found)


def find_kept(source: Source, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the bytes of a member lie as far as they are there: offset and size.

    Raises:
        MalformedError: Its header is not where it should be.
    """
    offset = info.header_offset
    if offset + _HEADER.size <= source.size:
        mark, *_, name_size, extra_size = _HEADER.unpack(source.read_at(offset, _HEADER.size))
        name_at = offset + _HEADER.size
        start = name_at + name_size + extra_size
        if start <= source.size:
            name = source.read_at(name_at, name_size)
            if mark == _MARK or name == info.orig_filename.encode("utf-8", "replace"):
                return start, max(0, min(info.compress_size, source.size - start))
    raise MalformedError(
        "Expected the header of a member, found none", path=source.path, offset=offset
    )


def iter_before_damage(
    source: Source, info: zipfile.ZipInfo, limits: Limits, path: str
) -> Iterator[bytes]:
    """Iterate over what a packed member holds, as far as it can be unpacked, in pieces.

    Behind wrong bits there may be wrong bytes: only the checksums of tensors tell.

    Args:
        source: The archive.
        info: The member.
        limits: Bounds on the memory that unpacking takes.
        path: What to call the member in an error.

    Raises:
        DataLossError: It is damaged; this comes after all that can be unpacked.
        LimitError: Undoing it takes too much memory.
    """
    start, held = find_kept(source, info)
    packed = MemberSource(path, source, start, held)
    if unpacks_in_pieces(info):
        yield from iter_member(packed, info, limits)
        return
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise MalformedError(
            f"Expected a member that is packed by a known method, found number "
            f"{info.compress_type}",
            path=path,
        )
    is_told = bool(info.file_size or info.CRC)
    size = checksum = 0
    with explained(path):
        for data in _iter_inflated(packed):
            size, checksum = size + len(data), zlib.crc32(data, checksum)
            yield data
            if is_told and size > info.file_size + _BEYOND:
                break
        if is_told and (size, checksum) != (info.file_size, info.CRC):
            raise MalformedError(
                f"Expected {info.file_size} bytes of the member with the checksum {info.CRC:#x}, "
                f"found {size} with {checksum:#x}",
                path=path,
            )


def _iter_inflated(packed: Source) -> Iterator[bytes]:
    file = SourceFile(packed, most=packed.size)
    inflater = Inflater(-zlib.MAX_WBITS)
    while not inflater.eof:
        piece = file.read(_WINDOW) if inflater.needs_input else b""
        if not piece and inflater.needs_input:
            raise EOFError
        yield inflater.decompress(piece, _PIECE)
