"""A block of a table whose checksum fails, put right: one bit flipped back, or copies put together.

The trailer is `type | crc`: the checksum covers the contents and the type byte (docs/format.md,
section 1.3). The flipped bit may also be one of the stored checksum itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptparse.coding.checksum import crc32c, mask_crc, unmask_crc
from ckptparse.crc.copies import Copy, merge_copies
from ckptparse.crc.flips import HIGHEST_CHANCE, chance_of_bit, find_bit, find_crc_bit
from ckptparse.errors import CheckpointError
from ckptparse.examination.carving import fixed32
from ckptparse.examination.resuming import Accept
from ckptparse.limits import Limits
from ckptparse.problems import EvidenceRule
from ckptparse.table.block import Block, BlockEntries
from ckptparse.table.format import TRAILER_SIZE, decompress_block

__all__ = ["CorrectedBlock", "correct_block", "merge_block"]

_WORTH_OFFERING = 0.5
"""A corrected bit is not offered if it is wrong more often than right."""
_CRC_BITS = 32
"""Bits of a stored checksum. That one of them is flipped fits any damage with 32 in 2^32."""


@dataclass(frozen=True, slots=True)
class CorrectedBlock:
    """A block that was put right.

    Attributes:
        entries: What it holds then.
        chance: Chance that it was another change.
        what: Which bit it was, or where the bytes are from, in words.
        change: Offset in the block, the bytes that stand there, and those that belong there.
        rule: What kind of evidence that is.
    """

    entries: BlockEntries
    chance: float
    what: str
    change: tuple[int, bytes, bytes]
    rule: EvidenceRule = EvidenceRule.CORRECTED_ENTRY


def correct_block(stored: bytes, accept: Accept, limits: Limits) -> CorrectedBlock | None:
    """Return what a block holds with the one flipped bit corrected that explains the checksum.

    Args:
        stored: The block as stored, with its trailer.
        accept: Tells whether a key and a value look right: all in the corrected block must.
        limits: Bounds on what is decompressed.

    Returns:
        None if no single bit explains it, or if that is wrong more often than right.
    """
    size = len(stored) - TRAILER_SIZE
    # The type byte is covered by the checksum too, so the flipped bit may be in it: size + 1.
    masked = fixed32(stored, size + 1)
    computed = crc32c(memoryview(stored)[: size + 1])
    fixed, what = stored, "one bit of the stored checksum is flipped"
    chance = _CRC_BITS / 2**32
    right = mask_crc(computed).to_bytes(4, "little")
    changed = size + 1, stored[size + 1 : size + 5], right
    if not find_crc_bit(masked, mask_crc(computed)):
        change = find_bit(unmask_crc(masked), computed, size + 1)
        chance = chance_of_bit(size + 1)
        if change is None or chance > _WORTH_OFFERING:
            return None
        fixed = change.apply(stored)
        what = f"bit {change.bit} of byte {change.offset} is flipped"
        part = slice(change.offset, change.offset + len(change.mask))
        changed = change.offset, stored[part], fixed[part]
    entries = _sound_entries(fixed, size, accept, limits)
    return None if entries is None else CorrectedBlock(entries, chance, what, changed)


def merge_block(
    stored: bytes, others: Sequence[bytes], offset: int, accept: Accept, limits: Limits
) -> CorrectedBlock | None:
    """Return what a block holds, put together from damaged copies so that its checksum agrees.

    Args:
        stored: The block as stored, with its trailer.
        others: The bytes at its place in other indexes. Those of another checksum are not used:
            they are another save's, or their checksum is damaged.
        offset: Where it lies in its file.
        accept: Tells whether a key and a value look right: all in the block must.
        limits: Bounds on what is decompressed.

    Returns:
        None if no choice of sectors makes it agree, or too many were tried.
    """
    covered = len(stored) - TRAILER_SIZE + 1
    trailer = stored[covered:]
    same = [other for other in others if other[covered:] == trailer]
    if not same:
        return None
    copies = [Copy(one[:covered]) for one in (stored, *same)]
    merged = merge_copies(copies, unmask_crc(fixed32(stored, covered)), offset=offset)
    if merged is None or merged.chance > HIGHEST_CHANCE:
        return None
    fixed = merged.build(copies) + trailer
    entries = _sound_entries(fixed, covered - 1, accept, limits)
    if entries is None:
        return None
    differing = [
        at for at, (one, other) in enumerate(zip(stored, fixed, strict=True)) if one != other
    ]
    part = slice(differing[0], differing[-1] + 1) if differing else slice(0, 0)
    what = "with bytes of a damaged copy it agrees"
    chance = max(merged.chance, 2.0**-32)
    return CorrectedBlock(
        entries, chance, what, (part.start, stored[part], fixed[part]), EvidenceRule.MERGED
    )


def _sound_entries(stored: bytes, size: int, accept: Accept, limits: Limits) -> BlockEntries | None:
    """Return the entries of a corrected block if every one of them follows the rules."""
    try:
        contents = decompress_block(stored[:size], stored[size], limits=limits, path="", offset=0)
        decoded = Block.from_bytes(contents).decode_entries(limits=limits)
    except CheckpointError:
        return None
    values = zip(decoded.keys, decoded.starts, decoded.ends, strict=True)
    if all(accept(key, contents[start:stop]) for key, start, stop in values):
        return decoded
    return None
