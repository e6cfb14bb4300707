"""A table, written: entries in the order of their keys become blocks (docs/format.md, section 1).

The parameters are those of TensorFlow's writers of checkpoints, so that the bytes are theirs too:
blocks of 256 KiB that are not compressed, a restart every 16 entries, in the index of every entry.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ckptparse.coding.varint import encode_varint
from ckptparse.table.block import RESTART_INTERVAL
from ckptparse.table.format import TRAILER_SIZE, BlockHandle, Footer, encode_trailer

__all__ = ["BlockBuilder", "TableBuilder", "shorten_separator", "shorten_successor"]

BLOCK_SIZE = 1 << 18
_OVERLY_LARGE = 2
"""An entry of so many times the size of a block gets one to itself."""


class BlockBuilder:
    """Collects the entries of one block; each shares what it can of its predecessor's key."""

    def __init__(self, *, restart_interval: int = RESTART_INTERVAL) -> None:
        self._interval = restart_interval
        self._contents = bytearray()
        # An empty block has one restart all the same.
        self._restarts = [0]
        self._since_restart = 0
        self._last_key = b""

    def add(self, key: bytes, value: bytes) -> None:
        """Add an entry, whose key is greater than all before."""
        shared = 0
        if self._since_restart < self._interval:
            shared = _count_shared(self._last_key, key)
        else:
            self._restarts.append(len(self._contents))
            self._since_restart = 0
        for number in (shared, len(key) - shared, len(value)):
            self._contents += encode_varint(number)
        self._contents += key[shared:]
        self._contents += value
        self._last_key = key
        self._since_restart += 1

    @property
    def size(self) -> int:
        """How many bytes the contents have so far, restarts included."""
        return len(self._contents) + 4 * len(self._restarts) + 4

    def __len__(self) -> int:
        """How many bytes the entries take so far: 0 if there are none."""
        return len(self._contents)

    def finish(self) -> bytes:
        """Return the contents."""
        count = len(self._restarts)
        return bytes(self._contents) + struct.pack(f"<{count}II", *self._restarts, count)


class TableBuilder:
    """Writes a table as its entries come, in little memory: one block, and the index.

    `write` is called with the bytes of the file, one run after another.
    """

    def __init__(self, write: Callable[[bytes], object], *, block_size: int = BLOCK_SIZE) -> None:
        self._write = write
        self._block_size = block_size
        self._block = BlockBuilder()
        self._index = BlockBuilder(restart_interval=1)
        self._pending: BlockHandle | None = None
        self._last_key: bytes | None = None
        self._offset = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Add an entry.

        Raises:
            ValueError: Its key is not greater than the one before.
        """
        if self._last_key is not None:
            if key <= self._last_key:
                raise ValueError(f"Keys of a table must rise: {key!r} after {self._last_key!r}")
            if len(key) + len(value) >= _OVERLY_LARGE * self._block_size:
                self._flush()
        if self._pending is not None and self._last_key is not None:
            self._index.add(shorten_separator(self._last_key, key), self._pending.to_bytes())
            self._pending = None
        self._block.add(key, value)
        self._last_key = key
        if self._block.size >= self._block_size:
            self._flush()

    def finish(self) -> None:
        """Write what is left: the last block, the metaindex, the index and the footer."""
        self._flush()
        # TensorFlow writes an empty metaindex, and never reads it.
        metaindex = self._write_block(BlockBuilder())
        if self._pending is not None and self._last_key is not None:
            self._index.add(shorten_successor(self._last_key), self._pending.to_bytes())
        index = self._write_block(self._index)
        self._write(Footer(metaindex, index).to_bytes())

    def _flush(self) -> None:
        if len(self._block):
            self._pending = self._write_block(self._block)
            self._block = BlockBuilder()

    def _write_block(self, block: BlockBuilder) -> BlockHandle:
        contents = block.finish()
        handle = BlockHandle(self._offset, len(contents))
        self._write(contents + encode_trailer(contents))
        self._offset += len(contents) + TRAILER_SIZE
        return handle


def shorten_separator(last: bytes, following: bytes) -> bytes:
    """Return a short key from `last` on and before `following`, by LevelDB's rule.

    The first byte that differs is raised by one, if it stays below that of `following`; else it is
    `last` itself.
    """
    at = _count_shared(last, following)
    if at < min(len(last), len(following)) and last[at] + 1 < following[at]:
        return last[:at] + bytes([last[at] + 1])
    return last


def shorten_successor(last: bytes) -> bytes:
    """Return a short key from `last` on: its first byte that is not ff, raised by one."""
    for at, byte in enumerate(last):
        if byte != 0xFF:
            return last[:at] + bytes([byte + 1])
    return last


def _count_shared(first: bytes, second: bytes) -> int:
    """Count the bytes that two keys begin with alike."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
