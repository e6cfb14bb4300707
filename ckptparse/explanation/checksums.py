"""Messages about a tensor's checksum: what their two numbers say.

If the computed checksum is that of n zero bytes, the file has a hole. If the two differ like one
flipped bit near the end, it is that bit.
"""

from __future__ import annotations

import re

from ckptparse.explanation.value import VERIFY, Explanation, row
from ckptparse.text import chance_text

__all__ = ["CHECKSUMS"]

_LARGEST_FOR_A_BIT = 1 << 19
"""Bytes from the tensor's end in which a flipped bit is named. They have 2^22 bits, so other damage
looks like one of them 1 in 1,024; with more bytes, more often."""


def _explain_checksum(match: re.Match[str]) -> Explanation:
    """Explain "Checksum does not match: stored A vs. calculated on the restored bytes B"."""
    stored, computed = (int(number) & 0xFFFFFFFF for number in match.groups())
    return (
        _as_zeros(computed)
        or _as_flipped_bit(stored, computed)
        or Explanation(
            "tensor.checksum",
            "The checksum of a tensor's bytes in the data file is not the one that the index "
            "stores.",
            "The data file was damaged after it was written. Or it and the index come from "
            "different saves (a copy that was interrupted, or made during a save).",
            "Compare the size and hash of the `.data-` file with the original. Copy it again "
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
        f"The bytes that were read are {size:,} zero bytes ({_elements(size)}): the calculated "
        "checksum is that of zeros. The index expects other values.",
        "The data file has a hole: space was reserved and never filled. Interrupted downloads and "
        "copies, sparse files, a full disk and a crash during the save leave such files. They have "
        "the right size.",
        "Download or copy the `.data-` file again. Compare its hash, not its size. "
        f"Tensors outside the hole are whole: {VERIFY}.",
    )


def _elements(size: int) -> str:
    return f"{size // 4:,} elements of 4 bytes" if size % 4 == 0 else f"{size} elements of 1 byte"


def _as_flipped_bit(stored: int, computed: int) -> Explanation | None:
    """Recognise one flipped bit near the end. The tensor's size is not known, so only there."""
    from ckptparse.crc.flips import chance_of_bit, find_bit

    change = find_bit(stored, computed, _LARGEST_FOR_A_BIT)
    if change is None:
        return None
    from_end = _LARGEST_FOR_A_BIT - 1 - change.offset
    chance = chance_of_bit(from_end + 1)
    return Explanation(
        "tensor.checksum",
        f"The two checksums differ as if one bit was flipped: bit {change.bit} of the byte "
        f"{from_end:,} bytes before the tensor's end.",
        "One flipped bit: bad memory or a bad disk causes this. The chance that other damage looks "
        f"like this is {chance_text(chance)}.",
        "`ckptparse.recover(path)` flips it back and checks the result with the checksum. Test "
        "the machine's memory and disk.",
    )


CHECKSUMS = (
    row(
        r"checksum does not match: stored (\d+) vs\.? calculated on the restored bytes:? (\d+)",
        _explain_checksum,
    ),
)
