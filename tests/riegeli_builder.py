"""Builds Riegeli/records files as bytes, and the messages of a chunked SavedModel by hand.

Independent of the package under test: it writes a chunk byte by byte and puts a block header in
wherever a block begins, where the reader computes the same from formulas.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

BLOCK = 65536
BLOCK_HEADER = 24
MASK = (1 << 64) - 1
KEY = struct.unpack("<4Q", b"Riegeli/records\n" * 2)
SIGNATURE = bytes.fromhex(
    "83af70d10d884a3f0000000000000000400000000000000091bac23c9287e1a9"
    "0000000000000000e19f13c0e9b1c37273" + "00" * 15
)
"""The fixed 64 bytes at the start of every file."""


# HighwayHash-64, written from its definition


def highway_hash(data: bytes, key: Sequence[int] = KEY) -> int:
    mul0 = [0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3]
    mul1 = [0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377]
    v0 = [m ^ k for m, k in zip(mul0, key, strict=True)]
    v1 = [m ^ _swapped(k) for m, k in zip(mul1, key, strict=True)]

    def update(packet: bytes) -> None:
        for i, lane in enumerate(struct.unpack("<4Q", packet)):
            v1[i] = (v1[i] + mul0[i] + lane) & MASK
            mul0[i] ^= (v1[i] & 0xFFFFFFFF) * (v0[i] >> 32)
            v0[i] = (v0[i] + mul1[i]) & MASK
            mul1[i] ^= (v0[i] & 0xFFFFFFFF) * (v1[i] >> 32)
        _zipper(v1, v0)
        _zipper(v0, v1)

    whole = len(data) // 32 * 32
    for start in range(0, whole, 32):
        update(data[start : start + 32])
    if tail := data[whole:]:
        n = len(tail)
        v0[:] = [(v + (n << 32) + n) & MASK for v in v0]
        v1[:] = [_rotated(v >> 32, n) << 32 | _rotated(v & 0xFFFFFFFF, n) for v in v1]
        update(_laid_out(tail))
    for _ in range(4):
        update(struct.pack("<4Q", *(_swapped(v0[i]) for i in (2, 3, 0, 1))))
    return (v0[0] + v1[0] + mul0[0] + mul1[0]) & MASK


def _swapped(lane: int) -> int:
    return (lane >> 32 | lane << 32) & MASK


def _rotated(half: int, count: int) -> int:
    return (half << count | half >> (32 - count)) & 0xFFFFFFFF


def _laid_out(tail: bytes) -> bytes:
    n = len(tail)
    packet = bytearray(tail[: n & ~3].ljust(32, b"\0"))
    if n & 16:
        packet[28:32] = tail[n - 4 :]
    elif n & 3:
        packet[16] = tail[n & ~3]
        packet[17] = tail[(n & ~3) + ((n & 3) >> 1)]
        packet[18] = tail[n - 1]
    return bytes(packet)


def _zipper(source: list[int], target: list[int]) -> None:
    for pair in (0, 2):
        low = source[pair].to_bytes(8, "little")
        high = source[pair + 1].to_bytes(8, "little")
        first = bytes((low[3], high[4], low[2], low[5], high[6], low[1], high[7], low[0]))
        second = bytes((high[3], low[4], high[2], high[5], high[1], low[6], high[0], low[7]))
        target[pair] = (target[pair] + int.from_bytes(first, "little")) & MASK
        target[pair + 1] = (target[pair + 1] + int.from_bytes(second, "little")) & MASK


# The container


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value % 0x80 + 0x80)
        value //= 0x80
    return bytes(out) + bytes((value,))


def compressed(data: bytes, compression: str) -> bytes:
    if compression == "none":
        return data
    if compression == "brotli":
        try:
            import brotli
        except ModuleNotFoundError:
            # Only here: a harness of `fuzz/` has no pytest, and skips nothing.
            from packages import brotli

        body = brotli.compress(data, quality=6)
    elif compression == "zstd":
        try:
            import zstandard
        except ModuleNotFoundError:
            from packages import zstandard  # type: ignore[no-redef]

        body = zstandard.ZstdCompressor().compress(data)
    else:
        import snappy

        body = snappy.compress(data)
    return bytes(varint(len(data)) + body)


CODES = {"none": b"\0", "brotli": b"b", "zstd": b"z", "snappy": b"s"}


def simple_chunk_data(records: Iterable[bytes], compression: str = "none") -> bytes:
    records = list(records)
    sizes = compressed(b"".join(varint(len(record)) for record in records), compression)
    values = compressed(b"".join(records), compression)
    return CODES[compression] + varint(len(sizes)) + sizes + values


class RiegeliBuilder:
    """A file that grows by chunks; `data` is what it holds so far."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.add_chunk("s", b"")

    def add_chunk(
        self,
        kind: str,
        data: bytes,
        *,
        num_records: int = 0,
        decoded_size: int = 0,
        data_size: int | None = None,
        data_hash: int | None = None,
    ) -> int:
        """Append one chunk, with whatever its header is told to claim; give where it begins."""
        begin = len(self.data)
        body = struct.pack(
            "<QQQQ",
            len(data) if data_size is None else data_size,
            highway_hash(data) if data_hash is None else data_hash,
            ord(kind) | num_records << 8,
            decoded_size,
        )
        blocks: list[int] = []
        for byte in struct.pack("<Q", highway_hash(body)) + body + data:
            self._put(byte, blocks)
        while len(self.data) - begin < num_records or 0 < len(self.data) % BLOCK <= BLOCK_HEADER:
            self._put(0, blocks)
        for block in blocks:
            distances = struct.pack("<QQ", block - begin, len(self.data) - block)
            header = struct.pack("<Q", highway_hash(distances)) + distances
            self.data[block : block + BLOCK_HEADER] = header
        return begin

    def _put(self, byte: int, blocks: list[int]) -> None:
        if len(self.data) % BLOCK == 0:
            blocks.append(len(self.data))
            self.data += bytes(BLOCK_HEADER)
        self.data.append(byte)

    def add_records(self, records: Iterable[bytes], compression: str = "none") -> list[int]:
        """Append a simple chunk; give the records' positions."""
        records = list(records)
        begin = self.add_chunk(
            "r",
            simple_chunk_data(records, compression),
            num_records=len(records),
            decoded_size=sum(map(len, records)),
        )
        return [begin + index for index in range(len(records))]


# Messages, by hand


def field(number: int, value: int | bytes) -> bytes:
    """One protobuf field: a varint, or bytes with their length."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


Tag = int | str | tuple[str, object]
"""A step of a path: a field's number, `"#7"` for an index, ("s", "key") for a map's key."""

_KEYS = {"s": 1, "boolean": 2, "ui32": 3, "ui64": 4, "i32": 5, "i64": 6}


def field_tag(tag: Tag) -> bytes:
    if isinstance(tag, int):
        return field(1, field(1, tag))
    if isinstance(tag, str):
        return field(1, field(3, int(tag[1:])))
    kind, value = tag
    encoded = value.encode() if isinstance(value, str) else int(value)  # type: ignore[call-overload]
    return field(1, field(2, field(_KEYS[kind], encoded)))


def chunked_message(index: int | None, fields: Iterable[bytes] = ()) -> bytes:
    head = b"" if index is None else field(1, index)
    return head + b"".join(field(2, item) for item in fields)


def chunked_field(tags: Iterable[Tag], message: bytes) -> bytes:
    return b"".join(field_tag(tag) for tag in tags) + field(3, message)


MESSAGE, BYTES = 1, 2


def chunk_info(kind: int, size: int, offset: int) -> bytes:
    return field(1, kind) + field(2, size) + field(3, offset)


def chunk_metadata(infos: Iterable[bytes], message: bytes) -> bytes:
    version = field(1, 1)
    return field(1, version) + b"".join(field(2, info) for info in infos) + field(3, message)


def chunked_file(
    chunks: Sequence[tuple[int, bytes]],
    message: bytes,
    *,
    compression: str = "none",
    records_per_chunk: int | None = None,
    infos: Callable[[list[bytes]], list[bytes]] = lambda infos: infos,
) -> bytes:
    """A whole `.cpb`: records of the chunks, then the metadata as the last record.

    `chunks` are (MESSAGE or BYTES, bytes). `infos` may change what the metadata says of them.
    `records_per_chunk` None puts all records, the metadata too, into one Riegeli chunk.
    """
    payloads = [payload for _, payload in chunks]
    builder = RiegeliBuilder()
    if records_per_chunk is None:
        begin = len(builder.data)
        positions = [begin + index for index in range(len(chunks))]
    else:
        positions = []
        for start in range(0, len(chunks), records_per_chunk):
            part = payloads[start : start + records_per_chunk]
            positions += builder.add_records(part, compression)
    described = [
        chunk_info(kind, len(payload), position)
        for (kind, payload), position in zip(chunks, positions, strict=True)
    ]
    metadata = chunk_metadata(infos(described), message)
    last = [*payloads, metadata] if records_per_chunk is None else [metadata]
    builder.add_records(last, compression)
    return bytes(builder.data)
