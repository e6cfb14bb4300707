"""Read Riegeli/records: the container of a chunked SavedModel (docs/format.md, section 8.3).

Records are in chunks. A block header of 24 bytes interrupts the file at every multiple of 64 KiB,
even in the middle of a chunk's header:

    0       ┌────────────────┬──────────────────┬──────────────────────┐
            │ block header   │ signature chunk  │ chunks ...           │
    65536   ├────────────────┼──────────────────┴──────────────────────┤
            │ block header   │ ... the chunk that was interrupted      │
            └────────────────┴─────────────────────────────────────────┘

    block header   header_hash u64 │ previous_chunk u64 │ next_chunk u64
    chunk header   header_hash u64 │ data_size u64 │ data_hash u64 │ chunk_type u8
                   │ num_records u56 │ decoded_data_size u64
    simple chunk   compression u8 │ varint size of the sizes │ sizes │ values
    buffer         (if compressed) varint decompressed size │ compressed bytes

All integers are little-endian. Each hash covers the bytes after it. A record's position is the
start of its chunk plus the record's number in the chunk. Chunks are padded so that it is unique.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate

from ckptparse.coding.varint import MAX_VARINT64_BYTES
from ckptparse.errors import (
    ChecksumError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
    located,
)
from ckptparse.files.storage import Source, check_range
from ckptparse.limits import DEFAULT_LIMITS, Limits, Objects, limit_error
from ckptparse.saved_model.highwayhash import highway_hash_64
from ckptparse.saved_model.riegeli_buffers import Buffer, decode_size, find_compression

__all__ = ["ChunkHeader", "ChunkType", "RecordReader"]

_BLOCK_SIZE = 1 << 16
"""Bytes between two block headers: fixed by the format, so that a reader can start at any block."""
_BLOCK_HEADER = struct.Struct("<QQQ")
_USABLE_BLOCK_SIZE = _BLOCK_SIZE - _BLOCK_HEADER.size
_CHUNK_HEADER = struct.Struct("<QQQQQ")
_HASH_BYTES = 8
_HASH_KEY = (0x2F696C6567656952, 0x0A7364726F636572) * 2
"""The bytes `Riegeli/records\\n`, twice."""


class ChunkType(IntEnum):
    """The kind of data of a chunk: a letter in its header."""

    SIGNATURE = 0x73
    METADATA = 0x6D
    PADDING = 0x70
    SIMPLE = 0x72
    TRANSPOSED = 0x74


_WITHOUT_RECORDS = (ChunkType.SIGNATURE, ChunkType.METADATA, ChunkType.PADDING)


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The header of one chunk, its hash verified."""

    begin: int
    """Position of the chunk in the file."""
    data_size: int
    """Bytes of data, without the block headers between them."""
    data_hash: int
    """HighwayHash-64 of the data."""
    chunk_type: int
    """A `ChunkType`, or an unknown number."""
    num_records: int
    decoded_size: int
    """Sum of the sizes of the records, decompressed."""

    @classmethod
    def from_bytes(cls, data: bytes, begin: int) -> ChunkHeader:
        """Decode 40 bytes, and check their hash.

        Raises:
            ChecksumError: The hash does not match.
        """
        stored, data_size, data_hash, kind_and_count, decoded = _CHUNK_HEADER.unpack(data)
        _check_hash(stored, data[_HASH_BYTES:], "chunk header", begin)
        return cls(begin, data_size, data_hash, kind_and_count & 0xFF, kind_and_count >> 8, decoded)

    @property
    def end(self) -> int:
        """Position after the chunk and its padding."""
        data_end = _advance(self.begin, _CHUNK_HEADER.size + self.data_size)
        return max(data_end, _next_boundary(self.begin + self.num_records))


class RecordReader:
    """The records of a Riegeli file, by position.

    Opening reads every chunk's header and checks its hash. Data is read when a record is asked for.
    The last decoded chunk is kept.
    """

    def __init__(
        self, source: Source, chunks: tuple[ChunkHeader, ...], *, limits: Limits, verify: bool
    ) -> None:
        self._source = source
        self._chunks = chunks
        self._begins = [chunk.begin for chunk in chunks]
        self._limits = limits
        self._verify = verify
        self._decoded: tuple[int, _Records] | None = None

    @classmethod
    def from_source(
        cls, source: Source, *, limits: Limits = DEFAULT_LIMITS, verify: bool = True
    ) -> RecordReader:
        """Read the headers of a file.

        Args:
            source: The file; it must stay open as long as records are read.
            limits: Bounds on what the file may ask for.
            verify: Whether to check the hashes of data too (about 8 MB a second).

        Raises:
            ChecksumError: A header's hash does not match.
            MalformedError: The file is no Riegeli file, or a header breaks the rules.
            TruncatedError: The file ends within a chunk.
            UnsupportedError: It has transposed chunks, or chunks of an unknown type.
            LimitError: It has more chunks than `limits.blocks` allows, or more records than
                `limits.objects` does.
        """
        with located(path=source.path):
            chunks = tuple(chunk for chunk in _iter_chunks(source, limits) if chunk.num_records)
        return cls(source, chunks, limits=limits, verify=verify)

    @property
    def chunks(self) -> tuple[ChunkHeader, ...]:
        """The headers of the chunks that hold records, in the order of the file."""
        return self._chunks

    @property
    def last_position(self) -> int:
        """Position of the last record.

        Raises:
            MalformedError: There is none.
        """
        if not self._chunks:
            raise MalformedError(
                "Expected records in the Riegeli file, found none", path=self._source.path
            )
        last = self._chunks[-1]
        return last.begin + last.num_records - 1

    def read(self, position: int) -> bytes:
        """Read the record of that position.

        Raises:
            MalformedError: No record has that position, or its chunk breaks the rules.
            ChecksumError: With `verify`: the hash of the chunk's data does not match.
            LimitError: The chunk is larger, decompressed, than `limits.decompressed_bytes`.
            UnsupportedError: The package for the chunk's compression is not installed.
        """
        number = bisect_right(self._begins, position) - 1
        chunk = self._chunks[number] if number >= 0 else None
        if chunk is None or position >= chunk.begin + chunk.num_records:
            raise MalformedError(
                f"Expected a record at position {position}, found none",
                path=self._source.path,
                offset=position,
            )
        return self._records_of(chunk)[position - chunk.begin]

    def _records_of(self, chunk: ChunkHeader) -> _Records:
        if self._decoded is None or self._decoded[0] != chunk.begin:
            self._decoded = None
            with located(path=self._source.path, offset=chunk.begin):
                self._decoded = (chunk.begin, self._decode(chunk))
        return self._decoded[1]

    def _decode(self, chunk: ChunkHeader) -> _Records:
        start = _advance(chunk.begin, _CHUNK_HEADER.size)
        data = _read_across_blocks(self._source, start, chunk.data_size)
        if self._verify:
            _check_hash(chunk.data_hash, data, "chunk data", chunk.begin)
        return _decode_simple(data, chunk, self._limits)


@dataclass(frozen=True, slots=True)
class _Records:
    """The records of one chunk: their bytes, end to end, and where each ends."""

    values: bytes | memoryview
    ends: tuple[int, ...]

    def __getitem__(self, index: int) -> bytes:
        start = self.ends[index - 1] if index else 0
        return bytes(self.values[start : self.ends[index]])


# Positions


def _advance(position: int, size: int) -> int:
    """Return the position after `size` bytes of a chunk, with block headers skipped."""
    # How many times the bytes reach the end of a block; each time a header comes between.
    blocks = (size + (position + _USABLE_BLOCK_SIZE - 1) % _BLOCK_SIZE) // _USABLE_BLOCK_SIZE
    return position + size + blocks * _BLOCK_HEADER.size


def _next_boundary(position: int) -> int:
    """Round up to a place where a chunk may end: not in a block header, and not right after one."""
    into_block = position % _BLOCK_SIZE
    if 0 < into_block <= _BLOCK_HEADER.size:
        return position - into_block + _BLOCK_HEADER.size + 1
    return position


def _read_across_blocks(source: Source, position: int, size: int) -> bytes:
    """Read `size` bytes of a chunk from `position` on, without the block headers among them."""
    end = _advance(position, size) if size else position
    check_range(source, position, end - position)
    raw = source.read_at(position, end - position)
    first = -position % _BLOCK_SIZE
    if first >= len(raw):
        return raw
    blocks = range(first, len(raw), _BLOCK_SIZE)
    after = [raw[block + _BLOCK_HEADER.size : block + _BLOCK_SIZE] for block in blocks]
    return b"".join([raw[:first], *after])


# Headers


def _iter_chunks(source: Source, limits: Limits) -> Iterator[ChunkHeader]:
    position, count = 0, 0
    most, records = limits.most_blocks(source.size), Objects(limits, source.size)
    while position < source.size or count == 0:
        chunk = _read_header(source, position)
        _check_chunk(chunk, first=count == 0)
        if chunk.end > source.size:
            raise TruncatedError(
                f"Expected a chunk up to byte {chunk.end}, found a file of {source.size} bytes",
                offset=position,
            )
        _check_block_headers(source, chunk)
        count += 1
        if count > most:
            what = "The number of chunks, beyond one for each 4 KiB of the file,"
            raise limit_error(limits, "blocks", count - most + limits.blocks, what)
        records.take(chunk.num_records)
        yield chunk
        position = chunk.end


def _read_header(source: Source, position: int) -> ChunkHeader:
    data = _read_across_blocks(source, position, _CHUNK_HEADER.size)
    try:
        return ChunkHeader.from_bytes(data, position)
    except ChecksumError as error:
        if position:
            raise
        raise MalformedError(
            "Expected the signature of a Riegeli file, found other bytes", offset=0
        ) from error


def _check_chunk(chunk: ChunkHeader, *, first: bool) -> None:
    kind = chunk.chunk_type
    if first and kind != ChunkType.SIGNATURE:
        raise MalformedError(f"Expected the signature chunk first, found type {kind:#04x}")
    if kind == ChunkType.TRANSPOSED:
        # A layout for columns of messages. TensorFlow never asks for it.
        raise UnsupportedError("Transposed Riegeli chunks are not supported", offset=chunk.begin)
    if kind in _WITHOUT_RECORDS:
        _check_empty(chunk)
    elif kind != ChunkType.SIMPLE and chunk.num_records:
        raise UnsupportedError(f"Expected a known type of Riegeli chunk, found {kind:#04x}")


def _check_empty(chunk: ChunkHeader) -> None:
    """Check the rules of chunks without records: only metadata may have a decoded size."""
    sizes = [chunk.num_records]
    if chunk.chunk_type != ChunkType.METADATA:
        sizes.append(chunk.decoded_size)
    if chunk.chunk_type == ChunkType.SIGNATURE:
        sizes.append(chunk.data_size)
    if any(sizes):
        raise MalformedError(
            f"Expected no records in a chunk of type {chunk.chunk_type:#04x}, found "
            f"{chunk.num_records} of {chunk.decoded_size} bytes",
            offset=chunk.begin,
        )


def _check_block_headers(source: Source, chunk: ChunkHeader) -> None:
    """Check each block header in a chunk: its hash, and its distances to the chunk's ends."""
    first = chunk.begin + -chunk.begin % _BLOCK_SIZE
    for block in range(first, chunk.end, _BLOCK_SIZE):
        data = source.read_at(block, _BLOCK_HEADER.size)
        stored, previous, following = _BLOCK_HEADER.unpack(data)
        _check_hash(stored, data[_HASH_BYTES:], "block header", block)
        if (previous, following) != (block - chunk.begin, chunk.end - block):
            raise MalformedError(
                f"Expected a block header that says {block - chunk.begin} and "
                f"{chunk.end - block}, found {previous} and {following}",
                offset=block,
            )


def _check_hash(stored: int, data: bytes, what: str, offset: int) -> None:
    computed = highway_hash_64(_HASH_KEY, data)
    if stored != computed:
        raise ChecksumError(
            f"Hash of the Riegeli {what} does not match: stored {stored:016x}, computed "
            f"{computed:016x}",
            stored=stored,
            computed=computed,
            offset=offset,
            size=len(data),
        )


# Data


def _decode_simple(data: bytes, chunk: ChunkHeader, limits: Limits) -> _Records:
    limits.check("decompressed_bytes", chunk.decoded_size, "The size of a Riegeli chunk's records")
    if not data:
        raise MalformedError("Expected a compression type, found no data")
    compression = find_compression(data[0])
    sizes_size, position = decode_size(data, 1, len(data))
    if sizes_size > len(data) - position:
        raise MalformedError(
            f"Expected sizes of {sizes_size} bytes, found {len(data) - position} bytes"
        )
    view = memoryview(data)
    sizes = Buffer(view[position : position + sizes_size], compression)
    values = Buffer(view[position + sizes_size :], compression)
    most = min(chunk.num_records * MAX_VARINT64_BYTES, limits.decompressed_bytes)
    ends = _decode_sizes(bytes(sizes.decompress(at_most=most)), chunk)
    return _Records(values.decompress(exactly=chunk.decoded_size), ends)


def _decode_sizes(data: bytes, chunk: ChunkHeader) -> tuple[int, ...]:
    """Decode the records' sizes; return where each record ends."""
    # Each size takes at least a byte. So a stated number without bytes allocates no memory.
    if len(data) < chunk.num_records:
        raise MalformedError(f"Expected {chunk.num_records} sizes, found {len(data)} bytes")
    ends = tuple(accumulate(_iter_sizes(data, chunk.num_records)))
    if ends[-1] != chunk.decoded_size:
        raise MalformedError(
            f"Expected records of {chunk.decoded_size} bytes, found sizes of {ends[-1]}"
        )
    return ends


def _iter_sizes(data: bytes, count: int) -> Iterator[int]:
    position = 0
    for _ in range(count):
        size, position = decode_size(data, position, len(data))
        yield size
    if position != len(data):
        raise MalformedError(f"Expected {count} sizes in {position} bytes, found {len(data)} bytes")
