"""Decode the entries of many blocks side by side (docs/format.md, section 1.5).

A key needs the key before it, so the entries of a run are decoded one after another. But the entry
at a restart needs none. So all runs, from one restart to the next, are decoded at the same time:
step k decodes entry k of every run of every block, with numpy. TensorFlow writes runs of 16
entries, so 100,000 entries take 16 steps.

Only entries that follow all rules are decoded here. If one does not, the caller decodes the blocks
with `Block.decode_entries`, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.limits import Limits
from ckptparse.table.block import LONGEST_RUN, Block, most_in_block
from ckptparse.table.columns import IntColumn, TableColumns

__all__ = ["decode_together", "masks_of", "read_varints", "windows_of"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

_VARINT_BYTES = 5
"""Bytes of the longest varint32: 32 bits in groups of 7 (section 1.3)."""
_WORD = 8
"""Bytes of a word: keys are compared in words, so their rows are filled up to whole ones."""
_PADDING = 256
"""Zeros after the contents: three varints are read at the last byte too, and keys of up to so many
bytes."""
_KEYS_BY_BLOCKS = 16
"""The rows of keys may take so many times the bytes of their blocks. All rows are as long as the
longest key; TensorFlow's runs of 16 entries share less."""
_WIDE = 256
"""Bytes of a row from which on its key is copied by itself sooner than all keys byte by byte."""
_MOST_ROOM = 1 << 26
"""Bytes of these rows at most: in between four times as many are in memory."""


def decode_together(blocks: Sequence[Block], *, limits: Limits) -> TableColumns | None:
    """Decode every entry of some blocks, in order; None if one breaks a rule."""
    runs = _Runs.of_blocks(blocks)
    steps = _decode_lengths(runs, most_in_block(limits))
    if not steps:
        return None
    longest = max(int(step.lengths.max()) for step in steps)
    size = len(runs.contents)
    room = min(_KEYS_BY_BLOCKS * size, _MOST_ROOM)
    width = -(-(longest + 1) // _WORD) * _WORD
    # Keys take no more than their rows; the caller counts them against `Limits.key_bytes`.
    if not longest or len(steps) * len(runs.starts) * width > room:
        return None
    entries = np.bincount(np.concatenate([step.runs for step in steps]), minlength=len(runs.starts))
    ends = np.cumsum(entries)
    places = [(ends - entries)[step.runs] + number for number, step in enumerate(steps)]

    def in_order(columns: Iterable[IntColumn]) -> IntColumn:
        found = np.empty(ends[-1], np.int64)
        for where, column in zip(places, columns, strict=True):
            found[where] = column
        return found

    rows = _spell_keys(runs, steps, places, width)
    lengths = in_order(step.lengths for step in steps)
    if not _strictly_increase(rows, lengths, in_order(step.shared for step in steps)):
        return None
    counts = np.bincount(runs.blocks, weights=entries, minlength=len(blocks))
    return TableColumns(
        runs.contents,
        _join_keys(rows, lengths, width),
        np.cumsum(lengths + 1) - 1,
        in_order(step.value_starts for step in steps),
        in_order(step.value_ends for step in steps),
        np.cumsum(counts.astype(np.int64)).tolist(),
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Where the runs of entries are in the joined contents of the blocks.

    Attributes:
        padded: The contents, then zeros.
        starts, ends: Shape (runs,).
        blocks: Shape (runs,): the number of each run's block.
    """

    contents: bytes
    padded: bytes
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
        contents = b"".join(block.contents for block in blocks)
        return cls(
            contents,
            contents + bytes(_PADDING),
            np.concatenate(starts or none),
            np.concatenate(ends or none),
            np.concatenate(numbers or none),
        )


@dataclass(frozen=True, slots=True)
class _Step:
    """The lengths of entry k of every run that has so many.

    Attributes:
        runs: Shape (n,): the numbers of these runs, which rise.
        going: Shape (runs of the step before,): which of those they are; None if all are.
        shared, key_starts, lengths, value_starts, value_ends: Shape (n,).
    """

    runs: IntColumn
    going: npt.NDArray[np.bool_] | None
    shared: IntColumn
    key_starts: IntColumn
    lengths: IntColumn
    value_starts: IntColumn
    value_ends: IntColumn


def _decode_lengths(runs: _Runs, most: int) -> list[_Step]:
    """Return the steps; none if an entry breaks a rule, or there are more than `most`."""
    steps: list[_Step] = []
    count = 0
    at, ends, numbers = runs.starts, runs.ends, np.arange(len(runs.starts))
    # At the first entry of a run nothing is known: it may not share anything.
    known = np.zeros(len(at), np.int64)
    going: npt.NDArray[np.bool_] | None = None
    while len(at):  # Restarts rise, so every run has an entry.
        count += len(at)
        if len(steps) == LONGEST_RUN or count > most:
            return []
        lengths, position = _read_lengths(runs.padded, at)
        if lengths is None:
            return []
        shared, non_shared, value_size = lengths
        value_starts = position + non_shared
        value_ends = value_starts + value_size
        if (value_ends > ends).any() or (shared > known).any():
            return []
        known = shared + non_shared
        steps.append(_Step(numbers, going, shared, position, known, value_starts, value_ends))
        at = value_ends
        going = at < ends
        if going.all():
            going = None
        else:
            at, ends, numbers, known = at[going], ends[going], numbers[going], known[going]
    return steps


def _read_lengths(
    padded: bytes, at: IntColumn
) -> tuple[tuple[IntColumn, IntColumn, IntColumn] | None, IntColumn]:
    """Read the three varints of the entries at `at`; None if one is no varint32."""
    words = windows_of(padded, 4)[at].view("<u4").astype(np.int64)
    if not (words & 0x808080).any():
        # Nearly all entries: three lengths below 128 are varints of one byte each.
        return (words & 0x7F, words >> 8 & 0x7F, words >> 16 & 0x7F), at + 3
    data, values = np.frombuffer(padded, np.uint8), []
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


def _spell_keys(
    runs: _Runs, steps: Sequence[_Step], places: Sequence[IntColumn], width: int
) -> Words:
    """Return every key in full: shape (entries, width / 8), zeros after each."""
    # A window begins as many bytes before the own bytes of a key as it shares: byte j of the key is
    # at j. The shared bytes come from the row of the key before. The run has as many before them:
    # it spells each of the shared ones somewhere.
    padded = runs.padded if width <= _PADDING else runs.contents + bytes(width)
    windows = windows_of(padded, width)
    keys = np.empty((sum(map(len, places)), width // _WORD), np.uint64)
    current = np.zeros((len(runs.starts), width // _WORD), np.uint64)
    for step, where in zip(steps, places, strict=True):
        if step.going is not None:
            current = current[step.going]
        shared = masks_of(step.shared, width)
        own = windows[step.key_starts - step.shared].view(np.uint64)
        own = own.reshape(shared.shape)
        own &= masks_of(step.lengths, width) ^ shared
        current &= shared
        current |= own
        keys[where] = current
    return keys


def _join_keys(rows: Words, lengths: IntColumn, width: int) -> bytes:
    """Return the keys of rows of so many bytes, one after another, each followed by one zero."""
    data = rows.view(np.uint8)
    if width < _WIDE:
        kind = np.min_scalar_type(width)
        return data[np.arange(width, dtype=kind) <= lengths[:, None].astype(kind)].tobytes()
    flat = data.reshape(-1).data
    starts = range(0, len(flat), width)
    ends = (np.arange(len(rows)) * width + lengths + 1).tolist()
    return b"".join([flat[start:end] for start, end in zip(starts, ends, strict=True)])


def masks_of(lengths: IntColumn, width: int) -> Words:
    """Return masks that keep so many bytes of each row of `width`, a multiple of 8.

    Shape (n, width / 8): words as they lie in memory, whatever the machine's order of bytes.
    """
    ramp = b"\xff" * width + bytes(width)
    return windows_of(ramp, width)[width - lengths].view(np.uint64).reshape(-1, width // _WORD)


def windows_of(data: bytes | Bytes, size: int) -> npt.NDArray[np.void]:
    """Return a view of data as overlapping elements of `size` bytes, one at each byte.

    Indexing copies each element at once. With windows of single bytes it takes ten times as long.
    """
    count = len(data) - size + 1
    windows: npt.NDArray[np.void] = np.ndarray(
        (count,), np.dtype((np.void, size)), data, strides=(1,)
    )
    return windows


def _strictly_increase(rows: Words, lengths: IntColumn, shared: IntColumn) -> bool:
    """Tell whether each key is above the one before: by unsigned bytes, a prefix first."""
    # Of most keys the first byte of their own tells: they agree with the key before up to there.
    width = _WORD * rows.shape[1]
    data = rows.view(np.uint8).reshape(-1)
    own = np.arange(1, len(rows)) * width + shared[1:]
    before, after = data[own - width], data[own]
    if (after < before).any():
        return False
    undecided = np.flatnonzero(after == before) + 1
    if not len(undecided):
        return True
    unequal = rows[undecided] != rows[undecided - 1]
    words = unequal.argmax(axis=1)
    # Read as big-endian words, bytes compare as the words do.
    earlier, later = (rows[numbers, words].view(">u8") for numbers in (undecided - 1, undecided))
    if (later < earlier).any():
        return False
    undecided = undecided[later == earlier]
    # Rows end in zeros. Rows that look equal may be of keys that end in zeros: the longer is above.
    return bool((lengths[undecided] > lengths[undecided - 1]).all())
