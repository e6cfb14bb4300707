"""Tell whether data files that were cut off are of the run of another checkpoint.

Any data file that is shorter fits the other's layout. From one save of a run to the next weights
change little: elements at the same place in both belong together. Of another model, or further on
by some bytes, they do not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.payload import PartName
from ckptparse.examination.readers import DataFile
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.recovery.other_indexes import OtherIndexes
from ckptparse.recovery.rebuild.fit import Fit, Placed
from ckptparse.recovery.rebuild.layout import Rule

__all__ = ["is_near"]

_STORED = {DataType.DT_FLOAT: "<f4", DataType.DT_DOUBLE: "<f8", DataType.DT_HALF: "<f2"}
_LEAST_ELEMENTS, _MOST_BYTES = 64, 1 << 16
"""Elements of a tensor that is compared at least, and bytes of it at most: elements of unrelated
tensors correlate by more than half once in 10,000 times."""
_MOST_COMPARED = 96
"""Tensors that are compared, spread over all."""
_CORRELATED = 0.5
_PARTS, _SHARE = 3, 1 / 4
"""In each of so many parts of what is there, at least this share of the tensors must be near: means
of gradients are not, squares and weights are."""


def is_near(fit: Fit, paths: list[str], case: Case, others: OtherIndexes) -> bool:
    """Tell whether what a layout says lies in data files is near to the values it is taken from.

    Args:
        fit: The layout, applied to data files that were cut off.
        paths: The data files.
        case: The checkpoint.
        others: Opens the one whose index gave the layout.
    """
    if fit.layout.rule is not Rule.STAND_IN:
        return False
    try:
        other = others.open(fit.layout.source.removesuffix(INDEX_SUFFIX))
        found = [_correlate(*pair) for pair in _pairs(fit, paths, case, other)]
    except CheckpointError:
        return False
    size = -(-len(found) // _PARTS)
    parts = [found[start : start + size] for start in range(0, len(found), size)] if size else []
    return len(parts) == _PARTS and all(
        sum(one >= _CORRELATED for one in part) >= _SHARE * len(part) for part in parts
    )


def _pairs(
    fit: Fit, paths: list[str], case: Case, other: Case
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Iterate over tensors that are whole in the data files, as they are there and in the other."""
    if other.main is None:
        return
    theirs = dict(other.main.iter_payloads({one.payload.name for one in fit.placed}))
    usable = [one for one in fit.placed if _is_usable(one, paths, case)]
    for one in usable[:: max(1, len(usable) // _MOST_COMPARED)]:
        payload = theirs.get(PartName(one.payload.name, one.payload.piece))
        if payload is None or payload.size != one.size:
            continue
        size = min(one.size, _MOST_BYTES)
        stored = _STORED[DataType(one.payload.data_type or 0)]
        own = case.files.read(DataFile(paths[one.shard]), one.offset, size)
        lent = other.files.read(payload.file, payload.offset, size)
        if len(own) == len(lent) == size:
            yield _numbers(own, stored), _numbers(lent, stored)


def _numbers(data: memoryview, stored: str) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):  # Bytes that were damaged may be numbers that warn.
        return np.frombuffer(data, stored).astype(np.float64)


def _is_usable(one: Placed, paths: list[str], case: Case) -> bool:
    stored = _STORED.get(DataType(one.payload.data_type or 0))
    there = case.files.size(DataFile(paths[one.shard])) or 0
    return (
        stored is not None
        and one.size >= _LEAST_ELEMENTS * np.dtype(stored).itemsize
        and one.offset + one.size <= there
    )


def _correlate(own: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the correlation of two runs of elements; 0 if there is none."""
    both = np.isfinite(own) & np.isfinite(other)
    with np.errstate(all="ignore"):
        if both.mean() < _CORRELATED or not own[both].std() or not other[both].std():
            return 0.0
        found = float(np.corrcoef(own[both], other[both])[0, 1])
    return found if np.isfinite(found) else 0.0
