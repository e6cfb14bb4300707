"""`NAME[ROWS]` as it is typed: which tensor, and which part of it; patterns that match nothing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

import ckptparse
from ckptparse.cli.errors import UsageError
from ckptparse.text import escape, unescape

__all__ = ["Part", "Selection", "find_tensor", "pattern_not_found"]

Index = tuple[int | slice | EllipsisType, ...]
_SUFFIX = re.compile(r"(?s)(?P<name>.+)\[(?P<index>[^\[\]]*)\]")
_PART = re.compile(
    r"(?P<start>-?\d{1,18})?(?P<colon>:(?P<stop>-?\d{1,18})?(?::(?P<step>-?\d{1,18})?)?)?"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """A tensor, and the part of it that is wanted; all of it if the index is None."""

    key: str
    tensor: ckptparse.Tensor
    index: Index | None = None


class Part:
    """A part of a tensor that is read piece by piece, as the tensor itself is."""

    def __init__(self, tensor: ckptparse.Tensor, index: Index) -> None:
        """Find the shape of the part; nothing is read.

        Raises:
            IndexError: An integer is out of bounds, or there are too many.
        """
        self.name, self.data_type, self.dtype = tensor.name, tensor.data_type, tensor.dtype
        self._tensor, self._index = tensor, index
        self.shape: tuple[int, ...] = np.broadcast_to(np.int8(0), tensor.shape)[index].shape
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._axes = _axes_of(index, tensor.shape)

    def read(self) -> npt.NDArray[Any]:
        """Read the whole part."""
        return np.asarray(self._tensor[self._index])

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part of it, given by slices: what the same slices of an array would be."""
        slices = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in slices:
            slices.remove(Ellipsis)
        wanted: list[int | slice] = []
        for axis in self._axes:
            if isinstance(axis, int):
                wanted.append(axis)
                continue
            places = axis[slices.pop(0)] if slices else axis
            stop = None if places.stop < 0 else places.stop
            wanted.append(slice(places.start, stop, places.step))
        return self._tensor[tuple(wanted)]


def _axes_of(index: Index, shape: tuple[int, ...]) -> list[int | range]:
    """Say for each axis which of its places are wanted: one, or a range."""
    given = list(index)
    place = given.index(Ellipsis) if Ellipsis in given else len(given)
    all_of_it = [slice(None)] * (len(shape) - len(given) + (Ellipsis in given))
    given[place : place + 1] = all_of_it
    return [
        range(size)[part] if isinstance(part, slice) else range(size)[int(part)]
        for part, size in zip(given, shape, strict=True)
        if part is not Ellipsis
    ]


def find_tensor(checkpoint: ckptparse.Checkpoint, text: str) -> Selection:
    """Find what `NAME` or `NAME[ROWS]` means; a name that ends in brackets itself comes first.

    Raises:
        TensorNotFoundError: There is no such tensor.
        UsageError: What stands in the brackets is no index.
    """
    found = _find_name(checkpoint, text)
    if found is not None:
        return Selection(found, checkpoint[found])
    parts = _SUFFIX.fullmatch(text)
    if parts is None:
        return Selection(text, checkpoint[text])
    name = _find_name(checkpoint, parts["name"]) or parts["name"]
    tensor = checkpoint[name]
    return Selection(name, tensor, _parse_index(parts["index"]))


def _find_name(checkpoint: ckptparse.Checkpoint, text: str) -> str | None:
    """Take a name as it is stored, or as it is printed."""
    return next((name for name in (text, unescape(text)) if name in checkpoint), None)


def _parse_index(text: str) -> Index:
    return tuple(_parse_part(part.strip()) for part in text.split(","))


def _parse_part(text: str) -> int | slice | EllipsisType:
    if text == "...":
        return Ellipsis
    parts = _PART.fullmatch(text.replace(" ", ""))
    if not text or parts is None:
        raise UsageError(
            f"Expected an index such as [3], [0:10], [:, 2] or [..., ::2], found '{text}' in it"
        )
    start, stop, step = (
        None if parts[name] is None else int(parts[name]) for name in ("start", "stop", "step")
    )
    if parts["colon"] is None:
        return int(text)
    if step == 0:
        raise UsageError("A step of 0 selects nothing")
    return slice(start, stop, step)


def pattern_not_found(
    message: str, glob: str, *, path: str, closest: tuple[str, ...] = ()
) -> ckptparse.TensorNotFoundError:
    """Return the error for a pattern that no name matches."""
    hint = None
    if not closest and "*" not in glob:
        hint = f"A pattern must match a whole name: '*{escape(glob)}*' for a part of it"
    return ckptparse.TensorNotFoundError(
        message, closest=closest, tensor=glob, path=path, hint=hint
    )
