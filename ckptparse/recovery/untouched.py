"""A checkpoint that is whole: nothing is to be mended, and values are read where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy.typing as npt

from ckptparse.dtypes import numpy_dtype
from ckptparse.elements import allocate
from ckptparse.errors import CheckpointError
from ckptparse.examination.intact import IntactTensors
from ckptparse.examination.payload import Payload
from ckptparse.examination.report import Report, TensorReport
from ckptparse.files.context import Context
from ckptparse.limits import Budget
from ckptparse.recovery.mended import recipe_of
from ckptparse.recovery.recipe import read_payload
from ckptparse.recovery.result import Loaded, RecoveredTensor, Recovery, describe

__all__ = ["leave_untouched"]


def leave_untouched(report: Report, context: Context) -> Recovery | None:
    """Make the recovery of a checkpoint that `find_intact` found whole.

    None if it holds elements that no array can hold here: the long way leaves them out.
    """
    tensors = report.tensors
    if not isinstance(tensors, IntactTensors):
        return None
    try:
        for data_type in tensors.data_types:
            numpy_dtype(data_type)
    except CheckpointError:
        return None
    held = _Held(tensors, replace(context, progress=None))
    graph = report.object_graph
    known = None if graph is None else held.describe(graph)
    return Recovery(report, held, known, limits=context.limits)


class _Held(Mapping[str, RecoveredTensor]):
    """Tensors that are described when they are asked for."""

    def __init__(self, tensors: IntactTensors, context: Context) -> None:
        self._tensors = tensors
        self._context = context

    def __getitem__(self, name: str) -> RecoveredTensor:
        return self.describe(self._tensors[name])

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def describe(self, report: TensorReport) -> RecoveredTensor:
        """Describe one tensor."""
        data_type = self._tensors.data_type(report.name)
        load = partial(self._load, report, data_type)
        return describe(report, data_type, numpy_dtype(data_type), load)

    def _load(self, report: TensorReport, data_type: int) -> Loaded:
        parts = self._tensors.parts(report.name)
        if parts[0][0] is None:
            return Loaded(self._read(parts[0][1]))
        shape, dtype = report.shape or (), numpy_dtype(data_type)
        held = sum(payload.size for _, payload in parts)
        Budget(self._context.limits, held).take(math.prod(shape) * dtype.itemsize)
        array = allocate(shape, dtype)
        for region, payload in parts:
            index = tuple(slice(one.start, one.stop) for one in region or ())
            array[index] = self._read(payload)
        return Loaded(array)

    def _read(self, payload: Payload) -> npt.NDArray[Any]:
        return read_payload(recipe_of(payload), payload, self._context)
