"""Read many small string tensors at once.

By itself, each takes as long as ten thousand bytes of any other tensor. Here their bytes are read
together, and those of the common form are decoded in a few steps: lengths below 128, each one byte,
and every checksum right. All others are left to `StringPayload`, which says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.many import DenseReader
from ckptparse.bundle.shards import ShardFiles
from ckptparse.bundle.strings import LONGEST_SHORT, check_short_lengths
from ckptparse.coding.checksum import crc32c
from ckptparse.dtypes import DataType
from ckptparse.elements import STRING_HEADER, shaped
from ckptparse.errors import CheckpointError
from ckptparse.tensor import SAFE_RANK, ReadOptions

__all__ = ["read_small_strings"]

_FEW_TENSORS = 4
_SMALL = 1 << 10
"""Bytes of a small payload at most."""
_BATCH = 4096
"""Payloads that are in memory at once, beside what has been decoded."""
_CHECK_SIZE = 4


def read_small_strings(
    shards: ShardFiles, columns: EntryColumns, rows: Sequence[int], options: ReadOptions
) -> dict[int, tuple[npt.NDArray[Any], int]]:
    """Read those of some tensors that are small strings of the common form.

    Args:
        shards: The data files.
        columns: Entries.
        rows: Which of them.
        options: How to read. Nothing is taken from its budget, and no more is made than it allows.

    Returns:
        Row -> array, and what is to be taken from the budget. What is damaged is not among them.
    """
    index = np.array(rows, np.intp)
    sizes = columns.sizes[index]
    fits = (columns.data_types[index] == DataType.DT_STRING) & (sizes >= _CHECK_SIZE)
    fits &= sizes <= _SMALL
    small = [
        row
        for row in index[fits].tolist()
        if row not in columns.others and len(columns.shapes[row]) <= SAFE_RANK
    ]
    found: dict[int, tuple[npt.NDArray[Any], int]] = {}
    if len(small) < _FEW_TENSORS:
        return found
    order = ">" if shards.big_endian else "<"
    taken = 0
    try:
        for row, crc, data in _read_payloads(shards, columns, small, options):
            shape = columns.shapes[row]
            strings = _decode(data, math.prod(shape), crc if options.verify else None, order)
            if strings is None:
                continue
            own = sum(8 + (STRING_HEADER if len(text) > 1 else 0) + len(text) for text in strings)
            taken += own
            if options.budget is not None:
                options.budget.check(taken)
            flat = np.empty(len(strings), object)
            flat[:] = strings
            found[row] = shaped(flat, shape), own
    except CheckpointError:
        # Those that come later are read one by one, and the first that cannot be is told.
        return found
    return found


def _read_payloads(
    shards: ShardFiles, columns: EntryColumns, rows: Sequence[int], options: ReadOptions
) -> Iterator[tuple[int, int, bytes]]:
    """Iterate over rows, checksums and bytes, which are read together, as if they were numbers."""
    how = replace(options, verify=False, mmap=False, budget=None)
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        own = columns.take(some)
        plain = EntryColumns(
            np.full(len(some), int(DataType.DT_UINT8), np.int64),
            own.shard_ids,
            own.offsets,
            own.sizes,
            own.crcs,
            [(size,) for size in own.sizes.tolist()],
            {},
        )
        payloads = DenseReader(shards, plain, lambda _: None, how).read()
        for row, crc, payload in zip(some, own.crcs.tolist(), payloads, strict=True):
            yield row, crc, payload.tobytes()


def _decode(data: bytes, count: int, crc: int | None, order: str) -> list[bytes] | None:
    """Decode a payload; None if it has another form, or is damaged."""
    lengths = data[:count]
    if lengths and max(lengths) > LONGEST_SHORT:
        return None
    start = count + _CHECK_SIZE
    if start + sum(lengths) != len(data):
        return None
    running, check = check_short_lengths(lengths, order)
    if data[count:start] != check or (crc is not None and crc32c(data[count:], running) != crc):
        return None
    strings = []
    for length in lengths:
        strings.append(data[start : start + length])
        start += length
    return strings
