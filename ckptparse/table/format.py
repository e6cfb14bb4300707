"""Footer, block handles and block trailers (docs/format.md, sections 1.2 and 1.4).

footer   metaindex handle, index handle, padding to 40 bytes, magic 57 fb 80 8b 24 75 47 db
handle   varint64 offset, varint64 size (of the contents, without the trailer)
block    contents[size]  type[1]  masked CRC-32C[4, little-endian] over contents and type
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Any, NamedTuple, cast

import numpy as np

from ckptparse.coding.checksum import crc32c, mask_crc, unmask_crc
from ckptparse.coding.varint import decode_varint, encode_varint
from ckptparse.errors import (
    ChecksumError,
    LimitError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.storage import Source
from ckptparse.limits import Limits

__all__ = [
    "FOOTER_SIZE",
    "MAGIC",
    "TRAILER_SIZE",
    "BlockHandle",
    "Compression",
    "Footer",
    "check_block",
    "check_crc",
    "decompress_block",
    "encode_trailer",
    "read_block",
    "read_footer",
]

FOOTER_SIZE = 48
"""Two handles of two varints of up to 10 bytes, and a magic of 8."""
TRAILER_SIZE = 5
"""One byte for the compression, four for the checksum."""
MAGIC = bytes.fromhex("57fb808b247547db")
_HANDLES_SIZE = FOOTER_SIZE - len(MAGIC)
_LARGE = 1 << 20
"""Bytes of a block from which on it matters how often it is in memory."""
_WORTH_TWO_READS = 1 << 15
"""Bytes of a block from which on a copy takes longer than another call of the system."""
_SNAPPY_BEST_RATIO = 22
"""No Snappy stream becomes more than 22 times as long: its best element takes 3 bytes for a copy of
64. A stream that states more is damaged or hostile, and no memory is taken for it."""


class Compression(IntEnum):
    """How a block's contents are stored: the type byte of its trailer (section 1.4)."""

    NONE = 0
    SNAPPY = 1


class BlockHandle(NamedTuple):
    """Where a block's contents are in the file, in bytes. The trailer follows them."""

    offset: int
    size: int

    @classmethod
    def from_bytes(
        cls, data: bytes, position: int = 0, end: int | None = None
    ) -> tuple[BlockHandle, int]:
        """Decode a handle at `position` that ends by `end`; return it and the position after it.

        Raises:
            MalformedError: One of its varints is cut off or too long.
        """
        stop = len(data) if end is None else end
        try:
            offset, position = decode_varint(data, position, stop)
            size, position = decode_varint(data, position, stop)
        except ValueError as error:
            raise MalformedError(f"Bad block handle: {error}") from error
        return cls(offset, size), position

    def to_bytes(self) -> bytes:
        """Encode the handle."""
        return encode_varint(self.offset) + encode_varint(self.size)

    @property
    def end(self) -> int:
        """Offset of the first byte after the block and its trailer."""
        return self.offset + self.size + TRAILER_SIZE


@dataclass(frozen=True, slots=True)
class Footer:
    """The last 48 bytes of a table."""

    metaindex: BlockHandle
    index: BlockHandle

    @classmethod
    def from_bytes(cls, data: bytes) -> Footer:
        """Decode a footer of exactly 48 bytes. Its padding is ignored, as TensorFlow does.

        Raises:
            MalformedError: The magic or a handle is wrong.
        """
        if data[_HANDLES_SIZE:] != MAGIC:
            raise MalformedError(
                f"The file is not an sstable (bad magic number): expected it to end in "
                f"{MAGIC.hex(' ')}, found {data[_HANDLES_SIZE:].hex(' ')}"
            )
        metaindex, position = BlockHandle.from_bytes(data[:_HANDLES_SIZE])
        index, _ = BlockHandle.from_bytes(data[:_HANDLES_SIZE], position)
        return cls(metaindex, index)

    def to_bytes(self) -> bytes:
        """Encode the footer: exactly 48 bytes."""
        # Zeros fill up to byte 40, since handles have any length up to 40 bytes (section 1.2).
        handles = self.metaindex.to_bytes() + self.index.to_bytes()
        return handles.ljust(_HANDLES_SIZE, b"\x00") + MAGIC


def encode_trailer(contents: bytes) -> bytes:
    """Make the trailer of a block without compression, as TensorFlow writes all blocks."""
    # The checksum covers the contents and the type byte (section 1.4).
    kind = bytes([Compression.NONE])
    return kind + struct.pack("<I", mask_crc(crc32c(kind, crc32c(contents))))


def read_footer(source: Source) -> Footer:
    """Read a table's footer.

    Raises:
        TruncatedError: The file is shorter than a footer.
        MalformedError: The last 48 bytes are no footer.
    """
    offset = source.size - FOOTER_SIZE
    if offset < 0:
        raise TruncatedError(
            f"The file is too short to be an sstable: expected at least {FOOTER_SIZE} bytes, "
            f"found {source.size}",
            path=source.path,
        )
    return Footer.from_bytes(source.read_at(offset, FOOTER_SIZE))


def read_block(source: Source, handle: BlockHandle, *, limits: Limits) -> bytes:
    """Read a block, check its checksum and return its contents, decompressed.

    Raises:
        TruncatedError: The handle leads into the footer or beyond it.
        ChecksumError: The block is damaged.
        MalformedError: Its Snappy stream is damaged.
        UnsupportedError: Its compression is not known.
        LimitError: Decompressed, it is larger than the limits allow.
    """
    if handle.end > source.size - FOOTER_SIZE:
        raise TruncatedError(
            f"Expected a block of {handle.size} bytes and its trailer to end before the footer at "
            f"offset {source.size - FOOTER_SIZE}, found the end at {handle.end}",
            path=source.path,
            offset=handle.offset,
            size=handle.size,
        )
    where: dict[str, Any] = {"path": source.path, "offset": handle.offset}
    if handle.size >= _WORTH_TWO_READS and source.concurrency is None:
        # In two parts, so that the contents are not there twice. Elsewhere each is a request.
        contents = source.read_at(handle.offset, handle.size)
        trailer = source.read_at(handle.offset + handle.size, TRAILER_SIZE)
        compression = check_crc(trailer, crc32c(contents), handle.size, **where)
    else:
        stored = source.read_at(handle.offset, handle.size + TRAILER_SIZE)
        compression = check_block(stored, **where)
        contents = stored[: handle.size]
    return decompress_block(contents, compression, limits=limits, **where)


def check_block(stored: bytes, *, path: str, offset: int) -> int:
    """Check a block with its trailer against the trailer's checksum; return its type byte.

    Raises:
        ChecksumError: They disagree.
    """
    size = len(stored) - TRAILER_SIZE
    crc = crc32c(memoryview(stored)[:size])
    return check_crc(stored[size:], crc, size, path=path, offset=offset)


def check_crc(trailer: bytes, crc: int, size: int, *, path: str, offset: int) -> int:
    """Check a trailer against the CRC of the contents before it; return the type byte.

    Raises:
        ChecksumError: They disagree.
    """
    compression, masked = struct.unpack("<BI", trailer)
    wanted = unmask_crc(masked)
    # The bytes as stored, compressed or not, and the type byte (section 1.4).
    computed = crc32c(trailer[:1], crc)
    if wanted != computed:
        raise ChecksumError(
            f"Checksum does not match in a block of the index: stored {wanted} "
            f"vs. calculated on the restored bytes {computed}",
            stored=wanted,
            computed=computed,
            path=path,
            offset=offset,
            size=size,
            hint="ckptparse.recover gives what can be got back",
        )
    return int(compression)


def decompress_block(
    contents: bytes, compression: int, *, limits: Limits, path: str, offset: int
) -> bytes:
    """Return a block's contents as they were before compression.

    Raises:
        UnsupportedError: The compression is not known.
        MalformedError: The Snappy stream is damaged.
        LimitError: It states more than `Limits.decompressed_bytes`.
    """
    if compression == Compression.NONE:
        return contents
    if compression != Compression.SNAPPY:
        # Newer LevelDB writes type 2. TensorFlow's readers refuse it too.
        zstd = " (LevelDB's zstd)" if compression == 2 else ""
        raise UnsupportedError(
            f"Expected block type 0 (raw) or 1 (Snappy), found {compression}{zstd}",
            path=path,
            offset=offset,
        )
    try:
        size = _stated_size(contents)
        limits.check("decompressed_bytes", size, "The size of a decompressed block", path=path)
        return _decompress_snappy(contents, size)
    except LimitError:
        raise
    except ValueError as error:
        raise MalformedError(
            f"Bad Snappy block: {error}", path=path, offset=offset, size=len(contents)
        ) from error


def _stated_size(contents: bytes) -> int:
    """Decode the size that a raw Snappy stream states first; `ValueError` if it is impossible."""
    size, _ = decode_varint(contents, 0, len(contents), bits=32)
    if size > _SNAPPY_BEST_RATIO * len(contents):
        raise ValueError(f"{len(contents)} bytes cannot decompress to the {size} that they state")
    return size


def _decompress_snappy(contents: bytes, size: int) -> bytes:
    """Decompress a raw Snappy stream of known size."""
    try:
        data = _uncompress_large(contents, size) if size >= _LARGE else _uncompress(contents)
    except Exception as error:  # Its class differs between releases of python-snappy.
        raise ValueError(str(error)) from error
    if len(data) != size:
        raise ValueError(f"expected {size} bytes, found {len(data)}")
    return data


def _uncompress(contents: bytes) -> bytes:
    import snappy

    return bytes(snappy.uncompress(contents))


def _uncompress_large(contents: bytes, size: int) -> bytes:
    """Decompress into memory that is there once.

    What newer releases of python-snappy are made of gives a buffer of its own, of which bytes are a
    copy. Bytes that are written through a stream's view are given out by the stream uncopied. On
    free-threaded builds it writes into no view, but into an array that is one.
    """
    try:
        from cramjam import snappy
    except ImportError:
        return _uncompress(contents)
    stream = BytesIO(bytes(size))
    with stream.getbuffer() as view:
        # No variable: after an error its traceback would keep the view from being released.
        written = snappy.decompress_raw_into(contents, cast("Any", np.frombuffer(view, np.uint8)))
    return stream.getvalue() if written == size else b""
