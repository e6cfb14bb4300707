"""The entries of many blocks, decoded side by side (docs/format.md, section 1.5).

An entry's key needs the key before it, so a block is read one entry after another. But an entry at
a restart needs none, so all runs between two restarts can be read at once: step k decodes entry k
of every run of every block, with numpy. TensorFlow writes runs of 16, so 100,000 entries are 16
steps.

What is decoded here is plainly right. If anything is not, nobody judges it here: the caller decodes
those blocks with `Block.decode_entries`, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.limits import Limits
from ckptparse.table.block import Block, BlockEntries

__all__ = ["WORTH_BYTES", "TableColumns", "decode_together", "windows_of"]

IntColumn = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

WORTH_BYTES = 32 << 10
"""Bytes of blocks from which on the steps of numpy cost less than a loop over the entries."""
_MOST_STEPS = 64
"""Runs longer than this have too few neighbours to be worth it. TensorFlow's have 16 entries."""
_VARINT_BYTES = 5
"""Most bytes of a varint32."""
_WORD = 8
_KEYS_BY_BLOCKS = 16
"""Keys side by side may take so many times their blocks; one long key makes all rows long."""


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Entries of a table, as columns; entry i's value is `contents[starts[i]:ends[i]]`.

    Attributes:
        contents: The blocks, one after another.
        keys: Every key, each followed by one zero byte.
        key_ends: Shape (n,): where each key ends in `keys`.
        starts, ends: Shape (n,): where each value lies in `contents`, in bytes.
        block_ends: For each block the number of entries up to its end.
    """

    contents: bytes
    keys: bytes
    key_ends: IntColumn
    starts: IntColumn
    ends: IntColumn
    block_ends: list[int]

    def __len__(self) -> int:
        return len(self.key_ends)

    def key(self, row: int) -> bytes:
        """Return one key."""
        start = int(self.key_ends[row - 1]) + 1 if row else 0
        return self.keys[start : int(self.key_ends[row])]

    @classmethod
    def of_blocks(cls, blocks: Sequence[BlockEntries]) -> TableColumns:
        """Make columns of blocks that were decoded one by one."""
        keys = [key for block in blocks for key in block.keys]
        bases = np.cumsum([0, *(len(block.contents) for block in blocks)]).tolist()
        counts = [len(block.keys) for block in blocks]
        placed = list(zip(bases, blocks, strict=False))
        lengths = np.array([len(key) for key in keys], np.int64)
        return cls(
            b"".join(block.contents for block in blocks),
            b"".join(key + b"\x00" for key in keys),
            np.cumsum(lengths + 1) - 1,
            np.array([base + at for base, block in placed for at in block.starts], np.int64),
            np.array([base + at for base, block in placed for at in block.ends], np.int64),
            np.cumsum(counts).tolist(),
        )


def decode_together(blocks: Sequence[Block], *, limits: Limits) -> TableColumns | None:
    """Decode every entry of some blocks, in order; None if any of it is not plainly right."""
    runs = _Runs.of_blocks(blocks)
    steps = _decode_lengths(runs)
    if steps is None or steps.count > limits.entries or not steps.longest:
        return None
    size = len(runs.contents)
    room = _KEYS_BY_BLOCKS * size
    width = -(-(steps.longest + 1) // _WORD) * _WORD
    if steps.key_bytes > limits.key_bytes + room or steps.shape[0] * steps.shape[1] * width > room:
        return None
    rows = _spell_keys(runs, steps, width)
    if not _strictly_increase(rows, steps.column(steps.lengths)):
        return None
    lengths = steps.column(steps.lengths)
    kept = rows[np.arange(width) <= lengths[:, None]]
    counts = np.bincount(runs.blocks, weights=steps.entries, minlength=len(blocks))
    return TableColumns(
        runs.contents,
        kept.tobytes(),
        np.cumsum(lengths + 1) - 1,
        steps.column(steps.value_starts),
        steps.column(steps.value_ends),
        np.cumsum(counts.astype(np.int64)).tolist(),
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Where the runs of entries lie in the blocks' contents, which are joined.

    Attributes:
        starts, ends: Shape (runs,).
        blocks: Shape (runs,): the number of each run's block.
    """

    contents: bytes
    starts: IntColumn
    ends: IntColumn
    blocks: IntColumn

    @classmethod
    def of_blocks(cls, blocks: Sequence[Block]) -> _Runs:
        base = 0
        starts: list[IntColumn] = []
        ends: list[IntColumn] = []
        numbers: list[IntColumn] = []
        for number, block in enumerate(blocks):
            # An empty block has a restart all the same.
            if block.entries_end:
                restarts = np.array(block.restarts, np.int64)
                starts.append(base + restarts)
                ends.append(base + np.append(restarts[1:], block.entries_end))
                numbers.append(np.full(len(restarts), number, np.int64))
            base += len(block.contents)
        none = [np.empty(0, np.int64)]
        return cls(
            b"".join(block.contents for block in blocks),
            np.concatenate(starts or none),
            np.concatenate(ends or none),
            np.concatenate(numbers or none),
        )


@dataclass(frozen=True, slots=True)
class _Steps:
    """The lengths of every entry; row k of each table is step k, entry k of every run.

    Attributes:
        entries: Shape (runs,): how many entries each run has. What stands beyond means nothing.
        shared, key_starts, lengths, value_starts, value_ends: Shape (steps, runs).
    """

    entries: IntColumn
    shared: IntColumn
    key_starts: IntColumn
    lengths: IntColumn
    value_starts: IntColumn
    value_ends: IntColumn

    @property
    def shape(self) -> tuple[int, int]:
        return self.shared.shape[0], self.shared.shape[1]

    @property
    def count(self) -> int:
        return int(self.entries.sum())

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))

    @property
    def key_bytes(self) -> int:
        return int(self.lengths.sum())

    def column(self, table: IntColumn) -> IntColumn:
        """Put the entries of a table one after another, in order."""
        column: IntColumn = table.T[np.arange(self.shape[0]) < self.entries[:, None]]
        return column


def _decode_lengths(runs: _Runs) -> _Steps | None:
    data = np.frombuffer(runs.contents + bytes(3 * _VARINT_BYTES), np.uint8)
    at = runs.starts.copy()
    entries = np.zeros(len(at), np.int64)
    known = np.zeros(len(at), np.int64)
    found: list[tuple[IntColumn, ...]] = []
    rows = np.flatnonzero(at < runs.ends)
    while len(rows):
        if len(found) == _MOST_STEPS:
            return None
        lengths, position = _read_lengths(data, at[rows])
        if lengths is None:
            return None
        shared, non_shared, value_size = lengths
        value_starts = position + non_shared
        value_ends = value_starts + value_size
        # `known` is 0 at the first entry of a run, which may share nothing.
        if (value_ends > runs.ends[rows]).any() or (shared > known[rows]).any():
            return None
        found.append((rows, shared, position, shared + non_shared, value_starts, value_ends))
        known[rows] = shared + non_shared
        entries[rows] += 1
        at[rows] = value_ends
        rows = rows[value_ends < runs.ends[rows]]
    tables = np.zeros((5, len(found), len(at)), np.int64)
    for step, (where, *columns) in enumerate(found):
        for table, column in zip(tables, columns, strict=True):
            table[step, where] = column
    return _Steps(entries, *tables)


def _read_lengths(
    data: Bytes, at: IntColumn
) -> tuple[tuple[IntColumn, IntColumn, IntColumn] | None, IntColumn]:
    """Read the three varints of the entries at `at`; None if one is no varint32."""
    first, second, third = data[at], data[at + 1], data[at + 2]
    if not ((first | second | third) & 0x80).any():
        # Nearly every entry has three lengths of one byte each.
        return (first.astype(np.int64), second.astype(np.int64), third.astype(np.int64)), at + 3
    values = []
    for _ in range(3):
        value, at, whole = _read_varints(data, at)
        if not whole:
            return None, at
        values.append(value)
    return (values[0], values[1], values[2]), at


def _read_varints(data: Bytes, at: IntColumn) -> tuple[IntColumn, IntColumn, bool]:
    values = np.zeros(len(at), np.int64)
    at = at.copy()
    rows = np.arange(len(at))
    for group in range(_VARINT_BYTES):
        byte = data[at[rows]]
        values[rows] |= (byte & 0x7F).astype(np.int64) << (7 * group)
        at[rows] += 1
        rows = rows[byte >= 0x80]
        if not len(rows):
            return values, at, bool((values < 1 << 32).all())
    return values, at, False


def _spell_keys(runs: _Runs, steps: _Steps, width: int) -> Bytes:
    """Write out every key; shape (entries, width), zeros after each."""
    longest = steps.longest
    # The window of a key begins so many bytes before its own as it shares: byte j stands at j.
    padded = bytes(longest) + runs.contents + bytes(longest + 1)
    windows = windows_of(padded, longest)
    first = steps.key_starts - steps.shared + longest
    count, runs_count = steps.shape
    kind = np.min_scalar_type(longest)
    places = np.arange(longest, dtype=kind)
    keys = np.zeros((runs_count, count, width), np.uint8)
    current = np.zeros((runs_count, longest), np.uint8)
    for step in range(count):
        own = windows[first[step]].view(np.uint8).reshape(-1, longest)
        np.copyto(own, 0, where=places >= steps.lengths[step, :, None].astype(kind))
        np.copyto(current, own, where=places >= steps.shared[step, :, None].astype(kind))
        keys[:, step, :longest] = current
    return keys[np.arange(count) < steps.entries[:, None]]


def windows_of(data: bytes, size: int) -> npt.NDArray[np.void]:
    """Look at data as overlapping elements of `size` bytes, one from each byte on.

    An index then copies each element at once, which for windows of single bytes takes ten times as
    long.
    """
    count = len(data) - size + 1
    windows: npt.NDArray[np.void] = np.ndarray(
        (count,), np.dtype((np.void, size)), data, strides=(1,)
    )
    return windows


def _strictly_increase(rows: Bytes, lengths: IntColumn) -> bool:
    """Whether each key is above the one before, byte by byte, and a prefix below what goes on."""
    words = rows.view(">u8").astype(np.uint64)
    undecided = np.arange(1, len(words))
    for column in words.T:
        before, after = column[undecided - 1], column[undecided]
        if (after < before).any():
            return False
        undecided = undecided[after == before]
        if not len(undecided):
            return True
    # Zeros stand after each key, so what still looks equal may end in zeros of its own.
    return bool((lengths[undecided] > lengths[undecided - 1]).all())
