"""How kernels lie in PyTorch: which axes go where, by the op that uses a kernel, else by its name.

    dense              (in, out)              -> (out, in)
    convolution        (..., in, out)         -> (out, in, ...)
    transposed conv.   (..., out, in)         -> (in, out, ...)
    depthwise conv.    (h, w, in, multiplier) -> (in * multiplier, 1, h, w)

Embeddings, biases and the like lie alike in both. Kernels of recurrent layers are left as they are:
their gates stand in another order there, which no exchange of axes mends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph

__all__ = ["Layout", "torch_layout"]

_KERNEL = re.compile(r"_?(?:\w+_)?kernel|weights|[wW]|filters?|\w*(?:depth|point)wise_weights")
_DEPTHWISE = re.compile(r"_?depthwise_(?:kernel|weights)")
_RECURRENT = re.compile(r"(?i)(?:^|[/_])(?:\w*(?:lstm|gru)\w*|(?:\w*_)?rnn\w*)(?:[/_]|$)")
_ATTRIBUTES = "/.ATTRIBUTES/"

_DENSE_OPS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "SparseMatMul"}
_CONVOLUTIONS = {"Conv2D", "Conv3D", "Conv2DBackpropInput", "Conv3DBackpropInputV2"}
_DEPTHWISE_OPS = {"DepthwiseConv2dNative"}
_LOOKUPS = {"Gather", "GatherV2", "ResourceGather", "EmbeddingLookup"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What is done with a tensor's axes, and why.

    Attributes:
        axes: The order of the axes; None: nothing is done.
        depthwise: Whether the first two of them then become one.
        why: In a few words.
    """

    axes: tuple[int, ...] | None
    why: str
    depthwise: bool = False

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what a tensor of that shape becomes."""
        if self.axes is None:
            return shape
        turned = tuple(shape[axis] for axis in self.axes)
        return (math.prod(turned[:2]), 1, *turned[2:]) if self.depthwise else turned

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array as it is to lie: a view where that can be."""
        if self.axes is None:
            return array
        turned: npt.NDArray[Any] = array.transpose(self.axes)
        return turned.reshape(self.shape(array.shape)) if self.depthwise else turned


def torch_layout(name: str, shape: tuple[int, ...], graph: Graph | None) -> Layout | None:
    """Choose the layout of a tensor; None if it is no kernel."""
    plain = name.partition(_ATTRIBUTES)[0].removesuffix(":0")
    leaf = plain.rpartition("/")[2]
    by_op = None if graph is None else _by_op(plain, shape, graph)
    if by_op is not None:
        return by_op
    if len(shape) < 2 or not _KERNEL.fullmatch(leaf):
        return None
    if _RECURRENT.search(plain):
        return Layout(None, "left as it is: the gates of a recurrent kernel lie otherwise")
    if _DEPTHWISE.fullmatch(leaf) and len(shape) == 4:
        return Layout((2, 3, 0, 1), "depthwise convolution, by its name", depthwise=True)
    return _by_rank(shape, f"by its name and its {len(shape)} axes")


def _by_rank(shape: tuple[int, ...], why: str) -> Layout | None:
    rank = len(shape)
    if rank == 2:
        return Layout((1, 0), f"dense, {why}")
    if 3 <= rank <= 5:
        return Layout((rank - 1, rank - 2, *range(rank - 2)), f"convolution, {why}")
    return None


def _by_op(name: str, shape: tuple[int, ...], graph: Graph) -> Layout | None:
    """Choose by the ops that use a variable, if these agree."""
    if name not in graph.variables:
        return None
    found = {layout for node in graph.consumers(name) for layout in _of_node(node, shape)}
    return found.pop() if len(found) == 1 else None


def _of_node(node: Any, shape: tuple[int, ...]) -> Iterable[Layout]:
    rank, op = len(shape), node.op
    if op in _DENSE_OPS and rank == 2:
        turned = node.attributes.get("transpose_b") or node.attributes.get("adj_y")
        axes = None if turned else (1, 0)
        yield Layout(axes, f"{'as it is, ' if turned else ''}dense, by the op {op}")
    elif op in _CONVOLUTIONS and rank in (4, 5):
        axes = (rank - 1, rank - 2, *range(rank - 2))
        yield Layout(axes, f"convolution, by the op {op}")
    elif op in _DEPTHWISE_OPS and rank == 4:
        yield Layout((2, 3, 0, 1), f"depthwise convolution, by the op {op}", depthwise=True)
    elif op in _LOOKUPS:
        yield Layout(None, f"as it is, an embedding, by the op {op}")
