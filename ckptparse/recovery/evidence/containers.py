"""Where the parts of a container lie, and where a run of a given size may begin.

    zip, npz, .keras   members; stored ones lie in the file, the others are unpacked
    tar                members
    npy                behind the header
    safetensors        by the header's offsets
    HDF5               contiguous datasets: messages `03 01`, address, size
    TFLite, protobuf   any run stands behind its length: 32 bits, or a tag and a varint

Nothing of a container is believed: what it says is but where to compute a checksum.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from ckptparse.coding.varint import encode_varint
from ckptparse.errors import CheckpointError
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.limits import Limits
from ckptparse.recovery.conversions import Conversion, undo

__all__ = ["Candidate", "SourceFile", "iter_candidates", "iter_parts"]

_PIECE = 1 << 24
_OVERLAP = 32
_DEEPEST = 3
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_HDF5_LAYOUT = re.compile(rb"\x03\x01(.{8})(.{8})", re.DOTALL)
_TENSOR_CONTENT = 0x22
"""The tag of TensorProto.tensor_content, and of most other payloads in field 4."""
_FIRST_FIELD = 0x0A
"""The tag of a message's first field, if that is bytes."""


class Candidate(NamedTuple):
    """A place where a run of bytes may lie."""

    offset: int
    size: int


class SourceFile(io.RawIOBase):
    """A source as a file object that can seek, for what reads archives."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill as much of a buffer as there is."""
        count = max(0, min(len(buffer), self._source.size - self._position))
        if count:
            self._source.read_into(self._position, memoryview(buffer)[:count])
            self._position += count
        return count


def iter_parts(source: Source, *, limits: Limits, depth: int = 0) -> Iterator[Source]:
    """Iterate over a file and, if it is an archive, over what is in it, archives within too.

    Members that are not compressed are ranges of the file. What cannot be unpacked, or would take
    more than `Limits.decompressed_bytes`, is left out.
    """
    head = source.read_at(0, min(512, source.size))
    opener = _opener_of(head)
    if opener is None or depth >= _DEEPEST:
        yield source
        return
    try:
        for part in opener(source, limits):
            yield from iter_parts(part, limits=limits, depth=depth + 1)
    except (CheckpointError, zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError):
        # Cut off or damaged: what of it is not packed is found without its directory.
        yield source
    except (NotImplementedError, RuntimeError, ValueError):  # Encrypted, or packed another way.
        yield source


def _opener_of(head: bytes) -> Callable[[Source, Limits], Iterator[Source]] | None:
    if head.startswith(b"PK\x03\x04"):
        return _iter_zip
    if head.startswith(b"\x1f\x8b"):
        return _iter_gzip
    if head[257:262] == b"ustar":
        return _iter_tar
    return None


def _iter_zip(source: Source, limits: Limits) -> Iterator[Source]:
    with zipfile.ZipFile(io.BufferedReader(SourceFile(source))) as archive:
        for info in archive.infolist():
            path = f"{source.path}:{info.filename}"
            if info.is_dir():
                continue
            if info.compress_type == zipfile.ZIP_STORED:
                yield _part(path, source, _data_of(source, info), info.file_size)
            elif info.file_size <= limits.decompressed_bytes:
                yield MemorySource(path, archive.read(info))


def _part(path: str, source: Source, offset: int, size: int) -> Source:
    """Return a member that lies in the file, as far as it does."""
    there = max(0, min(size, source.size - offset))
    return JoinedSource(path, [Range(source, offset, there)])


def _data_of(source: Source, info: zipfile.ZipInfo) -> int:
    """Return where the data of a member begins: behind a header of its own."""
    header = source.read_at(info.header_offset, _LOCAL_HEADER.size)
    *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    return info.header_offset + _LOCAL_HEADER.size + int(name_size) + int(extra_size)


def _iter_tar(source: Source, limits: Limits) -> Iterator[Source]:  # noqa: ARG001 - as its brothers
    with tarfile.open(fileobj=io.BufferedReader(SourceFile(source)), mode="r:") as archive:
        for info in archive:
            if info.isreg():
                yield _part(f"{source.path}:{info.name}", source, info.offset_data, info.size)


def _iter_gzip(source: Source, limits: Limits) -> Iterator[Source]:  # noqa: ARG001 - as its brothers
    undone = undo(source, Conversion.GZIP)
    yield source if undone is None else undone


def iter_candidates(source: Source, sizes: Collection[int]) -> Iterator[Candidate]:
    """Iterate over places where runs of some sizes may lie, by what the file says of its parts."""
    head = source.read_at(0, min(16, source.size))
    if head.startswith(b"\x93NUMPY"):
        yield from _in_npy(source)
        return
    if head[8:9] == b"{":
        yield from _in_safetensors(source)
    if source.size in sizes:
        yield Candidate(0, source.size)
    find = _in_hdf5 if head.startswith(b"\x89HDF\r\n\x1a\n") else _behind_lengths
    yield from find(source, sizes)


def _in_npy(source: Source) -> Iterator[Candidate]:
    version = source.read_at(6, 1)[0]
    width = 2 if version == 1 else 4
    if source.size < 8 + width:
        return
    header = int.from_bytes(source.read_at(8, width), "little")
    start = 8 + width + header
    if start < source.size:
        yield Candidate(start, source.size - start)


def _in_safetensors(source: Source) -> Iterator[Candidate]:
    size = int.from_bytes(source.read_at(0, 8), "little")
    if 8 + size > source.size:
        return
    try:
        header = json.loads(source.read_at(8, size))
        for value in header.values():
            if "data_offsets" in value:
                start, stop = value["data_offsets"]
                yield Candidate(8 + size + start, stop - start)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return


def _in_hdf5(source: Source, sizes: Collection[int]) -> Iterator[Candidate]:
    """Iterate over contiguous datasets of some sizes, by their messages wherever they stand."""
    wanted = set(sizes)
    for _, data in _iter_pieces(source):
        for match in _HDF5_LAYOUT.finditer(data):
            offset, size = struct.unpack("<QQ", match[1] + match[2])
            if size in wanted:
                yield Candidate(offset, size)


def _behind_lengths(source: Source, sizes: Collection[int]) -> Iterator[Candidate]:
    """Iterate over what stands behind its own length."""
    heads: dict[bytes, tuple[int, int]] = {}
    for size in sizes:
        heads[struct.pack("<I", size)] = size, 4
        for tag in (_TENSOR_CONTENT, _FIRST_FIELD):
            head = bytes([tag]) + encode_varint(size)
            heads[head] = size, len(head)
    for start, data in _iter_pieces(source):
        for head, (size, width) in heads.items():
            place = data.find(head)
            while 0 <= place < _PIECE:
                yield Candidate(start + place + width, size)
                place = data.find(head, place + 1)


def _iter_pieces(source: Source) -> Iterator[tuple[int, bytes]]:
    for start in range(0, source.size, _PIECE):
        yield start, source.read_at(start, min(_PIECE + _OVERLAP, source.size - start))
