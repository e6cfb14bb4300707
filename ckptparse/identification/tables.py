"""Tables told apart by their first entry, and what is left of those that were cut off.

The value under the empty key, which comes first, is a BundleHeaderProto in a V2 index and a
SavedTensorSlices in a V1 file:

    00 00 06 | 08 NN …        V2: field 1 is a varint, the number of shards
    00 00 3f | 0a 3d …        V1: field 1 is a message, the list of tensors; or nothing at all
    └ shared, non-shared and value lengths of the first entry, at the very start of the file
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import chain

import numpy as np

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.decoding import decode_entry, decode_header, decode_shape
from ckptparse.bundle.entry import BundleEntry, BundleHeader
from ckptparse.coding.checksum import crc_of_zeros
from ckptparse.coding.varint import decode_varint
from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError
from ckptparse.filenames import INDEX_SUFFIX, split_data_path
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.identification.identity import Finding
from ckptparse.identification.sample import Sample
from ckptparse.limits import Limits
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleHeaderProto
from ckptparse.slices import Extent, TensorSlice
from ckptparse.table.block import BlockEntries
from ckptparse.table.columns import IntColumn, TableColumns
from ckptparse.table.format import MAGIC
from ckptparse.table.reader import Table

__all__ = ["find_cut_table", "find_shard", "find_table", "may_be_legacy", "name_first_value"]

_MOST_ENTRIES = 10_000
"""Entries of an index that are read to know a data file: enough to be sure, and an index may
have millions."""


def find_table(sample: Sample) -> Finding | None:
    """Find a table by its footer, and which checkpoint it is by its first entry."""
    if not sample.tail.endswith(MAGIC):
        return _find_lengthened(sample)
    try:
        first = Table.open(sample.source, limits=sample.limits).first()
    except CheckpointError as error:
        # A table it is, by its footer; if its first entry is damaged too, the name must do.
        by_name = "v2-index" if sample.name.endswith(INDEX_SUFFIX) else "v1"
        return Finding(_name_by_start(sample.head) or by_name, {"damage": str(error)})
    if first is None or first[0]:
        return Finding("unknown", {"what": "a table of other content"})
    kind = name_first_value(first[1])
    return Finding(kind, _describe_index(first[1]) if kind == "v2-index" else {})


def may_be_legacy(source: Source) -> bool:
    """Tell whether a file is, or was once, a V1 checkpoint: by its end, or by its start."""
    size = source.size
    start = max(0, size - len(MAGIC))
    if source.read_at(start, size - start) == MAGIC:
        return True
    head = _uncompressed(source.read_at(0, min(64, size)))
    # The first entry: nothing shared, no key, and a value that starts with a message's field 1.
    return head[:2] == b"\0\0" and b"\x0a" in head[3:8]


def _uncompressed(head: bytes) -> bytes:
    """Return the start of a block; of a compressed one, what its first literal holds.

    Snappy puts the size when decompressed first (a varint), then a tag: of a literal the low bits
    are 0, and the others its length less one, or from 60 on how many bytes of length follow.
    """
    if head[:2] == b"\0\0":
        return head
    try:
        _, start = decode_varint(head, 0, len(head))
    except ValueError:
        return head
    if start >= len(head) or head[start] & 3:
        return head
    more = max(0, (head[start] >> 2) - 59)
    literal = head[start + 1 + more :]
    return literal if literal[:2] == b"\0\0" else head


def find_cut_table(sample: Sample) -> Finding | None:
    """Find the start of a table that has lost its end."""
    kind = _name_by_start(sample.head)
    return Finding("truncated", {"of": kind}) if kind else None


def find_shard(sample: Sample) -> Finding | None:
    """Find a data file by the index beside it, which must know of it; data has no marks itself."""
    parts = split_data_path(sample.path)
    if parts is None:
        return None
    prefix, shard_id, num_shards = parts
    detail: dict[str, object] = {"prefix": prefix, "shard": shard_id, "num_shards": num_shards}
    path = f"{prefix}{INDEX_SUFFIX}"
    if path not in sample.indexes:
        sample.indexes[path] = _open_index(path, sample.context)
    index = sample.indexes[path]
    if index is None:
        return Finding("v2-shard", detail | {"index": "missing or unreadable"})
    found_shards, entries = index
    if found_shards != num_shards:
        return Finding("v2-shard", detail | {"index": f"of {found_shards} shards"})
    mine = np.flatnonzero(entries.shard_ids == shard_id)
    sizes = entries.sizes[mine]
    if _should_not_be_zeros(sample, sizes, entries.crcs[mine]):
        return None
    ends = entries.offsets[mine] + sizes
    missing = int(ends.max(initial=0)) - sample.size
    if missing > 0 and sample.size:
        return Finding("truncated", {"of": "v2-shard", "missing": missing, **detail})
    return Finding("v2-shard", detail)


def name_first_value(value: bytes) -> str:
    """Return `v1` or `v2-index` by the value under the empty key."""
    return "v2-index" if value[:1] in (b"\x08", b"\x10", b"\x1a") else "v1"


def _find_lengthened(sample: Sample) -> Finding | None:
    end = sample.tail.rfind(MAGIC)
    kind = _name_by_start(sample.head) if end >= 0 else None
    if kind is None:
        return None
    extra = len(sample.tail) - end - len(MAGIC)
    return Finding(kind, {"damage": f"{extra} bytes follow the footer, which ends the file"})


def _name_by_start(head: bytes) -> str | None:
    """Name a table by the first entry of a block that is not compressed."""
    head = _uncompressed(head)
    if head[:2] != b"\0\0":
        return None
    try:
        size, start = decode_varint(head, 2, len(head))
    except ValueError:
        return None
    value = head[start : start + size]
    if value.startswith(b"\x08") and size < 64 and b"\x1a" in value[2:12]:
        return "v2-index"
    return "v1" if _is_list(value) else None


def _is_list(value: bytes) -> bool:
    """Tell the list of a V1 file by its first tensor, or by its versions if it has none."""
    if not value.startswith(b"\x0a"):
        return False
    try:
        size, start = decode_varint(value, 1, len(value))
    except ValueError:
        return False
    return not size or value[start : start + 1] in (b"\x0a", b"\x12")


def _describe_index(value: bytes) -> dict[str, object]:
    try:
        header = parse_message(BundleHeaderProto, value)
    except CheckpointError as error:
        return {"damage": str(error)}
    return {"num_shards": header.num_shards}


def _open_index(path: str, context: Context) -> tuple[int, EntryColumns] | None:
    """Read how many shards an index names, and its first entries; None if it is no index.

    Of tensors in slices there are none.
    """
    try:
        with closing(context.storage.open(path)) as source:
            table = Table.open(source, limits=context.limits)
            try:
                return _read_entries(table.iter_columns(), context.limits)
            except CheckpointError:
                # What is damaged may stand behind the first entries.
                return _read_entries(_first_blocks(table), context.limits)
    except CheckpointError:
        return None


def _first_blocks(table: Table) -> Iterator[TableColumns]:
    """Decode the blocks that have the first entries, and none behind them."""
    found: list[BlockEntries] = []
    left = 1 + _MOST_ENTRIES
    for entries in table.iter_blocks():
        found.append(entries)
        left -= len(entries.keys)
        if left <= 0:
            break
    yield TableColumns.of_blocks(found)


def _read_entries(tables: Iterator[TableColumns], limits: Limits) -> tuple[int, EntryColumns]:
    from ckptparse.bundle.together import EntryDecoder

    first = next(tables, None)
    header = _read_header(first.value(0) if first is not None and len(first) else b"", limits)

    def decode_one(_: bytes, value: bytes) -> BundleEntry:
        try:
            return decode_entry(
                value, num_shards=header.num_shards, limits=limits, take_slices=_refuse
            )
        except _InSlicesError:
            return _IN_SLICES

    decoder = EntryDecoder(
        num_shards=header.num_shards,
        limits=limits,
        decode_entry=decode_one,
        decode_shape=partial(decode_shape, limits=limits),
        held=lambda: sys.maxsize,
    )
    parts = [EntryColumns.of_entries([])]
    # The first entry of all is the header.
    left, skipped = _MOST_ENTRIES + 1, 1
    for some in chain(filter(None, (first,)), tables):
        part = some if len(some) <= left else some.part(0, left)
        parts.append(decoder.decode(part, min(skipped, len(part))))
        left, skipped = left - len(part), 0
        if left <= 0:
            break
    found = EntryColumns.concatenate(parts)
    whole = [row for row in range(len(found)) if row not in found.others]
    return header.num_shards, found.take(whole) if found.others else found


class _InSlicesError(Exception):
    """An entry is that of a tensor in slices."""


_IN_SLICES = BundleEntry.in_slices(DataType.DT_FLOAT, (1,), (TensorSlice((Extent(),)),))
"""Stands for every entry of such a tensor: its slices, which may be thousands, are not made."""


def _refuse(_: int) -> None:
    raise _InSlicesError


def _read_header(value: bytes, limits: Limits) -> BundleHeader:
    # None of its data files is opened here, however many there are.
    return decode_header(value, limits=limits, held=lambda: sys.maxsize)


def _should_not_be_zeros(sample: Sample, sizes: IntColumn, crcs: IntColumn) -> bool:
    """Tell whether a file of zeros is at odds with the checksums that the index has for it."""
    if sample.head.strip(b"\0") or sample.tail.strip(b"\0"):
        return False
    if not sample.size:
        return bool(sizes.any())
    stated = zip(sizes.tolist(), crcs.tolist(), strict=True)
    return any(crc != crc_of_zeros(size) for size, crc in stated)
