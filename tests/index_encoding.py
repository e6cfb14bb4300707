"""The index of data files that a layout fits: what TensorFlow would have written.

A layout that was found is compared with the real index by it, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness
from ckptparse.bundle.naming import encode_name, encode_slice_key
from ckptparse.files.storage import Source
from ckptparse.parallel import stream_crc
from ckptparse.recovery.rebuild.fit import Fit, Placed
from ckptparse.slices import TensorSlice
from ckptparse.table.builder import TableBuilder

__all__ = ["encode_index", "entries_of"]

_HEADER_KEY = b""
_PRODUCER = 1
"""The version that TensorFlow has written since 2016 (section 2.2)."""


@dataclass(slots=True)
class _Sliced:
    """A tensor of which slices have been placed."""

    data_type: int
    shape: tuple[int, ...]
    shard: int
    """Of the first of them."""
    slices: list[TensorSlice] = field(default_factory=list)


def entries_of(fit: Fit, sources: Sequence[Source]) -> dict[bytes, BundleEntry]:
    """Return the entries of an index by key, with checksums computed from the data files.

    These prove nothing: if the data files are damaged, so are the checksums.
    """
    entries: dict[bytes, BundleEntry] = {}
    sliced: dict[str, _Sliced] = {}
    for placed in fit.placed:
        payload = placed.payload
        key = encode_name(payload.name)
        data_type = payload.data_type or 0
        if payload.piece is not None:
            key = encode_slice_key(key, payload.piece)
            whole = sliced.setdefault(
                payload.name, _Sliced(data_type, payload.full_shape, placed.shard)
            )
            whole.slices.append(payload.piece)
        entries[key] = BundleEntry(
            data_type,
            payload.known_shape or (),
            placed.shard,
            placed.offset,
            placed.size,
            _checksum(placed, sources[placed.shard]),
        )
    for name, whole in sliced.items():
        entries[encode_name(name)] = BundleEntry.in_slices(
            whole.data_type, whole.shape, tuple(whole.slices), shard_id=whole.shard
        )
    return entries


def _checksum(placed: Placed, source: Source) -> int:
    if placed.counted is not None:
        return placed.counted.crc
    return stream_crc(source.read_at, placed.offset, placed.size)


def encode_index(entries: dict[bytes, BundleEntry], num_shards: int) -> bytes:
    """Return the bytes of an index."""
    stream = BytesIO()
    table = TableBuilder(stream.write)
    header = BundleHeader(num_shards, Endianness.LITTLE, _PRODUCER, 0)
    table.add(_HEADER_KEY, header.to_proto().SerializeToString(deterministic=True))
    for key in sorted(entries):
        table.add(key, entries[key].to_proto().SerializeToString(deterministic=True))
    table.finish()
    return stream.getvalue()
