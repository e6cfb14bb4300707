"""Which elements of a tensor in slices are present, from those of its slices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ckptparse.examination.outcome import Span, merge_spans
from ckptparse.tensor import Region

__all__ = ["spans_of_parts"]

_MOST_MASKED = 1 << 28
"""Elements of a tensor at most, if its slices do not lie end to end: which of them are present is
found with a mask of one byte each, here 256 MiB. Of a larger tensor no ranges are listed."""
_MASK_PIECE = 1 << 20
"""Bytes of such a mask that are looked at together."""


def spans_of_parts(
    parts: Iterable[tuple[Region | None, tuple[Span, ...]]], shape: tuple[int, ...]
) -> tuple[Span, ...]:
    """Return which elements of a sliced tensor are present, from those of its regions."""
    present = [(region, ranges) for region, ranges in parts if region is not None and ranges]
    if all(_is_slab(region, shape) for region, _ in present):
        row = math.prod(shape[1:])
        return merge_spans(
            [
                (region[0].start * row + start, region[0].start * row + stop)
                for region, ranges in present
                for start, stop in ranges
            ]
        )
    return _spans_by_mask(present, shape)


def _is_slab(region: Region, shape: tuple[int, ...]) -> bool:
    return all(len(part) == size for part, size in zip(region[1:], shape[1:], strict=True))


def _spans_by_mask(
    present: Sequence[tuple[Region, tuple[Span, ...]]], shape: tuple[int, ...]
) -> tuple[Span, ...]:
    if math.prod(shape) > _MOST_MASKED:
        return ()
    mask = np.zeros(shape, np.int8)
    for region, ranges in present:
        index = tuple(slice(part.start, part.stop) for part in region)
        count = math.prod(map(len, region))
        if ranges == ((0, count),):
            mask[index] = 1
            continue
        local = np.zeros(count, np.int8)
        for start, stop in ranges:
            local[start:stop] = 1
        mask[index] = local.reshape(tuple(map(len, region)))
    return _spans_of_mask(mask.reshape(-1))


def _spans_of_mask(mask: npt.NDArray[np.int8]) -> tuple[Span, ...]:
    """Return where a mask is 1, looking at a piece at a time."""
    spans: list[Span] = []
    for low in range(0, len(mask), _MASK_PIECE):
        edges = np.flatnonzero(np.diff(mask[low : low + _MASK_PIECE], prepend=0, append=0)) + low
        spans += zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return merge_spans(spans)
