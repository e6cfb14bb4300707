"""What tells one content of a file from another, on whatever machine it lies."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from ckptparse.coding.checksum import crc32c
from ckptparse.files.context import Context
from ckptparse.files.storage import Source

__all__ = ["Fingerprint", "fingerprint_of", "fingerprint_path"]

_WHOLE = 16 << 20
"""Bytes of a file that is summed whole: the index of two million tensors."""
_END = 1 << 20
"""Bytes at the start and at the end of a larger file that are summed."""


class Fingerprint(NamedTuple):
    """The size of a file, and the CRC-32C of its bytes; of a large one, of its first and last MiB.

    Times and numbers of files are no part of it: they differ between machines that share a disk.
    """

    size: int
    crc: int


def fingerprint_of(source: Source) -> Fingerprint:
    """Take the fingerprint of an open file."""
    size = source.size
    spans = [(0, size)] if size <= _WHOLE else [(0, _END), (size - _END, _END)]
    crc = 0
    for start, length in spans:
        for offset in range(start, start + length, _END):
            crc = crc32c(source.read_at(offset, min(_END, start + length - offset)), crc)
    return Fingerprint(size, crc)


def fingerprint_path(path: str, context: Context) -> Fingerprint:
    """Take the fingerprint of the file at a path."""
    with closing(context.storage.open(path)) as source:
        return fingerprint_of(source)
