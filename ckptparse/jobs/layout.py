"""How a tensor lies in PyTorch, next to how it lies in TensorFlow: axes, and blocks of the last.

    dense              (in, out)              -> (out, in)
    convolution        (..., in, out)         -> (out, in, ...)
    transposed conv.   (..., out, in)         -> (in, out, ...)
    depthwise conv.    (h, w, in, multiplier) -> (in * multiplier, 1, h, w)
    a GRU's gates      z, r, h                -> r, z, n

Embeddings, biases and the like lie alike in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Layout", "convolution", "dense", "depthwise", "matrix", "reorder_gates"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What is done with a tensor's axes, and why.

    Attributes:
        axes: The order of the axes; None: they stay.
        why: In a few words.
        joined: How many axes of the turned tensor become one, for each of the result; None: each
            stays one.
        single: Whether an axis of 1 then stands second.
        gates: The order of the equal blocks that the last axis consists of, before axes are turned;
            empty: they stay.
        unknown: Whether nothing tells how the axes are to lie, and they are as they were.
        odd: Whether it is known that PyTorch has it in another way, which no order gives.
    """

    axes: tuple[int, ...] | None
    why: str
    joined: tuple[int, ...] | None = None
    single: bool = False
    gates: tuple[int, ...] = ()
    unknown: bool = False
    odd: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether the tensor stays as it is."""
        return self.axes is None and not self.gates

    def turned(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape once the axes have changed places, and before some are joined."""
        return shape if self.axes is None else tuple(shape[axis] for axis in self.axes)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what a tensor of that shape becomes."""
        turned = self.turned(shape)
        if self.joined is None:
            return turned
        sizes: list[int] = []
        for count in self.joined:
            sizes.append(math.prod(turned[:count]))
            turned = turned[count:]
        return (sizes[0], 1, *sizes[1:]) if self.single else tuple(sizes)

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an array with its axes turned, and none joined yet: a view, unless gates move."""
        array = reorder_gates(array, self.gates)
        return array if self.axes is None else array.transpose(self.axes)

    @property
    def text(self) -> str:
        """What is done, for people."""
        if self.is_idle:
            return f"as it is: {self.why}"
        parts = [] if self.axes is None else [f"axes ({','.join(map(str, self.axes))})"]
        if self.gates:
            parts.append(f"gates ({','.join(map(str, self.gates))})")
        if self.joined is not None:
            parts.append("some joined")
        return f"{', '.join(parts)}: {self.why}"


def reorder_gates(array: npt.NDArray[Any], gates: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an array whose last axis has its equal blocks in that order; itself if there is none.

    Args:
        array: The array; as many blocks as there are gates make up its last axis.
        gates: Which block of the array stands first, second, and so on.
    """
    if not gates:
        return array
    blocks = np.split(array, len(gates), axis=-1)
    return np.concatenate([blocks[gate] for gate in gates], axis=-1)


def dense(why: str) -> Layout:
    """Return the layout of a matrix (in, out)."""
    return Layout((1, 0), why)


def convolution(rank: int, why: str) -> Layout:
    """Return the layout of a convolution's kernel, whose last axes are in and out."""
    return Layout((rank - 1, rank - 2, *range(rank - 2)), why)


def depthwise(rank: int, why: str) -> Layout:
    """Return the layout of a depthwise convolution's kernel, whose last axes are in, multiplier."""
    places = range(rank - 2)
    return Layout((rank - 2, rank - 1, *places), why, (2, *(1 for _ in places)), single=True)


def matrix(rank: int, outer: int, why: str) -> Layout:
    """Return the layout of a kernel whose last axes, so many, are out, and the others in."""
    axes = (*range(rank - outer, rank), *range(rank - outer))
    return Layout(axes, why, (outer, rank - outer))
