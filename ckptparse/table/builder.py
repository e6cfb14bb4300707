"""Write a table: entries, in the order of their keys, become blocks (docs/format.md, section 1).

The parameters are those of TensorFlow, so that the bytes are the same: blocks of 256 KiB without
compression, and a restart for every 16 entries; in the index block, for every entry.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ckptparse.coding.varint import encode_varint
from ckptparse.table.block import RESTART_INTERVAL
from ckptparse.table.format import TRAILER_SIZE, BlockHandle, Footer, encode_trailer

__all__ = ["BlockBuilder", "TableBuilder", "shorten_separator", "shorten_successor"]

BLOCK_SIZE = 1 << 18
"""A block ends with the entry that brings it to so many bytes, as TensorFlow's do (section 1.7)."""
_OVERLY_LARGE = 2
"""An entry of at least so many times `BLOCK_SIZE` starts a new block, as TensorFlow does it."""


class BlockBuilder:
    """Collects the entries of one block. Each shares the start of its key with the one before."""

    def __init__(self, *, restart_interval: int = RESTART_INTERVAL) -> None:
        self._interval = restart_interval
        self._contents = bytearray()
        # The first entry is a restart; an empty block has this one too.
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
        own = key[shared:]
        self._contents += b"".join(
            (encode_varint(shared), encode_varint(len(own)), encode_varint(len(value)), own, value)
        )
        self._last_key = key
        self._since_restart += 1

    @property
    def last_key(self) -> bytes:
        """The key of the last entry."""
        return self._last_key

    @property
    def size(self) -> int:
        """How many bytes the contents have so far, with the restarts and their number."""
        return len(self._contents) + 4 * len(self._restarts) + 4

    def __len__(self) -> int:
        """How many bytes the entries take so far; 0 if there are none."""
        return len(self._contents)

    def finish(self) -> bytes:
        """Return the contents."""
        count = len(self._restarts)
        return bytes(self._contents) + struct.pack(f"<{count}II", *self._restarts, count)


class TableBuilder:
    """Writes a table while entries are added. In memory are one block and the index block.

    `write` is called with the bytes of the file, in order.
    """

    def __init__(self, write: Callable[[bytes], object], *, block_size: int = BLOCK_SIZE) -> None:
        self._write = write
        self._block_size = block_size
        self._block = BlockBuilder()
        self._index = BlockBuilder(restart_interval=1)
        # The last key and the place of the block before, which is not in the index yet.
        self._pending: tuple[bytes, BlockHandle] | None = None
        self._last_key: bytes | None = None
        self._offset = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Add an entry.

        Raises:
            ValueError: Its key is not greater than the one before.
        """
        if self._last_key is not None:
            if key <= self._last_key:
                raise ValueError(
                    f"Keys of a table must rise: expected one above {self._last_key!r}, found "
                    f"{key!r}"
                )
            if len(key) + len(value) >= _OVERLY_LARGE * self._block_size:
                self._flush()
        if self._pending is not None:
            # The key in the index depends on the next block's first key, so it is added only now.
            last, handle = self._pending
            self._index.add(shorten_separator(last, key), handle.to_bytes())
            self._pending = None
        self._block.add(key, value)
        self._last_key = key
        if self._block.size >= self._block_size:
            self._flush()

    def finish(self) -> None:
        """Write the last data block, the metaindex block, the index block and the footer."""
        self._flush()
        # TensorFlow writes an empty metaindex block, and never reads it.
        metaindex = self._write_block(BlockBuilder())
        if self._pending is not None:
            last, handle = self._pending
            self._index.add(shorten_successor(last), handle.to_bytes())
        index = self._write_block(self._index)
        self._write(Footer(metaindex, index).to_bytes())

    def _flush(self) -> None:
        if len(self._block):
            self._pending = self._block.last_key, self._write_block(self._block)
            self._block = BlockBuilder()

    def _write_block(self, block: BlockBuilder) -> BlockHandle:
        contents = block.finish()
        handle = BlockHandle(self._offset, len(contents))
        self._write(contents + encode_trailer(contents))
        self._offset += len(contents) + TRAILER_SIZE
        return handle


def shorten_separator(last: bytes, following: bytes) -> bytes:
    """Return a short key that is at least `last` and below `following`, by LevelDB's rule.

    The key is cut after the first byte that differs, and this byte is raised by one, if it stays
    below that of `following`. Else the key is `last` itself.
    """
    at = _count_shared(last, following)
    if at < min(len(last), len(following)) and last[at] + 1 < following[at]:
        return last[:at] + bytes([last[at] + 1])
    return last


def shorten_successor(last: bytes) -> bytes:
    """Return a short key of at least `last`: cut after its first byte below ff, raised by one."""
    for at, byte in enumerate(last):
        if byte != 0xFF:
            return last[:at] + bytes([byte + 1])
    return last


def _count_shared(first: bytes, second: bytes) -> int:
    """Count the first bytes that two keys have in common."""
    size = min(len(first), len(second))
    # As numbers, so that the bytes are compared without a loop: equal ones become leading zeros.
    other = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return size - (other.bit_length() + 7) // 8
