"""Which layout the ops of a graph give a kernel: they tell which of its axes are summed over.

    MatMul(x, w)        (in, out); with transpose_b, or as the first input, (out, in)
    Einsum ab,bc->ac    the axes that stand in the result are `out`, the others `in`
    Conv2D(x, w)        (h, w, in, out)

Ops of gradients take the kernel as well, and turned: they do not count. What only changes the kind
of element, or adds an axis of 1 (Keras's one-dimensional convolutions), is seen through; so is a
Reshape that makes a matrix of it (Keras's attention).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from ckptparse.dtypes import DataType
from ckptparse.graph.flow import Flow, Use
from ckptparse.graph.graph import Graph
from ckptparse.graph.nodes import Node, split_input
from ckptparse.graph.training import stored_names
from ckptparse.jobs.layout import Layout, convolution, dense, depthwise
from ckptparse.tensor import Tensor

__all__ = ["KernelOps"]

_PRODUCTS = {
    "MatMul": ("transpose_a", "transpose_b"),
    "SparseMatMul": ("transpose_a", "transpose_b"),
    "_FusedMatMul": ("transpose_a", "transpose_b"),
    "BatchMatMul": ("adj_x", "adj_y"),
    "BatchMatMulV2": ("adj_x", "adj_y"),
    "BatchMatMulV3": ("adj_x", "adj_y"),
}
"""Products of matrices, and the attributes that turn their inputs."""
_CONVOLUTIONS = {
    "Conv2D": "convolution",
    "_FusedConv2D": "convolution",
    "Conv3D": "convolution",
    "Conv2DBackpropInput": "transposed convolution",
    "Conv3DBackpropInput": "transposed convolution",
    "Conv3DBackpropInputV2": "transposed convolution",
}
"""Their kernel is the second input of each."""
_DEPTHWISE = ("DepthwiseConv2dNative", "_FusedDepthwiseConv2dNative")
_LOOKUPS = ("Gather", "GatherV2", "ResourceGather", "ResourceGatherNd", "GatherNd")
_INTEGERS = (DataType.DT_INT32, DataType.DT_INT64)
_PASSING = ("Cast", "ExpandDims")
_GRADIENT = re.compile(r"(?:\w+_)?gradients?(?:_\d+)?|gradient_tape|\w+_grad(?:_\d+)?")
"""A part of the name of a node that works out gradients."""


class KernelOps:
    """The ops of a graph that use kernels, found when asked for."""

    def __init__(self, graph: Graph, copies: Mapping[str, Sequence[str]]) -> None:
        """Take a graph.

        Args:
            graph: The graph.
            copies: Name of a tensor in the checkpoint -> under which names it is stored besides.
        """
        self._graph = graph
        self._copies = copies
        self._flow = Flow(graph)

    def layout(self, stored: str, shape: tuple[int, ...]) -> Layout | str | None:
        """Choose by the ops that use a tensor.

        Args:
            stored: Its name in the checkpoint, or that of a constant.
            shape: Its shape.

        Returns:
            None if no op tells; what to say about it if they disagree.

        Raises:
            LimitError: More edges lead to the uses of all tensors than `Limits.steps` allows.
        """
        found: dict[tuple[object, ...], Layout] = {}
        ops: dict[str, None] = {}
        for use, rows in self._uses(stored, shape):
            layouts = _of_use(use, shape) if rows is None else _of_matrix(use, rows, len(shape))
            for layout in layouts:
                found.setdefault((layout.axes, layout.joined), layout)
                ops[use.node.op] = None
        named = f"the op{'s' if len(ops) > 1 else ''} {', '.join(ops)}"
        if len(found) > 1:
            return f"used in different ways by {named}"
        for layout in found.values():
            why = f"{layout.why}, by {named}"
            return Layout(layout.axes, why, layout.joined, single=layout.single)
        return None

    def _uses(self, stored: str, shape: tuple[int, ...]) -> Iterator[tuple[Use, int | None]]:
        """Iterate over the uses of a tensor, but for those that work out gradients.

        With each comes, if it has been made a matrix before, how many of its axes are the rows.
        """
        nodes: dict[str, None] = {}
        for name in (stored, *self._copies.get(stored, ())):
            known = (name,) if name in self._graph.nodes else ()
            nodes.update(dict.fromkeys(self._nodes.get(name, known)))
        self._flow.check_all()
        for use in self._flow.uses(nodes, passing=_PASSING):
            rows = self._rows(use, shape)
            if rows is None and not _is_gradient(use.node):
                yield use, None
            elif rows is not None:
                for later in self._flow.uses_of(use.node, passing=("Cast",)):
                    if not _is_gradient(later.node):
                        yield later, rows

    def _rows(self, use: Use, shape: tuple[int, ...]) -> int | None:
        """Return how many axes of a tensor become the rows of a matrix; None if that is not so."""
        node = use.node
        if node.op != "Reshape" or 0 not in use.positions or len(node.data_inputs) < 2:
            return None
        table, (name, _) = self._flow.table_of(node), split_input(node.data_inputs[1])
        if name not in table or table.op(name) != "Const":
            return None
        value = table[name].attributes.get("value")
        if not isinstance(value, Tensor) or value.shape != (2,) or value.data_type not in _INTEGERS:
            return None
        first, second = map(int, value.read().tolist())
        for rows in range(1, len(shape)):
            high, wide = math.prod(shape[:rows]), math.prod(shape[rows:])
            if (first, second) in ((high, wide), (-1, wide), (high, -1)):
                return rows
        return None

    @cached_property
    def _nodes(self) -> dict[str, tuple[str, ...]]:
        """The nodes of each variable by its name in the checkpoint."""
        names = stored_names(self._graph)
        found: dict[str, tuple[str, ...]] = {}
        for name, variable in self._graph.variables.items():
            key = names.get(name, name)
            found[key] = (*found.get(key, ()), *variable.nodes)
        return found


def _is_gradient(node: Node) -> bool:
    return any(map(_GRADIENT.fullmatch, node.name.split("/")))


def _of_use(use: Use, shape: tuple[int, ...]) -> Iterator[Layout]:
    """Iterate over what one op says of a kernel: nothing if it is no kernel there."""
    rank, op = len(shape), use.node.op
    for position in use.positions:
        if op in _PRODUCTS and position < 2:
            yield _of_product(use.node, position, rank)
        elif op == "Einsum":
            yield from _of_einsum(use.node, position, rank)
        elif op in _CONVOLUTIONS and position == 1 and 3 <= rank <= 5:
            yield convolution(rank, _CONVOLUTIONS[op])
        elif op in _DEPTHWISE and position == 1 and rank in (3, 4):
            yield depthwise(rank, "depthwise convolution")
        elif op in _LOOKUPS and position == 0:
            yield Layout(None, "an embedding")


def _of_matrix(use: Use, rows: int, rank: int) -> Iterator[Layout]:
    """Iterate over what an op says of a tensor that has been made a matrix, as it is in PyTorch.

    So many of its axes, the first ones, have become the rows.
    """
    if use.node.op not in _PRODUCTS:
        return
    for position in use.positions:
        layout, axes = _of_product(use.node, position, 2), tuple(range(rank))
        if layout.axes is None:
            yield Layout(axes, layout.why, (rows, rank - rows))
        else:
            yield Layout((*axes[rows:], *axes[:rows]), layout.why, (rank - rows, rows))


def _of_product(node: Node, position: int, rank: int) -> Layout:
    if rank != 2:
        return Layout(None, "a matrix for each of a batch")
    turned = bool(node.attributes.get(_PRODUCTS[node.op][position]))
    # As the second factor it is (in, out), as the first (out, in).
    return dense("dense") if turned == (position == 0) else Layout(None, "dense, (out, in)")


def _of_einsum(node: Node, position: int, rank: int) -> Iterator[Layout]:
    equation = node.attributes.find_bytes("equation").decode("ascii", "replace")
    given, _, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if position >= len(terms) or len(terms) != 2 or len(terms[position]) != rank:
        return
    own, other = terms[position], terms[1 - position]
    if len(set(own)) != rank or "." in own:
        return
    outer = [label for label in result if label in own and label not in other]
    inner = [label for label in other if label in own and label not in result]
    if not outer or not inner or len(outer) + len(inner) != rank:
        yield Layout(None, f"{equation} keeps axes of both")
        return
    axes = tuple(own.index(label) for label in (*outer, *inner))
    joined = (len(outer), len(inner))
    if axes == tuple(range(rank)) and rank == 2:
        yield Layout(None, "dense, (out, in)")
    else:
        yield Layout(axes, f"dense, {equation}", None if rank == 2 else joined)
