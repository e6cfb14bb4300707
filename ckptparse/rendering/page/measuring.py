"""Statistics of every tensor of a page, by several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ckptparse.backend.small import SMALL, Sized, iter_batches, read_small
from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError
from ckptparse.files.context import Progress
from ckptparse.parallel import pick_threads, run_all
from ckptparse.recovery.result import RecoveredTensor
from ckptparse.statistics.gathering import Measured, measure
from ckptparse.statistics.together import measure_together

__all__ = ["HEAT", "measure_all"]

HEAT = (32, 32)
"""Blocks of a heat map at most."""
_HEAT_BYTES = 1400
"""What one heat map takes in the page, as base64."""
_HEAT_FIXED, _HEAT_EACH = 150_000, 10
"""Bytes that heat maps may take together: of a page, and more for each tensor in it."""
_ALWAYS = 16 << 20
"""Bytes that are measured whatever the files hold."""
_MOST_GROWTH = 4
"""A stored byte is measured so many times at most: tensors may share bytes, or repeat a value."""
_NO_STATISTICS = frozenset({DataType.DT_VARIANT})


def measure_all(
    tensors: Mapping[str, Any], *, stored: int, threads: int | None, progress: Progress | None
) -> dict[str, Measured]:
    """Measure every tensor that can be read; those that cannot are not in the result.

    Args:
        tensors: By name; their values are read piece by piece.
        stored: Bytes of all files together. A tensor that claims many more is not measured, nor
            are the largest that claim many more together: their slices leave holes, or constants
            repeat one value, and it would never end.
        threads: How many threads; None picks.
        progress: Takes the bytes measured so far, and those to measure.
    """
    sized = _choose_measured(tensors, stored)
    with_heat = _choose_heat_maps(sized)
    total = sum(one.nbytes for one in sized)
    found: dict[str, Measured] = {}
    lock = threading.Lock()
    done = 0

    def job(batch: Sequence[Sized]) -> Callable[[], None]:
        def run() -> None:
            nonlocal done
            for one, measured in _measure_batch(batch, with_heat):
                with lock:
                    if measured is not None:
                        found[one.name] = measured
                    done += one.nbytes
                    if progress is not None:
                        progress(done, total)

        return run

    run_all([job(batch) for batch in _divide(sized)], pick_threads(threads, total, share=1 << 22))
    return found


def _choose_measured(tensors: Mapping[str, Any], stored: int) -> list[Sized]:
    """Choose what is measured, the largest first: begun last, it would be waited for alone."""
    most, room = max(stored, _ALWAYS), max(_MOST_GROWTH * stored, _ALWAYS)
    sized = [Sized.of(name, tensor) for name, tensor in tensors.items()]
    sized.sort(key=lambda one: one.nbytes, reverse=True)
    total, first = sum(one.nbytes for one in sized), 0
    while first < len(sized) and (total > room or sized[first].nbytes > most):
        total -= sized[first].nbytes
        first += 1
    return sized[first:]


def _divide(sized: Sequence[Sized]) -> Iterator[Sequence[Sized]]:
    """Iterate over the work of one thread: a tensor, or many small ones."""
    large = [one for one in sized if one.nbytes > SMALL]
    yield from ([one] for one in large)
    yield from iter_batches(sized[len(large) :])


def _measure_batch(
    batch: Sequence[Sized], with_heat: Collection[str]
) -> Iterator[tuple[Sized, Measured | None]]:
    plain = [one for one in batch if one.name not in with_heat]
    small: dict[str, Any] = {}
    for one, array in zip(plain, read_small(plain), strict=True):
        known = _read_recovered(one) if array is None else array
        if known is not None:
            small[one.name] = known
    measured = measure_together(list(small.values()), histogram=True)
    together = dict(zip(small, measured, strict=True))
    for one in batch:
        found = together.get(one.name)
        if found is None:
            found = _measure(one.tensor, heat=one.name in with_heat)
        yield one, found


def _read_recovered(one: Sized) -> npt.NDArray[Any] | None:
    """Read a small tensor that was got back whole; None if it is to be measured by itself."""
    tensor = one.tensor
    if not isinstance(tensor, RecoveredTensor) or one.nbytes > SMALL:
        return None
    if tensor.data_type in _NO_STATISTICS or not tensor.status.proved:
        return None
    try:
        return tensor.read()
    except (CheckpointError, OSError):
        return None


def _measure(tensor: Any, *, heat: bool) -> Measured | None:
    if tensor.data_type in _NO_STATISTICS:
        return None
    try:
        return measure(tensor, histogram=True, heat_map=HEAT if heat else None)
    except (CheckpointError, OSError):
        # What is missing or damaged the report tells; here there is nothing to show.
        return None


def _choose_heat_maps(sized: Sequence[Sized]) -> set[str]:
    """Choose the largest matrices, as many as the page has room for."""
    room = (_HEAT_FIXED + _HEAT_EACH * len(sized)) // _HEAT_BYTES
    matrices = [
        (one.nbytes, one.name)
        for one in sized
        if len(one.tensor.shape) > 1
        and min(one.tensor.shape) > 0
        and one.tensor.data_type != DataType.DT_STRING
    ]
    return {name for _, name in sorted(matrices, reverse=True)[:room]}
