"""Tensors whose axes lie in another order in a container, as converters turn them.

    TFLite         dense [in, out] -> [out, in]; Conv2D HWIO -> OHWI; its transpose HWOI -> OHWI
    PyTorch        dense [in, out] -> [out, in]; Conv1D WIO -> OIW; Conv2D HWIO -> OIHW;
                   Conv3D DHWIO -> OIDHW; depthwise HWIM -> IMHW; attention [in, head, size] -> ...
    Fortran order  all axes turned round

Each order that a converter is known to use is tried, and the checksum of the original proves it.
Axes of one element change nothing, so that depthwise kernels of TFLite (1HWI) need no turning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range

__all__ = ["LARGEST", "TensorForm", "Turned", "TurnedFile", "orders_of", "turn_back"]

LARGEST = 1 << 28
"""Bytes of the largest tensor that is turned: it is held in memory twice, 512 MiB."""
_PIECE = 1 << 16
_ROWS = 16
"""Bytes and rows, at least, of a matrix that are turned at once. They stay in the processor's
cache: a large matrix takes half the time."""
_WIDTHS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}
"""Types for elements of some bytes. Bits are only moved."""
_ORDERS: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((1, 0),),
    3: tuple(permutations(range(3)))[1:],
    4: ((3, 0, 1, 2), (3, 2, 0, 1), (2, 3, 0, 1), (2, 0, 1, 3), (3, 2, 1, 0)),
    5: ((4, 3, 0, 1, 2), (4, 0, 1, 2, 3), (4, 3, 2, 1, 0)),
}
"""By rank: which axis of the tensor each axis in the container is."""


@dataclass(frozen=True, slots=True)
class TensorForm:
    """What a sought tensor is, besides its bytes.

    Attributes:
        shape: Its shape.
        width: Bytes of an element.
    """

    shape: tuple[int, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Turned:
    """How a tensor lies in a container.

    Attributes:
        form: What the tensor is.
        axes: Which axis of the tensor each axis in the container is.
    """

    form: TensorForm
    axes: tuple[int, ...]


def orders_of(form: TensorForm) -> Iterator[tuple[int, ...]]:
    """Iterate over the orders of axes to try: each changes the bytes, and none does it as another.

    Args:
        form: What the tensor is.
    """
    seen = {tuple(axis for axis, size in enumerate(form.shape) if size != 1)}
    for axes in _ORDERS.get(len(form.shape), ()) if form.width in _WIDTHS else ():
        effect = tuple(axis for axis in axes if form.shape[axis] != 1)
        if effect not in seen:
            seen.add(effect)
            yield axes


def turn_back(data: bytes | memoryview, turned: Turned) -> bytes:
    """Return the bytes of a tensor with its axes in their own order, from those in a container."""
    form, axes = turned.form, turned.axes
    elements: npt.NDArray[Any] = np.frombuffer(data, _WIDTHS[form.width])
    there = elements.reshape([form.shape[axis] for axis in axes])
    if there.ndim != 2:
        turned_back: bytes = there.transpose(np.argsort(axes)).tobytes()
        return turned_back
    own = np.empty(form.shape, there.dtype)
    rows = max(_ROWS, _PIECE // max(1, there[:1].nbytes))
    for start in range(0, len(there), rows):
        own[:, start : start + rows] = there[start : start + rows].T
    return own.tobytes()


@dataclass(frozen=True, slots=True)
class TurnedFile:
    """Opens a file with one tensor's axes in their own order.

    Attributes:
        turned: How the tensor lies there.
        offset: Where; it stays there.
        size: How many bytes.
        member: Opens the member of an archive that holds it; None: it is in the file itself.
    """

    turned: Turned
    offset: int
    size: int
    member: Callable[[Source], Source] | None = None

    def __call__(self, source: Source) -> Source:
        """Return the file with the tensor turned back; raises as reading it does."""
        there = source if self.member is None else self.member(source)
        own = turn_back(there.read_at(self.offset, self.size), self.turned)
        end = self.offset + self.size
        parts: Sequence[Range] = (
            Range(there, 0, self.offset),
            Range(MemorySource(there.path, own), 0, self.size),
            Range(there, end, there.size - end),
        )
        return JoinedSource(there.path, parts)
