"""Which archive a file may be, by its first bytes.

zip     50 4b 03 04 | 50 4b 05 06 (an empty one)
tar     a header of 512 bytes, whose checksum stands at 148 in octal digits
gzip    1f 8b 08
bzip2   "BZh", a digit, 31 41 59 26 53 59
xz      fd "7zXZ" 00
zstd    28 b5 2f fd

A compressed file is an archive only if a tar header is what its first bytes hold.
"""

from __future__ import annotations

import re
from enum import Enum

__all__ = ["HEAD_SIZE", "Packing", "guess_packing", "is_tar_header"]

HEAD_SIZE = 512
"""Bytes at the start of a file that tell: a tar header."""


class Packing(Enum):
    """How an archive is stored."""

    ZIP = "zip"
    TAR = "tar"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"

    @property
    def is_compressed(self) -> bool:
        """Whether a tar archive lies in a stream that is unpacked as a whole."""
        return self not in (Packing.ZIP, Packing.TAR)


_MAGICS = (
    (re.compile(rb"PK(?:\x03\x04|\x05\x06)"), Packing.ZIP),
    (re.compile(rb"\x1f\x8b\x08"), Packing.GZIP),
    (re.compile(rb"BZh[1-9]1AY&SY"), Packing.BZIP2),
    (re.compile(rb"\xfd7zXZ\0"), Packing.XZ),
    (re.compile(rb"\x28\xb5\x2f\xfd"), Packing.ZSTD),
)


def guess_packing(head: bytes) -> Packing | None:
    """Tell which archive a file may be by its first bytes."""
    if is_tar_header(head):
        return Packing.TAR
    return next((packing for magic, packing in _MAGICS if magic.match(head)), None)


def is_tar_header(head: bytes) -> bool:
    """Tell a tar header by its checksum: the sum of its bytes, its own eight taken as spaces."""
    if len(head) < HEAD_SIZE:
        return False
    digits = head[148:156].strip(b"\0 ")
    if not re.fullmatch(rb"[0-7]{1,7}", digits):
        return False
    stated = int(digits, 8)
    rest = head[:148] + b" " * 8 + head[156:]
    # Some old writers took the bytes for signed ones.
    signed = sum(byte - 256 if byte > 127 else byte for byte in rest)
    return stated in (sum(rest), signed)
