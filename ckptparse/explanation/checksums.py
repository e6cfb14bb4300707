"""Messages about a tensor's checksum: what the two numbers in them tell.

A computed checksum that is the checksum of n zero bytes names a hole in the file; two that differ
like one flipped bit near the end name that bit.
"""

from __future__ import annotations

import re

from ckptparse.explanation.value import VERIFY, Explanation, row
from ckptparse.text import chance_text

__all__ = ["CHECKSUMS"]

_LARGEST_FOR_A_BIT = 1 << 19
"""Bytes: they have 2^22 bits among 2^32 checksums, so other damage looks like one flipped bit once
in 1,024. In a larger tensor that happens more often."""


def _explain_checksum(match: re.Match[str]) -> Explanation:
    """Explain "Checksum does not match: stored A vs. calculated on the restored bytes B"."""
    stored, computed = (int(number) & 0xFFFFFFFF for number in match.groups())
    return (
        _as_zeros(computed)
        or _as_flipped_bit(stored, computed)
        or Explanation(
            "tensor.checksum",
            "The bytes of a tensor in the data file do not have the checksum that the index "
            "stores for them.",
            "The data file was damaged after it was written, or it and the index come from "
            "different saves (a copy that was interrupted, or made during a save).",
            "Compare the size and hash of the `.data-` file with its origin. Copy it again "
            f"together with the `.index`; {VERIFY}.",
        )
    )


def _as_zeros(computed: int) -> Explanation | None:
    from ckptparse.crc.flips import HIGHEST_CHANCE
    from ckptparse.crc.inversion import chance_of_zeros, find_zeros

    size = find_zeros(computed)
    if size is None or chance_of_zeros(size) > HIGHEST_CHANCE:
        return None
    return Explanation(
        "tensor.zeros",
        f"The bytes that were read are {size:,} zero bytes ({_elements(size)}). The index expects "
        "other values: the calculated checksum is that of zeros.",
        "The data file has a hole: space was reserved for it and never filled. Interrupted "
        "downloads and copies, sparse files, a full disk and a crash during the save leave such "
        "files. They have the right size.",
        "Download or copy the `.data-` file again. Compare its hash, not its size. "
        f"Tensors outside the hole are whole: {VERIFY}.",
    )


def _elements(size: int) -> str:
    return f"{size // 4:,} elements of 4 bytes" if size % 4 == 0 else f"{size} elements of 1 byte"


def _as_flipped_bit(stored: int, computed: int) -> Explanation | None:
    """Recognise one flipped bit near the end: the size is not known, so only there it counts."""
    from ckptparse.crc.flips import chance_of_bit, find_bit

    change = find_bit(stored, computed, _LARGEST_FOR_A_BIT)
    if change is None:
        return None
    from_end = _LARGEST_FOR_A_BIT - 1 - change.offset
    chance = chance_of_bit(from_end + 1)
    return Explanation(
        "tensor.checksum",
        f"The two checksums differ as if one bit had flipped: bit {change.bit} of the byte "
        f"{from_end:,} bytes before the tensor's end.",
        "A single flipped bit, as faulty memory or a faulty disk leaves it. The chance that other "
        f"damage looks like this is {chance_text(chance)}.",
        "`ckptparse.recover(path)` corrects it and proves the result with the checksum. Test the "
        "machine's memory and disk.",
    )


CHECKSUMS = (
    row(
        r"checksum does not match: stored (\d+) vs\.? calculated on the restored bytes:? (\d+)",
        _explain_checksum,
    ),
)
