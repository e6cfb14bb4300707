"""A tensor of a recovery as it is written: whole, with something in its holes."""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.content import Content, content_of_array
from ckptparse.dtypes import DataType
from ckptparse.elements import is_masked
from ckptparse.errors import CheckpointError, UnsupportedError
from ckptparse.examination.outcome import Span, merge_spans
from ckptparse.recovery.result import RecoveredTensor
from ckptparse.tensor_like import WrappedTensor

__all__ = ["Chosen", "Mask"]


class Chosen(WrappedTensor[RecoveredTensor]):
    """A tensor of a recovery as it is written: whole, with something in its holes."""

    def __init__(self, tensor: RecoveredTensor, fill: Any, *, keep_suspect: bool) -> None:
        super().__init__(tensor)
        self._fill = fill
        self._keep = keep_suspect
        self.failure: str | None = None
        """Why it cannot be read any more."""
        self.digest = ""
        """SHA-256 of its bytes as they were read last."""

    @property
    def name(self) -> str:
        """See `TensorLike`."""
        return self._tensor.name

    @property
    def filled(self) -> tuple[Span, ...]:
        """The elements that are filled: those that are missing, and unless kept the suspect."""
        outcome = self._tensor.outcome
        if outcome.status.proved:
            return ()
        gaps, position = [], 0
        for start, stop in outcome.ranges:
            gaps.append((position, start))
            position = stop
        gaps.append((position, math.prod(self.shape)))
        return merge_spans([*gaps, *(() if self._keep else outcome.suspect)])

    @property
    def is_empty(self) -> bool:
        """Whether every element of it would be filled."""
        count = math.prod(self.shape)
        return count > 0 and self.filled == ((0, count),)

    def read(self) -> npt.NDArray[Any]:
        """Read the whole, filled.

        Raises:
            CheckpointError: A file has changed since it was recovered.
        """
        return self._read()[0]

    def content(self) -> Content:
        """Read the whole, filled, as the bytes of a data file; see `bundle.content.Streamed`."""
        return self._read()[1]

    def _read(self) -> tuple[npt.NDArray[Any], Content]:
        array, mask = self.read_masked()
        if mask is not None:
            array[mask] = self._fill_for(array.dtype)
        content = content_of_array(array, self.data_type)
        digest = sha256()
        content.write_to(digest.update)
        self.digest = digest.hexdigest()
        return array, content

    def read_masked(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Read the values, and where they are none."""
        try:
            array = self._tensor.read(keep_suspect=self._keep)
        except CheckpointError as error:
            self.failure = str(error)
            raise
        if not is_masked(array):
            return array, None
        return np.asarray(array.data), np.ma.getmaskarray(array)

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part."""
        return self.read()[index]

    def _fill_for(self, dtype: np.dtype[Any]) -> Any:
        """Return what stands in the holes of a tensor of some type."""
        if self.data_type == DataType.DT_VARIANT:
            from ckptparse.tensor_proto import Variant

            return Variant()
        if dtype.kind == "O":
            return self._fill if isinstance(self._fill, bytes) else b""
        number = 0 if isinstance(self._fill, bytes) else self._fill
        try:
            if dtype.kind == "b" or "int" in dtype.name:
                return _whole_number(number, dtype)
            return dtype.type(number)
        except (TypeError, ValueError, OverflowError) as error:
            raise UnsupportedError(
                f"A tensor of {dtype} cannot have the value {self._fill!r}: {error}",
                tensor=self.name,
                hint="Choose another value to fill with, such as 0",
            ) from error


def _whole_number(number: Any, dtype: np.dtype[Any]) -> Any:
    """Return a number in a dtype without fractions and NaN; NaN becomes zero.

    Raises:
        OverflowError: The type has no such number.
    """
    whole = int(number) if math.isfinite(number) else 0
    if dtype.kind == "b":
        return bool(whole)
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= whole <= np.iinfo(dtype).max:
        raise OverflowError(f"{whole} is outside its range")
    return dtype.type(whole)


class Mask:
    """Where a tensor was filled, as a tensor of its own."""

    data_type = DataType.DT_BOOL
    dtype = np.dtype(np.bool_)

    def __init__(self, name: str, tensor: Chosen) -> None:
        self.name = name
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See `TensorLike`."""
        return self._tensor.shape

    @property
    def nbytes(self) -> int:
        """See `TensorLike`."""
        return math.prod(self.shape)

    def read(self) -> npt.NDArray[np.bool_]:
        """Read the whole."""
        mask = self._tensor.read_masked()[1]
        return np.zeros(self.shape, np.bool_) if mask is None else mask

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part."""
        return self.read()[index]
