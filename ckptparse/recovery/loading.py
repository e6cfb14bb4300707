"""What the caller gets of a mended tensor: its values, read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import numpy_dtype
from ckptparse.elements import allocate
from ckptparse.errors import CheckpointError, UnsupportedError
from ckptparse.examination.case import CheckedTensor, Part
from ckptparse.examination.outcome import Span
from ckptparse.examination.report import TensorReport
from ckptparse.files.context import Context
from ckptparse.limits import Budget
from ckptparse.recovery.mended import Mended
from ckptparse.recovery.opened import OpenedFiles
from ckptparse.recovery.recipe import read_payload
from ckptparse.recovery.result import Loaded, RecoveredTensor, describe

__all__ = ["MendedPart", "MendedTensor", "describe_tensor", "has_dtype"]


@dataclass(frozen=True, slots=True)
class MendedPart:
    """A part of a tensor, and what was got back of it."""

    part: Part
    mended: Mended


@dataclass(frozen=True, slots=True)
class MendedTensor:
    """A tensor, and what was got back of its parts."""

    checked: CheckedTensor
    parts: tuple[MendedPart, ...]
    report: TensorReport


def describe_tensor(
    one: MendedTensor, context: Context, opened: OpenedFiles
) -> RecoveredTensor | None:
    """Make the tensor that the caller gets; None if its elements have no numpy type."""
    dtype = _dtype_of(one.checked.data_type)
    if dtype is None:
        return None
    return describe(one.report, one.checked.data_type, dtype, _Loader(one, context, opened))


def _dtype_of(data_type: int) -> np.dtype[Any] | None:
    try:
        return numpy_dtype(data_type)
    except CheckpointError:
        return None


def has_dtype(data_type: int) -> bool:
    """Tell whether elements of this kind have a numpy type."""
    return _dtype_of(data_type) is not None


class _Loader:
    """Reads the values of a mended tensor."""

    __slots__ = ("_context", "_opened", "_tensor")

    def __init__(self, tensor: MendedTensor, context: Context, opened: OpenedFiles) -> None:
        self._tensor = tensor
        self._opened = opened
        # Progress counts the bytes of the recovery; reading comes after it.
        self._context = replace(context, progress=None) if context.progress else context

    def __call__(self) -> Loaded:
        one = self._tensor
        if one.checked.is_sliced:
            return self._load_slices(one)
        return self._load_part(one.parts[0], self._budget(one))

    def _load_slices(self, one: MendedTensor) -> Loaded:
        shape = one.checked.shape
        dtype = numpy_dtype(one.checked.data_type)
        budget = self._budget(one)
        count = math.prod(shape)
        budget.take(count * dtype.itemsize + _mask_bytes(count, dtype, one.parts))
        array = allocate(shape, dtype)
        array.fill(b"" if dtype.kind == "O" else 0)
        missing, suspect = np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
        for part in one.parts:
            region = part.part.region
            if region is None or part.mended.recipe is None:
                continue
            index = tuple(slice(length.start, length.stop) for length in region)
            loaded = self._load_part(part, None if dtype.kind != "O" else budget)
            array[index] = loaded.array
            missing[index] = False if loaded.missing is None else loaded.missing
            suspect[index] = False if loaded.suspect is None else loaded.suspect
        return Loaded(
            array,
            missing if missing.any() else None,
            suspect if suspect.any() else None,
        )

    def _budget(self, one: MendedTensor) -> Budget:
        """Begin to count what reading takes beyond the bytes that its files have."""
        return Budget(self._context.limits, _available(one.parts))

    def _load_part(self, part: MendedPart, budget: Budget | None) -> Loaded:
        """Read one payload, and tell which elements are missing and which look wrong."""
        payload, recipe = part.part.payload, part.mended.recipe
        if payload is None or recipe is None:
            raise UnsupportedError("No bytes of this tensor were got back")
        array = read_payload(recipe, payload, self._context, budget, self._opened)
        outcome = part.mended.outcome
        if outcome.status.proved:
            return Loaded(array)
        if budget is not None:
            budget.take(_mask_bytes(array.size, array.dtype, [part]))
        whole = ((0, array.size),)
        missing = None if outcome.ranges == whole else ~_mask(outcome.ranges, array)
        suspect = _mask(outcome.suspect, array) if outcome.suspect else None
        return Loaded(array, missing, suspect)


def _available(parts: Iterable[MendedPart]) -> int:
    return sum(part.mended.recipe.available for part in parts if part.mended.recipe)


def _mask_bytes(count: int, dtype: np.dtype[Any], parts: Iterable[MendedPart]) -> int:
    """Return what two masks take for those elements that no file holds."""
    return 2 * max(0, count - _available(parts) // dtype.itemsize)


def _mask(spans: Sequence[Span], array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(array.size, np.bool_)
    for start, stop in spans:
        mask[start:stop] = True
    return mask.reshape(array.shape)
