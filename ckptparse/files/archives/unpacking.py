"""The bytes that a compressed archive holds, by the standard library or an extra."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from ckptparse.errors import (
    CheckpointError,
    DataLossError,
    LimitError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.archives.magic import HEAD_SIZE, Packing, guess_packing, is_tar_header
from ckptparse.files.storage import Source
from ckptparse.files.stream import SourceStream
from ckptparse.limits import Limits, check_members

__all__ = [
    "Inflater",
    "SourceFile",
    "explained",
    "find_packing",
    "iter_member",
    "iter_unpacked",
    "unpacks_in_pieces",
]

_WINDOW = 1 << 16
_PIECE = 1 << 20
"""Bytes that are read (`_WINDOW`) and unpacked (`_PIECE`) at once, so memory stays small."""
_MOST_ZSTD_WINDOW = 27
"""A window of 128 MiB, as a power of two: what Zstandard itself allows unless told otherwise."""

_DAMAGE: tuple[type[Exception], ...] = (
    zlib.error,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What the standard library raises for bytes that are no such archive."""


class SourceFile(SourceStream):
    """A source as a file object of which small reads share a request."""

    def __init__(self, source: Source, *, most: int, window: int = _WINDOW) -> None:
        """Take a source; `most` bounds one read, which would all be in memory."""
        super().__init__(source)
        self._most = most
        self._size = window
        self._start = 0
        self._data = b""

    def read(self, size: int | None = -1) -> bytes:
        """Read up to so many bytes; fewer at the end.

        Raises:
            LimitError: It is more than anything in an archive may ask for at once.
        """
        rest = max(0, self._source.size - self._position)
        count = rest if size is None or size < 0 else min(size, rest)
        if count > self._most:
            raise LimitError(
                f"What describes the archive's members takes {count} bytes, and Limits.members "
                f"allows {self._most}",
                limit="members",
                path=self._source.path,
            )
        start = self._position - self._start
        if start < 0 or start + count > len(self._data):
            self._fill(count)
            start = self._position - self._start
        self._position += count
        return self._data[start : start + count]

    @property
    def path(self) -> str:
        """The path of the source."""
        return self._source.path

    @property
    def size(self) -> int:
        """Bytes of the source."""
        return self._source.size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there are bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _fill(self, count: int) -> None:
        # The end of a zip is read backwards, so its last window serves several reads.
        start = min(self._position, max(0, self._source.size - self._size))
        start = self._position if self._position - start >= self._size else start
        stop = min(self._source.size, max(start + self._size, self._position + count))
        self._start, self._data = start, self._source.read_at(start, stop - start)


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what the standard library says of a broken archive into an error of ours."""
    try:
        yield
    except CheckpointError:
        raise
    except MemoryError:
        raise LimitError(
            "Unpacking the archive takes more memory than there is", path=path
        ) from None
    except EOFError:
        raise TruncatedError("The archive ends too early: it was cut off", path=path) from None
    except _DAMAGE as error:
        raise MalformedError(f"The archive is damaged: {error}", path=path) from error


def find_packing(source: Source, limits: Limits) -> Packing | None:
    """Tell which archive a file is; None if it is none.

    Raises:
        UnsupportedError: It is packed by Zstandard, and nothing that undoes it is installed.
    """
    found = guess_packing(source.read_at(0, min(HEAD_SIZE, source.size)))
    if found is None or not found.is_compressed:
        return found
    first = b""
    with suppress(DataLossError):
        for piece in iter_unpacked(source, found, limits, piece=_WINDOW):
            first += piece
            if len(first) >= HEAD_SIZE:
                break
    return found if is_tar_header(first[:HEAD_SIZE]) else None


def iter_unpacked(
    source: Source, packing: Packing, limits: Limits, *, piece: int = _PIECE
) -> Iterator[bytes]:
    """Iterate over what a compressed file holds, in pieces.

    Raises:
        UnsupportedError: It is packed by Zstandard, and nothing that undoes it is installed.
        LimitError: Undoing it takes too much memory, or it has too many streams.
        DataLossError: It is damaged, or was cut off; what came before is whole.
    """
    # Large requests, since each may cost time: nothing of the file is read twice.
    step = max(piece, source.piece) if source.concurrency is not None else piece
    stream = _OPENERS[packing](SourceFile(source, most=source.size, window=step), limits)
    while True:
        with explained(source.path):
            data = stream(piece)
        if not data:
            return
        yield data


_Read = Callable[[int], bytes]


def _open_gzip(file: SourceFile, limits: Limits) -> _Read:
    return _Streams(Inflater, file, limits).read


def _open_bzip2(file: SourceFile, limits: Limits) -> _Read:
    import bz2

    return _Streams(bz2.BZ2Decompressor, file, limits).read


def _open_xz(file: SourceFile, limits: Limits) -> _Read:
    # The size of its dictionary, which it takes in memory, stands in the file.
    most = limits.decompressed_bytes

    def make() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=most)

    read = _Streams(make, file, limits).read

    def read_within(size: int) -> bytes:
        try:
            return read(size)
        except lzma.LZMAError as error:
            if "Memory usage limit" not in str(error):
                raise
            raise LimitError(
                f"Unpacking it takes more memory than Limits.decompressed_bytes allows ({most})",
                limit="decompressed_bytes",
            ) from None

    return read_within


def _open_zstd(file: SourceFile, limits: Limits) -> _Read:
    try:
        import zstandard
    except ImportError:
        return _open_zstd_of_python(file, limits)
    made = zstandard.ZstdDecompressor(max_window_size=1 << _MOST_ZSTD_WINDOW)
    stream = made.stream_reader(cast(Any, file), read_across_frames=True)

    def read(size: int) -> bytes:
        try:
            return stream.read(size)
        except zstandard.ZstdError as error:
            raise _zstd_failed(error) from None

    return read


def _open_zstd_of_python(file: SourceFile, limits: Limits) -> _Read:
    """Read by what Python has of its own since 3.14."""
    try:
        from importlib import import_module

        zstd = import_module("compression.zstd")
    except ImportError as error:
        raise UnsupportedError(
            "Reading an archive packed by Zstandard needs the package zstandard",
            hint="pip install 'ckptparse[chunked]', or use Python 3.14",
        ) from error
    options = {zstd.DecompressionParameter.window_log_max: _MOST_ZSTD_WINDOW}
    read = _Streams(lambda: zstd.ZstdDecompressor(options=options), file, limits).read

    def read_named(size: int) -> bytes:
        try:
            return read(size)
        except zstd.ZstdError as error:
            raise _zstd_failed(error) from None

    return read_named


def _zstd_failed(error: Exception) -> Exception:
    # The library has one class for all that fails: only its text tells that a bound was reached.
    if "memory" in str(error) or "indow" in str(error):
        return LimitError(
            f"Unpacking it takes a window of more than {1 << _MOST_ZSTD_WINDOW} bytes of memory"
        )
    return ValueError(str(error))


def unpacks_in_pieces(info: zipfile.ZipInfo) -> bool:
    """Tell whether `iter_member` is to unpack a member of a zip.

    `zipfile` bounds only what is packed by Deflate. Of the other methods it unpacks all at once:
    a few kilobytes may hold gigabytes.
    """
    return info.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def iter_member(packed: Source, info: zipfile.ZipInfo, limits: Limits) -> Iterator[bytes]:
    """Iterate over what a member of a zip holds, in pieces, given its packed bytes.

    Raises:
        LimitError: Undoing it takes too much memory.
        DataLossError: It is damaged; what came before is whole up to its checksum.
    """
    file = SourceFile(packed, most=packed.size)
    size = checksum = 0
    read: _Read
    with explained(packed.path):
        if info.compress_type == zipfile.ZIP_BZIP2:
            import bz2

            read = _Streams(bz2.BZ2Decompressor, file, limits).read
        else:
            read = _open_lzma(file, limits)
        # Nothing is asked for beyond the end: LZMA's may have no mark.
        while size < info.file_size and (data := read(min(_PIECE, info.file_size - size))):
            size, checksum = size + len(data), zlib.crc32(data, checksum)
            yield data
        if (size, checksum) != (info.file_size, info.CRC):
            raise MalformedError(
                f"Expected {info.file_size} bytes of the member with the checksum {info.CRC:#x}, "
                f"found {size} with {checksum:#x}",
                path=packed.path,
            )


def _open_lzma(file: SourceFile, limits: Limits) -> _Read:
    """Begin to unpack a member of a zip that LZMA packed: version, size of what follows, that."""
    _, size = struct.unpack("<HH", file.read(4))
    described = file.read(size)
    properties, dictionary = struct.unpack("<BL", described)
    limits.check("decompressed_bytes", dictionary, "The memory that unpacking takes, in bytes,")
    rest, literal_context = divmod(properties, 9)
    position, literal_position = divmod(rest, 5)
    filters = [
        {
            "id": lzma.FILTER_LZMA1,
            "dict_size": dictionary,
            "lc": literal_context,
            "lp": literal_position,
            "pb": position,
        }
    ]
    return _Streams(
        lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), file, limits
    ).read


class Inflater:
    """One stream of zlib, with the face of the standard library's other decompressors.

    It gives all that comes before damage, and the error at the next call.
    """

    def __init__(self, window: int = zlib.MAX_WBITS | 16) -> None:
        """Begin a stream; `window` is zlib's number for what is around it, gzip unless given.

        16 more than the largest window: a header of gzip, and its checksum is checked.
        """
        self._stream = zlib.decompressobj(window)
        self._is_full = False
        self._error: zlib.error | None = None

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        """What follows the stream."""
        return self._stream.unused_data

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing more to give of what was taken."""
        # What was given last may have left some that is unpacked already.
        return not (self._stream.unconsumed_tail or self._is_full or self._error)

    def decompress(self, data: bytes, size: int) -> bytes:
        """Return at most so many bytes.

        Raises:
            zlib.error: The stream is damaged there.
        """
        if self._error is not None:
            raise self._error
        data = self._stream.unconsumed_tail + data
        before = self._stream.copy()
        try:
            found = self._stream.decompress(data, size)
        except zlib.error as error:
            self._error = error
            return _inflate_before_damage(before, data, size)
        self._is_full = len(found) == size
        return found


def _inflate_before_damage(stream: Any, data: bytes, size: int) -> bytes:
    """Return what comes before the byte at which a stream fails: its place is halved in on."""
    found = b""
    at, step = 0, len(data)
    while step and len(found) < size:
        trial = stream.copy()
        try:
            found += trial.decompress(data[at : at + step], size - len(found))
        except zlib.error:
            step //= 2
        else:
            stream, at = trial, at + step
    return found


class _Streams:
    """One compressed stream after another, as all but those in a zip may hold several."""

    def __init__(self, make: Callable[[], Any], file: SourceFile, limits: Limits) -> None:
        self._make = make
        self._file = file
        self._limits = limits
        self._count = 0
        self._current: Any = None
        self._input = b""

    def read(self, size: int) -> bytes:
        """Return at most so many bytes; none at the end."""
        while True:
            if self._current is None or self._current.eof:
                if not self._begin_next():
                    return b""
            elif self._current.needs_input:
                self._input = self._file.read(_WINDOW)
                if not self._input:
                    raise EOFError("The file was cut off: its compressed stream has no end")
            data: bytes = self._current.decompress(self._input, size)
            self._input = b""
            if data:
                return data

    def _begin_next(self) -> bool:
        """Begin another stream, if there is one.

        Raises:
            LimitError: There are more than a file of this size may have.
        """
        found: bytes = b"" if self._current is None else self._current.unused_data
        found = found or self._file.read(_WINDOW)
        # Streams are followed by nothing, or by zeros that fill a block of a tape.
        while found and not found.strip(b"\0"):
            found = self._file.read(_WINDOW)
        if not found:
            return False
        self._input = found.lstrip(b"\0") if self._count else found
        self._count += 1
        check_members(self._limits, self._count, self._file.size, path=self._file.path)
        self._current = self._make()
        return True


_OPENERS: dict[Packing, Callable[[SourceFile, Limits], _Read]] = {
    Packing.GZIP: _open_gzip,
    Packing.BZIP2: _open_bzip2,
    Packing.XZ: _open_xz,
    Packing.ZSTD: _open_zstd,
}
