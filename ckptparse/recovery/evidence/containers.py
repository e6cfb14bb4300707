"""Find where the parts of a container are, and where a run of a given size may begin.

    zip, npz, .keras   members; stored ones are read in place, the others are unpacked
    tar                members
    gzip, xz, bzip2, Zstandard   what they packed, often a tar archive
    npy                after the header
    safetensors        at the offsets in the header
    HDF5               contiguous datasets: messages `03 01`, address, size; others by h5py
    TFLite, protobuf   after a run's length: 32 bits, or a tag and a varint
    .pbtxt             as protobuf, in the binary form of the message

A container is not trusted. It only says where a checksum is worth computing.
"""

from __future__ import annotations

import io
import operator
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.errors import (
    CheckpointError,
    DataLossError,
    LimitError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.examination.encodings import Conversion, undo
from ckptparse.files.archives.damaged import iter_before_damage, iter_local_members
from ckptparse.files.archives.listing import open_zip, weight_of
from ckptparse.files.archives.magic import Packing, guess_packing
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.stream import SourceStream
from ckptparse.files.views import JoinedSource, Range
from ckptparse.json_text import parse_json
from ckptparse.limits import DEFAULT_LIMITS, Limits, Members, check_members, most_members
from ckptparse.recovery.evidence.bounds import Note, ignore
from ckptparse.recovery.evidence.datasets import DatasetSource, iter_datasets
from ckptparse.recovery.evidence.texts import HEAD, is_graph, read_binary

__all__ = [
    "Candidate",
    "is_archive",
    "is_stream",
    "iter_candidates",
    "iter_parts",
    "list_members",
    "unpack_stream",
]

_PIECE = 1 << 24
"""Bytes that are searched at once, so that memory stays small."""
_OVERLAP = 32
"""Bytes of the next piece that are read too: the longest pattern, an HDF5 layout, has 18."""
_DEEPEST = 3
"""Archives within archives that are opened: a `.keras` file in a `.tar.gz` takes 3. A zip file can
contain itself."""
_GROWTH = 16
_FREE_BYTES = 1 << 26
"""How many times its size the members of a file may take together, or how many bytes if that is
more: each is searched. Weights become hardly larger when they are unpacked, zeros 1,000 times."""
_SLOWER = {Packing.XZ: 1, Packing.ZSTD: 1, Packing.BZIP2: 16}
"""By how much less of a stream is unpacked: bzip2 gives 10 MB each second. It may become as large
as the file is, or 4 MiB if that is more."""
_TOO_MANY = "Limits.members ({}) allows no more members for its size (unpack it, or raise it)"
_ARCHIVE = 4
"""How many members an archive in another takes as long as."""
_DATASETS = 32
"""Of what members of HDF5 files in archives may be, what opening such a file counts as."""
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_LAYOUT = re.compile(rb"\x03\x01(.{8})(.{8})", re.DOTALL)
_TAGS = (0x22, 0x0A, 0x2A, 0x32)
"""Tags before payloads: of TensorProto.tensor_content and most others, in field 4; of a message's
first field; of TensorProto.float_val and double_val, in fields 5 and 6."""
_MESSAGES = (b"\x08", b"\x0a", b"\x12")
"""The first bytes of messages: a tag of field 1 (a number, or bytes) or of field 2 (bytes)."""


class Candidate(NamedTuple):
    """A place where a run of bytes may be."""

    offset: int
    size: int
    name: str | None = None
    """What the container calls it; None: as the part is called that it lies in."""


class _Allowed:
    """What may be looked at of one file of the evidence, whatever it contains."""

    __slots__ = ("_bytes", "_limits", "_members", "_texts", "datasets", "note")

    def __init__(self, source: Source, limits: Limits, note: Note) -> None:
        self.note = note
        self._limits = limits
        self._texts = limits.text_bytes
        free = min(_FREE_BYTES, limits.decompressed_bytes)
        self._bytes = source.size + max(free, _GROWTH * source.size)
        self._members = Members(limits, source.size)
        self.datasets = Members(limits, source.size)

    def take_text(self, size: int) -> bool:
        """Take some bytes of text, which are slow to parse; False if there are not so many left."""
        if size > self._texts:
            self.note(
                f"Limits.text_bytes ({self._limits.text_bytes}) allows no more text (raise it, or "
                "give the binary form)"
            )
            return False
        self._texts -= size
        return True

    def take_part(self, size: int, weight: float = 1) -> bool:
        """Take a member of so many bytes; False if there are not so many left.

        Members may lie over each other, and unpack to a thousand times their size.

        Raises:
            LimitError: There are too many members.
        """
        if not self._members.try_take(weight=weight):
            raise LimitError(_TOO_MANY.format(self._limits.members), limit="members")
        if size > self._bytes:
            self.note_size()
            return False
        self._bytes -= size
        return True

    def take_packed(self, size: int) -> bool:
        """Tell whether a member that is packed may have so many bytes."""
        if size <= self._limits.decompressed_bytes:
            return True
        self.note(
            f"a member unpacks to more than Limits.decompressed_bytes "
            f"({self._limits.decompressed_bytes}) allows (unpack it, or raise the limit)"
        )
        return False

    @property
    def most(self) -> int:
        """How many bytes what is unpacked next may have whose size is not known."""
        return min(self._bytes, self._limits.decompressed_bytes)

    def take_stream(self, slower: int) -> int:
        """Return how many bytes of a packed stream, whose size is not known, may be unpacked."""
        return self._bytes // slower

    def take_archive(self) -> bool:
        """Take an archive in another; False if there are too many."""
        return self._take(self._members, _ARCHIVE)

    def take_hdf5(self) -> bool:
        """Take an HDF5 file in an archive; False if there are too many."""
        return self._take(self.datasets, _DATASETS)

    def _take(self, members: Members, weight: int) -> bool:
        if members.try_take(weight=weight):
            return True
        self.note(_TOO_MANY.format(self._limits.members))
        return False

    def note_size(self) -> None:
        """Note that what a file packed is too large."""
        self.note(f"it unpacks to more than {_GROWTH} times its size (unpack it first)")


def iter_parts(
    source: Source,
    *,
    limits: Limits,
    note: Note = ignore,
    depth: int = 0,
    allowed: _Allowed | None = None,
) -> Iterator[Source]:
    """Iterate over the members of an archive, and of archives in it; another file comes as it is.

    Members that are not compressed are ranges of the file. A member that cannot be unpacked, or
    takes more than `Limits.decompressed_bytes`, is left out; so are those beyond 16 times the
    file, or 64 MiB, all together, and those beyond `Limits.members`. Of text, `Limits.text_bytes`
    are parsed in all. `note` is told what was left out.
    """
    head = source.read_at(0, min(HEAD, source.size))
    opener = _opener_of(head)
    allowed = allowed or _Allowed(source, limits, note)
    if opener is None or not _may_open(opener, source, depth, allowed):
        yield source
        if head.startswith(_HDF5) and (not depth or allowed.take_hdf5()):
            yield from iter_datasets(
                source, limits=limits, members=allowed.datasets, note=allowed.note
            )
        return
    try:
        for part in opener(source, limits, allowed):
            yield from iter_parts(part, limits=limits, depth=depth + 1, allowed=allowed)
    except (LimitError, UnsupportedError) as error:
        allowed.note(error.message)
        yield source
    except (CheckpointError, zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError):
        # Cut off or damaged: what is not in members may be found in it all the same.
        yield source
    except (NotImplementedError, RuntimeError, ValueError):  # Encrypted, or an unknown compression.
        yield source


def _may_open(opener: _Opener, source: Source, depth: int, allowed: _Allowed) -> bool:
    if depth >= _DEEPEST:
        allowed.note(f"archives lie more than {_DEEPEST} deep in each other (unpack them)")
        return False
    if opener is _iter_text and not allowed.take_text(source.size):
        return False
    return not depth or allowed.take_archive()


def is_stream(source: Source) -> bool:
    """Tell whether a file is packed by xz, bzip2 or Zstandard."""
    return guess_packing(source.read_at(0, min(HEAD, source.size))) in _SLOWER


def is_archive(head: bytes) -> bool:
    """Tell from its first bytes whether a file holds others: packed, archived or as text."""
    return _opener_of(head) is not None


_Opener = Callable[[Source, Limits, _Allowed], Iterator[Source]]


def _opener_of(head: bytes) -> _Opener | None:
    if head.startswith(b"PK\x03\x04"):
        return _iter_zip
    if head.startswith(b"\x1f\x8b"):
        return _iter_gzip
    packing = guess_packing(head)
    if packing in _SLOWER:
        return partial(_iter_stream, packing)
    # The magic of a tar header, in the first header of the archive.
    if head[257:262] == b"ustar":
        return _iter_tar
    return _iter_text if is_graph(head) else None


_Inside = Callable[[Source], Source | None]
"""Opens a member of an archive that is open; None if the member may not be unpacked."""


def list_members(source: Source, limits: Limits) -> dict[str, _Inside]:
    """Return what opens the members of a zip or tar archive, by the paths that they have as parts.

    Of an HDF5 file: the datasets that only h5py can read. Nothing of other files, and of archives
    that cannot be read.
    """
    head = source.read_at(0, min(HEAD, source.size))
    opener = _opener_of(head)
    found: dict[str, _Inside] = {}
    with suppress(CheckpointError, zipfile.BadZipFile, tarfile.TarError, OSError, ValueError):
        if head.startswith(_HDF5):
            for dataset in iter_datasets(source, limits=limits):
                if isinstance(dataset, DatasetSource):
                    found.setdefault(dataset.path, dataset.within)
        if opener is _iter_zip:
            for one in _iter_infos(source, limits):
                path = f"{source.path}:{one.info.filename}"
                found.setdefault(path, partial(_open_info, one=one, limits=limits))
        elif opener is _iter_tar:
            for header in _iter_tar_infos(source, limits):
                path = f"{source.path}:{header.name}"
                there = partial(_part, path, offset=header.offset_data, size=header.size)
                found.setdefault(path, there)
    return found


def unpack_stream(source: Source, limits: Limits) -> Source | None:
    """Return what a packed stream holds; None of other files, and if it cannot be unpacked."""
    opener = _opener_of(source.read_at(0, min(HEAD, source.size)))
    if opener in (None, _iter_zip, _iter_tar, _iter_text):
        return None
    with suppress(CheckpointError, zlib.error, OSError, EOFError, ValueError):
        return next(opener(source, limits, _Allowed(source, limits, ignore)), None)
    return None


class _Info(NamedTuple):
    """A member of a zip."""

    info: zipfile.ZipInfo
    start: int | None
    """Where its bytes begin; None if only its own header says it."""
    size: int
    """In bytes, unpacked."""


def _iter_infos(source: Source, limits: Limits) -> Iterator[_Info]:
    """Iterate over the members of a zip.

    If its directory is lost, or has more members than it may, they are known by their own headers,
    and there is one more than it may have.
    """
    try:
        opened = open_zip(source, limits)
    except (MalformedError, TruncatedError, zipfile.BadZipFile, LimitError):
        most, taken = most_members(limits, source.size), 0.0
        for info, start, stop in iter_local_members(source):
            if not info.filename.endswith("/"):
                yield _Info(info, start, info.file_size or stop - start)
            taken += weight_of(info.filename)
            if taken > most:
                break
        return
    with opened as archive:
        for info in archive.infolist():
            if not info.filename.endswith("/"):
                yield _Info(info, None, info.file_size)


def _open_info(
    source: Source, one: _Info, limits: Limits, allowed: _Allowed | None = None
) -> Source | None:
    """Open a member of a zip; None if it unpacks to more than it may."""
    path = f"{source.path}:{one.info.filename}"
    if one.info.compress_type == zipfile.ZIP_STORED:
        start = _data_of(source, one.info) if one.start is None else one.start
        return _part(path, source, start, one.size)
    allowed = allowed or _Allowed(source, limits, ignore)
    if not allowed.take_packed(one.info.file_size):
        return None
    return _unpacked(path, source, one.info, limits, allowed)


def _iter_zip(source: Source, limits: Limits, allowed: _Allowed) -> Iterator[Source]:
    for one in _iter_infos(source, limits):
        if allowed.take_part(one.size, weight_of(one.info.filename)):
            part = _open_info(source, one, limits, allowed)
            if part is not None:
                yield part


def _unpacked(
    path: str, source: Source, info: zipfile.ZipInfo, limits: Limits, allowed: _Allowed
) -> Source:
    """Unpack a member, as far as it can be."""
    data = bytearray()
    with suppress(DataLossError):
        for piece in iter_before_damage(source, info, limits, path):
            data += piece
            if len(data) > max(info.file_size, allowed.most):
                allowed.note_size()
                break
    return MemorySource(path, data)


def _part(path: str, source: Source, offset: int, size: int) -> Source:
    """Return a member that is stored in the file, as far as the file goes."""
    there = max(0, min(size, source.size - offset))
    return JoinedSource(path, [Range(source, offset, there)])


def _data_of(source: Source, info: zipfile.ZipInfo) -> int:
    """Return where the data of a member begins: after its own header, a name and extra fields."""
    header = source.read_at(info.header_offset, _LOCAL_HEADER.size)
    *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    return info.header_offset + _LOCAL_HEADER.size + int(name_size) + int(extra_size)


def _iter_tar(source: Source, limits: Limits, allowed: _Allowed) -> Iterator[Source]:
    for info in _iter_tar_infos(source, limits):
        if allowed.take_part(info.size):
            yield _part(f"{source.path}:{info.name}", source, info.offset_data, info.size)


def _iter_tar_infos(source: Source, limits: Limits) -> Iterator[tarfile.TarInfo]:
    file = io.BufferedReader(SourceStream(source))
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for number, info in enumerate(archive, 1):
            check_members(limits, number, source.size, path=source.path)
            if info.isreg():
                yield info


def _iter_gzip(source: Source, limits: Limits, allowed: _Allowed) -> Iterator[Source]:  # noqa: ARG001 - as its brothers
    undone = undo(source, Conversion.GZIP)
    if undone is None:
        allowed.note(f"it cannot be unpacked, or only to more than {_GROWTH} times its size")
        raise MalformedError("It cannot be unpacked", path=source.path)
    if allowed.take_part(undone.size):
        yield undone


def _iter_stream(
    packing: Packing, source: Source, limits: Limits, allowed: _Allowed
) -> Iterator[Source]:
    """Give what a stream holds, as far as it is whole and may be unpacked."""
    # Imported only now: it brings lzma.
    from ckptparse.files.archives.unpacking import iter_unpacked

    data = bytearray()
    most = min(allowed.take_stream(_SLOWER[packing]), limits.decompressed_bytes)
    try:
        for piece in iter_unpacked(source, packing, limits):
            data += piece[: most - len(data)]
            if len(data) == most:
                allowed.note_size()
                break
    except CheckpointError as error:
        if not data:
            raise
        if isinstance(error, LimitError):
            allowed.note(error.message)
    if allowed.take_part(len(data)):
        yield MemorySource(source.path, data)


def _iter_text(source: Source, limits: Limits, allowed: _Allowed) -> Iterator[Source]:  # noqa: ARG001 - as its brothers
    yield read_binary(source, limits=limits)


def iter_candidates(
    source: Source,
    sizes: Collection[int],
    *,
    limits: Limits = DEFAULT_LIMITS,
    note: Note = ignore,
) -> Iterator[Candidate]:
    """Iterate over the places where the file says, or hints, that runs of some sizes are."""
    if source.size in sizes:
        yield Candidate(0, source.size)
    if isinstance(source, DatasetSource):
        # A dataset of a size that is not sought is not unpacked.
        return
    head = source.read_at(0, min(16, source.size))
    if head.startswith(b"\x93NUMPY"):
        yield from _in_npy(source)
        return
    if head[8:9] == b"{":
        yield from _in_safetensors(source, limits, note)
    if head.startswith(_HDF5):
        yield from _in_hdf5(source, sizes)
    elif head[4:8] == b"TFL3":
        yield from _in_flatbuffer(source, sizes)
    elif head[:1] in _MESSAGES:
        yield from _in_message(source, sizes)


def _in_npy(source: Source) -> Iterator[Candidate]:
    # After 6 bytes of magic: the major version, the minor one, the header's length.
    version = source.read_at(6, 1)[0]
    width = 2 if version == 1 else 4
    if source.size < 8 + width:
        return
    header = int.from_bytes(source.read_at(8, width), "little")
    start = 8 + width + header
    if start < source.size:
        yield Candidate(start, source.size - start)


def _in_safetensors(source: Source, limits: Limits, note: Note) -> Iterator[Candidate]:
    size = int.from_bytes(source.read_at(0, 8), "little")
    if 8 + size > source.size:
        return
    try:
        header = parse_json(source.read_at(8, size), limits, held=source.size)
        for name, value in header.items():
            if "data_offsets" in value:
                start, stop = map(operator.index, value["data_offsets"])
                yield Candidate(8 + size + start, stop - start, name)
    except LimitError as error:
        note(error.message)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return


def _in_hdf5(source: Source, sizes: Collection[int]) -> Iterator[Candidate]:
    """Iterate over contiguous datasets of some sizes. The whole file is searched for them."""
    wanted = set(sizes)
    for _, data in _iter_pieces(source):
        for match in _HDF5_LAYOUT.finditer(data):
            offset, size = struct.unpack("<QQ", match[1] + match[2])
            if size in wanted:
                yield Candidate(offset, size)


def _in_flatbuffer(source: Source, sizes: Collection[int]) -> Iterator[Candidate]:
    """Iterate over vectors of some sizes: each comes after its length, an aligned 32-bit word."""
    wanted = np.array(sorted(size for size in sizes if size < 1 << 32), np.uint32)
    some = np.zeros(1 << 16, np.bool_)
    some[wanted & 0xFFFF] = True
    for start, data in _iter_pieces(source):
        words = np.frombuffer(data, "<u4", min(_PIECE, len(data)) // 4)
        likely = np.flatnonzero(some[words & 0xFFFF])
        for place in likely[np.isin(words[likely], wanted)].tolist():
            yield Candidate(start + 4 * place + 4, int(words[place]))


def _in_message(source: Source, sizes: Collection[int]) -> Iterator[Candidate]:
    """Iterate over bytes of some sizes in a message: each comes after a tag and its length."""
    wanted = np.array(sorted(sizes), np.int64)
    # The low bits of a length are in its first byte: few bytes behind a tag have those of any.
    some = np.zeros(128, np.bool_)
    some[wanted & 0x7F] = True
    for start, data in _iter_pieces(source):
        view = np.frombuffer(data + bytes(_OVERLAP), np.uint8)
        body = view[: min(_PIECE, len(data))]
        tags = np.flatnonzero(np.logical_or.reduce([body == tag for tag in _TAGS]))
        tags = tags[some[view[tags + 1] & 0x7F]]
        lengths, ends = _varints(view, tags + 1)
        fitting = np.isin(lengths, wanted)
        for end, size in zip(ends[fitting].tolist(), lengths[fitting].tolist(), strict=True):
            yield Candidate(start + end, size)


def _varints(
    view: npt.NDArray[np.uint8], places: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Decode the varints at some places: values, and where each ends.

    They have five bytes at most, as the length of a message below 2 GiB has; a longer one gives -1.
    """
    values = np.zeros(len(places), np.int64)
    ends = places.copy()
    more = np.ones(len(places), np.bool_)
    for number in range(5):
        byte = view[places + number].astype(np.int64)
        values[more] |= (byte[more] & 0x7F) << 7 * number
        ends[more] += 1
        more &= byte >= 0x80
    values[more] = -1
    return values, ends


def _iter_pieces(source: Source) -> Iterator[tuple[int, bytes]]:
    for start in range(0, source.size, _PIECE):
        yield start, source.read_at(start, min(_PIECE + _OVERLAP, source.size - start))
