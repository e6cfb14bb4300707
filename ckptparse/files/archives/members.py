"""The members of a zip file: each as a source, or what it holds in pieces.

numpy's and Keras's archives are such files. They are read as one file of tensors, by `ZipMembers`.
"""

from __future__ import annotations

import mmap
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ckptparse.errors import MalformedError, UnsupportedError, located
from ckptparse.files.archives.listing import find_packed, find_stored, list_zip
from ckptparse.files.archives.unpacking import explained, iter_member, unpacks_in_pieces
from ckptparse.files.storage import Source, check_range
from ckptparse.limits import Limits

__all__ = ["MemberChecksum", "MemberSource", "ZipMembers", "iter_unpacked_member"]

_PIECE = 1 << 20
_ENCRYPTED = 0x1
"""The flag of an encrypted member in its header."""


class MemberSource:
    """Some bytes of another source, which stays open as long as anything needs it."""

    __slots__ = ("_offset", "_source", "concurrency", "gap", "path", "piece", "size")

    def __init__(self, path: str, source: Source, offset: int, size: int) -> None:
        self.path = path
        self.size = size
        self.piece, self.gap, self.concurrency = source.piece, source.gap, source.concurrency
        self._source = source
        self._offset = offset

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        check_range(self, offset, size)
        with located(path=self.path):
            return self._source.read_at(self._offset + offset, size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`."""
        check_range(self, offset, len(buffer))
        self._source.read_into(self._offset + offset, buffer)

    def map(self) -> mmap.mmap | None:
        """Return None: it begins where no page does."""
        return None

    def close(self) -> None:
        """Do nothing: the archive is open for all of them."""


class MemberChecksum(NamedTuple):
    """What the CRC-32 of a member says of the bytes from some place in it on."""

    before: int
    """The CRC-32 of the member's bytes before that place."""
    stored: int
    """The CRC-32 of the whole member, which the archive states."""

    def check(self, computed: int) -> None:
        """Raise `MalformedError` if the CRC-32 of the whole member is another one."""
        if computed != self.stored:
            raise MalformedError(
                f"Expected a member with the checksum {self.stored:#010x}, found {computed:#010x}: "
                "its bytes have changed since the archive was written",
                hint="Copy or download the archive again, or take the other tensors of it",
            )


def iter_unpacked_member(
    archive: zipfile.ZipFile, source: Source, info: zipfile.ZipInfo, limits: Limits, path: str
) -> Iterator[bytes]:
    """Iterate over what a packed member holds, in pieces.

    Args:
        archive: The archive, open.
        source: Its file.
        info: The member, as the archive's directory describes it.
        limits: Bounds on the memory that unpacking takes.
        path: What to call the member in an error.

    Raises:
        LimitError: Undoing it takes too much memory.
        DataLossError: It is damaged; what came before is whole up to its checksum.
    """
    if unpacks_in_pieces(info):
        start, size = find_packed(source, info)
        yield from iter_member(MemberSource(path, source, start, size), info, limits)
        return
    with explained(path), archive.open(info) as file:
        while data := file.read(_PIECE):
            yield data


class ZipMembers:
    """The members of an archive that is open."""

    def __init__(self, source: Source, limits: Limits) -> None:
        """Read the directory of an archive.

        Raises:
            DataLossError: It has none, or a broken one.
            LimitError: It has more members than the limits allow, or they say that they hold more.
        """
        self._source = source
        self._limits = limits
        self._archive = list_zip(source, limits).archive
        self._infos: dict[str, zipfile.ZipInfo] = {}
        infos = [] if self._archive is None else self._archive.infolist()
        for info in infos:
            if info.filename in self._infos:
                raise MalformedError(f"Two members of the archive have the name {info.filename!r}")
            if not info.filename.endswith("/"):
                self._infos[info.filename] = info
        packed = sum(info.compress_size for info in self._infos.values())
        if packed > source.size:
            raise MalformedError(
                f"Expected members one after another, found members of {packed} bytes in a file "
                f"of {source.size}: they lie over each other"
            )
        # Each may unpack to little, and all of them to any number of bytes.
        total = sum(info.file_size for info in self._infos.values())
        limits.check("unpacked_bytes", total, "What the archive unpacks to, in bytes,")

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, as the archive has them."""
        return tuple(self._infos)

    def size(self, name: str) -> int:
        """Return how many bytes a member holds."""
        return self._infos[name].file_size

    def find_stored(self, name: str) -> tuple[int, int] | None:
        """Return where the bytes of a member lie, offset and size; None if it is packed.

        Raises:
            DataLossError: Its bytes lie outside the archive.
            UnsupportedError: It is encrypted.
        """
        info = self._infos[name]
        if info.flag_bits & _ENCRYPTED:
            raise UnsupportedError(
                f"The member {name!r} is encrypted",
                hint="Unpack the archive with its password first",
            )
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        ((start, size),) = find_stored(self._source, info)
        return (start or 0), size

    def checksum(self, name: str, start: bytes = b"") -> MemberChecksum:
        """Return what is to be checked of a member after some bytes at its start."""
        return MemberChecksum(zlib.crc32(start), self._infos[name].CRC)

    def read(self, name: str, *, most: int | None = None) -> bytes:
        """Return what a member holds, or its first bytes.

        Raises:
            DataLossError: It is damaged. Of its first bytes alone the checksum is not known.
            LimitError: It holds more than `Limits.decompressed_bytes`.
        """
        info, stored = self._infos[name], self.find_stored(name)
        wanted = info.file_size if most is None else min(most, info.file_size)
        if stored is not None:
            data = self._source.read_at(stored[0], wanted)
            if most is None:
                self.checksum(name).check(zlib.crc32(data))
            return data
        self._limits.check("decompressed_bytes", wanted, f"The size of the member {name!r}")
        found = bytearray()
        for piece in self._iter_pieces(info):
            found += piece
            if len(found) >= wanted and most is not None:
                break
        if len(found) < wanted:
            raise MalformedError(
                f"Expected {wanted} bytes of the member {name!r}, found {len(found)}"
            )
        return bytes(found[:wanted])

    def _iter_pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        if self._archive is not None:
            yield from iter_unpacked_member(
                self._archive, self._source, info, self._limits, self._source.path
            )
