"""How kernels lie in PyTorch: which axes go where, by the ops that use a kernel, else by its name.

    dense              (in, out)              -> (out, in)
    convolution        (..., in, out)         -> (out, in, ...)
    transposed conv.   (..., out, in)         -> (in, out, ...)
    depthwise conv.    (h, w, in, multiplier) -> (in * multiplier, 1, h, w)

Embeddings, biases and the like lie alike in both. Kernels of a GRU, and of what looks recurrent but
is not known, are left as they are: their gates stand in another order there, which no exchange of
axes mends. Those of Keras's LSTM have PyTorch's order (input, forget, cell, output) and are dense.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from ckptparse.jobs.ops import KernelOps

__all__ = ["Layout", "convolution", "dense", "depthwise", "torch_layout"]

_KERNEL = re.compile(r"_?(?:\w+_)?kernel|weights|[wW]|filters?|\w*(?:depth|point)wise_weights")
_DEPTHWISE = re.compile(r"_?depthwise_(?:kernel|weights)")
_KERAS_VARIABLE = re.compile(
    r"(?:^|/)(?P<layer>(?:lstm|gru|simple_rnn)(?:_[0-9]+)?/cell"
    r"|dense|(?:depthwise_|separable_)?conv[1-3]d(?:_transpose)?)(?:_[0-9]+)?"
    r"/vars/(?P<number>[0-9]+)"
)
_ATTRIBUTES = "/.ATTRIBUTES/"
_GATES = {1: "a simple cell", 4: "an LSTM: input, forget, cell, output"}
"""Keras's recurrent layers whose gates PyTorch has in the same order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is done with a tensor's axes, and why.

    Attributes:
        axes: The order of the axes; None: nothing is done.
        why: In a few words.
        joined: How many axes of the turned tensor become one, for each of the result; None: each
            stays one.
        single: Whether an axis of 1 then stands second.
        unknown: Whether nothing tells how the axes are to lie, and they are as they were.
    """

    axes: tuple[int, ...] | None
    why: str
    joined: tuple[int, ...] | None = None
    single: bool = False
    unknown: bool = False

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
        """Return a view of an array with its axes turned, and none joined yet."""
        return array if self.axes is None else array.transpose(self.axes)

    @property
    def text(self) -> str:
        """What is done, for people."""
        if self.axes is None:
            return f"as it is: {self.why}"
        joined = "" if self.joined is None else ", some joined"
        return f"axes ({','.join(map(str, self.axes))}){joined}: {self.why}"


def torch_layout(
    name: str,
    shape: tuple[int, ...],
    *,
    stored: str,
    shapes: Mapping[str, tuple[int, ...]],
    ops: KernelOps | None,
) -> Layout | None:
    """Choose the layout of a tensor; None if it has fewer than two axes.

    Args:
        name: What it is called.
        shape: Its shape.
        stored: Its name in the checkpoint, by which the graph knows it.
        shapes: The shapes of all tensors by what they are called.
        ops: What the graph says; None if there is none.
    """
    if len(shape) < 2:
        return None
    recurrent = _recurrent(name, shape, shapes)
    if recurrent is not None:
        return recurrent
    found = None if ops is None else ops.layout(stored, shape)
    if isinstance(found, Layout):
        return found
    beside = "" if found is None else f"; {found}"
    by_name = _by_name(_plain(name).rpartition("/")[2], shape, beside)
    by_name = by_name or _by_keras_class(_plain(name), shape)
    if by_name is not None:
        return by_name
    why = f"no name and no op tells that it is a kernel{beside}"
    usual = "embedding" in name.lower() or _plain(name).rpartition("/")[2] == "bias"
    return Layout(None, why, unknown=found is None and not usual)


def _plain(name: str) -> str:
    return name.partition(_ATTRIBUTES)[0].removesuffix(":0")


def _by_name(leaf: str, shape: tuple[int, ...], beside: str) -> Layout | None:
    if not _KERNEL.fullmatch(leaf):
        return None
    why = f"by its name and its {len(shape)} axes{beside}"
    if _DEPTHWISE.fullmatch(leaf) and len(shape) in (3, 4):
        return depthwise(len(shape), f"depthwise convolution, {why}")
    if len(shape) == 2:
        return dense(f"dense, {why}")
    return convolution(len(shape), f"convolution, {why}") if len(shape) <= 5 else None


def _by_keras_class(name: str, shape: tuple[int, ...]) -> Layout | None:
    """Choose the layout of a variable that has a number for a name, by that of its layer's class.

    So Keras 3 names them in `.keras` and `.weights.h5`: `layers/conv2d_1/vars/0`.
    """
    found = _KERAS_VARIABLE.search(name)
    if found is None:
        return None
    layer, number = found["layer"], found["number"]
    if layer.startswith("gru"):
        return Layout(None, "PyTorch has the gates of a recurrent kernel in another order")
    why = f"by its layer's name, {layer}, and its {len(shape)} axes"
    if layer.endswith("/cell"):
        return dense(f"dense, {why}") if number in "01" and len(shape) == 2 else None
    if layer == "dense" and number == "0" and len(shape) == 2:
        return dense(f"dense, {why}")
    if layer.startswith(("depthwise", "separable")) and number == "0" and len(shape) in (3, 4):
        return depthwise(len(shape), f"depthwise convolution, {why}")
    if "conv" in layer and 3 <= len(shape) <= 5:
        return convolution(len(shape), f"convolution, {why}")
    return None


def _is_recurrent(name: str) -> bool:
    """Tell whether a part of a name says that a layer is recurrent."""
    return any(
        "lstm" in part or "gru" in part or part.startswith("rnn") or "_rnn" in part
        for part in name.lower().split("/")
    )


def _recurrent(
    name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]
) -> Layout | None:
    """Choose the layout of a recurrent layer's kernel; None if it is none."""
    plain = _plain(name)
    above, _, leaf = plain.rpartition("/")
    if not _KERNEL.fullmatch(leaf):
        return None
    beside = shapes.get(f"{above}/recurrent_kernel{name[len(plain) :]}")
    if beside is None:
        if _is_recurrent(plain):
            return Layout(None, "PyTorch has the gates of a recurrent kernel in another order")
        return None
    gates = beside[-1] // max(beside[0], 1) if len(beside) == len(shape) == 2 else 0
    if gates in _GATES:
        return dense(f"dense, by the recurrent kernel beside it; {_GATES[gates]}")
    return Layout(None, "PyTorch has the gates of this recurrent kernel in another order")


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
