"""Inside a block: prefix-compressed entries and restart points (docs/format.md, section 1.5).

    entry*   restart[0] ... restart[k-1]   k          (fixed32, little-endian)

    entry    varint32 shared       bytes taken over from the previous key
             varint32 non_shared   bytes of the key that follow
             varint32 value_size
             key[non_shared]  value[value_size]

A restart is the offset of an entry that shares nothing, so that a search can begin there.

This reader is stricter than TensorFlow's, which lists fewer entries if these rules are broken:
entries fill the block exactly; restarts point at entries that share nothing, and the first is 0;
keys strictly increase.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from operator import lt
from typing import NamedTuple

from ckptparse.coding.varint import decode_varint
from ckptparse.errors import LimitError, MalformedError
from ckptparse.limits import Limits, limit_error

__all__ = [
    "LONGEST_RUN",
    "RESTART_INTERVAL",
    "Block",
    "BlockEntries",
    "KeyOrderError",
    "LongRuns",
    "check_key_bytes",
    "decode_entry",
    "most_in_block",
    "read_restarts",
]

RESTART_INTERVAL = 16
"""Entries from one restart to the next, in blocks that TensorFlow writes (section 1.5)."""
LONGEST_RUN = 64
"""Entries of a run that are decoded with those of other runs, by columns."""
_RUN_ENTRIES, _RUN_BYTES = 32, 128
"""Entries of longer runs that count as one of `Limits.single_entries`; bytes of the table for each
beyond these. One takes 2 to 4 µs."""
_FREE_ENTRIES, _ENTRIES_BY_BLOCK = 100_000, 16
"""Entries that one block may have, or so great a part of those of its table if that is more.
Writers end a block at 4 to 256 KiB: it has 90,000 at most."""
_KEYS_BY_BLOCKS = 6
"""Keys of a table may take so many times its blocks, beyond `Limits.key_bytes`. In TensorFlow's
blocks names of 300 bytes take 5 times; whatever they are, 16 times is the most."""
_MEMORY_BY_KEYS, _KEYS_BY_BLOCK = 8, 2
"""Keys of one block may take so great a part of `Limits.memory_bytes`, and so many times the block:
they are in memory three times at once. A block of 256 KiB may have 512 times its size."""


class KeyOrderError(MalformedError):
    """Keys of a table do not strictly increase."""


class BlockEntries(NamedTuple):
    """All entries of a block, as columns. The value of entry i is `contents[starts[i]:ends[i]]`."""

    contents: bytes
    keys: list[bytes]
    starts: list[int]
    ends: list[int]


def decode_entry(contents: bytes, position: int, end: int) -> tuple[int, int, int, int]:
    """Decode an entry's three lengths at `position`.

    Returns:
        Four numbers: how many bytes are shared; where the key's own bytes start; where they end and
        the value starts; where the value ends. None of them is beyond `end`.

    Raises:
        MalformedError: A length is no varint, or leads beyond `end`.
    """
    at = position + 3
    lengths = contents[position:at]
    if at <= end and lengths.isascii():
        # The usual entry: below 0x80 a varint is one byte.
        shared, non_shared, value_size = lengths
    elif at < end and contents[position + 1 : at + 1].isascii():
        # As usual, but for a key that shares 128 bytes or more with the one before.
        shared = lengths[0] & 0x7F | lengths[1] << 7
        non_shared, value_size = lengths[2], contents[at]
        at += 1
    else:
        try:
            shared, at = decode_varint(contents, position, end, bits=32)
            non_shared, at = decode_varint(contents, at, end, bits=32)
            value_size, at = decode_varint(contents, at, end, bits=32)
        except ValueError as error:
            raise MalformedError(f"Bad block entry at byte {position}: {error}") from error
    if at + non_shared + value_size > end:
        raise MalformedError(
            f"Bad block entry at byte {position}: expected its key of {non_shared} and value of "
            f"{value_size} bytes to end by byte {end}, found {at + non_shared + value_size}"
        )
    return shared, at, at + non_shared, at + non_shared + value_size


class Block:
    """One block's contents, decompressed.

    Attributes:
        contents: The bytes, without trailer.
        entries_end: Offset of the restart array: entries end there.
        restarts: Offsets of the restart points.
    """

    __slots__ = ("contents", "entries_end", "restarts")

    def __init__(self, contents: bytes, entries_end: int, restarts: tuple[int, ...]) -> None:
        self.contents = contents
        self.entries_end = entries_end
        self.restarts = restarts

    @classmethod
    def from_bytes(cls, contents: bytes) -> Block:
        """Read the restart array.

        Raises:
            MalformedError: It does not fit the block, or its offsets do not rise from 0.
        """
        restarts, entries_end = read_restarts(contents, len(contents))
        return cls(contents, entries_end, restarts)

    def decode_entries(self, *, limits: Limits) -> BlockEntries:
        """Decode every entry, in order.

        Raises:
            MalformedError: An entry breaks the rules that the module's docstring lists.
            LimitError: More entries, or more bytes of keys, than a block may have.
        """
        contents, end = self.contents, self.entries_end
        most_entries, most_bytes = most_in_block(limits), _most_key_bytes(len(contents), limits)
        keys: list[bytes] = []
        starts: list[int] = []
        ends: list[int] = []
        key = b""
        position = key_bytes = 0
        # After the last restart comes the end, where no entry begins.
        unmet = [end, *reversed(self.restarts)]
        next_restart = unmet.pop()
        while position < end:
            at_restart = position == next_restart
            # Faster for nearly all entries, whose lengths below 128 are varints of one byte each.
            # The number of restarts follows the entries, so there are four bytes; if they are not
            # those of an entry, its value ends beyond the end.
            one, two, three, four = contents[position : position + 4]
            if one | two | three < 0x80:
                shared = one
                key_start = position + 3
                value_start = key_start + two
                value_end = value_start + three
            elif two | three | four < 0x80:
                # As usual, but for a key that shares 128 bytes or more with the one before.
                shared = one & 0x7F | two << 7
                key_start = position + 4
                value_start = key_start + three
                value_end = value_start + four
            else:
                shared, key_start, value_start, value_end = decode_entry(contents, position, end)
            if value_end > end or shared > len(key) or (at_restart and shared):
                raise self._bad_entry(position, shared, len(key), value_end)
            new_key = key[:shared] + contents[key_start:value_start]
            # The first key may be empty: it is that of a header.
            if new_key <= key and keys:
                raise _unsorted(new_key, key)
            key = new_key
            keys.append(key)
            key_bytes += len(key)
            if key_bytes > most_bytes or len(keys) > most_entries:
                raise _too_much(len(keys), key_bytes, len(contents), limits)
            starts.append(value_start)
            ends.append(value_end)
            position = value_end
            if at_restart:
                next_restart = unmet.pop()
        self._check_met(next_restart)
        return BlockEntries(contents, keys, starts, ends)

    def _check_met(self, restart: int) -> None:
        """Make sure that the first restart at which no entry began is the end."""
        if restart < self.entries_end:
            raise MalformedError(f"Bad block: no entry begins at the restart {restart}")

    def find(self, key: bytes, *, limits: Limits) -> bytes | None:
        """Return the value of `key`; None if the block has no such key.

        A binary search finds two restarts, and the entries between them are decoded.

        Raises:
            MalformedError: An entry on the way breaks the rules.
        """
        restart = self.find_restart(key)
        found: bytes | None = None
        if restart >= 0:
            for known, start, end in self.iter_run(restart, limits=limits):
                if known == key:
                    found = self.contents[start:end]
        return found

    def find_restart(self, key: bytes) -> int:
        """Return the number of the last restart whose key is not above `key`, by binary search.

        -1 if there is none.

        Raises:
            MalformedError: No key in full is stored at a restart on the way.
        """
        low, high = 0, len(self.restarts)
        while low < high:
            middle = (low + high) // 2
            if self._restart_key(middle) <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def iter_run(self, restart: int, *, limits: Limits) -> Iterator[tuple[bytes, int, int]]:
        """Iterate over the entries from a restart to the next: key, and where its value lies.

        Raises:
            MalformedError: An entry breaks the rules.
            LimitError: More than `Limits.key_bytes` of keys.
        """
        position = self.restarts[restart]
        last = restart + 1 == len(self.restarts)
        run_end = self.entries_end if last else self.restarts[restart + 1]
        key = b""
        first = True
        key_bytes = 0
        while position < run_end:
            shared, start, end, value_end = decode_entry(self.contents, position, run_end)
            if shared > len(key):
                raise self._bad_entry(position, shared, len(key), value_end)
            new_key = key[:shared] + self.contents[start:end]
            if new_key <= key and not first:
                raise _unsorted(new_key, key)
            key, first = new_key, False
            key_bytes += len(key)
            check_key_bytes(key_bytes, len(self.contents), limits)
            yield key, end, value_end
            position = value_end

    def first(self) -> tuple[bytes, bytes] | None:
        """Return the first key and value; None if the block is empty."""
        if not self.entries_end:
            return None
        shared, key_start, key_end, value_end = decode_entry(self.contents, 0, self.entries_end)
        if shared:
            raise self._bad_entry(0, shared, 0, value_end)
        return self.contents[key_start:key_end], self.contents[key_end:value_end]

    def _restart_key(self, index: int) -> bytes:
        if not self.entries_end:
            return b""
        position = self.restarts[index]
        shared, start, end, value_end = decode_entry(self.contents, position, self.entries_end)
        if shared:
            raise self._bad_entry(position, shared, 0, value_end)
        return self.contents[start:end]

    def _bad_entry(self, position: int, shared: int, key_size: int, end: int) -> MalformedError:
        return MalformedError(
            f"Bad block entry at byte {position}: expected it to share at most {key_size} bytes of "
            f"the key before (none at a restart) and to end by byte {self.entries_end}, found "
            f"{shared} shared bytes and the end at {end}"
        )


def read_restarts(tail: bytes, size: int) -> tuple[tuple[int, ...], int]:
    """Read the restart array of a block from its last bytes; return it, and where entries end.

    Args:
        tail: The last bytes of the block, or all of them.
        size: Of the block.

    Raises:
        MalformedError: It does not fit them, or its offsets do not rise from 0.
    """
    if size < 4:
        raise MalformedError(
            f"Bad block: expected at least 4 bytes for the number of restarts, found {size}"
        )
    (count,) = struct.unpack_from("<I", tail, len(tail) - 4)
    entries_end = size - 4 - 4 * count
    # Each restart points at another entry, and an entry has at least three bytes. An empty
    # block has one restart. TensorFlow takes 0 restarts for an empty block, and so do we.
    most = max(1, entries_end // 3)
    if entries_end < size - len(tail) or count > most or (count == 0 and entries_end):
        raise MalformedError(f"Bad block: {count} restarts do not fit a block of {size} bytes")
    restarts = struct.unpack_from(f"<{count}I", tail, len(tail) - 4 - 4 * count)
    _check_restarts(restarts, entries_end)
    return restarts, entries_end


def _check_restarts(restarts: tuple[int, ...], entries_end: int) -> None:
    if restarts and restarts[0]:
        raise MalformedError(f"Bad block: expected 0 as the first restart, found {restarts[0]}")
    # In an empty block the one restart is 0, where no entry is.
    rising = (*restarts, entries_end) if entries_end else ()
    # A large block has hundreds; compared without a loop they take a tenth of the time.
    if all(map(lt, rising, rising[1:])):
        return
    for restart, following in pairwise(rising):
        if restart >= following:
            raise MalformedError(
                f"Bad block: expected restarts to rise and to stay below {entries_end}, "
                f"found {restart} before {following}"
            )


class LongRuns:
    """How many entries of one table lie in blocks whose runs are long: each is decoded alone."""

    __slots__ = ("_limits", "_size", "_taken")

    def __init__(self, limits: Limits, size: int) -> None:
        """Begin with none, of a table of so many bytes."""
        self._limits = limits
        self._size = size
        self._taken = 0

    def take(self, block: Block, count: int) -> None:
        """Count the entries of a block.

        Raises:
            LimitError: They are more than `Limits.single_entries` allows.
        """
        if count <= LONGEST_RUN * len(block.restarts):
            return
        self._taken += count
        beyond = self._taken - self._size // _RUN_BYTES
        if beyond > _RUN_ENTRIES * self._limits.single_entries:
            what = (
                f"1/{_RUN_ENTRIES} of the entries in blocks with less than one key in full for "
                f"{LONGEST_RUN} of them, beyond one for each {_RUN_BYTES} bytes,"
            )
            found = -(-beyond // _RUN_ENTRIES)
            raise limit_error(self._limits, "single_entries", found, what)


def check_key_bytes(key_bytes: int, blocks: int, limits: Limits) -> None:
    """Raise `LimitError` if keys take more than `Limits.key_bytes` beyond 6 times their blocks."""
    # Called for every key: what would be said is put into words only if it is.
    if key_bytes - _KEYS_BY_BLOCKS * blocks > limits.key_bytes:
        raise _too_many_key_bytes(key_bytes, blocks, limits)


def most_in_block(limits: Limits) -> int:
    """Return how many entries one block may have: all of them are in memory at the same time."""
    return min(limits.entries, max(_FREE_ENTRIES, limits.entries // _ENTRIES_BY_BLOCK))


def _most_key_bytes(size: int, limits: Limits) -> int:
    """Return how many bytes the keys of one block of so many bytes may have."""
    most = limits.key_bytes + _KEYS_BY_BLOCKS * size
    return min(most, limits.memory_bytes // _MEMORY_BY_KEYS + _KEYS_BY_BLOCK * size)


def _too_much(keys: int, key_bytes: int, size: int, limits: Limits) -> LimitError:
    """Make the error for so many keys of so many bytes, one of which is beyond its limit."""
    if keys > limits.entries:
        return limit_error(limits, "entries", keys, "The number of entries of the table")
    if keys > most_in_block(limits):
        what = f"{_ENTRIES_BY_BLOCK} times the number of entries of one block"
        return limit_error(limits, "entries", _ENTRIES_BY_BLOCK * keys, what)
    if key_bytes > limits.key_bytes + _KEYS_BY_BLOCKS * size:
        return _too_many_key_bytes(key_bytes, size, limits)
    beyond = key_bytes - _KEYS_BY_BLOCK * size
    what = f"{_MEMORY_BY_KEYS} times what the keys of a block of {size} bytes take beyond twice it"
    return limit_error(limits, "memory_bytes", _MEMORY_BY_KEYS * beyond, what)


def _too_many_key_bytes(key_bytes: int, blocks: int, limits: Limits) -> LimitError:
    beyond = key_bytes - _KEYS_BY_BLOCKS * blocks
    what = f"What the table's keys take beyond {blocks} bytes of blocks"
    return limit_error(limits, "key_bytes", beyond, what)


def _unsorted(key: bytes, previous: bytes) -> KeyOrderError:
    return KeyOrderError(
        f"Keys of a table must strictly increase: expected a key after {previous!r}, found {key!r}"
    )
