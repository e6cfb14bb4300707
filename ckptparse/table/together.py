"""Decode the entries of many blocks side by side (docs/format.md, section 1.5).

A key needs the key before it, so the entries of a run are decoded one after another. But the entry
at a restart needs none. So all runs, from one restart to the next, are decoded at the same time:
step k decodes entry k of every run of every block, with numpy. TensorFlow writes runs of 16
entries, so 100,000 entries take 16 steps.

Only entries that follow all rules are decoded here. If one does not, the caller decodes the blocks
with `Block.decode_entries`, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.limits import Limits
from ckptparse.table.block import Block
from ckptparse.table.columns import IntColumn, TableColumns

__all__ = ["decode_together", "read_varints", "windows_of"]

Bytes = npt.NDArray[np.uint8]

_MOST_STEPS = 64
"""Entries of a run at most. With longer runs there are few of them, and a loop is as fast.
TensorFlow's have 16 entries."""
_VARINT_BYTES = 5
"""Bytes of the longest varint32: 32 bits in groups of 7 (section 1.3)."""
_WORD = 8
"""Bytes of a word: keys are compared in words, so their rows are filled up to whole ones."""
_KEYS_BY_BLOCKS = 16
"""The rows of keys may take so many times the bytes of their blocks. All rows are as long as the
longest key; TensorFlow's runs of 16 entries share less."""


def decode_together(blocks: Sequence[Block], *, limits: Limits) -> TableColumns | None:
    """Decode every entry of some blocks, in order; None if one breaks a rule."""
    runs = _Runs.of_blocks(blocks)
    steps = _decode_lengths(runs, limits.entries)
    if steps is None or not steps.longest:
        return None
    size = len(runs.contents)
    room = _KEYS_BY_BLOCKS * size
    width = -(-(steps.longest + 1) // _WORD) * _WORD
    # Keys take no more than their rows; the caller counts them against `Limits.key_bytes`.
    if steps.shape[0] * steps.shape[1] * width > room:
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
    """Where the runs of entries are in the joined contents of the blocks.

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
            # An empty block has one restart, where no entry is.
            if block.entries_end:
                restarts = np.array(block.restarts, np.int64)
                starts.append(base + restarts)
                ends.append(base + np.append(restarts[1:], block.entries_end))
                numbers.append(np.full(len(restarts), number, np.int64))
            base += len(block.contents)
        none = [np.array([], np.int64)]
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
        entries: Shape (runs,): how many entries each run has. Rows after these mean nothing.
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
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))

    def column(self, table: IntColumn) -> IntColumn:
        """Put the entries of a table one after another, in order."""
        column: IntColumn = table.T[np.arange(self.shape[0]) < self.entries[:, None]]
        return column


def _decode_lengths(runs: _Runs, most: int) -> _Steps | None:
    # Eight bytes of restarts follow the entries. With a word more, three varints of 5 bytes can be
    # read at the last byte too.
    data = np.frombuffer(runs.contents + bytes(_WORD), np.uint8)
    at = runs.starts.copy()
    entries = np.zeros(len(at), np.int64)
    known = np.zeros(len(at), np.int64)
    found: list[tuple[IntColumn, ...]] = []
    rows = np.arange(len(at))  # Restarts rise, so every run has an entry.
    count = 0
    while len(rows):
        if len(found) == _MOST_STEPS or count + len(rows) > most:
            return None
        count += len(rows)
        lengths, position = _read_lengths(data, at[rows])
        if lengths is None:
            return None
        shared, non_shared, value_size = lengths
        value_starts = position + non_shared
        value_ends = value_starts + value_size
        # At the first entry of a run `known` is 0: it may not share anything.
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
    if ((first | second | third) < 0x80).all():
        # Nearly all entries: three lengths below 128 are varints of one byte each.
        return (first.astype(np.int64), second.astype(np.int64), third.astype(np.int64)), at + 3
    values = []
    for _ in range(3):
        value, at, whole = read_varints(data, at, _VARINT_BYTES)
        if not whole.all() or (value >> 32).any():
            return None, at
        values.append(value)
    return (values[0], values[1], values[2]), at


def read_varints(
    data: Bytes, at: IntColumn, longest: int
) -> tuple[IntColumn, IntColumn, npt.NDArray[np.bool_]]:
    """Read a varint of at most `longest` bytes, 9 or fewer, at each place.

    Returns:
        The values, the places after them, and which varints end within so many bytes.
    """
    byte = data[at]
    values: IntColumn = (byte & 0x7F).astype(np.int64)
    at = at + 1
    whole = np.ones(len(at), np.bool_)
    # Most have one byte.
    rows = np.flatnonzero(byte >= 0x80)
    for group in range(1, longest):
        if not len(rows):
            break
        byte = data[at[rows]]
        values[rows] |= (byte & 0x7F).astype(np.int64) << (7 * group)
        at[rows] += 1
        rows = rows[byte >= 0x80]
    whole[rows] = False
    return values, at, whole


def _spell_keys(runs: _Runs, steps: _Steps, width: int) -> Bytes:
    """Return every key in full: shape (entries, width), zeros after each."""
    longest = steps.longest
    # A window begins as many bytes before the key's own bytes as it shares: byte j of the key is at
    # j. The shared bytes come from the row of the key before.
    padded = bytes(longest) + runs.contents + bytes(longest)
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


def windows_of(data: bytes | Bytes, size: int) -> npt.NDArray[np.void]:
    """Return a view of data as overlapping elements of `size` bytes, one at each byte.

    Indexing copies each element at once. With windows of single bytes it takes ten times as long.
    """
    count = len(data) - size + 1
    windows: npt.NDArray[np.void] = np.ndarray(
        (count,), np.dtype((np.void, size)), data, strides=(1,)
    )
    return windows


def _strictly_increase(rows: Bytes, lengths: IntColumn) -> bool:
    """Tell whether each key is above the one before: by unsigned bytes, a prefix first."""
    # Read as big-endian words, bytes compare as the words do.
    words = rows.view(">u8").astype(np.uint64)
    undecided = np.arange(1, len(words))
    for column in words.T:
        before, after = column[undecided - 1], column[undecided]
        if (after < before).any():
            return False
        undecided = undecided[after == before]
        if not len(undecided):
            return True
    # Rows end in zeros. Rows that look equal may be of keys that end in zeros: the longer is above.
    return bool((lengths[undecided] > lengths[undecided - 1]).all())
