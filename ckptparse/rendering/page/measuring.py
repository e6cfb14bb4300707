"""Statistics of every tensor of a page, by several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError
from ckptparse.files.context import Progress
from ckptparse.parallel import pick_threads, run_all
from ckptparse.statistics.gathering import Measured, measure

__all__ = ["HEAT", "measure_all"]

HEAT = (32, 32)
"""Blocks of a heat map at most."""
_HEAT_BYTES = 1400
"""What one heat map takes in the page, as base64."""
_HEAT_FIXED, _HEAT_EACH = 150_000, 10
"""Bytes that heat maps may take together: of a page, and more for each tensor in it."""
_ALWAYS = 64 << 20
"""Bytes of a tensor that is measured whatever its files hold."""
_NO_STATISTICS = frozenset({DataType.DT_VARIANT})


def measure_all(
    tensors: Mapping[str, Any], *, stored: int, threads: int | None, progress: Progress | None
) -> dict[str, Measured]:
    """Measure every tensor that can be read; those that cannot are not in the result.

    Args:
        tensors: By name; their values are read piece by piece.
        stored: Bytes of all files together. A tensor that claims many more is not measured: its
            slices leave holes, or a constant repeats one value, and it would never end.
        threads: How many threads; None picks.
        progress: Takes the bytes measured so far, and those to measure.
    """
    most = max(stored, _ALWAYS)
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.nbytes <= most}
    with_heat = _choose_heat_maps(tensors.items())
    total = sum(tensor.nbytes for tensor in tensors.values())
    found: dict[str, Measured] = {}
    lock = threading.Lock()
    done = 0

    def job(name: str) -> Callable[[], None]:
        def run() -> None:
            nonlocal done
            tensor = tensors[name]
            measured = _measure(tensor, heat=name in with_heat)
            with lock:
                if measured is not None:
                    found[name] = measured
                done += tensor.nbytes
                if progress is not None:
                    progress(done, total)

        return run

    # The largest first: one that is begun last would be waited for alone.
    names = sorted(tensors, key=lambda name: tensors[name].nbytes, reverse=True)
    run_all([job(name) for name in names], pick_threads(threads, total, share=1 << 22))
    return found


def _measure(tensor: Any, *, heat: bool) -> Measured | None:
    if tensor.data_type in _NO_STATISTICS:
        return None
    try:
        return measure(tensor, histogram=True, heat_map=HEAT if heat else None)
    except (CheckpointError, OSError):
        # What is missing or damaged the report tells; here there is nothing to show.
        return None


def _choose_heat_maps(tensors: Iterable[tuple[str, Any]]) -> set[str]:
    """Choose the largest matrices, as many as the page has room for."""
    listed = list(tensors)
    room = (_HEAT_FIXED + _HEAT_EACH * len(listed)) // _HEAT_BYTES
    matrices = [
        (tensor.nbytes, name)
        for name, tensor in listed
        if len(tensor.shape) > 1
        and min(tensor.shape) > 0
        and tensor.data_type != DataType.DT_STRING
    ]
    return {name for _, name in sorted(matrices, reverse=True)[:room]}
