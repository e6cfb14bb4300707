"""The buffers of a Riegeli chunk, and how they are decompressed (docs/format.md, section 8.3).

    buffer    (if compressed) varint decompressed size │ compressed bytes

Brotli and zstd are undone in pieces that are counted, so that no more than is stated is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ckptparse.coding.varint import decode_varint
from ckptparse.errors import MalformedError, UnsupportedError

__all__ = ["Buffer", "Compression", "decode_size", "find_compression"]

_PIECE = 1 << 20
"""Bytes that are decompressed before they are counted, so that no more than this is in excess."""
_EXTRA = "Install the packages that read it: pip install 'ckptparse[chunked]'"


class Compression(IntEnum):
    """How the buffers of a simple chunk are compressed."""

    NONE = 0
    BROTLI = 0x62
    SNAPPY = 0x73
    ZSTD = 0x7A


def find_compression(code: int) -> Compression:
    """Return the compression that a code names.

    Raises:
        UnsupportedError: None is known by it.
    """
    try:
        return Compression(code)
    except ValueError:
        raise UnsupportedError(f"Expected a known Riegeli compression, found {code:#04x}") from None


def decode_size(data: bytes | memoryview, position: int, end: int) -> tuple[int, int]:
    """Read a size before `end`, a varint; return it and the position after it.

    Raises:
        MalformedError: It is cut off, or too long.
    """
    try:
        return decode_varint(data, position, end)
    except ValueError as error:
        raise MalformedError(f"Bad size in a Riegeli chunk: {error}") from None


@dataclass(frozen=True, slots=True)
class Buffer:
    """One compressed buffer of a chunk."""

    data: memoryview
    compression: Compression

    def decompress(
        self, *, exactly: int | None = None, at_most: int | None = None
    ) -> bytes | memoryview:
        """Decompress; at most one piece more than allowed is in memory.

        Raises:
            MalformedError: The size is wrong, or the compressed bytes are damaged.
        """
        size, body = len(self.data), self.data
        if self.compression != Compression.NONE:
            size, start = decode_size(self.data, 0, len(self.data))
            body = self.data[start:]
        if exactly is not None and size != exactly:
            raise MalformedError(f"Expected a buffer of {exactly} bytes, found one of {size}")
        if at_most is not None and size > at_most:
            raise MalformedError(f"Expected a buffer of {at_most} bytes at most, found {size}")
        return _decompress(body, self.compression, size)


def _decompress(body: memoryview, compression: Compression, size: int) -> bytes | memoryview:
    if compression == Compression.NONE:
        return body
    if compression == Compression.BROTLI:
        pieces = _iter_brotli(body)
    elif compression == Compression.ZSTD:
        pieces = _iter_zstd(body, size)
    else:
        pieces = _iter_snappy(body, size)
    return _joined(pieces, size)


def _joined(pieces: Iterator[bytes], size: int) -> bytes:
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > size:
            break
    if len(whole) != size:
        found = f"more than {size}" if len(whole) > size else str(len(whole))
        raise MalformedError(f"Expected {size} decompressed bytes, found {found}")
    return bytes(whole)


def _iter_brotli(body: memoryview) -> Iterator[bytes]:
    brotli = _imported("brotli", "Brotli")
    decompressor = brotli.Decompressor()
    data = bytes(body)
    try:
        while not decompressor.is_finished():
            piece: bytes = decompressor.process(data, output_buffer_limit=_PIECE)
            if not piece and not data:
                raise MalformedError("Brotli data is cut off")
            data = b""
            yield piece
    except brotli.error as error:
        raise MalformedError(f"Brotli data is damaged: {error}") from error
    except TypeError:
        raise UnsupportedError(
            "Brotli data in Riegeli chunks needs the package brotli 1.2 or newer", hint=_EXTRA
        ) from None


def _iter_zstd(body: memoryview, size: int) -> Iterator[bytes]:
    zstandard = _imported("zstandard", "zstd")
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            left = size
            while piece := reader.read(min(_PIECE, left + 1)):
                left -= len(piece)
                yield piece
    except zstandard.ZstdError as error:
        raise MalformedError(f"zstd data is damaged: {error}") from error


def _iter_snappy(body: memoryview, size: int) -> Iterator[bytes]:
    snappy = _imported("snappy", "Snappy")
    # A Snappy stream states its size once more. All of it is decompressed at once.
    stated, _ = decode_size(body, 0, len(body))
    if stated != size:
        raise MalformedError(f"Expected Snappy data of {size} bytes, found one of {stated}")
    try:
        yield snappy.decompress(bytes(body))
    except Exception as error:
        raise MalformedError(f"Snappy data is damaged: {error}") from error


def _imported(module: str, what: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise UnsupportedError(
            f"A Riegeli chunk is compressed with {what}, and its package is not installed",
            hint=_EXTRA,
        ) from None
