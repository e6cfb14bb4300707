"""Several files as one input: each with its length before it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_MOST = 8


def pack(files: Sequence[bytes]) -> bytes:
    """Put files one after another."""
    return b"".join(struct.pack("<I", len(data)) + data for data in files)


def unpack(data: bytes, count: int) -> list[bytes]:
    """Take so many files apart; what is cut off is empty, or shorter."""
    files: list[bytes] = []
    position = 0
    for _ in range(min(count, _MOST)):
        size = int.from_bytes(data[position : position + 4], "little")
        position += 4
        files.append(data[position : position + size])
        position += size
    return files
