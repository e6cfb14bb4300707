"""Find what looks wrong in a tensor whose checksum is not known.

Nothing says that it is damaged. So of the pieces that do not look like the rest (`statistics`),
only those count that no tensor holds rightly: a part of a model that training has shrunk to 1e-30,
beside one that it has not, is as it was. In noise, in text and in bytes that are shifted there are
many numbers beyond 2^80; in weights, slots and sums there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, item_size
from ckptparse.examination.outcome import Span, merge_spans
from ckptparse.recovery.statistics import SECTOR, judge_elements

__all__ = ["has_wild_elements", "judge_unchecked"]

_SHARE = 0.5
"""Of the numbers that noise has beyond the bound, how many a piece must have. Of 128 random float32
24 are beyond it on average, and fewer than 12 in 1 of 890 pieces."""
_VARIED = 0.25
"""Of the elements of a piece, how many different highest bytes of integers it must have. Noise has
57 in 64 elements, and 222 in 512; fill values, signs and small numbers have a few."""
_PIECE = 1 << 20
"""Bytes that are looked at together."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Bound:
    """Beyond which numbers are wild.

    Attributes:
        bits: Of one number.
        shift: Bits below the exponent.
        lowest: The least exponent that is wild.
        highest: The exponent of infinities, which may be right: training ends in them at times.
    """

    bits: int
    shift: int
    lowest: int
    highest: int

    @property
    def share(self) -> float:
        """Of noise, how much is wild."""
        return (self.highest - self.lowest) / (self.highest + 1)


_BOUNDS: dict[int, _Bound] = {
    DataType.DT_FLOAT: _Bound(32, 23, 127 + 80, 255),
    DataType.DT_COMPLEX64: _Bound(32, 23, 127 + 80, 255),
    DataType.DT_BFLOAT16: _Bound(16, 7, 127 + 80, 255),
    DataType.DT_HALF: _Bound(16, 10, 15 + 11, 31),
    DataType.DT_DOUBLE: _Bound(64, 52, 1023 + 80, 2047),
    DataType.DT_COMPLEX128: _Bound(64, 52, 1023 + 80, 2047),
}
"""Of float16, which ends at 2^16, those from 2^11 on."""


def has_wild_elements(
    data: memoryview | bytes, data_type: int, *, big_endian: bool = False
) -> bool:
    """Tell quickly whether `judge_unchecked` may find anything: it does not if this is False.

    Takes 1 ms for each MiB.
    """
    bound = _BOUNDS.get(data_type)
    if bound is None:
        # Of one byte, most values are right: only bools have but two.
        return (item_size(data_type) or 1) > 1 or data_type == DataType.DT_BOOL
    values = np.frombuffer(data, _unsigned(bound, big_endian=big_endian))
    return any(
        bool(_is_wild(values[start : start + _PIECE], bound).any())
        for start in range(0, len(values), _PIECE)
    )


def judge_unchecked(
    data: memoryview | bytes, data_type: int, *, offset: int = 0, big_endian: bool = False
) -> tuple[Span, ...]:
    """Find the elements that look wrong in a tensor without a checksum.

    Args:
        data: All its bytes, as stored; whole elements.
        data_type: DataType number.
        offset: Their offset in the file: pieces of 512 bytes are counted from the file's start.
        big_endian: Byte order of the elements.

    Returns:
        Ranges of elements (start, stop), sorted, not touching.
    """
    if not has_wild_elements(data, data_type, big_endian=big_endian):
        return ()
    found = judge_elements(data, data_type, offset=offset, big_endian=big_endian).suspect
    width = item_size(data_type) or 1
    bound = _BOUNDS.get(data_type)
    kept = []
    for start, stop in _pieces(found, width, offset):
        piece = data[start * width : stop * width]
        if bound is None:
            wrong = _varies(piece, width, big_endian=big_endian)
        else:
            values = np.frombuffer(piece, _unsigned(bound, big_endian=big_endian))
            wild = int(np.count_nonzero(_is_wild(values, bound)))
            wrong = wild >= max(1, _SHARE * bound.share * len(values))
        if wrong:
            kept.append((start, stop))
    return merge_spans(kept)


def _pieces(spans: tuple[Span, ...], width: int, offset: int) -> Iterator[Span]:
    """Cut ranges of elements at the borders between sectors of the file."""
    for start, stop in spans:
        at = start
        while at < stop:
            border = SECTOR - (offset + at * width) % SECTOR
            following = min(stop, at + max(1, -(-border // width)))
            yield at, following
            at = following


@cache
def _unsigned(bound: _Bound, *, big_endian: bool) -> np.dtype[Any]:
    return np.dtype(f"{'>' if big_endian else '<'}u{bound.bits // 8}")


def _is_wild(values: Array, bound: _Bound) -> npt.NDArray[np.bool_]:
    """Tell which numbers lie beyond the bound, and are no infinity and no NaN."""
    magnitudes = values & ((1 << bound.bits - 1) - 1)
    wild: npt.NDArray[np.bool_] = magnitudes >= bound.lowest << bound.shift
    wild &= magnitudes < bound.highest << bound.shift
    return wild


def _varies(piece: memoryview | bytes, width: int, *, big_endian: bool) -> bool:
    """Tell whether the highest bytes of integers are as different as those of noise."""
    highest = np.frombuffer(piece, np.uint8)[0 if big_endian else width - 1 :: width]
    return len(np.unique(highest)) >= max(2, _VARIED * min(len(highest), 1 << 8))
